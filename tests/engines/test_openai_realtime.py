"""The engine for OpenAI's Realtime protocol against a server on this machine that checks all it is sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from appliance.engines.openai_realtime import OpenAiRealtime
from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions
from appliance.engines.talk import RingTalk
from appliance.errors import EngineError
from appliance.ipc.messages import (
    AnyMessage,
    CallerSilent,
    CallerWords,
    ChatMessage,
    Converse,
    CutShort,
    GiveRoom,
    HearCaller,
    ReplyDone,
    ReplySpoken,
    ReplyWords,
    Respond,
    ToolSpec,
)
from appliance.ipc.rings import RATE_HZ, RING_SAMPLES, AudioRings
from tests.openai_sim.realtime import SOUND_S, WORD_S, RealtimeSim, Reply
from tests.waiting import eventually

TOOLS = (ToolSpec("hang_up", "End the call.", '{"type": "object", "properties": {}}'),)


class Call:
    """What an engine meets with: one conversation, the rings of its call, and what came of it."""

    def __init__(self, **changes: Any) -> None:
        self.rings = AudioRings.create(1)
        self.rings.open(0, 1)
        self.told: asyncio.Queue[AnyMessage] = asyncio.Queue()
        self.answers: list[Any] = []
        history = (
            ChatMessage("assistant", "Good morning."),
            ChatMessage("user", "hello"),
            ChatMessage("system", "[x]"),
        )
        self.request = Converse(1, 0, 1, "Be brief.", "marin", "en-us", history, TOOLS, **changes)

    def talk(self, request: Converse) -> RingTalk:
        return RingTalk(request, self.rings, self.told, self.answers.append)

    def hears(self, seconds: float) -> None:
        """The caller has said a tone for so long."""
        samples = round(seconds * RATE_HZ) // 160 * 160
        tone = (8000 * np.sin(2 * np.pi * 440 / RATE_HZ * np.arange(samples))).astype(np.int16)
        frames = int(self.rings.frames[0])
        for number in range(samples // 160):
            self.rings.rx[0, (frames + number) % len(self.rings.rx[0])] = tone[number * 160 : number * 160 + 160]
        self.rings.frames[0] = frames + samples // 160

    def of(self, kind: type) -> list[Any]:
        return [answer for answer in self.answers if isinstance(answer, kind)]

    async def asks(self, reply: int = 1, start: int = 0) -> None:
        """The caller has finished a turn; there is room for the reply."""
        for message in (HearCaller(1, start), CallerSilent(1, True), Respond(1, reply, True)):
            self.told.put_nowait(message)
        await eventually(lambda: self.of(ReplySpoken))
        self.told.put_nowait(GiveRoom(1, reply, 0, RING_SAMPLES))


@asynccontextmanager
async def conversing(server: RealtimeSim, call: Call, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    made = OpenAiRealtime(OpenAiRealtimeOptions.model_validate({"base_url": server.url, "model": "sim", **options}))
    await made.load()
    context: Any = call
    task = asyncio.create_task(made.run([call.request], context))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.close()
        os.close(call.rings.fd)


@pytest.mark.parametrize(
    "options", [{}, {"audio": "ulaw"}, {"dialect": "beta"}, {"dialect": "beta", "audio": "ulaw"}, {"connections": 0}]
)
async def test_a_turn_in_every_form(options: dict[str, Any]) -> None:
    call = Call()
    async with RealtimeSim(dialect=options.get("dialect", "ga")) as server, conversing(server, call, **options):
        await server.until(lambda: server.talks)
        call.hears(1.0)
        await call.asks()
        await eventually(lambda: call.of(ReplyDone))
    (talk,) = server.talks
    assert server.problems == []
    assert talk.config["instructions"] == "Be brief."
    assert [item.text for item in talk.items[:3]] == ["Good morning.", "hello", "[x]"]
    turn = next(item for item in talk.items if item.audio_ms)
    assert turn.audio_ms == pytest.approx(1000, abs=5)
    assert "".join(words.text for words in call.of(ReplyWords)) == server.reply.text
    assert call.of(CallerWords)[-1] == CallerWords(1, 1, "what can you do for me", True)
    assert call.of(ReplyDone) == [ReplyDone(1, 1)]
    end = call.of(ReplySpoken)[-1].tts_end
    assert end / RATE_HZ == pytest.approx(len(server.reply.text.split()) * WORD_S, abs=0.01)
    word = call.rings.tts[0, 800 : round(SOUND_S * RATE_HZ) - 400].astype(np.float64)
    assert np.sqrt(np.mean(word**2)) == pytest.approx(8000 / np.sqrt(2), rel=0.05)


async def test_a_reply_waits_for_room_and_goes_on_where_it_is_given() -> None:
    call = Call()
    async with RealtimeSim(reply=Reply("one two three four"), speed=50) as server, conversing(server, call):
        await server.until(lambda: server.talks)
        call.hears(0.5)
        for message in (HearCaller(1, 0), CallerSilent(1, True), Respond(1, 1, True)):
            call.told.put_nowait(message)
        await server.until(lambda: server.talks[0].said("assistant")[-1] == "one two three four")
        await eventually(lambda: call.of(ReplyWords))
        assert [answer.tts_end for answer in call.of(ReplySpoken)] == [-1]
        call.told.put_nowait(GiveRoom(1, 1, 1000, 2000))
        await eventually(lambda: call.of(ReplySpoken)[-1].tts_end == 2000)
        assert call.of(ReplyDone) == []
        call.told.put_nowait(GiveRoom(1, 1, 1000, 20_000))
        await eventually(lambda: call.of(ReplyDone))
    assert call.of(ReplySpoken)[-1].tts_end == pytest.approx(1000 + 4 * WORD_S * RATE_HZ, abs=80)


async def test_a_reply_cut_short_leaves_only_what_was_heard() -> None:
    call = Call()
    async with RealtimeSim(reply=Reply("one two three four five six"), speed=2) as server, conversing(server, call):
        await server.until(lambda: server.talks)
        call.hears(0.5)
        await call.asks()
        (talk,) = server.talks
        await server.until(lambda: len(talk.said("assistant")[-1].split()) >= 3)
        await eventually(lambda: call.of(ReplySpoken)[-1].tts_end >= round(1.5 * WORD_S * RATE_HZ))
        call.told.put_nowait(CutShort(1, 1, -1))
        call.told.put_nowait(CutShort(1, 1, round(WORD_S * RATE_HZ)))
        await server.until(lambda: talk.items[-1].truncated)
        assert talk.said("assistant")[-1] == "one"
        assert len(talk.cancelled) == 1
    assert server.problems == []


async def test_a_waiting_connection_that_is_dead_is_replaced() -> None:
    call = Call()
    async with RealtimeSim() as server:
        options = OpenAiRealtimeOptions.model_validate({"base_url": server.url, "model": "sim"})
        engine = OpenAiRealtime(options)
        await engine.load()
        await server.until(lambda: server.sessions)
        server.cut(server.sessions[0])
        context: Any = call
        task = asyncio.create_task(engine.run([call.request], context))
        await server.until(lambda: server.talks)
        assert server.talks[0].number >= 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.close()
        os.close(call.rings.fd)


@pytest.mark.parametrize(
    ("status", "told", "again"),
    [(0, "the server refuses: 401 Unauthorized; set api_key", False), (503, "the server refuses: 503", True)],
)
async def test_a_refusal_says_why_and_no_key(status: int, told: str, again: bool) -> None:
    call = Call()
    async with RealtimeSim(key="other") as server:
        server.refuses = status
        async with conversing(server, call, api_key="s3cret") as task:
            with pytest.raises(EngineError, match=told) as raised:
                await task
    assert raised.value.retryable == again
    assert "s3cret" not in str(raised.value)


async def test_a_server_that_is_not_there_is_named() -> None:
    call = Call()
    server = RealtimeSim()
    server.port = 9
    async with conversing(server, call) as task:
        with pytest.raises(EngineError, match=r"sim at 127\.0\.0\.1:9: cannot be reached"):
            await task


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply("one two", die_after=1), "the server has closed the connection"),
        (Reply("one two", stall_after=1), "the reply broke off: nothing came for 0.5 s"),
        (Reply(stall_after=0), "the reply did not begin: nothing came for 0.5 s"),
    ],
)
async def test_a_server_that_fails_in_a_reply_ends_the_conversation(reply: Reply, told: str) -> None:
    call = Call()
    limits = {"first_audio_s": 0.5, "stall_s": 0.5}
    async with RealtimeSim(reply=reply) as server, conversing(server, call, **limits) as task:
        await server.until(lambda: server.talks)
        call.hears(0.5)
        for message in (HearCaller(1, 0), CallerSilent(1, True), Respond(1, 1, True)):
            call.told.put_nowait(message)
        with pytest.raises(EngineError, match=told):
            await task
