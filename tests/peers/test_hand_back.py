"""A flow hands its caller over to a language model, and gets the caller back: over SIP and RTP, with a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import Box
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.bench.uac import BareUac
from tests.openai_sim.chat import Answer, ChatSim

pytestmark = [pytest.mark.peer, pytest.mark.slow]

LINE: dict[str, object] = {
    "name": "table",
    "match": {"called": "1800"},
    "prompt": "You work for a restaurant.",
    "turn": {"speculate": 0},
    "flow": {
        "book": {
            "converse": "Find out how many people come.",
            "say": "Good evening. For how many people?",
            "slots": {"people": {"type": "integer", "min": 1, "max": 12}},
            "failed": "sorry",
        },
        "bye": {"hang_up": "A table for ${slots.people}. Goodbye."},
        "sorry": {"hang_up": "I am sorry. Goodbye.", "disposition": "failed"},
    },
}


async def test_what_the_model_found_out_is_a_slot_of_the_flow(start_box: Callable[..., Box], tmp_path: Path) -> None:
    clip = lines.question(tmp_path)
    async with ChatSim() as server:
        server.script.append(Answer("Four, very well.", calls=[("a", "continue_flow", '{"people": 4}')]))
        own = {
            **settings(tmp_path, [server.url]),
            **lines.dialplan(tmp_path / "own", [LINE]),
            "engines.asr": {"provider": "fake", "delay_ms": 50, "text": "four of us"},
        }
        box = await asyncio.to_thread(start_box, own)
        async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
            await phone.dial(box.uri("1800"))
            await phone.wait_agent_silent(30.0, quiet_s=0.8)
            await phone.play(read_wav(clip))
            assert await phone.wait_hangup(30.0) == "them"
        (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    slots = json.loads(call["slots"])
    assert slots == {"people": "4", "ending": "completed"}
    assert call["turns"][-1]["agent_text"] == "Four, very well. A table for 4. Goodbye."
    assert server.problems == []
    told = json.dumps(server.asked[0].body)
    assert "For how many people?" in told and "four of us" in told
