"""A line that asks before it records, and then for something private: a caller over SIP and RTP, a file, a database."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone
from tests.bench import lines, records
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.peer

CARD = "4929731"
FRAME_SAMPLES = 160
LINE: dict[str, object] = {
    "name": "pay",
    "match": {"called": "1700"},
    "disclosure": "You are talking to a machine.",
    "record": {"consent": "ask", "ask": "May we record this call?"},
    "flow": {
        "card": {
            "ask": "Please enter the number of your card.",
            "digits": {"min": 7, "max": 7, "by": "key"},
            "slot": "card",
            "private": True,
        },
        "bye": {"hang_up": "Thank you, we have received your payment. Goodbye."},
    },
}


async def test_digits_of_a_card_are_neither_in_the_recording_nor_on_record(
    start_box: Callable[..., Box], tmp_path: Path
) -> None:
    box = await asyncio.to_thread(start_box, {**lines.STANDARD_FAKES, **lines.dialplan(tmp_path, [LINE])})
    rng = np.random.default_rng(1)
    hiss = rng.integers(-3000, 3000, 8000 * 3, dtype=np.int16)
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri("1700"))
        await phone.wait_agent_speech(LIMIT_S, since=phone.dialled_at)
        await phone.wait_agent_silent()
        phone.send_digits("1")
        await phone.wait_agent_speech(LIMIT_S)
        await phone.wait_agent_silent()
        playing = asyncio.create_task(phone.play(hiss))
        for digit in CARD:
            phone.send_digits(digit)
            await asyncio.sleep(0.3)
        assert await phone.wait_hangup(LIMIT_S) == "them"
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    assert call["recording_consent"] == "given"
    assert call["recording_started_frame"] > 50
    assert json.loads(call["slots"]) == {"card": "[private]", "ending": "completed"}
    assert [turn["caller_text"] for turn in call["turns"]] == ["", "1", "[private]"]
    ((first, end),) = json.loads(call["recording_paused"])
    with wave.open(call["recording_path"]) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
    assert len(sound) == call["recording_frames"] * FRAME_SAMPLES
    private = sound[first * FRAME_SAMPLES : end * FRAME_SAMPLES]
    assert len(private) > 2 * 8000
    assert not private.any()
    after = sound[end * FRAME_SAMPLES :]
    assert np.abs(after[:, 1]).max() > 500
    kept = box.database.read_bytes() + box.database.with_name(box.database.name + "-wal").read_bytes()
    assert CARD.encode() not in kept
    assert CARD not in box.log.read_text()
