"""A relay in front of a TCP port that delays, stalls, goes deaf and cuts, as networks do."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from types import TracebackType
from typing import Self

_CHUNK = 65_536
_MAX_HELD = 1 << 20


class TcpRelay:
    """Passes connections on to ``port`` of this machine.

    Args:
        port: where to.
        delay_s, jitter_s: each piece is held so long, and up to so much longer; order is kept.
        seed: of the jitter.

    Attributes:
        port: where it listens.
        stalled: while true nothing goes either way; it is delivered afterwards, all at once.
        connections: how many there have been.
    """

    def __init__(self, port: int, *, delay_s: float = 0.0, jitter_s: float = 0.0, seed: int = 1) -> None:
        self.to = port
        self.delay_s, self.jitter_s = delay_s, jitter_s
        self.port = 0
        self.connections = 0
        self._chance = random.Random(seed)
        self._moving = asyncio.Event()
        self._moving.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def stalled(self) -> bool:
        return not self._moving.is_set()

    @stalled.setter
    def stalled(self, still: bool) -> None:
        if still:
            self._moving.clear()
        else:
            self._moving.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def cut(self) -> None:
        """Break every connection: both ends get a reset."""
        for writer in tuple(self._writers):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        self._writers |= {writer, out}
        pumps = [asyncio.create_task(self._pump(reader, out)), asyncio.create_task(self._pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.ALL_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (writer, out):
                self._writers.discard(one)
                one.close()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction. What comes is held until its time, and while the network stands still."""
        held: deque[tuple[float, bytes]] = deque()
        news = asyncio.Event()
        over = False
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while held or not over:
                if not held:
                    news.clear()
                    if not held and not over:
                        await news.wait()
                    continue
                due, data = held[0]
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._moving.wait()
                held.popleft()
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        last = 0.0
        try:
            while data := await reader.read(_CHUNK):
                last = max(last, loop.time() + self.delay_s + self.jitter_s * self._chance.random())
                held.append((last, data))
                news.set()
                while sum(len(piece) for _, piece in held) > _MAX_HELD:
                    await asyncio.sleep(0.01)
            over = True
            news.set()
            await delivering
            if writer.can_write_eof():
                writer.write_eof()
        except (ConnectionError, OSError):
            writer.transport.abort()
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
