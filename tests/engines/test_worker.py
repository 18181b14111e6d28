from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from appliance.api import Engine, Shaping
from appliance.config import Settings
from appliance.engines.fake import FakeAsr, FakeAsrOptions, FakeLlm, FakeLlmOptions, FakeTts, FakeTtsOptions
from appliance.engines.protocol import check_engine
from appliance.engines.worker import EXIT_CANNOT_LOAD, Worker, make_engine
from appliance.errors import EngineError
from appliance.ipc.channel import Channel, connect, serve
from appliance.ipc.messages import (
    Alive,
    AnyMessage,
    Cancel,
    ChatMessage,
    Failed,
    Generate,
    HeardWord,
    Hello,
    JudgeTurn,
    Ready,
    Recognise,
    Recognised,
    Spoken,
    Stop,
    Synthesise,
    Token,
    WorkerStats,
)
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.ipc.settings import share_settings

from .virtual_time import run_virtual

GENERATION = 7


def recognise(request: int, *, deadline: float = math.inf, generation: int = GENERATION, end: int = 160) -> Recognise:
    return Recognise(request, 0, generation, 0, end, "en", ("yes",), (), False, deadline)


def synthesise(request: int, text: str = "hi", *, room: int = 80_000) -> Synthesise:
    return Synthesise(request, 0, GENERATION, text, "en", "", 1.0, 1000, room)


@pytest.fixture
def rings() -> AudioRings:
    rings = AudioRings.create(2)
    rings.open(0, GENERATION)
    rings.rx[0, 0] = np.arange(FRAME_SAMPLES)
    rings.frames[0] = 1
    return rings


class Inbox:
    """A client that keeps what it is told, with the time."""

    def __init__(self) -> None:
        self.said: list[tuple[float, AnyMessage]] = []
        self.news = asyncio.Event()

    def send(self, message: AnyMessage) -> bool:
        self.said.append((asyncio.get_running_loop().time(), message))
        self.news.set()
        return True

    @property
    def messages(self) -> list[AnyMessage]:
        return [message for _, message in self.said]

    async def count(self, number: int) -> list[AnyMessage]:
        while len(self.said) < number:
            self.news.clear()
            async with asyncio.timeout(100):
                await self.news.wait()
        return self.messages


def worker_of(engine: Engine, rings: AudioRings, **limits: float) -> Worker:
    return Worker("asr-0", engine, rings, now=asyncio.get_running_loop().time, **limits)  # type: ignore[arg-type]


class Scripted:
    """An engine that does what it is told per request."""

    kind = "asr"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = 1
    cpu_bound = False

    def __init__(self, **behaviour: object) -> None:
        self.__dict__.update(behaviour)
        self.batches: list[list[int]] = []

    async def load(self) -> None: ...
    async def close(self) -> None: ...

    async def act(self, request, context) -> None:
        context.recognised(request, "ok", confidence=1.0, accepted=True)

    async def run(self, batch, context) -> None:
        self.batches.append([request.request for request in batch])
        for request in batch:
            await self.act(request, context)


def scripted(act, **behaviour) -> Scripted:
    engine = Scripted(**behaviour)
    engine.act = act
    return engine


async def takes_a_second(request, context):
    await asyncio.sleep(1.0)
    context.recognised(request, "ok", confidence=1.0, accepted=True)


def test_requests_are_answered_with_their_times(rings):
    async def story():
        worker, client = worker_of(FakeAsr(FakeAsrOptions(delay_ms=100, text="yes")), rings), Inbox()
        worker.handle(client, recognise(1))
        (answer,) = await client.count(1)
        assert answer == Recognised(1, "yes", 1.0, True, 0.0, pytest.approx(0.1), (HeardWord("yes", 0, 160),), stable=1)

    run_virtual(story())


def test_one_at_a_time_the_second_waits_its_turn(rings):
    async def story():
        worker, client = worker_of(scripted(takes_a_second), rings), Inbox()
        worker.handle(client, recognise(1))
        worker.handle(client, recognise(2))
        _, second = await client.count(2)
        assert isinstance(second, Recognised)
        assert second.queued_s == pytest.approx(1.0)

    run_virtual(story())


def test_requests_share_a_batch_when_the_engine_wants_company(rings):
    async def story():
        engine = Scripted(max_batch=4, max_wait_s=0.05)
        worker, client = worker_of(engine, rings), Inbox()
        for number in (1, 2, 3):
            worker.handle(client, recognise(number))
        assert len(await client.count(3)) == 3
        assert engine.batches == [[1, 2, 3]]
        assert client.said[0][0] == pytest.approx(1000.05)

    run_virtual(story())


def test_what_cannot_start_before_its_deadline_fails_and_says_so(rings):
    async def story():
        worker, client = worker_of(scripted(takes_a_second), rings), Inbox()
        worker.handle(client, recognise(1))
        worker.handle(client, recognise(2, deadline=1000.5))
        await client.count(2)
        at, failed = client.said[0]
        assert failed == Failed(2, "its deadline passed after 0.50 s", True)
        assert at == pytest.approx(1000.5)
        assert worker.stats().dropped == 1

    run_virtual(story())


def test_a_full_queue_sends_the_request_elsewhere(rings):
    async def story():
        async def act(request, context):
            await asyncio.sleep(1.0)

        worker, client = worker_of(scripted(act), rings, max_queue=1), Inbox()
        for number in (1, 2, 3):
            worker.handle(client, recognise(number))
        assert client.messages == [Failed(3, "asr-0 has 1 requests waiting", True)]
        await worker.close()

    run_virtual(story())


async def test_an_answer_that_no_channel_can_carry_fails_and_says_so(rings, tmp_path):
    """A server may send a megabyte of text for a transcript."""

    async def act(request, context):
        text = "x" * (1 << 20) if request.request == 1 else "ok"
        words = [("ok", 0, 1 << 70)] if request.request == 2 else []
        context.recognised(request, text, confidence=1.0, accepted=True, words=words)

    worker = Worker("asr-0", scripted(act), rings)
    listener = await serve(tmp_path / "asr-0.sock", worker.connected)
    said: asyncio.Queue[AnyMessage] = asyncio.Queue()
    client = await connect(tmp_path / "asr-0.sock", said.put_nowait)
    async with asyncio.timeout(30):
        answers = []
        for number in (1, 2, 3):
            client.send(recognise(number))
            answers.append(await said.get())
    for failed in answers[:2]:
        assert isinstance(failed, Failed) and not failed.retryable and "cannot be sent" in failed.reason
    assert isinstance(answers[2], Recognised)
    assert (worker.stats().done, worker.stats().failed) == (1, 2)
    client.close()
    listener.close()
    await worker.close()


def test_an_engine_that_raises_fails_the_request_and_lives_on(rings, caplog):
    async def story():
        async def act(request, context):
            if request.request == 1:
                raise RuntimeError("boom")
            if request.request == 2:
                raise EngineError("no such language", retryable=False)
            context.recognised(request, "ok", confidence=1.0, accepted=True)

        worker, client = worker_of(scripted(act), rings), Inbox()
        for number in (1, 2, 3):
            worker.handle(client, recognise(number))
        first, second, third = await client.count(3)
        assert first == Failed(1, "RuntimeError: boom", True)
        assert second == Failed(2, "no such language", False)
        assert isinstance(third, Recognised)
        assert worker.stats().failed == 2
        assert worker.stats().done == 1

    run_virtual(story())
    assert "request 1 (slot 0, call 7) failed" in caplog.text


def test_what_was_answered_before_the_engine_raised_stands(rings):
    async def story():
        async def act(request, context):
            context.recognised(request, "ok", confidence=1.0, accepted=True)
            if request.request == 1:
                raise RuntimeError("boom")

        worker, client = worker_of(scripted(act, max_batch=2, max_wait_s=0.1), rings), Inbox()
        worker.handle(client, recognise(1))
        worker.handle(client, recognise(2))
        answers = await client.count(2)
        assert [type(answer) for answer in answers] == [Recognised, Failed]

    run_virtual(story())


def test_an_engine_that_says_nothing_fails(rings):
    async def story():
        async def act(request, context):
            return

        worker, client = worker_of(scripted(act), rings), Inbox()
        worker.handle(client, recognise(1))
        assert await client.count(1) == [Failed(1, "the engine gave no answer", True)]

    run_virtual(story())


def test_an_engine_that_hangs_is_given_up(rings):
    async def story():
        async def act(request, context):
            await asyncio.sleep(10_000)

        worker, client = worker_of(scripted(act), rings, run_timeout_s=5.0), Inbox()
        worker.handle(client, recognise(1))
        assert await client.count(1) == [Failed(1, "the engine took longer than 5 s", True)]
        worker.handle(client, recognise(2))
        assert worker.batcher.running == 1
        await worker.close()

    run_virtual(story())


def test_audio_of_a_call_that_is_over_fails_for_good(rings):
    async def story():
        async def act(request, context):
            context.caller_audio(request)

        worker, client = worker_of(scripted(act), rings), Inbox()
        worker.handle(client, recognise(1, generation=3))
        (failed,) = await client.count(1)
        assert failed == Failed(1, "slot 0: call 3 is over", False)

    run_virtual(story())


def test_the_engine_hears_the_callers_samples(rings):
    async def story():
        heard = []

        async def act(request, context):
            heard.append(context.caller_audio(request))

        worker, client = worker_of(scripted(act), rings), Inbox()
        worker.handle(client, recognise(1, end=100))
        await client.count(1)
        assert heard[0].tolist() == list(range(100))

    run_virtual(story())


def test_cancelling_a_running_request_stops_it_at_once_and_says_nothing(rings):
    async def story():
        worker, client = worker_of(FakeLlm(FakeLlmOptions()), rings), Inbox()
        worker.handle(client, Generate(1, (ChatMessage("user", "hi"),), math.inf))
        await client.count(2)
        worker.handle(client, Cancel(1))
        await asyncio.sleep(5)
        assert len(client.said) == 2
        assert worker.batcher.running == 0

    run_virtual(story())


def test_cancelling_a_waiting_request_says_nothing_either(rings):
    async def story():
        worker, client = worker_of(FakeAsr(FakeAsrOptions()), rings), Inbox()
        worker.engine.concurrency = 1
        worker = worker_of(worker.engine, rings)
        worker.handle(client, recognise(1))
        worker.handle(client, recognise(2))
        worker.handle(client, Cancel(2))
        worker.handle(client, Cancel(99))
        await asyncio.sleep(5)
        assert [message.request for message in client.messages] == [1]

    run_virtual(story())


def test_a_batch_goes_on_while_one_of_its_requests_is_wanted(rings):
    async def story():
        async def act(request, context):
            await asyncio.sleep(1.0)
            assert context.cancelled(request) is (request.request == 1)
            context.recognised(request, "ok", confidence=1.0, accepted=True)

        worker, client = worker_of(scripted(act, max_batch=2, max_wait_s=0.1), rings), Inbox()
        worker.handle(client, recognise(1))
        worker.handle(client, recognise(2))
        await asyncio.sleep(0.05)
        worker.handle(client, Cancel(1))
        await client.count(1)
        assert [message.request for message in client.messages] == [2]

    run_virtual(story())


def test_a_client_that_goes_takes_its_requests_with_it(rings):
    async def story():
        worker, client, other = worker_of(FakeAsr(FakeAsrOptions()), rings), Inbox(), Inbox()
        worker.handle(client, recognise(1))
        worker.handle(other, recognise(1))
        worker.forget(client)
        await other.count(1)
        await asyncio.sleep(1)
        assert client.said == []
        assert worker.batcher.running == 0

    run_virtual(story())


def test_requests_for_another_kind_of_engine_are_dropped(rings, caplog):
    async def story():
        worker, client = worker_of(FakeAsr(FakeAsrOptions()), rings), Inbox()
        worker.handle(client, JudgeTurn(1, 0, GENERATION, 0, 160, math.inf))
        assert worker.batcher.queued == worker.batcher.running == 0

    run_virtual(story())
    assert "not for a worker of kind asr" in caplog.text


def test_speech_lands_in_the_ring_where_it_was_asked_for(rings):
    async def story():
        worker, client = worker_of(FakeTts(FakeTtsOptions(first_audio_ms=100, chunk_ms=50)), rings), Inbox()
        worker.handle(client, synthesise(1, "hi"))
        answers = await client.count(3)
        assert [(a.tts_end, a.last) for a in answers] == [(1400, False), (1800, False), (1960, True)]
        assert client.said[0][0] == pytest.approx(1000.1)
        assert rings.tts[0, :1000].any() == rings.tts[0, 1960:].any() == False  # noqa: E712
        assert np.abs(rings.tts[0, 1100:1900]).max() > 5000

    run_virtual(story())


def test_speech_beyond_the_room_fails(rings):
    async def story():
        worker, client = worker_of(FakeTts(FakeTtsOptions()), rings), Inbox()
        worker.handle(client, synthesise(1, "hello", room=2000))
        *_, failed = await client.count(3)
        assert failed == Failed(1, "the speech is longer than the 0.2 s there is room for", False)
        assert not rings.tts[0, 3000:].any()

    run_virtual(story())


def test_speech_for_a_call_that_is_over_fails(rings):
    async def story():
        worker, client = worker_of(FakeTts(FakeTtsOptions()), rings), Inbox()
        worker.handle(client, synthesise(1, "hello"))
        rings.open(0, GENERATION + 1)
        assert await client.count(1) == [Failed(1, "slot 0: call 7 is over", False)]

    run_virtual(story())


def test_over_a_real_socket(rings, tmp_path: Path):
    async def story():
        worker = Worker("llm-0", FakeLlm(FakeLlmOptions(first_token_ms=0, token_ms=0, text="a b")), rings)
        listener = await serve(tmp_path / "llm-0.sock", worker.connected)
        inbox = Inbox()
        channel = await connect(tmp_path / "llm-0.sock", inbox.send)
        channel.send(Generate(5, (ChatMessage("user", "hi"),), math.inf))
        assert await inbox.count(2) == [Token(5, "a", False), Token(5, " b", True)]
        worker.send_stats()
        *_, stats = await inbox.count(3)
        assert stats == WorkerStats("llm-0", 0, 0, 1, 0, 0, 0, pytest.approx(0, abs=5))
        channel.close()
        await worker.close()
        listener.close()

    asyncio.run(story())


def test_only_whole_engines_of_the_right_kind_serve():
    engine = FakeAsr(FakeAsrOptions())
    assert check_engine(engine, "asr", "fake") is engine
    with pytest.raises(EngineError, match="made an engine of kind 'asr'"):
        check_engine(engine, "tts", "fake")
    with pytest.raises(EngineError, match="lacks parts of"):
        check_engine(object(), "asr", "mine")


def settings(tmp_path: Path, **engines: object) -> Settings:
    return Settings.model_validate({"runtime_dir": str(tmp_path), "engines": engines})


def test_the_settings_choose_the_engine(tmp_path: Path):
    chosen = settings(tmp_path, asr={"provider": "fake", "text": "hello there", "delay_ms": 5})
    engine = make_engine(chosen, "asr")
    assert isinstance(engine, FakeAsr)
    assert engine.options == FakeAsrOptions(text="hello there", delay_ms=5)
    with pytest.raises(EngineError, match=r"engines\.tts\.provider: there is no tts provider 'parrot'"):
        make_engine(settings(tmp_path, tts={"provider": "parrot"}), "tts")


def spawn(tmp_path: Path, chosen: Settings, kind: str) -> tuple[subprocess.Popen[str], AudioRings]:
    rings = AudioRings.create(2)
    fds = (share_settings(chosen), rings.fd)
    command = [sys.executable, "-m", "appliance.engines.worker", "--name", f"{kind}-0", "--kind", kind]
    command += ["--settings-fd", str(fds[0]), "--rings-fd", str(fds[1]), "--capacity", "2"]
    process = subprocess.Popen(command, pass_fds=fds, stderr=subprocess.PIPE, text=True)
    os.close(fds[0])
    return process, rings


async def test_the_process_from_hello_to_stop(tmp_path: Path):
    heard: asyncio.Queue[AnyMessage] = asyncio.Queue()
    children: list[Channel] = []

    def accept(sock: socket.socket) -> Channel:
        children.append(Channel(sock, asyncio.get_running_loop(), heard.put_nowait))
        return children[-1]

    supervisor = await serve(tmp_path / "supervisor.sock", accept)
    process, rings = spawn(tmp_path, settings(tmp_path, tts={"provider": "fake", "first_audio_ms": 0}), "tts")
    async with asyncio.timeout(30):
        assert await heard.get() == Hello("tts-0", process.pid)
        while (message := await heard.get()) != Ready("tts-0"):
            assert message == Alive("tts-0")
        rings.open(0, GENERATION)
        inbox = Inbox()
        channel = await connect(tmp_path / "tts-0.sock", inbox.send)
        channel.send(synthesise(3, "hi"))
        while not (isinstance(said := inbox.messages[-1:], list) and said and getattr(said[0], "last", False)):
            inbox.news.clear()
            await inbox.news.wait()
        assert isinstance(said[0], Spoken)
        assert said[0].tts_end == 1960
        assert rings.tts[0, 1100:1900].any()
        children[0].send(Stop())
        _, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, errors
    channel.close()
    supervisor.close()


def test_an_engine_that_cannot_load_says_why_and_leaves_with_its_code(tmp_path: Path):
    chosen = settings(tmp_path, turn={"provider": "smart_turn"}).model_copy(update={"models_dir": tmp_path})
    process, _ = spawn(tmp_path, chosen, "turn")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == EXIT_CANNOT_LOAD
    assert "smart-turn" in errors and "is missing; run 'appliance models pull" in errors
    assert "Traceback" not in errors


def partial(request: int) -> Recognise:
    return Recognise(request, 0, GENERATION, 0, 160, "en", ("yes",), (), False, math.inf, 1, False)


def test_final_results_go_before_partial_ones(rings):
    async def story():
        async def act(request, context):
            await asyncio.sleep(0.1)
            context.recognised(request, "ok", confidence=1.0, accepted=True)

        engine = scripted(act)
        worker, client = worker_of(engine, rings), Inbox()
        for message in (partial(1), partial(2), recognise(3), partial(4), recognise(5)):
            worker.handle(client, message)
        await client.count(5)
        assert engine.batches == [[1], [3], [5], [2], [4]]

    run_virtual(story())


class Shapely(Scripted):
    """Takes requests of one length together."""

    def shape(self, request) -> int:
        return request.end // 1600


def test_an_engine_says_which_requests_it_takes_together(rings):
    async def story():
        engine = Shapely(max_batch=4)
        assert isinstance(engine, Shaping) and not isinstance(Scripted(), Shaping)
        worker, client = worker_of(engine, rings), Inbox()
        for number, end in ((1, 160), (2, 160), (3, 4800), (4, 320), (5, 4000)):
            worker.handle(client, recognise(number, end=end))
        await client.count(5)
        assert engine.batches == [[1], [2, 4], [3], [5]]

    run_virtual(story())
