"""A whole box whose routes lead to SIP and to a carrier: calls go on from the one to the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone
from tests.bench import lines, records
from tests.carriers.at_twilio import reach, trunk, twilio_account
from tests.carriers.twilio_call import Callee
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.peer

LINE = "3001"
ASKED = "030222"
NUMBER = "+4930222"


def settings(folder: Path, api_url: str) -> dict[str, object]:
    """Everything goes to a SIP trunk that nobody answers for, and then to Twilio."""
    down = {
        "kind": "sip", "proxy": f"sip:{HOST}:{free_port()};transport=tcp", "allow_prefixes": ["0"], "region": "DE",
    }  # fmt: skip
    hands_on = {
        "name": "hands-on",
        "match": {"called": LINE},
        "flow": {"hand": {"transfer": ASKED, "failed": "end"}, "end": {"hang_up": "Goodbye."}},
    }
    return {
        **lines.settings(folder),
        **lines.dialplan(folder / "hands_on", [hands_on]),
        "trunks": {
            "local": {"kind": "sip", "allow": ["127.0.0.0/8"]},
            "down": down,
            "twilio": {**trunk(api_url), "allow_prefixes": ["0"], "region": "DE"},
        },
        "routes": [{"to": "0", "trunks": ["down", "twilio"]}],
    }


async def test_a_caller_of_sip_is_put_through_by_a_carrier_where_sip_is_down(
    start_box: Callable[..., Box], tmp_path: Path
) -> None:
    async with twilio_account() as twilio:
        twilio.callees[NUMBER] = Callee()
        box = await asyncio.to_thread(start_box, settings(tmp_path, twilio.api_url))
        reach(twilio, box)
        async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
            await phone.dial(box.uri(LINE))
            await eventually(lambda: any(call.streams for call in twilio.calls.values()))
            (call,) = twilio.calls.values()
            stream = await call.streaming()
            tone = (8000 * np.sin(2 * np.pi * 700 * np.arange(16000) / 8000)).astype(np.int16)
            await phone.play(tone)
            await stream.wait_heard()
            assert (call.to, call.from_) == (NUMBER, "+4930111")
            await call.hang_up()
            assert await phone.wait_hangup(LIMIT_S) == "them"
        (record,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
        slots = record["slots"]
        kept = json.loads(slots) if isinstance(slots, str) else slots
        assert kept["transfer"] == f"{ASKED}: put through to {ASKED}, which ended the call (200)"
        states = box.get_json("/trunks")
        assert (states["twilio"]["calls"], states["twilio"]["events"]["calls_out"]) == (0, 1)
        assert states["twilio"]["events"]["failovers"] == 1
        twilio.check()


async def test_what_no_trunk_may_dial_is_asked_of_no_carrier(start_box: Callable[..., Box], tmp_path: Path) -> None:
    async with twilio_account() as twilio:
        wanted = settings(tmp_path, twilio.api_url)
        trunks = wanted["trunks"]
        assert isinstance(trunks, dict)
        trunks["twilio"]["allow_prefixes"] = trunks["down"]["allow_prefixes"] = ["031"]
        wanted["routes"] = [{"trunks": ["down", "twilio"]}]
        box = await asyncio.to_thread(start_box, wanted)
        reach(twilio, box)
        async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
            await phone.dial(box.uri(LINE))
            assert await phone.wait_hangup(LIMIT_S) == "them"
        assert twilio.requests == []
        assert box.get_json("/trunks")["twilio"]["events"]["refused_dialling"] == 1
