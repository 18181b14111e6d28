"""The message set of Twilio Media Streams, which other carriers have taken over with names of their own. PURE.

Text messages in JSON: ``connected``, ``start``, ``media``, ``dtmf``, ``mark`` and ``stop`` come; ``media``, ``mark``
and ``clear`` go. Audio is base64 of 20 ms in the codec that ``start`` names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Generic, TypeVar

import msgspec

from appliance.api.streams import (
    MAX_MESSAGE,
    Audio,
    Key,
    Marked,
    Message,
    Started,
    Stopped,
    StreamEvent,
    Unknowns,
    audio_of,
    key_of,
    number_of,
    printable,
    text_of,
)
from appliance.errors import CarrierError

Start = TypeVar("Start", bound=msgspec.Struct)
_CODECS: Final = {"audio/x-mulaw": "pcmu", "pcmu": "pcmu", "audio/x-alaw": "pcma", "pcma": "pcma", "l16": "l16"}
_FRAME_MS: Final = 20


class Media(msgspec.Struct):
    payload: str
    chunk: str | int | None = None
    track: str = "inbound"


class Dtmf(msgspec.Struct):
    digit: str


class Mark(msgspec.Struct):
    name: str


class Frame(msgspec.Struct, Generic[Start]):
    """Any message: the part that its event names must be there."""

    event: str
    start: Start | None = None
    media: Media | None = None
    dtmf: Dtmf | None = None
    mark: Mark | None = None


class JsonStream(ABC, Generic[Start]):
    """One stream; a subclass knows how its carrier writes ``start`` and the messages that go back."""

    name: ClassVar[str]
    frame_type: ClassVar[type]
    marks: Final = True
    clears: Final = True

    def __init__(self) -> None:
        self.frame_bytes = 0
        self._decoder: msgspec.json.Decoder[Frame[Start]] = msgspec.json.Decoder(self.frame_type)
        self._unknowns = Unknowns()
        self._over = False
        self._chunk = -1

    @abstractmethod
    def started(self, start: Start) -> Started:
        """What the carrier's ``start`` says.

        Raises:
            CarrierError: we cannot serve it.
        """

    def outgoing(self, event: str, **parts: object) -> str:
        """One message as the carrier wants it."""
        return msgspec.json.encode({"event": event, **parts}).decode()

    def receive(self, message: Message) -> list[StreamEvent]:
        if self._over:
            return []
        if len(message) > MAX_MESSAGE:
            raise CarrierError(f"a message of {len(message)} bytes; at most {MAX_MESSAGE} are taken")
        try:
            frame = self._decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise CarrierError(f"a message is not of {self.name} media streams: {printable(str(error))}") from None
        return self._take(frame)

    def _take(self, frame: Frame[Start]) -> list[StreamEvent]:
        event = frame.event
        if event == "connected":
            return []
        if event == "start":
            if self.frame_bytes:
                raise CarrierError("start comes twice")
            started = self.started(_part(frame.start, event))
            self.frame_bytes = started.rate_hz * _FRAME_MS // 1000 * (2 if started.codec == "l16" else 1)
            return [started]
        if not self.frame_bytes:
            raise CarrierError(f"{printable(event)[:40]!r} comes before start")
        if event == "media":
            media = _part(frame.media, event)
            if media.track != "inbound":
                return []
            # Audio that has no number is the next.
            self._chunk = self._chunk + 1 if media.chunk is None else number_of(media.chunk, "chunk")
            return [Audio(self._chunk, audio_of(media.payload))]
        if event == "dtmf":
            return [Key(key_of(_part(frame.dtmf, event).digit))]
        if event == "mark":
            return [Marked(_part(frame.mark, event).name)]
        if event == "stop":
            self._over = True
            return [Stopped()]
        self._unknowns.pass_over(event)
        return []

    def media(self, payload: bytes) -> str:
        return self.outgoing("media", media={"payload": text_of(payload)})

    def mark(self, name: str) -> list[Message]:
        return [self.outgoing("mark", mark={"name": name})]

    def clear(self) -> list[Message]:
        return [self.outgoing("clear")]

    def goodbye(self) -> list[Message]:
        return []


def codec_of(encoding: str, rate_hz: int, channels: int) -> str:
    """Our name of the codec that a media format is about.

    Raises:
        CarrierError: we do not have it, or it is not one channel at its usual rate.
    """
    codec = _CODECS.get(encoding.lower())
    if codec is None or channels != 1:
        raise CarrierError(
            f"audio of {printable(encoding)[:40]!r} with {channels} channels; "
            "have the carrier send one channel of mu-law, A-law or L16"
        )
    if rate_hz != 8000 and (codec != "l16" or rate_hz not in (16_000, 24_000, 48_000)):
        raise CarrierError(f"{codec} at {rate_hz} Hz is not taken; have the carrier send 8000 Hz")
    return codec


Part = TypeVar("Part")


def _part(part: Part | None, event: str) -> Part:
    if part is None:
        raise CarrierError(f"the {event!r} message has no {event!r} in it")
    return part
