"""The box calls somebody through a carrier: the agent speaks on the carrier's stream as it does over SIP."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import Box
from tests.bench import lines
from tests.carriers.at_twilio import reach, trunk, twilio_account
from tests.carriers.twilio_call import Callee
from tests.waiting import eventually

pytestmark = pytest.mark.peer

TOKEN = "a-token-of-the-box-for-tests"
LINE: dict[str, Any] = {
    "name": "recall",
    "disclosure": "You are speaking with a machine. Press 9 not to be called again.",
    "flow": {"ask": {"ask": "Is this a good time?", "expect": ["yes"]}, "bye": {"hang_up": "Goodbye."}},
}


def _call(box: Box, number: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{box.http_port}/api/v1/calls?wait=true",
        data=json.dumps({"number": number, "line": "recall", "trunk": "twilio", "ring_timeout_s": 10}).encode(),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        told: dict[str, Any] = json.loads(reply.read())["result"]
    return told


async def test_a_person_is_called_through_a_carrier(start_box: Callable[..., Box], tmp_path: Path) -> None:
    async with twilio_account() as twilio:
        twilio.callees = {"+4930222": Callee(), "+4930333": Callee("busy")}
        settings = {
            **lines.dialplan(tmp_path / "recall", [LINE]),
            "api.tokens": TOKEN,
            "trunks": {"twilio": trunk(twilio.api_url)},
        }
        box = await asyncio.to_thread(start_box, settings)
        reach(twilio, box)
        asked = asyncio.create_task(asyncio.to_thread(_call, box, "+4930222"))
        await eventually(lambda: any(call.streams for call in twilio.calls.values()))
        (call,) = twilio.calls.values()
        assert (call.to, call.from_) == ("+4930222", "+4930111")
        stream = await call.streaming()
        await stream.wait_heard()
        stream.press("9")
        result = await asked
        assert (result["sip_code"], result["opted_out"], result["ended_by"]) == (200, True, "agent")
        assert result["slots"]["do_not_call"] == "+4930222"
        assert (await asyncio.to_thread(_call, box, "+4930333"))["sip_code"] == 486
        twilio.check()
