"""A whole box whose model uses a tool of a real MCP server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from appliance.cli.box import Box
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.openai_sim.chat import Answer, ChatSim
from tests.peers.test_yaml_plugins import one_question
from tests.plugins.shipped.test_mcp import KITCHEN

pytestmark = [pytest.mark.peer, pytest.mark.slow]

LINE: dict[str, object] = {
    "name": "desk",
    "agent": "llm",
    "prompt": "You are the desk.",
    "greeting": "Good morning.",
    "turn": {"speculate": 0},
    "tools": ["kitchen_add"],
}
SCRIPT = (
    Answer("", calls=[("a", "kitchen_add", '{"a": 2, "b": 3}')]),
    Answer("It is five.", calls=[("b", "hang_up", "{}")]),
)


async def test_the_model_uses_a_tool_of_an_mcp_server(tmp_path: Path) -> None:
    async with ChatSim() as models:
        models.script.extend(SCRIPT)
        chosen = {
            **settings(tmp_path, [models.url]),
            **lines.dialplan(tmp_path / "own", [LINE]),
            "plugins.mcp": {"kitchen": KITCHEN},
        }
        box = Box(tmp_path / "box", chosen)
        try:
            await asyncio.to_thread(box.start)
            await one_question(box, lines.question(tmp_path))
            (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
        finally:
            code = await asyncio.to_thread(box.stop)
    assert code == 0, box.log_tail()
    assert [tool["function"]["name"] for tool in models.asked[0].body["tools"]] == ["hang_up", "kitchen_add"]
    turn = next(turn for turn in call["turns"] if turn["by"] == "voice")
    assert turn["heard_text"] == "It is five."
    tool = json.loads(turn["tools"])[0]
    assert (tool["name"], tool["source"], tool["result"]) == ("kitchen_add", "mcp", '{"result":5}')
