"""A whole box whose language model uses tools, over real sockets: what the server is asked, and what is on record."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import Box
from appliance.cli.main import main
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.bench.uac import BareUac
from tests.openai_sim.chat import Answer, ChatSim

pytestmark = [pytest.mark.peer, pytest.mark.slow]

NUMBER = "+49301234"
LINE: dict[str, object] = {
    "name": "desk",
    "agent": "llm",
    "prompt": "You are the desk.",
    "greeting": "Good morning.",
    "turn": {"speculate": 0},
    "memory": {"enabled": True, "days": 7},
}
CALL = (
    Answer(
        "I will write that down.",
        calls=[
            ("a", "take_message", '{"message": "Likes the weather.", "name": "Ann"}'),
            ("b", "stop_calling", '{"reason": "enough"}'),
            ("c", "cook", "{"),
        ],
    ),
    Answer("That is done.", calls=[("a", "hang_up", '{"reason": "all is done"}')]),
    Answer("Ann asked about the weather."),
)


async def one_call(box: Box, clip: Path) -> None:
    """A question is asked; the box hangs up."""
    async with BareUac(("127.0.0.1", box.sip_port), NUMBER) as uac, Softphone(uac) as phone:
        await phone.dial(box.uri(lines.ASSISTANT))
        await phone.wait_agent_silent(30.0, quiet_s=0.8)
        await phone.play(read_wav(clip))
        await phone.wait_hangup(30.0)


def shown(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"] or "") for message in body["messages"]]


async def test_tools_are_used_kept_on_record_and_remembered_for_the_next_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = lines.question(tmp_path)
    async with ChatSim() as server:
        server.script.extend([*CALL, *CALL])
        box = Box(tmp_path / "box", {**settings(tmp_path, [server.url]), **lines.dialplan(tmp_path / "own", [LINE])})
        try:
            await asyncio.to_thread(box.start)
            await one_call(box, clip)
            await asyncio.to_thread(records.wait_settled, box.database, 1)
            await server.wait_asked(3)
            await one_call(box, clip)
            found = await asyncio.to_thread(records.wait_settled, box.database, 2)
            await server.wait_asked(6)
        finally:
            code = await asyncio.to_thread(box.stop)
    assert code == 0, box.log_tail()
    assert server.problems == []

    first, second, notes, again = (asked.body for asked in server.asked[:4])
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert second["tools"] == first["tools"]
    tools = [text for role, text in shown(second) if role == "tool"]
    assert [word in text for word, text in zip(("taken down", "not be called", "no tool"), tools, strict=True)]
    assert "Likes the weather." in shown(notes)[1][1]
    assert "Ann asked about the weather." not in shown(first)[1][1]
    assert "<notes_from_earlier_calls>Ann asked about the weather.</notes_from_earlier_calls>" in shown(again)[1][1]

    for call in found:
        assert call["hangup_by"] == "agent"
        assert call["hangup_text"] == "all is done"
        slots = {
            "message": "Likes the weather.",
            "message.name": "Ann",
            "message.number": NUMBER,
            "do_not_call": NUMBER,
        }
        assert json.loads(call["slots"]).items() >= slots.items()
        turn = next(turn for turn in call["turns"] if turn["by"] == "voice")
        assert turn["heard_text"] == "I will write that down. That is done."
        assert [(tool["name"], bool(tool["problem"])) for tool in json.loads(turn["tools"])] == [
            ("cook", True),
            ("take_message", False),
            ("stop_calling", False),
            ("hang_up", False),
        ]
        assert [message["role"] for message in json.loads(turn["asked"])][:2] == ["system", "user"]

    store = ["--set", f"store.url=sqlite+aiosqlite:///{box.database}"]
    assert await asyncio.to_thread(main, ["calls", "forget", NUMBER, *store]) == 0
    assert capsys.readouterr().out == f"1 note about {NUMBER} erased\n"
