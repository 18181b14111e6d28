"""What every media stream comes down to, whichever carrier, PBX or browser it is of. PURE.

A stream is a connection that carries one call's audio both ways, and around it what happens to the call. Each protocol
is a class that takes messages and gives events, and writes the messages that go back; the socket is somebody else's.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from appliance.errors import CarrierError

MAX_MESSAGE: Final = 65_536
"""Bytes of one message; nothing that carries a second of audio is longer."""

MAX_PAYLOAD: Final = 16_000
"""Bytes of audio in one message: a second at 8 kHz and 16 bits."""

MAX_TEXT: Final = 256
_MAX_PARAMETERS: Final = 64
_MAX_UNKNOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Started:
    """The stream has said what it is.

    ``codec`` is "pcmu", "pcma" or "l16" (little-endian, 16 bits), ``rate_hz`` its sample rate. ``token`` is the secret
    by which a stream that we asked for is known, "" where it comes unasked. ``called`` and ``calling`` are given where
    the protocol does; ``parameters`` is what the peer says besides.
    """

    stream_id: str
    call_id: str
    codec: str
    rate_hz: int
    token: str = field(default="", repr=False)
    called: str = ""
    calling: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audio:
    """A piece of what the caller says. ``number`` counts them as the peer does, from any beginning."""

    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """The caller pressed a key: one of ``0-9*#A-D``."""

    key: str


@dataclass(frozen=True, slots=True)
class Marked:
    """All that was sent before the mark of this name has been played, or thrown away by a clear."""

    name: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The peer ended the stream; ``reason`` in its words, "" where it gives none."""

    reason: str = ""


StreamEvent: TypeAlias = Started | Audio | Key | Marked | Stopped
Message: TypeAlias = str | bytes


class StreamProtocol(Protocol):
    """One end of one stream.

    Attributes:
        name: of the protocol, as it stands in the configuration and in metrics.
        frame_bytes: how much audio one outgoing message holds at most: 20 ms; 0 before the stream has started.
        marks: whether the peer says what it has played.
        clears: whether it can be told to forget what it was sent. Both are known once the stream has started.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame_bytes(self) -> int: ...
    @property
    def marks(self) -> bool: ...
    @property
    def clears(self) -> bool: ...

    def receive(self, message: Message) -> list[StreamEvent]:
        """Take one message, or any piece of a byte stream.

        Raises:
            CarrierError: it is none of this protocol's, or comes out of turn; the connection is to be closed.
        """
        ...

    def media(self, payload: bytes) -> Message:
        """Audio to be played, in the codec of the stream."""
        ...

    def mark(self, name: str) -> list[Message]:
        """Ask to be told when all that was sent so far has been played."""
        ...

    def clear(self) -> list[Message]:
        """Have everything thrown away that has been sent and not yet played; nothing where ``clears`` is false."""
        ...

    def goodbye(self) -> list[Message]:
        """What is said before the connection is closed."""
        ...


def audio_of(text: str) -> bytes:
    """The bytes of a base64 payload.

    Raises:
        CarrierError: it is not base64, empty, or longer than :data:`MAX_PAYLOAD`.
    """
    try:
        payload = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise CarrierError(f"a media payload is not base64: {error}") from None
    if not 0 < len(payload) <= MAX_PAYLOAD:
        raise CarrierError(f"a media payload of {len(payload)} bytes; 1 to {MAX_PAYLOAD} are taken")
    return payload


def text_of(payload: bytes) -> str:
    """Base64 of audio."""
    return binascii.b2a_base64(payload, newline=False).decode("ascii")


def number_of(value: str | int, what: str) -> int:
    """A counter that the peer writes as a number or as text.

    Raises:
        CarrierError: it is neither, or beyond 63 bits.
    """
    if isinstance(value, str):
        if not value.isascii() or not value.isdecimal() or len(value) > 18:
            raise CarrierError(f"{what} is {value[:20]!r}, not a number")
        return int(value)
    if not 0 <= value < 1 << 63:
        raise CarrierError(f"{what} is out of range")
    return value


def key_of(value: str) -> str:
    """A key as events carry it.

    Raises:
        CarrierError: it is none.
    """
    if len(value) == 1 and value.upper() in "0123456789*#ABCD":
        return value.upper()
    raise CarrierError(f"{value[:20]!r} is not a key")


def parameters_of(found: Mapping[str, str]) -> dict[str, str]:
    """What the peer says besides, bounded and printable."""
    return {printable(name): printable(value) for name, value in list(found.items())[:_MAX_PARAMETERS]}


def printable(text: str) -> str:
    """The beginning of a peer's text, without what would disturb a log."""
    return "".join(char for char in text[:MAX_TEXT] if char.isprintable())


class Unknowns:
    """Events that we do not know are passed over, so that a carrier may add some; a peer of nothing else is ended."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MAX_UNKNOWN

    def pass_over(self, event: str) -> None:
        """Raises: CarrierError where there have been too many."""
        self._left -= 1
        if self._left < 0:
            raise CarrierError(f"too many unknown events, the last of them {printable(event)[:40]!r}")
