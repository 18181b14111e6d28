"""The same conversation by every way into the box ends in the same record.

A caller is greeted, answers a question, interrupts the next one, presses a key, is put through to a softphone that
sends back what it hears, and hangs up. Recognition and synthesis are the real ones; the caller's words come from
another synthetic voice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from appliance.cli.box import Box, free_port
from appliance.cli.say import speak
from tests.audio.heard import tone_s
from tests.bench import lines, records
from tests.carriers.callers import CALLING, Ways, tone
from tests.interop import sipp
from tests.waiting import eventually

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing()),
    pytest.mark.asyncio(loop_scope="module"),
]

NUMBER = "2100"
WAYS = ("sip", "twilio", "telnyx", "audiosocket", "asterisk", "freeswitch", "browser")
PLAN: list[dict[str, object]] = [
    {
        "name": "front-desk",
        "match": {"called": NUMBER},
        "greeting": "Good morning, and welcome.",
        "record": True,
        "no_input": {"after_s": 60},
        "flow": {
            "what": {
                "ask": "Would you like to book a table?",
                "expect": {"booking": ["I'd like to book a table", "book a table"], "no": ["no thank you"]},
                "slot": "request",
                "next": "people",
            },
            "people": {
                "ask": "Certainly. We have tables in the garden, by the window, and in the old wine cellar below the "
                "house, which is the quietest place of all. For how many people shall it be?",
                "expect": {"two": ["a table for two", "for two people"], "four": ["a table for four"]},
                "slot": "people",
                "next": "key",
            },
            "key": {"ask": "Please press seven.", "keys": {"7": "seven"}, "slot": "key", "next": "hand"},
            "hand": {"transfer": "200", "say": "One moment please.", "failed": "end"},
            "end": {"hang_up": "Goodbye."},
        },
    }
]


@pytest.fixture(scope="module")
def voices() -> list[np.ndarray]:
    return asyncio.run(speak(["I'd like to book a table", "a table for two"]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways() -> AsyncIterator[Ways]:
    async with Ways() as found:
        yield found


@pytest.fixture(scope="module")
def echo_port() -> int:
    """Where the softphone listens to which callers are put through."""
    return free_port()


@pytest.fixture(scope="module")
def box(ways: Ways, echo_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("ways")
    settings = ways.settings()
    trunks: Any = settings["trunks"]
    trunks["out"] = {"kind": "sip", "proxy": f"sip:127.0.0.1:{echo_port}", "allow_prefixes": ["2"]}
    plan = lines.dialplan(folder, PLAN)
    with Box(folder / "box", {**settings, **plan, "routes": [{"trunks": ["out"]}]}) as made:
        yield made
    assert made.stop() == 0, made.log_tail()


def facts(row: records.Row) -> dict[str, Any]:
    """What must be the same by every way."""
    turns = [
        (turn["by"], turn["caller_text"], turn["agent_text"], bool(turn["interrupted"]), turn["accepted"])
        for turn in row["turns"]
    ]
    slots = row["slots"] if isinstance(row["slots"], dict) else json.loads(row["slots"])
    names = ("line", "called", "direction", "disposition", "hangup_by", "hangup_code")
    return {**{name: row[name] for name in names}, "slots": slots, "turns": turns}


ENOUGH_S = 1.6
"""Of the question that is interrupted: some words of it, and far from all."""
EXPECTED = {
    "line": "front-desk",
    "called": NUMBER,
    "direction": "inbound",
    "disposition": "completed",
    "hangup_by": "caller",
    "hangup_code": 200,
    "slots": {
        "request": "booking", "people": "two", "key": "seven", "transfer": "200: under way when the call ended"
    },
}  # fmt: skip


def sound_s(heard: np.ndarray) -> float:
    """For how long there is something to be heard in it."""
    frames = heard[: len(heard) // 160 * 160].reshape(-1, 160).astype(np.int32)
    return 0.02 * int(np.count_nonzero(np.abs(frames).max(axis=1, initial=0) > 500))


@pytest.mark.parametrize("name", WAYS)
async def test_a_conversation(
    name: str, ways: Ways, voices: list[np.ndarray], box: Box, echo_port: int, tmp_path: Path
) -> None:
    before = len(await asyncio.to_thread(records.calls, box.database))
    with sipp.Sipp("uas_call", tmp_path / "uas", port=echo_port, options=("-rtp_echo",)) as echo:
        await asyncio.to_thread(echo.wait_ready)
        async with ways.find(name)(box, NUMBER) as caller:
            await caller.wait_heard()
            await caller.wait_quiet()
            await caller.say(voices[0])
            await caller.wait_heard()
            begun = len(caller.received())
            await eventually(lambda: sound_s(caller.received()[begun:]) > ENOUGH_S, "some words of the question")
            await caller.say(voices[1])  # into the middle of what is being said
            await caller.wait_heard()
            await caller.wait_quiet()
            caller.press("7")
            await eventually(lambda: "ACK sip:" in echo.messages(), echo.messages)
            await caller.say(tone(700, 4.0))
            await eventually(lambda: tone_s(caller.received(), 700.0) > 1.0, "the tone, back from the one called")
            await caller.hang_up()
            caller.check()
        await asyncio.to_thread(echo.wait)
    row = (await asyncio.to_thread(records.wait_settled, box.database, before + 1))[-1]
    found = facts(row)
    turns = found.pop("turns")
    assert found == EXPECTED
    assert [turn[:2] for turn in turns] == [
        ("none", ""), ("voice", "i'd like to book a table"), ("voice", "a table for two"), ("key", "7")
    ]  # fmt: skip
    assert [turn[3] for turn in turns] == [False, True, False, False]
    assert row["calling"] == (CALLING if name not in ("sip", "browser") else row["calling"])
    interrupted = row["turns"][1]
    assert interrupted["agent_text"].startswith(interrupted["heard_text"])
    assert 3 <= len(interrupted["heard_text"].split()) < len(interrupted["agent_text"].split())
    assert records.recording_seconds(row["recording_path"], box.recordings) > 10.0
