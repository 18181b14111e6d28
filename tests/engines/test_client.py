"""Control's side of the engine workers, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from appliance.engines.client import EnginePool
from appliance.ipc.channel import Channel, Listener, serve
from appliance.ipc.messages import (
    AnyMessage,
    ChatMessage,
    Converse,
    Failed,
    Generate,
    HearCaller,
    JudgeTurn,
    Recognise,
    Recognised,
    Respond,
    TurnVerdict,
)
from tests.waiting import eventually


async def test_the_last_moments_of_a_dying_worker_do_not_use_up_a_request(tmp_path: Path) -> None:
    """Its listening socket lives on for a moment after its connections."""
    loop = asyncio.get_running_loop()
    path = tmp_path / "turn-0.sock"
    asked = 0

    def dying(connection: socket.socket) -> Channel:
        nonlocal asked
        asked += 1
        channel = Channel(connection, loop, lambda message: channel.close())
        return channel

    def healthy(connection: socket.socket) -> Channel:
        def answer(message: AnyMessage) -> None:
            if isinstance(message, JudgeTurn):
                channel.send(TurnVerdict(message.request, 0.7, 0.0, 0.0))

        channel = Channel(connection, loop, answer)
        return channel

    old = await serve(path, dying)
    pool = EnginePool("turn", ["turn-0"], tmp_path)
    await pool.start()
    verdict = asyncio.create_task(pool.judge_turn(JudgeTurn(pool.number(), 0, 1, 0, 160, loop.time() + 5.0)))
    loop.call_later(0.03, old.close)
    await eventually(lambda: not path.exists())
    new = await serve(path, healthy)
    assert (await verdict).probability == 0.7
    assert asked == 1
    await pool.stop()
    new.close()


async def test_partial_results_of_a_slot_are_asked_of_one_worker(tmp_path: Path) -> None:
    """It remembers what was said so far."""
    loop = asyncio.get_running_loop()
    asked: list[tuple[int, int]] = []

    def worker(number: int) -> Callable[[socket.socket], Channel]:
        def connected(connection: socket.socket) -> Channel:
            def answer(message: AnyMessage) -> None:
                if isinstance(message, Recognise):
                    asked.append((number, message.slot))
                    channel.send(Recognised(message.request, "", 1.0, True, 0.0, 0.0))

            channel = Channel(connection, loop, answer)
            return channel

        return connected

    names = ["asr-0", "asr-1"]
    listeners = [await serve(tmp_path / f"{name}.sock", worker(number)) for number, name in enumerate(names)]
    pool = EnginePool("asr", names, tmp_path, partials=True)
    await pool.start()
    for slot in (3, 4, 3, 5, 4, 3):
        request = Recognise(pool.number(), slot, 1, 0, 160, "en", (), (), False, loop.time() + 5.0, 1, False)
        await pool.recognise(request)
    assert asked == [(slot % 2, slot) for slot in (3, 4, 3, 5, 4, 3)]
    await pool.stop()
    for listener in listeners:
        listener.close()


async def down(pool: EnginePool, listener: Listener) -> None:
    """Let the only worker of ``pool`` be gone."""
    listener.close()
    await eventually(lambda: not pool.connected)


async def test_what_is_said_while_no_worker_is_up_reaches_the_one_that_comes_back(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[AnyMessage] = asyncio.Queue()

    def worker(connection: socket.socket) -> Channel:
        return Channel(connection, loop, told.put_nowait)

    first = await serve(tmp_path / "speech-0.sock", worker)
    pool = EnginePool("speech", ["speech-0"], tmp_path)
    await pool.start()
    await down(pool, first)
    said: asyncio.Queue[AnyMessage] = asyncio.Queue()
    conversation = Converse(pool.number(), 0, 1, "", "", "en", (), (), False)
    pool.ask(conversation, said.put_nowait)
    pool.tell(HearCaller(conversation.request, 800))
    second = await serve(tmp_path / "speech-0.sock", worker)
    async with asyncio.timeout(30):
        assert [await told.get(), await told.get()] == [conversation, HearCaller(conversation.request, 800)]
    assert said.empty()
    await pool.stop()
    second.close()


async def test_nobody_waits_for_a_reply_of_a_worker_that_is_down(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    first = await serve(tmp_path / "speech-0.sock", lambda connection: Channel(connection, loop, lambda message: None))
    pool = EnginePool("speech", ["speech-0"], tmp_path)
    await pool.start()
    await down(pool, first)
    said: list[AnyMessage] = []
    conversation = Converse(pool.number(), 0, 1, "", "", "en", (), (), False)
    pool.ask(conversation, said.append)
    pool.tell(Respond(conversation.request, 1, True))
    assert said == [Failed(conversation.request, "no speech worker is up", True)]
    await pool.stop()


async def test_a_request_that_no_channel_can_carry_fails_at_once(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    listener = await serve(tmp_path / "llm-0.sock", lambda connection: Channel(connection, loop, lambda message: None))
    pool = EnginePool("llm", ["llm-0"], tmp_path)
    await pool.start()
    said: list[AnyMessage] = []
    request = Generate(pool.number(), (ChatMessage("user", "x" * (1 << 20)),), loop.time() + 5.0)
    pool.ask(request, said.append)
    (failed,) = said
    assert isinstance(failed, Failed) and not failed.retryable and "does not fit" in failed.reason
    await pool.stop()
    listener.close()
