"""Audio of a PBX over a WebSocket: binary messages are audio, text messages are about it. PURE.

Two programs speak so. Asterisk's ``chan_websocket`` (20.16, 21.11, 22.6, 23.0 and later) begins with ``MEDIA_START``,
as a line of words or as JSON, and answers commands in the same manner. FreeSWITCH's ``mod_audio_stream`` begins with
whatever text its ``uuid_audio_stream`` was given, or with audio at once; it sends L16, and plays binary messages (from
version 1.0.3). Which of them it is shows in the first messages. Marks came
to Asterisk with JSON or before, so that they are asked for in JSON only: one that is never answered would hold the
audio back. Sources: Asterisk's documents, "WebSocket channel
driver"; the README of mod_audio_stream.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from appliance.api.streams import (
    MAX_MESSAGE,
    MAX_PAYLOAD,
    MAX_TEXT,
    Audio,
    Key,
    Marked,
    Message,
    Started,
    Stopped,
    StreamEvent,
    Unknowns,
    key_of,
    parameters_of,
    printable,
)
from appliance.errors import CarrierError

RATES: Final = (8_000, 16_000, 24_000, 32_000, 48_000)
_FORMATS: Final = {
    "ulaw": ("pcmu", 8_000), "alaw": ("pcma", 8_000), "slin": ("l16", 8_000), "slin16": ("l16", 16_000),
    "slin24": ("l16", 24_000), "slin32": ("l16", 32_000), "slin48": ("l16", 48_000),
}  # fmt: skip
_EARLY: Final = 10
"""Audio messages that Asterisk may send before MEDIA_START, which it should not (its issue 1712)."""
_PASSED_OVER: Final = frozenset({"MEDIA_XON", "MEDIA_XOFF", "STATUS", "MEDIA_BUFFERING_COMPLETED", "QUEUE_DRAINED"})


class PbxStream:
    """One connection of a PBX.

    Args:
        rate_hz: of FreeSWITCH's audio, which it does not say itself: from the URL that it was given; 0 where that says
            nothing, which is 8000.
        call_id, called, calling: from the URL too; "" where it says nothing.
    """

    name: ClassVar[str] = "pbx"

    def __init__(self, rate_hz: int = 0, call_id: str = "", called: str = "", calling: str = "") -> None:
        if rate_hz and rate_hz not in RATES:
            raise CarrierError(f"rate={rate_hz} is not among {', '.join(map(str, RATES))}")
        self.frame_bytes = 0
        self.marks = self.clears = False
        self._rate_hz = rate_hz or RATES[0]
        self._early = 0 if rate_hz else _EARLY
        self._call_id = call_id
        self._parties = called, calling
        self._json = False
        self._asterisk = False
        self._number = 0
        self._over = False
        self._unknowns = Unknowns()

    def receive(self, message: Message) -> list[StreamEvent]:
        if self._over:
            return []
        if isinstance(message, bytes):
            return self._audio(message)
        if len(message) > MAX_MESSAGE:
            raise CarrierError(f"a message of {len(message)} bytes; at most {MAX_MESSAGE} are taken")
        words = _read(message)
        if words is None:
            if self.frame_bytes:
                self._unknowns.pass_over(message[:MAX_TEXT])
                return []
            return [self._begin("l16", self._rate_hz, {"text": message})]
        return self._told(words)

    def _audio(self, payload: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if len(payload) > MAX_PAYLOAD * 6:
            raise CarrierError(f"{len(payload)} bytes of audio in one message; at most {MAX_PAYLOAD * 6} are taken")
        if not self.frame_bytes:
            self._early -= 1
            if self._early >= 0:
                return []
            events.append(self._begin("l16", self._rate_hz, {}))
        if payload:
            self._number += 1
            events.append(Audio(self._number, payload))
        return events

    def _begin(self, codec: str, rate_hz: int, parameters: dict[str, str]) -> Started:
        self.frame_bytes = rate_hz // 50 * (2 if codec == "l16" else 1)
        called, calling = self._parties
        return Started(
            self._call_id,
            self._call_id,
            codec,
            rate_hz,
            called=called,
            calling=calling,
            parameters=parameters_of(parameters),
        )

    def _told(self, words: dict[str, Any]) -> list[StreamEvent]:
        event = str(words.get("event", ""))
        if event == "MEDIA_START":
            if self.frame_bytes:
                raise CarrierError("MEDIA_START comes twice")
            form = str(words.get("format", "slin"))
            if form not in _FORMATS:
                raise CarrierError(
                    f"format {printable(form)[:20]!r} is not taken; dial with c(ulaw), c(alaw) or c(slin16)"
                )
            self._asterisk = self.clears = True
            self._json = self.marks = bool(words.pop("json", False))
            self._call_id = self._call_id or printable(str(words.get("channel_id") or words.get("connection_id") or ""))
            given = words.get("channel_variables")
            named = {name: value for name, value in words.items() if isinstance(value, str)}
            variables = {str(n): str(v) for n, v in given.items()} if isinstance(given, dict) else {}
            return [self._begin(*_FORMATS[form], named | variables)]
        if not self.frame_bytes:
            if self._call_id or "event" not in words:
                return [self._begin("l16", self._rate_hz, {n: str(v) for n, v in words.items() if n != "json"})]
            raise CarrierError(f"{printable(event)[:40]!r} comes before MEDIA_START")
        if event == "DTMF_END":
            return [Key(key_of(str(words.get("digit", ""))))]
        if event == "MEDIA_MARK_PROCESSED":
            return [Marked(str(words.get("id") or words.get("correlation_id") or ""))]
        if event not in _PASSED_OVER:
            self._unknowns.pass_over(event)
        return []

    def media(self, payload: bytes) -> bytes:
        return payload

    def mark(self, name: str) -> list[Message]:
        return self._command("MARK_MEDIA", name) if self.marks else []

    def clear(self) -> list[Message]:
        if self._asterisk:
            return self._command("FLUSH_MEDIA")
        return []

    def goodbye(self) -> list[Message]:
        return self._command("HANGUP") if self._asterisk else []

    def _command(self, name: str, argument: str = "") -> list[Message]:
        if not self._json:
            return [f"{name} {argument}" if argument else name]
        words = {"command": name} | ({"correlation_id": argument} if argument else {})
        return [msgspec.json.encode(words).decode()]

    def closed(self) -> list[StreamEvent]:
        """The peer has closed the connection: that is how a PBX says goodbye."""
        self._over = True
        return [Stopped()]


def _read(message: str) -> dict[str, Any] | None:
    """An event in either manner: JSON, or a word and ``name:value`` pairs; None for any other text.

    In the latter a value without a name is the ``correlation_id``: MEDIA_MARK_PROCESSED comes so.
    """
    if message.startswith("{"):
        try:
            words = msgspec.json.decode(message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        return words | {"json": True} if isinstance(words, dict) else None
    first, *rest = message.split() or [""]
    if not first.isupper() or not first.replace("_", "").isalnum():
        return None
    named = (word if ":" in word else f"correlation_id:{word}" for word in rest)
    pairs = (word.partition(":") for word in named)
    return {"event": first, **{name: value for name, _, value in pairs}}
