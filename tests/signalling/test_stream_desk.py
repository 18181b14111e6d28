"""What the box makes of what a carrier says of a call."""

from __future__ import annotations

from collections import Counter

import aiohttp
from aiohttp import web

from appliance.api import IncomingCall
from appliance.signalling.leg import Leg
from appliance.signalling.stream_desk import Box, Desk, StreamDesk
from appliance.signalling.trunks import TrunkRule
from appliance.signalling.twilio import TwilioCarrier
from appliance.signalling.twilio_options import TwilioOptions
from tests.signalling.fake_box import running
from tests.signalling.twilio_edge import ACCOUNT, FORM, PUBLIC, TOKEN, FakeBox


class Silent:
    """A carrier's call of which nothing is asked."""

    call_id = "CA1"
    can_transfer = True
    sends_digits = False


async def test_the_network_s_word_on_a_caller_is_bounded_and_where_a_sip_trunk_s_is() -> None:
    async with aiohttp.ClientSession() as http:
        legs: list[Leg] = []
        box = Box(TrunkRule("pstn", kind="twilio"), Desk(http, 8081, (), legs.append, lambda message: None))
        box.carrier = FakeBox(http)  # type: ignore[assignment]
        said = IncomingCall("CA1", "100", "+49\r\n301", verstat="TN-Validation-Passed", diverted="+4930" + "3" * 500)
        box.admit(Silent(), said)  # type: ignore[arg-type]
        box.admit(Silent(), IncomingCall("CA2", "100", "+49301"))  # type: ignore[arg-type]
        first, second = (leg.info for leg in legs)
        assert (first.calling, first.about.verstat) == ("+49301", "TN-Validation-Passed")
        assert len(first.about.diversions[0].number) == 128
        assert (second.about.verstat, second.about.diversions) == ("", ())


async def test_webhooks_that_are_refused_are_counted_at_their_trunk() -> None:
    options = {"account_sid": ACCOUNT, "auth_token": TOKEN, "public_url": PUBLIC}
    refused: Counter[str] = Counter()
    desk = StreamDesk(
        [TrunkRule("one", kind="twilio"), TrunkRule("two", kind="twilio")],
        lambda kind, given, box, trunk: TwilioCarrier(TwilioOptions.model_validate(options), box),
        on_call=lambda leg: None,
        send=lambda message: None,
        media_port=8081,
        refused=lambda trunk: refused.update((trunk,)),
    )
    app = web.Application()
    desk.add_routes(app)
    try:
        async with running(app) as port, aiohttp.ClientSession() as http:
            for path, status in (("", 403), ("/two", 403), ("/two", 403), ("/none", 404)):
                url = f"http://127.0.0.1:{port}/twilio{path}/voice"
                async with http.post(url, data="a=b", headers={"Content-Type": FORM}) as response:
                    assert response.status == status
        assert refused == {"one": 1, "two": 2}
    finally:
        await desk.close()
