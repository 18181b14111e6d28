"""The stream of a caller at Telnyx, as Telnyx opens it: messages in JSON, bidirectional in RTP mode.

Source: Telnyx's documents, "Stream call media over WebSocket".
"""

from __future__ import annotations

import binascii
import json
import random
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec

from appliance.cli.carrier_caller import CarrierCaller, Message
from appliance.cli.playout import Codec
from appliance.cli.stream_caller import connect, mulaw_of
from appliance.errors import CarrierError

_LEAST_S, _MOST_S = 0.02, 30.0
_CODECS: Final = {"PCMU": "pcmu", "PCMA": "pcma", "L16": "l16"}


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    payload: str


class _Name(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Media(msgspec.Struct, tag_field="event", tag="media", forbid_unknown_fields=True):
    media: _Payload
    stream_id: str = ""


class _Mark(msgspec.Struct, tag_field="event", tag="mark", forbid_unknown_fields=True):
    mark: _Name
    stream_id: str = ""


class _Clear(msgspec.Struct, tag_field="event", tag="clear", forbid_unknown_fields=True):
    stream_id: str = ""


_FROM_BOX: Final = msgspec.json.Decoder(_Media | _Mark | _Clear)


@dataclass
class Disorder:
    """What a network does to the caller's audio: shares of chunks that are lost, doubled, or late by one."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    seed: int = 1


class TelnyxCaller(CarrierCaller):
    """One bidirectional stream of Telnyx's."""

    name = "telnyx"

    def __init__(
        self, call_control_id: str = "", *, codec: str = "PCMU", disorder: Disorder | None = None, **start: str
    ) -> None:
        super().__init__(Codec(_CODECS[codec], 16_000 if codec == "L16" else 8_000))
        self.stream_id = str(uuid.uuid4()).upper()
        self.call_control_id = call_control_id or f"v3:{uuid.uuid4().hex}"
        self.marks_answered: list[tuple[float, str]] = []
        self._codec_name = codec
        self._start = start
        self._sequence = 0
        self._disorder = disorder or Disorder()
        self._chance = random.Random(self._disorder.seed)
        self._late: list[Message] = []

    @classmethod
    async def open(cls, url: str, session: aiohttp.ClientSession | None = None, **more: Any) -> TelnyxCaller:
        """Raises: CarrierError where nobody answers, or not with a WebSocket."""
        caller = cls(**more)
        caller.begin(await connect(url, session=session))
        return caller

    def hello(self) -> list[Message]:
        form = {"encoding": self._codec_name, "sample_rate": self.codec.rate_hz, "channels": 1}
        start = {
            "user_id": str(uuid.uuid4()), "call_control_id": self.call_control_id,
            "call_session_id": str(uuid.uuid4()), "from": "+491711234567", "to": "+4930123456", "client_state": "",
            "media_format": form, **self._start,
        }  # fmt: skip
        return [json.dumps({"event": "connected", "version": "1.0.0"}), self._event("start", start=start)]

    def audio(self, payload: bytes, number: int) -> list[Message]:
        coded = binascii.b2a_base64(payload, newline=False).decode("ascii")
        media = {"track": "inbound", "chunk": str(number), "timestamp": str(number * 20), "payload": coded}
        message = self._event("media", media=media)
        late, self._late = self._late, []
        if self._chance.random() < self._disorder.lost:
            return late
        if self._chance.random() < self._disorder.late:
            self._late = [message]
            return late
        return [message, *late] + ([message] if self._chance.random() < self._disorder.doubled else [])

    def key(self, digit: str) -> list[Message]:
        return [self._event("dtmf", occurred_at=now_text(), dtmf={"digit": digit})]

    def marked(self, name: str) -> list[Message]:
        self.marks_answered.append((time.monotonic(), name))
        return [self._event("mark", mark={"name": name})]

    def goodbye(self) -> list[Message]:
        return [self._event("stop", stop={"user_id": str(uuid.uuid4()), "call_control_id": self.call_control_id})]

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, bytes):
            raise CarrierError(f"a binary message of {len(message)} bytes; media streams are text")
        try:
            said = _FROM_BOX.decode(message)
        except msgspec.MsgspecError as error:
            # Telnyx says so, and goes on.
            told = {"code": 100003, "title": "malformed_frame", "detail": str(error)}
            self._send(json.dumps({"event": "error", "payload": told, "stream_id": self.stream_id}))
            raise CarrierError(f"{error}: {message[:120]!r}") from None
        if said.stream_id and said.stream_id != self.stream_id:
            raise CarrierError(f"stream_id {said.stream_id[:40]!r} is not of this stream")
        if isinstance(said, _Media):
            payload = mulaw_of(said.media.payload)
            seconds = len(payload) / self.codec.rate_hz / self.codec.sample_bytes
            if not _LEAST_S <= seconds <= _MOST_S:
                raise CarrierError(f"a chunk of {seconds * 1000:.1f} ms; 20 ms to 30 s are taken")
            self.heard_audio(payload, now)
        elif isinstance(said, _Mark):
            self.heard_mark(said.mark.name, now)
        else:
            self.heard_clear(now)

    def _event(self, event: str, **parts: object) -> str:
        self._sequence += 1
        return json.dumps(
            {"event": event, "sequence_number": str(self._sequence), **parts, "stream_id": self.stream_id}
        )


def now_text() -> str:
    """The time as Telnyx writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
