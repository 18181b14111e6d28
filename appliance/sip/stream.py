"""SIP over a stream: where one message ends and the next begins (RFC 3261 §18.3); keep-alives (RFC 5626 §4.4.1).

On TCP and TLS only Content-Length says how long a body is. A stream in which it is missing, broken or said twice with
two values cannot be followed any more: what comes after might be read differently by another box. Such a stream must
be closed, and so must one that is no SIP at all.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

from appliance.errors import RemoteSipError
from appliance.sip.message import MAX_HEAD_BYTES

MAX_BODY_BYTES: Final = 64 * 1024

PING: Final = b"\r\n\r\n"
"""What a client sends to learn whether its connection still works."""

PONG: Final = b"\r\n"
"""What a server answers it with."""

_MAX_FIRST_LINE_BYTES: Final = 4096
_END: Final = b"\r\n\r\n"


class KeepAlive(Enum):
    """An empty line between messages. Two in a row are a ping, so the first of a ping is seen as a pong."""

    PONG = "pong"
    PING = "ping"


Frame: TypeAlias = bytes | KeepAlive


class StreamReader:
    """Cuts what one connection delivers into messages. Holds at most one incomplete message.

    Attributes:
        broken: whether the stream was found unusable; nothing more can be read from it.
    """

    def __init__(self) -> None:
        self.broken = False
        self._buffer = bytearray()
        self._scanned = 0
        self._wanted: int | None = None
        self._blank_lines = 0
        self._first_line_seen = False

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take what came; give the whole messages and keep-alives in it, in order.

        Raises:
            RemoteSipError: where the stream cannot be followed and the connection must be closed. Whole messages that
                came before the break in the same piece are given first; then only :attr:`broken` tells of it.
        """
        if self.broken:
            raise RemoteSipError("this stream was found broken before", status_hint=None)
        self._buffer += data
        frames: list[Frame] = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
        except RemoteSipError:
            self.broken = True
            self._buffer.clear()
            if frames:
                return frames
            raise
        return frames

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if self._wanted is None:
            keep_alive = self._take_blank_line()
            if keep_alive is not None or not buffer or buffer == b"\r":
                return keep_alive
            self._check_first_line()
            end = buffer.find(_END, max(0, self._scanned - len(_END) + 1))
            if end < 0:
                self._scanned = len(buffer)
            if (end if end >= 0 else len(buffer)) > MAX_HEAD_BYTES:
                raise _broken(f"more than {MAX_HEAD_BYTES} bytes of headers")
            if end < 0:
                return None
            self._wanted = end + len(_END) + _content_length(bytes(buffer[: end + 2]))
        if len(buffer) < self._wanted:
            return None
        message = bytes(buffer[: self._wanted])
        del buffer[: self._wanted]
        self._wanted, self._scanned, self._blank_lines, self._first_line_seen = None, 0, 0, False
        return message

    def _take_blank_line(self) -> KeepAlive | None:
        if not self._buffer.startswith(b"\r\n"):
            return None
        del self._buffer[:2]
        self._blank_lines += 1
        if self._blank_lines == 2:
            self._blank_lines = 0
            return KeepAlive.PING
        return KeepAlive.PONG

    def _check_first_line(self) -> None:
        """Find out early that this is no SIP: another protocol must not be kept waiting for its end."""
        if self._first_line_seen:
            return
        end = self._buffer.find(b"\r\n", max(0, self._scanned - 1), _MAX_FIRST_LINE_BYTES)
        first = bytes(self._buffer[: end if end >= 0 else _MAX_FIRST_LINE_BYTES])
        if not 0x20 < first[0] < 0x7F:
            raise _broken("this is no SIP")
        if end < 0:
            if len(first) == _MAX_FIRST_LINE_BYTES:
                raise _broken("the first line has no end")
            return
        if b"SIP/" not in first.upper():
            raise _broken(f"the first line is no SIP: {first[:80]!r}")
        self._first_line_seen = True


def _content_length(head: bytes) -> int:
    """The bytes of body that follow ``head``, which ends with a line break."""
    lines = head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n")
    found: bytes | None = None
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or name.strip().lower() not in (b"content-length", b"l"):
            continue
        value = value.strip()
        if found is not None and value != found:
            raise _broken("two values of Content-Length")
        found = value
    if found is None:
        raise _broken("Content-Length is missing, which a stream must have")
    if not found.isdigit() or len(found) > 9:
        raise _broken(f"a broken Content-Length: {found[:20]!r}")
    length = int(found)
    if length > MAX_BODY_BYTES:
        raise _broken(f"a body of {length} bytes, more than {MAX_BODY_BYTES}")
    return length


def _broken(what: str) -> RemoteSipError:
    return RemoteSipError(what, status_hint=None)
