"""A whole box is called while its language model fails: the caller is told something, and the record says what it was.

How soon, ``python -m tests.bench.llm_failures`` measures.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import Box
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.bench.llm_failures import MODES, ask, outcome_of, settings
from tests.bench.uac import BareUac
from tests.openai_sim.chat import REPLY, Answer, ChatSim
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow]

SORRY = "I am sorry, something went wrong on my side. Please try again."
FIRST_SENTENCE = REPLY.partition(".")[0] + "."


EXPECTED = {
    "stalls before the first token": (SORRY, "server0 gave no first token within 2.5 s"),
    "stalls after the first sentence": (f"{FIRST_SENTENCE} {SORRY}", "server0 fell silent for 2 s in the middle"),
    "sends broken JSON": (SORRY, "server0 broke off with what is no chat completion"),
    "dies after the first sentence": (f"{FIRST_SENTENCE} {SORRY}", "server0 broke off in the middle of the reply"),
}
"""What a caller is told, and what is on record, when the server fails so."""


def failing(body: dict[str, Any]) -> Answer:
    """Fail as the line's prompt says."""
    prompt = body["messages"][0]["content"]
    return next(answer for mode, answer in MODES.items() if answer is not None and prompt.startswith(f"{mode}."))


async def test_callers_hear_an_apology(tmp_path: Path) -> None:
    plan: list[dict[str, object]] = [
        {
            "name": f"line{n}",
            "match": {"called": f"200{n}"},
            "greeting": "Good morning.",
            "agent": "llm",
            "prompt": f"{mode}.",
        }
        for n, mode in enumerate(EXPECTED)
    ]
    clip = lines.question(tmp_path)
    async with ChatSim(failing) as server:
        own = {**settings(tmp_path, [server.url], failures=1000), **lines.dialplan(tmp_path / "own", plan)}
        box = Box(tmp_path / "box", own)
        try:
            await asyncio.to_thread(box.start)
            await asyncio.gather(*(ask(box, clip, f"200{n}") for n in range(len(plan))))
            calls = await asyncio.to_thread(records.wait_settled, box.database, len(plan))
        finally:
            assert await asyncio.to_thread(box.stop) == 0, box.log_tail()
    found = {call["line"]: next(turn for turn in call["turns"] if turn["by"] == "voice") for call in calls}
    for n, (said, problem) in enumerate(EXPECTED.values()):
        turn = found[f"line{n}"]
        assert turn["agent_text"] == said
        assert problem in turn["problem"]


async def test_a_second_server_answers_in_the_place_of_one_that_is_silent(tmp_path: Path) -> None:
    found = await outcome_of(tmp_path, lines.question(tmp_path), Answer(stall_after=0), Answer())
    assert found.turn["agent_text"] == REPLY
    assert (found.turn["server"], found.turn["problem"]) == ("server1", "")


async def test_the_line_goes_on_with_its_flow(tmp_path: Path) -> None:
    line: dict[str, object] = {
        "name": "desk",
        "agent": "llm",
        "prompt": "Take bookings.",
        "greeting": "Good morning.",
        "on_engine_failure": {"after": 1, "say": "Let us do it by hand.", "step": "people"},
        "flow": {"people": {"ask": "For how many?", "digits": {"max": 2}}, "bye": {"hang_up": "Goodbye."}},
    }
    found = await outcome_of(tmp_path, lines.question(tmp_path), None, line=line)
    assert found.turn["agent_text"] == "Let us do it by hand. For how many?"
    assert "server0 refuses connections" in found.turn["problem"]


@pytest.mark.parametrize("how", ["hangs up", "interrupts"])
async def test_a_reply_that_nobody_wants_any_more_ends_at_the_server(how: str, tmp_path: Path) -> None:
    question = read_wav(lines.question(tmp_path))
    async with ChatSim(Answer(f"{REPLY} " * 4, token_s=0.15)) as server:
        box = Box(tmp_path / "box", settings(tmp_path, [server.url]))
        try:
            await asyncio.to_thread(box.start)
            async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
                await phone.dial(box.uri(lines.ASSISTANT))
                await phone.wait_agent_silent(30.0, quiet_s=0.8)
                await phone.wait_reply(await phone.play(question))
                under_way = [asked for asked in server.asked if not asked.done and not asked.gone.is_set()]
                assert under_way
                if how == "interrupts":
                    await phone.play(question)
                else:
                    await phone.hangup()
                await eventually(lambda: all(asked.gone.is_set() for asked in under_way))
        finally:
            assert await asyncio.to_thread(box.stop) == 0, box.log_tail()
