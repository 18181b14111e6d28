"""Asterisk's AudioSocket: a TCP connection of small binary messages. PURE.

A message is one byte of kind, two of length (big-endian) and the payload. The first names the call by a UUID, which is
all that is said about it. Source: Asterisk's documents, "AudioSocket".
"""

from __future__ import annotations

import uuid
from typing import ClassVar, Final

from appliance.api.streams import MAX_PAYLOAD, Audio, Key, Message, Started, Stopped, StreamEvent, key_of
from appliance.errors import CarrierError

HANGUP: Final = 0x00
UUID: Final = 0x01
DTMF: Final = 0x03
ERROR: Final = 0xFF
RATES: Final = {
    0x10: 8_000, 0x11: 12_000, 0x12: 16_000, 0x13: 24_000, 0x14: 32_000, 0x15: 44_100, 0x16: 48_000,
}  # fmt: skip
"""Sample rate by kind of audio message: signed linear, 16 bits, little-endian, one channel."""

_HEADER_BYTES: Final = 3
_ERRORS: Final = {0x01: "the caller hung up", 0x02: "frames could not be forwarded", 0x04: "out of memory"}


def message(kind: int, payload: bytes = b"") -> bytes:
    """One message."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


class AudioSocketStream:
    """One connection. It says nothing of what it has played, and cannot be told to forget what it was sent.

    The rate is that of the first audio message: until then nothing can be sent, so :class:`Started` waits for it.
    """

    name: ClassVar[str] = "audiosocket"
    marks: ClassVar[bool] = False
    clears: ClassVar[bool] = False

    def __init__(self) -> None:
        self.frame_bytes = 0
        self._held = b""
        self._call_id = ""
        self._kind = 0
        self._number = 0
        self._over = False

    def receive(self, message: Message) -> list[StreamEvent]:
        """Take any piece of what comes."""
        if self._over:
            return []
        if isinstance(message, str):
            raise CarrierError("AudioSocket is binary")
        data = self._held + message
        events: list[StreamEvent] = []
        at = 0
        while len(data) - at >= _HEADER_BYTES and not self._over:
            kind, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
            if not self._call_id and (kind, length) != (UUID, 16):
                raise CarrierError("the first message is not a UUID; is this AudioSocket?")
            if length > MAX_PAYLOAD:
                raise CarrierError(f"a message of {length} bytes; at most {MAX_PAYLOAD} are taken")
            if len(data) - at < _HEADER_BYTES + length:
                break
            at += _HEADER_BYTES
            events += self._take(kind, data[at : at + length])
            at += length
        self._held = b"" if self._over else data[at:]
        return events

    def _take(self, kind: int, payload: bytes) -> list[StreamEvent]:
        if kind in RATES:
            return self._audio(kind, payload)
        if kind == HANGUP:
            self._over = True
            return [Stopped()]
        if kind == ERROR:
            self._over = True
            code = payload[0] if payload else 0
            return [Stopped(_ERRORS.get(code, f"error {code}"))]
        if kind == DTMF:
            if len(payload) != 1:
                raise CarrierError(f"a key of {len(payload)} bytes")
            return [Key(key_of(payload.decode("latin-1")))]
        if kind == UUID:
            if self._call_id:
                raise CarrierError("the UUID comes twice")
            self._call_id = str(uuid.UUID(bytes=payload))
            return []
        raise CarrierError(f"a message of unknown kind 0x{kind:02x}")

    def _audio(self, kind: int, payload: bytes) -> list[StreamEvent]:
        if self._kind and kind != self._kind:
            raise CarrierError("the sample rate changes within the call")
        if len(payload) % 2:
            raise CarrierError(f"{len(payload)} bytes are no whole samples of 16 bits")
        events: list[StreamEvent] = []
        if not self._kind:
            self._kind = kind
            self.frame_bytes = RATES[kind] // 50 * 2
            events.append(Started(self._call_id, self._call_id, "l16", RATES[kind], token=self._call_id))
        if payload:
            self._number += 1
            events.append(Audio(self._number, payload))
        return events

    def media(self, payload: bytes) -> bytes:
        return message(self._kind, payload)

    def mark(self, name: str) -> list[Message]:
        return []

    def clear(self) -> list[Message]:
        return []

    def goodbye(self) -> list[Message]:
        return [message(HANGUP)]
