"""Typed messages between two processes of the box, over a Unix SOCK_SEQPACKET socket.

The kernel keeps message boundaries, so a message is either sent whole or not at all. What the peer does not read in
time waits in a bounded outbox; a peer that lets the outbox overflow is not coming back, and the channel is closed
rather than anything being lost in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from appliance.errors import ChannelClosed
from appliance.ipc.messages import AnyMessage, decode, encode

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 192 * 1024
_SOCKET_BUFFER_BYTES: Final = 1 << 20
_MAX_OUTBOX: Final = 4096
_MAX_PER_WAKEUP: Final = 64
_CREDENTIALS: Final = struct.Struct("3i")

OnMessage = Callable[[AnyMessage], None]
OnClose = Callable[[], None]


class Channel:
    """One end of a connected socket.

    ``on_message`` is called on the event loop for every message, in order; an exception in it is logged and the
    channel goes on. ``on_close`` is called once, when the other end is gone or :meth:`close` was called.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_message: OnMessage,
        on_close: OnClose = lambda: None,
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_message = on_message
        self._on_close = on_close
        self._outbox: deque[bytes] = deque()
        self._buffer = bytearray(MAX_MESSAGE_BYTES)
        self._view = memoryview(self._buffer)
        self.closed = False
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def outbox_depth(self) -> int:
        """Messages that the peer has not had room for yet."""
        return len(self._outbox)

    @property
    def peer_pid(self) -> int:
        """Process number of the other end: of who listens, where this end has connected.

        Raises:
            OSError: the channel is closed.
        """
        data = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(data)[0])

    def send(self, message: AnyMessage) -> bool:
        """Send now, or as soon as the peer has room. Returns False where the channel is closed.

        Raises:
            ValueError: the message is larger than MAX_MESSAGE_BYTES.
        """
        if self.closed:
            return False
        data = encode(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{type(message).__name__} of {len(data)} bytes does not fit a channel")
        if self._outbox:
            return self._enqueue(data)
        try:
            self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock.fileno(), self._writable)
            return self._enqueue(data)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close at once; what is still in the outbox is lost. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._outbox.clear()
        self._on_close()

    def _enqueue(self, data: bytes) -> bool:
        if len(self._outbox) >= _MAX_OUTBOX:
            logger.error("channel closed: the peer has left %d messages unread", _MAX_OUTBOX)
            self.close()
            return False
        self._outbox.append(data)
        return True

    def _writable(self) -> None:
        while self._outbox:
            try:
                self._sock.send(self._outbox[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self._outbox.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(_MAX_PER_WAKEUP):
            try:
                count = self._sock.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                count = 0
            if count == 0:
                self.close()
                return
            try:
                message = decode(self._view[:count])
            except msgspec.MsgspecError:
                logger.exception("a message of %d bytes is none of ours; dropped", count)
                continue
            try:
                self._on_message(message)
            except Exception:
                logger.exception("handling %s failed", type(message).__name__)
            if self.closed:
                return


class Listener:
    """A listening socket; ``on_connect`` gets every accepted socket and returns the channel made of it."""

    def __init__(self, sock: socket.socket, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._path = path
        self._loop = loop
        self.channels: list[Channel] = []

    def close(self) -> None:
        """Stop listening and close every accepted channel."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._path.unlink(missing_ok=True)
        for channel in list(self.channels):
            channel.close()


async def serve(path: Path, on_connect: Callable[[socket.socket], Channel]) -> Listener:
    """Listen on ``path``, replacing a socket file left by a process that is gone."""
    loop = asyncio.get_running_loop()
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(16)
    listener = Listener(sock, path, loop)

    def accept() -> None:
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError):
            return
        listener.channels = [channel for channel in listener.channels if not channel.closed]
        listener.channels.append(on_connect(connection))

    loop.add_reader(sock.fileno(), accept)
    return listener


LAST_BREATH_S: Final = 0.05
"""A process that is killed closes its connections before the socket it listens on. Whoever connects again at once
reaches it once more and loses the connection at once; this much later it is gone."""


async def connect(
    path: Path, on_message: OnMessage, on_close: OnClose = lambda: None, *, timeout_s: float = 10.0
) -> Channel:
    """Connect to ``path``, trying again until its owner listens.

    Raises:
        ChannelClosed: nobody listened within ``timeout_s``.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)  # one that does not accept must not hold up this process
        try:
            sock.connect(str(path))
        except OSError as error:
            sock.close()
            if loop.time() >= deadline:
                raise ChannelClosed(f"nobody listens on {path} ({error.strerror})") from error
            await asyncio.sleep(0.02)
            continue
        return Channel(sock, loop, on_message, on_close)
