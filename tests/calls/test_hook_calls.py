"""What plugins are told of long calls."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from appliance.calls.hook_calls import record_told
from appliance.calls.storing import CallKeeping
from appliance.conversation.hooked import HooksOfCall
from appliance.events import TurnFinished
from appliance.plugins.hooks import HookCall
from tests.calls.virtual_call import Log, VirtualClock
from tests.plugins.spoken_hooks import SpokenHooks


def record(turns: int, asked: int = 0, said: int = 10) -> dict[str, Any]:
    return {
        "id": "call",
        "turns": [
            {"number": number, "asked": "x" * asked, "waterfall": {}, "tools": [], "caller_text": "y" * said}
            for number in range(turns)
        ],
    }


def test_the_record_of_a_usual_call_is_told_whole() -> None:
    assert record_told(record(20, asked=500)) == record(20, asked=500)


def test_a_long_record_is_told_without_prompts_and_then_without_its_beginning() -> None:
    long = record(50, asked=5000)
    told = record_told(long)
    assert [turn["number"] for turn in told["turns"]] == list(range(50))
    assert "asked" not in told["turns"][0]
    assert len(long["turns"][0]["asked"]) == 5000
    longer = record_told(record(5000, said=200))
    assert longer["turns"][-1]["number"] == 4999
    assert 200 < len(longer["turns"]) < 5000
    assert len(msgspec.json.encode(longer)) <= 150_000


def test_of_a_long_transcript_the_end_is_told() -> None:
    async def say() -> list[str]:
        kept = CallKeeping(Log(), HooksOfCall(SpokenHooks(call_ended=None), HookCall("call", "line")))
        for number in range(1000):
            text = f"{number} " + "word " * 50
            kept.say(
                TurnFinished(
                    call_id="call", number=number, finished_utc=VirtualClock().utc(), answered_at=0.0, caller_text=text
                )
            )
        return [said.text for said in kept.transcript]

    texts = asyncio.run(say())
    assert texts[-1].startswith("999 ")
    assert 50 < len(texts) < 150
