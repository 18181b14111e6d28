"""The browser phone's stream: a WebSocket of the page that the box serves. PURE.

Binary messages are audio both ways: L16, one channel, at the rate that the page's sound device has. Text messages are
JSON. The page sends ``{"event":"start","token":"...","rate":48000}`` first, then ``dtmf`` (``digit``), ``mark``
(``name``, once everything before it has been played) and ``stop``; it is sent ``mark``, ``clear`` and ``goodbye``. Both
ends are ours, so what is none of these is refused.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from appliance.api.streams import (
    MAX_TEXT,
    Audio,
    Key,
    Marked,
    Message,
    Started,
    Stopped,
    StreamEvent,
    key_of,
    printable,
)
from appliance.errors import CarrierError

RATES: Final = (8_000, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Sample rates of which 20 ms are whole samples."""

_MAX_AUDIO: Final = 48_000
"""Bytes of one message: half a second at the highest rate. The page sends 20 ms."""

_MAX_JSON: Final = 1_024
_MAX_TOKEN: Final = 128


class _Told(msgspec.Struct):
    event: str
    token: str = ""
    rate: int = 0
    digit: str = ""
    name: str = ""


class BrowserStream:
    """One connection of the page."""

    name: ClassVar[str] = "browser"
    marks: ClassVar[bool] = True
    clears: ClassVar[bool] = True

    def __init__(self) -> None:
        self.frame_bytes = 0
        self._number = 0
        self._over = False
        self._decoder = msgspec.json.Decoder(_Told)

    def receive(self, message: Message) -> list[StreamEvent]:
        if self._over:
            return []
        return self._audio(message) if isinstance(message, bytes) else self._told(message)

    def _audio(self, payload: bytes) -> list[StreamEvent]:
        if not self.frame_bytes:
            raise CarrierError("audio comes before start")
        if not 0 < len(payload) <= _MAX_AUDIO:
            raise CarrierError(f"{len(payload)} bytes of audio in one message; 2 to {_MAX_AUDIO} are taken")
        if len(payload) % 2:
            raise CarrierError(f"{len(payload)} bytes are no whole samples of 16 bits")
        self._number += 1
        return [Audio(self._number, payload)]

    def _told(self, message: str) -> list[StreamEvent]:
        if len(message) > _MAX_JSON:
            raise CarrierError(f"a message of {len(message)} characters; at most {_MAX_JSON} are taken")
        try:
            told = self._decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise CarrierError(f"a message is not of the browser phone: {printable(str(error))}") from None
        if told.event == "start":
            return [self._started(told)]
        if not self.frame_bytes:
            raise CarrierError(f"{printable(told.event)[:40]!r} comes before start")
        match told.event:
            case "dtmf":
                return [Key(key_of(told.digit))]
            case "mark":
                if not 0 < len(told.name) <= MAX_TEXT:
                    raise CarrierError("a mark without a name, or with a long one")
                return [Marked(told.name)]
            case "stop":
                self._over = True
                return [Stopped()]
        raise CarrierError(f"an unknown event {printable(told.event)[:40]!r}")

    def _started(self, told: _Told) -> Started:
        if self.frame_bytes:
            raise CarrierError("start comes twice")
        if told.rate not in RATES:
            raise CarrierError(f"a rate of {told.rate} Hz; {', '.join(map(str, RATES))} are taken")
        if not 0 < len(told.token) <= _MAX_TOKEN:
            raise CarrierError("start names no token")
        self.frame_bytes = told.rate // 50 * 2
        return Started("", "", "l16", told.rate, token=told.token)

    def media(self, payload: bytes) -> bytes:
        return payload

    def mark(self, name: str) -> list[Message]:
        return [_message("mark", name=name)]

    def clear(self) -> list[Message]:
        return [_message("clear")]

    def goodbye(self) -> list[Message]:
        return [_message("goodbye")]


def _message(event: str, **parts: str) -> str:
    return msgspec.json.encode({"event": event, **parts}).decode()
