"""Server-sent events, as HTTP servers stream them (WHATWG HTML, section "Server-sent events"). PURE."""

from __future__ import annotations

from typing import Final

from appliance.errors import EngineError

MAX_EVENT_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


class EventDecoder:
    """Cuts a stream of bytes into the ``data`` of its events, however the bytes were split on the way.

    Lines end with CR LF, LF or CR. Comments (lines that begin with a colon, which servers send to keep a connection
    alive) and the fields ``event``, ``id`` and ``retry`` mean nothing here. A field ``error``, with which some servers
    end a stream, counts as data.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._data: list[str] = []
        self._held = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of the events that ``chunk`` completes.

        Raises:
            EngineError: an event is longer than ``max_bytes``, or is not UTF-8.
        """
        self._rest += chunk
        if not self._begun:
            if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
                return []
            self._begun = True
            if self._rest.startswith(_BOM):
                del self._rest[: len(_BOM)]
        *lines, rest = _lines(self._rest)
        self._rest = bytearray(rest)
        events = [event for line in lines if (event := self._line(line)) is not None]
        if len(self._rest) + self._held > self._max_bytes:
            raise EngineError(f"an event of the stream is longer than {self._max_bytes} bytes", retryable=False)
        return events

    def finish(self) -> list[str]:
        """The stream is over: the event that lacks only the empty line behind it.

        Raises:
            EngineError: as for :meth:`feed`.
        """
        events = self.feed(b"\n\n") if self._rest or self._data else []
        self._rest.clear()
        return events

    def _line(self, line: bytes) -> str | None:
        if not line:
            if not self._data:
                return None
            event = "\n".join(self._data)
            self._data, self._held = [], 0
            return event
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):
            value = value.removeprefix(b" ")
            self._held += len(value)
            try:
                self._data.append(value.decode())
            except UnicodeDecodeError:
                raise EngineError("an event of the stream is not UTF-8", retryable=False) from None
        return None


def _lines(text: bytearray) -> list[bytes]:
    """``text`` cut at its line ends; the last item is the line that has not ended yet."""
    held = b""
    if text.endswith(b"\r"):  # whether a line feed belongs to it, the next bytes will tell
        text, held = text[:-1], b"\r"
    lines = bytes(text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines[-1] += held
    return lines
