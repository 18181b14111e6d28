"""What the box makes of what a carrier says of a call."""

from __future__ import annotations

import aiohttp

from appliance.api import IncomingCall
from appliance.signalling.leg import Leg
from appliance.signalling.stream_desk import Box, Desk
from appliance.signalling.trunks import TrunkRule
from tests.signalling.twilio_edge import FakeBox


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
