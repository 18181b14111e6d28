"""A whole box is called on a line whose model hears and speaks by itself; the model's server runs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.cli.box import Box, free_port
from appliance.cli.rtp_stream import Pcm
from appliance.cli.softphone import Softphone, read_wav
from appliance.conversation import manners
from tests.bench import lines, records
from tests.bench.uac import BareUac
from tests.openai_sim.realtime import RealtimeSim, Reply
from tests.waiting import LIMIT_S, eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow]

APOLOGY, FAREWELL = manners.apology("en-us"), manners.farewell("en-us")
Call = Callable[..., Any]
LONG = "able bird cold dish east fish gold high inch jump kind lamp mild nest open pink"
"""Words that take as long, so that a share of the sound is that share of the text."""
PLAIN, GREETING, FALLBACK, BY_MODEL, IMPATIENT = "1010", "1011", "1012", "1013", "1014"
GREETED: dict[str, object] = {"greeting": "Good morning."}
LINES: dict[str, dict[str, object]] = {
    PLAIN: {},
    GREETING: {
        **GREETED,
        "transfers": {"people": {"to": "sip:nobody@127.0.0.1:9", "kind": "attended", "timeout_s": 1}},
    },
    FALLBACK: {
        **GREETED,
        "on_engine_failure": {"after": 1, "say": "Let us do it by hand.", "step": "people"},
        "flow": {"people": {"ask": "For how many?", "digits": {"max": 2}}, "bye": {"hang_up": "Goodbye."}},
    },
    BY_MODEL: {**GREETED, "turn": {"by": "model"}},
    IMPATIENT: {**GREETED, "no_input": {"after_s": 2, "retries": 1}},
}


@dataclass
class Called:
    """A call that is up. ``before`` calls were on record when it began."""

    box: Box
    phone: Softphone
    question: Pcm
    before: int

    async def ask(self) -> float:
        """Say the question; when it ended (CLOCK_REALTIME)."""
        return await self.phone.play(self.question)

    async def reply(self) -> None:
        """Say the question, and hear the reply to its end."""
        await self.phone.wait_reply(await self.ask(), LIMIT_S)
        await self.phone.wait_agent_silent()

    async def record(self) -> records.Row:
        await self.phone.hangup()
        return (await asyncio.to_thread(records.wait_settled, self.box.database, self.before + 1))[-1]


@pytest.fixture(scope="module")
def port() -> int:
    """Where the model's server listens, in every test another one."""
    return free_port()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("realtime")
    common = {"agent": "realtime", "prompt": "You are the desk of a small hotel."}
    plans = [{"name": f"l{number}", "match": {"called": number}, **common, **own} for number, own in LINES.items()]
    url = f"ws://127.0.0.1:{port}/v1"
    settings = {
        **lines.settings(folder, tts="espeak"),
        **lines.dialplan(folder / "own", plans),
        "engines.turn": {"provider": "fake"},
        "engines.speech": {"provider": "openai_realtime", "base_url": url, "model": "sim", "stall_s": 1},
    }
    with Box(folder / "box", settings) as made:
        yield made
    assert "Traceback" not in made.log.read_text()


@pytest.fixture
def call(box: Box, port: int, tmp_path: Path) -> Call:
    """``call(server, number)``: the server runs, and a caller is through and has heard the greeting."""

    @asynccontextmanager
    async def made(server: RealtimeSim, number: str = GREETING) -> AsyncIterator[Called]:
        server.port = port
        question = read_wav(lines.question(tmp_path))
        before = len(await asyncio.to_thread(records.calls, box.database))
        async with server, BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
            await phone.dial(box.uri(number))
            await phone.wait_agent_silent()
            yield Called(box, phone, question, before)

    return made


def words_in(pcm: Pcm) -> int:
    """How many of the server's words there are in what was heard."""
    frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160).astype(np.float64)
    loud = np.sqrt(np.mean(frames**2, axis=1)) > 500
    starts = np.flatnonzero(loud[1:] & ~loud[:-1]) + 1
    return int(sum(loud[start : start + 4].all() for start in starts))


async def test_the_model_is_heard_and_hears(call: Call) -> None:
    server = RealtimeSim()
    async with call(server, PLAIN) as up:
        await up.reply()
        heard = words_in(up.phone.received())
        found = await up.record()
        (talk,) = server.talks
        await server.until(talk.closed.is_set)
    assert server.problems == []
    assert talk.said("user") == ["what can you do for me"]
    assert heard == 2 * len(server.reply.text.split())
    greeting, turn = found["turns"]
    assert greeting["heard_text"] == turn["heard_text"] == server.reply.text
    assert turn["caller_text"] == "what can you do for me"


async def test_the_server_remembers_what_was_heard_and_no_more(call: Call) -> None:
    server = RealtimeSim()
    server.script.append(Reply(LONG))
    async with call(server) as up:
        before = len(up.phone.received())
        await up.phone.wait_agent_speech(LIMIT_S, since=await up.ask())
        await eventually(lambda: words_in(up.phone.received()[before:]) >= 5)
        end = await up.ask()
        (talk,) = server.talks
        await server.until(lambda: talk.turns == 2)
        heard = words_in(up.phone.received()[before:])
        await up.phone.wait_agent_speech(LIMIT_S, since=end)
        await up.phone.wait_agent_silent()
        found = await up.record()
    assert server.problems == []
    greeting, cut, last = talk.said("assistant")
    assert greeting == "Good morning."
    assert LONG.startswith(cut)
    assert abs(len(cut.split()) - heard) <= 1
    assert last == server.reply.text
    _, turn, after = found["turns"]
    assert turn["interrupted"]
    assert abs(len(turn["heard_text"].split()) - heard) <= 1
    assert after["heard_text"] == server.reply.text


async def test_a_short_sound_does_not_stop_the_agent_and_is_no_turn(call: Call) -> None:
    server = RealtimeSim()
    server.script.append(Reply(LONG))
    async with call(server) as up:
        await up.phone.wait_agent_speech(LIMIT_S, since=await up.ask())
        await up.phone.play(up.question[:2400])
        await up.phone.wait_agent_silent()
        found = await up.record()
    (talk,) = server.talks
    assert server.problems == []
    assert talk.turns == 1
    assert talk.said("assistant")[-1] == LONG
    assert found["turns"][1]["heard_text"] == LONG


async def test_the_model_hangs_up(call: Call) -> None:
    server = RealtimeSim()
    server.script.append(Reply("Goodbye then", calls=[("hang_up", '{"reason": "done"}')]))
    async with call(server) as up:
        await up.ask()
        assert await up.phone.wait_hangup(LIMIT_S) == "them"
        found = await up.record()
    assert server.problems == []
    assert (found["hangup_by"], found["hangup_text"]) == ("agent", "done")
    assert found["turns"][1]["heard_text"] == "Goodbye then"
    assert '"hang_up"' in found["turns"][1]["tools"]


async def test_a_caller_who_cannot_be_handed_on_is_with_the_model_again(call: Call) -> None:
    server = RealtimeSim()
    server.script.extend(
        (Reply("I put you through", calls=[("transfer", '{"to": "people"}')]), Reply("Nobody is there"))
    )
    async with call(server) as up:
        await up.ask()
        await server.until(lambda: server.talks[0].said("assistant")[-1] == "Nobody is there", LIMIT_S)
        await up.phone.wait_agent_silent(quiet_s=1.5)
        found = await up.record()
    assert server.problems == []
    assert server.talks[0].said("system") == ["[Nobody could be reached there: the caller is with you again]"]
    assert "failed" in found["slots"]
    assert [turn["heard_text"] for turn in found["turns"][1:]] == ["I put you through", "Nobody is there"]


async def test_a_tool_answers_and_the_model_goes_on(call: Call) -> None:
    server = RealtimeSim()
    message = '{"message": "call me back", "name": "Ann"}'
    calls = [("take_message", message), ("nonsense", "{}")]
    server.script.extend((Reply(calls=calls), Reply("It is written down")))
    async with call(server) as up:
        await up.reply()
        found = await up.record()
    (talk,) = server.talks
    assert server.problems == []
    outputs = [item.text for item in talk.items if item.kind == "function_call_output"]
    assert outputs[0] == '{"status":"the message has been taken down"}'
    assert "there is no tool 'nonsense'" in outputs[1]
    assert found["turns"][1]["heard_text"] == "It is written down"
    assert "call me back" in found["slots"]


async def test_the_call_goes_on_with_a_new_conversation_when_the_server_has_died(call: Call) -> None:
    server = RealtimeSim()
    server.script.append(Reply(LONG, die_after=5))
    async with call(server) as up:
        await up.reply()
        await up.reply()
        found = await up.record()
    assert server.problems == []
    _, broken, after = found["turns"]
    assert broken["agent_text"].startswith("able bird cold")
    assert broken["agent_text"].endswith(APOLOGY)
    assert "the server has closed the connection" in broken["problem"]
    assert after["heard_text"] == server.reply.text
    again = server.talks[-1]
    assert again.said("assistant")[0] == "Good morning."
    assert again.said("user") == ["what can you do for me"] * 2


async def test_what_was_said_to_a_server_that_died_is_said_again_to_the_next(call: Call) -> None:
    server = RealtimeSim()
    async with call(server) as up:
        speaking = asyncio.ensure_future(up.ask())
        await server.until(lambda: server.talks[0].buffered > 0)
        server.cut(server.talks[0])
        await up.phone.wait_reply(await speaking, LIMIT_S)
        await up.phone.wait_agent_silent()
        found = await up.record()
    assert server.problems == []
    assert server.talks[-1].said("user") == ["what can you do for me"]
    assert found["turns"][1]["heard_text"] == server.reply.text


async def test_a_server_that_refuses_takes_the_lines_other_way(call: Call) -> None:
    server = RealtimeSim()
    server.refuses = 401
    async with call(server, FALLBACK) as up:
        await up.reply()
        found = await up.record()
    turn = found["turns"][1]
    assert turn["agent_text"] == "Let us do it by hand. For how many?"
    assert "the server refuses: 401" in turn["problem"]


async def test_without_another_way_the_caller_is_told_and_the_call_ends(call: Call) -> None:
    server = RealtimeSim()
    server.refuses = 503
    async with call(server, PLAIN) as up:
        await up.ask()
        assert await up.phone.wait_hangup(LIMIT_S) == "them"
        found = await up.record()
    assert [turn["agent_text"] for turn in found["turns"]] == [APOLOGY, FAREWELL]
    assert all("the server refuses: 503" in turn["problem"] for turn in found["turns"])


async def test_a_reply_that_stalls_is_apologised_for(call: Call) -> None:
    server = RealtimeSim()
    server.script.append(Reply(LONG, stall_after=4))
    async with call(server) as up:
        await up.phone.wait_reply(await up.ask(), LIMIT_S)
        await up.phone.wait_agent_silent(quiet_s=2.0)
        found = await up.record()
    turn = found["turns"][1]
    assert turn["agent_text"] == f"able bird cold dish {APOLOGY}"
    assert "the reply broke off: nothing came for 1 s" in turn["problem"]


async def test_a_failed_response_is_apologised_for_and_the_conversation_goes_on(call: Call) -> None:
    server = RealtimeSim()
    server.script.append(Reply(fail_after=0))
    async with call(server) as up:
        await up.reply()
        await up.reply()
        found = await up.record()
    assert len(server.talks) == 1
    assert found["turns"][1]["agent_text"] == APOLOGY
    assert "The server had an error" in found["turns"][1]["problem"]
    assert found["turns"][2]["heard_text"] == server.reply.text


async def test_the_model_may_find_the_ends_of_turns(call: Call) -> None:
    server = RealtimeSim()
    async with call(server, BY_MODEL) as up:
        await up.reply()
        found = await up.record()
    (talk,) = server.talks
    assert server.problems == []
    assert talk.turns == 1
    turn = found["turns"][1]
    assert (turn["ended_by"], turn["caller_text"]) == ("model", "what can you do for me")
    assert turn["heard_text"] == server.reply.text


async def test_keys_and_silence_are_told_to_the_model(call: Call) -> None:
    server = RealtimeSim()
    server.script.extend((Reply("Forty two it is"), Reply("Are you still there")))
    async with call(server, IMPATIENT) as up:
        up.phone.send_digits("42")
        assert await up.phone.wait_hangup(LIMIT_S) == "them"
        found = await up.record()
    (talk,) = server.talks
    assert talk.said("system") == ["[The caller pressed the keys 4 2]", "[The caller says nothing]"]
    assert [turn["heard_text"] for turn in found["turns"][1:]] == ["Forty two it is", "Are you still there"]
    assert found["hangup_text"] == "no_input"
