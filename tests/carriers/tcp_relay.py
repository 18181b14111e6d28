"""A relay in front of a TCP port that delays, stalls, goes deaf and cuts, as networks do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CHUNK = 65_536
_MAX_HELD = 1 << 20


@dataclass(frozen=True)
class Fault:
    """What happens to one connection. Times are seconds after it was opened; None: never.

    Attributes:
        delay_s, jitter_s: each piece is held so long, and up to so much longer; order is kept.
        stall_at, stall_s: nothing passes meanwhile; it is delivered afterwards, all at once.
        deaf_at: from then on nothing passes, and nobody is told.
        cut_at: both ends get a reset, one of them in the middle of what it was being sent.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    stall_at: float | None = None
    stall_s: float = 0.0
    deaf_at: float | None = None
    cut_at: float | None = None


class TcpRelay:
    """Passes connections on to ``port`` of this machine.

    Args:
        port: where to.
        fault: what is to happen to the n-th connection, from 0.
        seed: of the jitter.

    Attributes:
        port: where it listens.
        connections: how many there have been.
    """

    def __init__(self, port: int, fault: Callable[[int], Fault] = lambda number: Fault(), *, seed: int = 1) -> None:
        self.to = port
        self.port = 0
        self.connections = 0
        self._fault = fault
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._closing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._fault(self.connections)
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        moving = asyncio.Event()
        moving.set()
        pumps = [
            asyncio.create_task(self._pump(reader, out, fault, moving)),
            asyncio.create_task(self._pump(there, writer, fault, moving)),
        ]
        doing = asyncio.create_task(_harm(fault, moving, (writer, out)))
        both = asyncio.create_task(_all(pumps))
        closing = asyncio.create_task(_all([self._closing.wait()]))
        try:
            await asyncio.wait({both, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (doing, both, closing, *pumps):
                one.cancel()
            await asyncio.gather(doing, both, closing, *pumps, return_exceptions=True)
            for side in (writer, out):
                side.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await side.wait_closed()
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault, moving: asyncio.Event
    ) -> None:
        """One direction. What comes is held until its time, and while the network stands still."""
        held: deque[tuple[float, bytes]] = deque()
        news = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                while not held:
                    news.clear()
                    await news.wait()
                due, data = held[0]
                await asyncio.sleep(max(0.0, due - loop.time()))
                await moving.wait()
                held.popleft()
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        last = 0.0
        try:
            while True:
                data = await reader.read(_CHUNK)
                last = max(last, loop.time() + fault.delay_s + fault.jitter_s * self._chance.random())
                held.append((last, data))
                news.set()
                if not data:
                    break
                while sum(len(piece) for _, piece in held) > _MAX_HELD:
                    await asyncio.sleep(0.01)
            await delivering
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)


async def _all(what: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*what, return_exceptions=True)


async def _harm(fault: Fault, moving: asyncio.Event, sides: tuple[asyncio.StreamWriter, ...]) -> None:
    """Do at its time what is to be done."""
    began = asyncio.get_running_loop().time()

    async def until(at: float) -> None:
        await asyncio.sleep(max(0.0, began + at - asyncio.get_running_loop().time()))

    if fault.stall_at is not None:
        await until(fault.stall_at)
        moving.clear()
        await asyncio.sleep(fault.stall_s)
        moving.set()
    if fault.deaf_at is not None:
        await until(fault.deaf_at)
        moving.clear()
    if fault.cut_at is not None:
        await until(fault.cut_at)
        for side in sides:
            sock = side.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            side.write(b"\x81\x7e\x01")  # the beginning of a frame of a WebSocket
            side.transport.abort()
