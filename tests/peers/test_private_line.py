"""A card number over SIP and RTP: a real server of a YAML plugin's tool has it, and nobody else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from appliance.cli.box import Box
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.bench.uac import BareUac
from tests.openai_sim.chat import Answer, ChatSim
from tests.plugins.declarative.server import HttpServer

pytestmark = [pytest.mark.peer, pytest.mark.slow]

CARD = "4111111111111111"
PLUGIN = """
summary: The till.
allow_hosts: [127.0.0.1]
tools:
  pay:
    description: Pays with a card.
    parameters: {type: object, properties: {card: {type: string, pattern: "^[0-9]{13,19}$"}}, required: [card]}
    method: POST
    url: URL/pay
    body: {card: "${arguments.card}"}
    response: {tell: {card: card}}
"""
LINE: dict[str, object] = {
    "name": "desk",
    "agent": "llm",
    "prompt": "You take payments.",
    "greeting": "Good morning.",
    "turn": {"speculate": 0},
    "record": True,
    "plugins": ["till"],
    "private": {"card": {"tools": "pay", "min": 13, "max": 19, "check": "luhn"}},
}
SCRIPT = (
    Answer("", calls=[("a", "collect_private", '{"name": "card", "question": "Your card, please?"}')]),
    Answer("", calls=[("b", "pay", '{"card": "[private card]"}')]),
    Answer("It is paid.", calls=[("c", "hang_up", '{"reason": "paid"}')]),
)


async def test_only_the_server_of_the_tool_learns_a_card_number(tmp_path: Path) -> None:
    clip = await asyncio.to_thread(lines.question, tmp_path)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"card": CARD})

    async with HttpServer(answer) as server, ChatSim() as models:
        models.script.extend(SCRIPT)
        plugins = tmp_path / "plugins"
        plugins.mkdir()
        (plugins / "till.yaml").write_text(PLUGIN.replace("URL", server.url))
        chosen = {**settings(tmp_path, [models.url]), **lines.dialplan(tmp_path / "own", [LINE])}
        box = Box(tmp_path / "box", {**chosen, "plugins.paths": [str(plugins)]})
        try:
            await asyncio.to_thread(box.start)
            async with BareUac(("127.0.0.1", box.sip_port), "+49301234") as uac, Softphone(uac) as phone:
                await phone.dial(box.uri(lines.ASSISTANT))
                await phone.wait_agent_silent(30.0, quiet_s=0.8)
                await phone.play(read_wav(clip))
                await phone.wait_agent_speech(30.0)
                await phone.wait_agent_silent(30.0, quiet_s=0.8)
                phone.send_digits(CARD + "#")
                assert await phone.wait_hangup(60.0) == "them"
            (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
        finally:
            await asyncio.to_thread(box.stop)
        assert [json.loads(asked.body) for asked in server.asked] == [{"card": CARD}]
        assert CARD not in json.dumps([asked.body for asked in models.asked])
    assert CARD not in json.dumps(call, default=str)
    assert "[private]" in [turn["caller_text"] for turn in call["turns"]]
    assert json.loads(call["recording_paused"])
    assert CARD not in box.log.read_text()
