"""The sockets of streams: what was sent, what has not left yet, and how they are closed.

A link is written to from the audio clock, which waits for nobody: messages go into a queue that a task empties. A peer
that does not read is cut off when the queue is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from appliance.api.streams import Message

logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 1000
"""Messages that wait for a peer: several seconds of audio and its marks."""
_LINGER_S: Final = 2.0
"""A peer that was told goodbye closes first; after so long we do."""
_ABORT_S: Final = 6.0
"""A peer that does nothing about a close is cut off."""
_FRAME_BYTES: Final = 640
_REASON_BYTES: Final = 120
"""A WebSocket's close frame has room for 123."""


class Link(Protocol):
    """One connection, whatever carries it."""

    def post(self, messages: Sequence[Message]) -> None:
        """Send; returns at once."""
        ...

    def unsent(self) -> int:
        """Bytes that the network has not taken, by what the kernel says."""
        ...

    def close(self, reason: str, goodbye: Sequence[Message] = (), *, fault: bool = False) -> None:
        """End it: ``goodbye`` is said first. ``fault``: the peer has done wrong, and is told ``reason``."""
        ...


class WebSocketLink:
    """A WebSocket that has been accepted.

    Args:
        socket: aiohttp's.
        transport: below it.
        overflow: called once, soon, when the peer does not read.
    """

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, overflow: Callable[[], None]
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._overflow = overflow
        self._overflown = False
        self._queue: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._closing: tuple[int, bytes] | None = None
        self._lingers = False
        self._abort: asyncio.TimerHandle | None = None
        self._writer = asyncio.create_task(self._write())

    def post(self, messages: Sequence[Message]) -> None:
        if self._closing is not None or self._overflown:
            return
        self._queue.extend(messages)
        self._wake.set()
        if len(self._queue) > MAX_QUEUED:
            # Whoever posts may be in the middle of a tick over all calls, which must not lose one meanwhile.
            self._overflown = True
            self._queue.clear()
            asyncio.get_running_loop().call_soon(self._overflow)

    def unsent(self) -> int:
        return sum(len(message) for message in self._queue) + _unsent(self._transport)

    def close(self, reason: str, goodbye: Sequence[Message] = (), *, fault: bool = False) -> None:
        if self._closing is not None:
            return
        if fault:
            self._queue.clear()
        self._queue.extend(goodbye)
        code = WSCloseCode.POLICY_VIOLATION if fault else WSCloseCode.OK
        self._closing = (code, reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode())
        self._lingers = bool(goodbye)
        self._wake.set()
        if self._transport is not None:
            self._abort = asyncio.get_running_loop().call_later(_ABORT_S, self._transport.abort)

    async def run(self, taken: Callable[[Message], None]) -> str:
        """Hand on what comes, until either side has closed the connection; what broke it, "" where nothing did."""
        reader = asyncio.create_task(self._read(taken))
        try:
            await asyncio.wait({reader, self._writer}, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done() and self._closing is not None:
                # aiohttp waits for the other side's close, and reads what that still sends, where nobody else reads: a
                # connection that is cut off with something unread never delivers the reason.
                reader.cancel()
                await asyncio.wait({reader})
                code, reason = self._closing
                await self._socket.close(code=code, message=reason)
                return ""
            return await reader
        finally:
            if self._abort is not None:
                self._abort.cancel()
            for task in (reader, self._writer):
                task.cancel()
            await asyncio.gather(reader, self._writer, return_exceptions=True)

    async def _read(self, taken: Callable[[Message], None]) -> str:
        async for message in self._socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                taken(message.data)
            elif message.type is WSMsgType.ERROR:
                return str(self._socket.exception() or "an error")
        return ""

    async def _write(self) -> None:
        """Until there is no more to say; returns when the connection is to be closed."""
        socket, queue = self._socket, self._queue
        try:
            while True:
                while queue:
                    message = queue.popleft()
                    if isinstance(message, str):
                        await socket.send_str(message)
                    else:
                        await socket.send_bytes(message)
                if self._closing is not None:
                    break
                self._wake.clear()
                await self._wake.wait()
            if self._lingers:
                await asyncio.sleep(_LINGER_S)
        except (ConnectionError, RuntimeError) as error:
            logger.debug("a stream could not be written to: %s", error)
            if self._transport is not None:
                self._transport.abort()


class TcpLink(asyncio.Protocol):
    """A plain TCP connection.

    Args:
        opened: called with the link when there is a connection; False refuses it.
        received: called with every piece that comes.
        gone: called once when the connection is no more, with what broke it, "" where the peer closed it.
    """

    def __init__(
        self,
        opened: Callable[[TcpLink, str, int], bool],
        received: Callable[[bytes], None],
        gone: Callable[[str], None],
    ) -> None:
        self._opened = opened
        self._received = received
        self._gone = gone
        self._transport: Any = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername") or ("", 0)
        if not self._opened(self, str(peer[0]), int(peer[1])):
            transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._closing:
            self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(str(exc) if exc is not None else "")

    def post(self, messages: Sequence[Message]) -> None:
        if not self._closing and not self._transport.is_closing():
            self._transport.write(b"".join(message for message in messages if isinstance(message, bytes)))
            if self._transport.get_write_buffer_size() > MAX_QUEUED * _FRAME_BYTES:
                self._transport.abort()

    def unsent(self) -> int:
        return _unsent(self._transport)

    def close(self, reason: str, goodbye: Sequence[Message] = (), *, fault: bool = False) -> None:
        if self._closing:
            return
        if goodbye:
            self.post(goodbye)
        self._closing = True
        if goodbye:
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
        else:
            self._transport.close()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)


def _unsent(transport: Any) -> int:
    """Bytes that the peer's side has not acknowledged: in our buffer and in the kernel's."""
    if transport is None or transport.is_closing():
        return 0
    buffered = int(transport.get_write_buffer_size())
    socket = transport.get_extra_info("socket")
    if socket is None:
        return buffered
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return buffered
    return buffered + int(queued)
