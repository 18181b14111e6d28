"""What a line sets beside its flow, as a caller over SIP and RTP meets it: hours, engines, how long a call may take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.peer

SHUT: dict[str, object] = {
    "name": "shut",
    "match": {"called": "1910"},
    "holidays": ["01-01..12-31"],
    "closed": {"line": "clever"},
    "flow": {"bye": {"hang_up": "We are open."}},
}
CLEVER: dict[str, object] = {
    "name": "clever",
    "match": {"called": "1911"},
    "agent": "llm",
    "prompt": "You work at night.",
    "greeting": "Good night.",
    "engines": {"llm": "clever", "tts": "warm"},
    "no_input": {"after_s": 60},
    "max_duration_s": 12,
    "max_duration_warning": {"before_s": 5, "text": "Just a moment left.", "goodbye": "Time is up."},
}


async def test_a_closed_line_leads_to_another_with_engines_of_its_own_and_a_limit(
    start_box: Callable[..., Box], tmp_path: Path
) -> None:
    named = {
        "llm": {"clever": {"provider": "fake", "first_token_ms": 50, "text": "I am the clever one."}},
        "tts": {"warm": {"provider": "fake", "first_audio_ms": 20, "fallback": "none"}},
    }
    own = {**lines.STANDARD_FAKES, **lines.dialplan(tmp_path, [SHUT, CLEVER]), "engines.named": named}
    question = read_wav(await asyncio.to_thread(lines.question, tmp_path))
    box = await asyncio.to_thread(start_box, own)
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri("1910"))
        await phone.wait_agent_speech(LIMIT_S, since=phone.dialled_at)
        await phone.wait_agent_silent()
        await phone.play(question)
        assert await phone.wait_hangup(LIMIT_S) == "them"
    (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    assert call["line"] == "clever"
    assert "is a holiday (01-01..12-31)" in json.loads(call["slots"])["line.closed"]
    said = [turn["agent_text"] for turn in call["turns"]]
    assert said == ["Good night.", "I am the clever one.", "Just a moment left.", "Time is up."]
    assert call["hangup_text"] == "maximum duration reached"


BROKEN: dict[str, object] = {
    "name": "desk",
    "match": {"called": "1912"},
    "agent": "llm",
    "prompt": "You answer questions.",
    "greeting": "Good day.",
    "on_engine_failure": {"after": 1, "say": "Let me take a message.", "line": "message"},
}
MESSAGE: dict[str, object] = {
    "name": "message",
    "match": {"called": "1913"},
    "record": True,
    "engines": {"tts": "warm"},
    "no_input": {"after_s": 60},
    "flow": {
        "what": {"ask": "Press hash when you are done.", "keys": {"#": "done"}, "slot": "told"},
        "bye": {"hang_up": "Thank you."},
    },
}


async def test_a_line_whose_model_fails_goes_on_as_another_that_records(
    start_box: Callable[..., Box], tmp_path: Path
) -> None:
    nowhere = {"provider": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "model": "gone"}
    named = {"tts": {"warm": {"provider": "fake", "first_audio_ms": 20, "fallback": "none"}}}
    plan = lines.dialplan(tmp_path, [BROKEN, MESSAGE])
    question = read_wav(await asyncio.to_thread(lines.question, tmp_path))
    box = await asyncio.to_thread(
        start_box, {**lines.STANDARD_FAKES, **plan, "engines.llm": nowhere, "engines.named": named}
    )
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri("1912"))
        await phone.wait_agent_speech(LIMIT_S, since=phone.dialled_at)
        await phone.wait_agent_silent()
        await phone.play(question)
        await phone.wait_agent_speech(LIMIT_S)
        await phone.wait_agent_silent()
        phone.send_digits("#")
        assert await phone.wait_hangup(LIMIT_S) == "them"
    (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    slots = json.loads(call["slots"])
    assert slots["line.changed"] == "desk to message: the language model failed"
    assert (call["line"], slots["told"]) == ("desk", "done")
    said = [turn["agent_text"] for turn in call["turns"]]
    assert said == ["Good day.", "Let me take a message.", "Press hash when you are done.", "Thank you."]
    assert Path(call["recording_path"]).stat().st_size > 1000
