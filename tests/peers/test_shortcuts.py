"""Keys that do something at any time: a caller over SIP and RTP, on a line that a language model leads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone
from tests.bench import lines, records
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.peer

LINE: dict[str, object] = {
    "name": "shop",
    "match": {"called": "1900"},
    "agent": "llm",
    "prompt": "You work for a shop.",
    "greeting": "Welcome to the shop.",
    "keys": {
        "7": {"say": "We are open until five."},
        "8": {"goto": "code"},
        "9": {"hang_up": "Never said."},
    },
    "flow": {
        "code": {"ask": "Your code, please?", "digits": {"min": 3, "max": 3, "by": "key"}, "slot": "code"},
        "bye": {"hang_up": "Thank you. Goodbye."},
    },
}


async def test_keys_work_at_any_time_but_not_within_a_number(start_box: Callable[..., Box], tmp_path: Path) -> None:
    own = {**lines.STANDARD_FAKES, **lines.dialplan(tmp_path, [LINE]), "engines.llm": {"provider": "fake"}}
    box = await asyncio.to_thread(start_box, own)
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri("1900"))
        await phone.wait_agent_speech(LIMIT_S, since=phone.dialled_at)
        await phone.wait_agent_silent()
        for digit in "78":
            phone.send_digits(digit)
            await phone.wait_agent_speech(LIMIT_S)
            await phone.wait_agent_silent()
        for digit in "987":
            phone.send_digits(digit)
            await asyncio.sleep(0.3)
        assert await phone.wait_hangup(LIMIT_S) == "them"
    (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    assert json.loads(call["slots"]) == {"code": "987", "ending": "completed"}
    assert [(turn["caller_text"], turn["agent_text"]) for turn in call["turns"]] == [
        ("", "Welcome to the shop."),
        ("7", "We are open until five."),
        ("8", "Your code, please?"),
        ("987", "Thank you. Goodbye."),
    ]
