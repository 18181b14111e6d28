"""A whole box that understands with Whisper, here one that understands tones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone
from tests.bench import lines, records
from tests.engines.tone_whisper import speech, write_model
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.peer

WORD_S = 1.0
"""So long that the box's three tenths of a second before the speech do not matter."""


def asking(name: str, called: str, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "match": {"called": called},
        "greeting": "Hello.",
        "hints": ["foxtrot"],
        "no_input": {"after_s": 30},
        "no_match": {"prompts": ["Sorry?"], "retries": 3, "then": "bye"},
        "flow": {
            "which": {
                "ask": "Which?",
                "expect": {"first": ["alpha bravo"], "second": ["golf hotel"]},
                "next": {"first": "which", "second": "bye"},
            },
            "bye": {"hang_up": "Goodbye."},
        },
        **more,
    }


@pytest.fixture
def whisper_box(start_box: Callable[..., Box], tmp_path: Path) -> Box:
    model = write_model(tmp_path / "tones", slot_s=WORD_S)
    settings = {
        **lines.settings(tmp_path),
        **lines.dialplan(tmp_path, [asking("closed", "2001")]),
        "engines.asr": {"provider": "whisper", "model": str(model), "threads": 1},
        "engines.vad": {"provider": "none"},
        "engines.turn": {"provider": "none"},
    }
    return start_box(settings)


async def answer(phone: Softphone, text: str) -> None:
    """Wait for the question, and say this."""
    await phone.wait_agent_speech(LIMIT_S)
    await phone.wait_agent_silent()
    await phone.play(speech(text, slot_s=WORD_S))


async def test_callers_are_understood_at_the_same_time(whisper_box: Box) -> None:
    async def call() -> None:
        async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
            await phone.dial(whisper_box.uri("2001"))
            await answer(phone, "alpha bravo")
            await answer(phone, "hotel india")
            await answer(phone, "golf hotel")
            assert await phone.wait_hangup(LIMIT_S) == "them"

    await asyncio.gather(*(call() for _ in range(3)))
    calls = await asyncio.to_thread(records.wait_settled, whisper_box.database, 3)
    for one in calls:
        heard = [turn["caller_text"] for turn in one["turns"] if turn["caller_text"]]
        assert heard == ["alpha bravo", "hotel india", "golf hotel"]
        assert one["disposition"] == "completed"
