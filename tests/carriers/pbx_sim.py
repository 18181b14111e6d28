"""PBXs that open a WebSocket for a call's audio: Asterisk's chan_websocket and FreeSWITCH's mod_audio_stream.

Sources: Asterisk's documents, "WebSocket channel driver", and what its events look like on the wire (channels of
Asterisk 22.7); the README of mod_audio_stream.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from appliance.cli.carrier_caller import CarrierCaller, Message
from appliance.cli.playout import Codec
from appliance.cli.stream_caller import connect
from appliance.errors import CarrierError

FORMATS: Final = {
    "ulaw": Codec("pcmu"), "alaw": Codec("pcma"), "slin": Codec("l16"), "slin16": Codec("l16", 16_000),
    "slin24": Codec("l16", 24_000), "slin48": Codec("l16", 48_000),
}  # fmt: skip
MAX_COMMAND: Final = 128
"""Bytes of a text message; Asterisk ignores longer ones."""
QUEUE_S: Final = 20.0
"""1000 frames; what is sent beyond it is thrown away."""
XOFF_S: Final = 18.0
XON_S: Final = 16.0
_COMMANDS: Final = {
    "ANSWER", "HANGUP", "START_MEDIA_BUFFERING", "STOP_MEDIA_BUFFERING", "FLUSH_MEDIA", "PAUSE_MEDIA",
    "CONTINUE_MEDIA", "MARK_MEDIA", "GET_STATUS", "REPORT_QUEUE_DRAINED", "SET_MEDIA_DIRECTION",
}  # fmt: skip
_WITH_ID: Final = {"MARK_MEDIA", "STOP_MEDIA_BUFFERING"}
_MAX_RAW: Final = 65_536


class AsteriskCaller(CarrierCaller):
    """One call of ``Dial(WebSocket/...)``.

    Args:
        form: ``c()`` of the dial string.
        as_json: ``f(json)``; else plain text, which is Asterisk's default.
        variables: of the channel; plain text cannot carry them.

    Attributes:
        commands: what the box sent, by name, in order.
        paused: by the box.
    """

    name = "asterisk"

    def __init__(self, form: str = "ulaw", as_json: bool = True, variables: Mapping[str, str] | None = None) -> None:
        super().__init__(FORMATS[form])
        self.form = form
        self.as_json = as_json
        self.variables = dict(variables or {})
        self.connection_id = str(uuid.uuid4())
        self.channel_id = f"pbx-{time.time():.0f}.{uuid.uuid4().int % 1000}"
        self.commands: list[str] = []
        self.paused = False
        self.answered = False
        self.marks_answered: list[tuple[float, str]] = []
        self._frame_bytes = self.codec.rate_hz // 50 * self.codec.sample_bytes
        self._xoff = False
        self._xon_timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        session: aiohttp.ClientSession | None = None,
        protocols: tuple[str, ...] = ("media",),
        **more: Any,
    ) -> AsteriskCaller:
        """Connect as Asterisk does, with the sub-protocol ``media``. Raises: CarrierError."""
        caller = cls(**more)
        caller.begin(await connect(url, session=session, protocols=protocols))
        return caller

    def hello(self) -> list[Message]:
        known = {
            "connection_id": self.connection_id, "channel": f"WebSocket/box/{id(self):#x}",
            "channel_id": self.channel_id, "format": self.form, "optimal_frame_size": self._frame_bytes, "ptime": 20,
        }  # fmt: skip
        if self.as_json:
            return [json.dumps({"event": "MEDIA_START", **known, "channel_variables": self.variables})]
        return ["MEDIA_START " + " ".join(f"{name}:{value}" for name, value in known.items())]

    def audio(self, payload: bytes, number: int) -> list[Message]:
        return [payload]

    def key(self, digit: str) -> list[Message]:
        if self.as_json:
            return [self._json("DTMF_END", digit=digit)]
        return [f"DTMF_END digit:{digit} channel_id:{self.channel_id}"]

    def marked(self, name: str) -> list[Message]:
        self.marks_answered.append((time.monotonic(), name))
        if self.as_json:
            return [self._json("MEDIA_MARK_PROCESSED", correlation_id=name)]
        # In plain text the id stands by itself, unlike the fields of other events.
        return [f"MEDIA_MARK_PROCESSED {name}".rstrip()]

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, bytes):
            self._audio_came(message, now)
            return
        if len(message.encode()) > MAX_COMMAND:
            raise CarrierError(f"a command of {len(message)} bytes; Asterisk ignores what is longer than {MAX_COMMAND}")
        name, argument = self._command(message)
        self.commands.append(name)
        if name == "MARK_MEDIA":
            self.heard_mark(argument, now)
        elif name == "FLUSH_MEDIA":
            # Marks that are in the queue go with it, unanswered.
            self.playout.clear(now)
            if self._mark_timer is not None:
                self._mark_timer.cancel()
                self._mark_timer = None
            self.paused = False
        elif name == "HANGUP":
            self._over("them")
        elif name == "ANSWER":
            self.answered = True
        elif name == "GET_STATUS":
            self._send_status()

    def _audio_came(self, payload: bytes, now: float) -> None:
        if not payload:
            raise CarrierError("an empty binary message")
        if self.playout.end - now >= QUEUE_S:
            raise CarrierError("the queue is full: more than 1000 frames are waiting, this one is thrown away")
        whole = len(payload) // self._frame_bytes * self._frame_bytes
        if whole:
            self.heard_audio(payload[:whole], now)
        if self.playout.end - now > XOFF_S and not self._xoff:
            self._xoff = True
            self._send(self._json("MEDIA_XOFF") if self.as_json else "MEDIA_XOFF")
            left = self.playout.end - now - XON_S
            self._xon_timer = asyncio.get_running_loop().call_later(left, self._xon)
        if whole != len(payload):
            raise CarrierError(f"{len(payload)} bytes are not whole frames of {self._frame_bytes}; the rest is lost")

    def _xon(self) -> None:
        self._xoff = False
        self._send(self._json("MEDIA_XON") if self.as_json else "MEDIA_XON")

    def _over(self, by: str) -> None:
        if self._xon_timer is not None:
            self._xon_timer.cancel()
        super()._over(by)

    def _command(self, message: str) -> tuple[str, str]:
        if self.as_json:
            try:
                words = json.loads(message)
                name, argument = words.pop("command"), words.pop("correlation_id", "")
            except (ValueError, LookupError, AttributeError):
                raise CarrierError(f"no command in JSON: {message!r}") from None
            if words:
                raise CarrierError(f"{name} with {sorted(words)}")
        else:
            name, _, argument = message.strip().partition(" ")
        if name not in _COMMANDS:
            raise CarrierError(f"the command {name!r} is unknown to Asterisk")
        if argument and name not in _WITH_ID:
            raise CarrierError(f"{name} takes no {argument!r}")
        return name, argument

    def _send_status(self) -> None:
        frames = round(max(0.0, self.playout.end - time.monotonic()) / 0.02)
        known: dict[str, Any] = {
            "queue_length": frames, "xon_level": 800, "xoff_level": 900, "queue_full": self._xoff, "bulk_media": False,
            "media_paused": self.paused,
        }  # fmt: skip
        if self.as_json:
            self._send(self._json("STATUS", **known))
        else:
            words = " ".join(f"{name}:{json.dumps(value)}" for name, value in known.items())
            self._send(f"STATUS channel_id:{self.channel_id} {words}")

    def _json(self, event: str, **more: Any) -> str:
        return json.dumps({"event": event, "channel_id": self.channel_id, **more})


class FreeSwitchCaller(CarrierCaller):
    """One call of ``uuid_audio_stream UUID start URL mono RATE METADATA``: L16 both ways, no marks, no clear.

    The rate of what comes back is that of what goes out. Text of the box is handed to the dialplan as an event; a box
    that only plays audio has none to send.
    """

    name = "freeswitch"

    def __init__(self, rate_hz: int = 8000, metadata: str = "") -> None:
        super().__init__(Codec("l16", rate_hz))
        self.metadata = metadata
        self.texts: list[str] = []

    @classmethod
    async def open(cls, url: str, *, session: aiohttp.ClientSession | None = None, **more: Any) -> FreeSwitchCaller:
        """Raises: CarrierError."""
        caller = cls(**more)
        caller.begin(await connect(url, session=session))
        return caller

    def hello(self) -> list[Message]:
        return [self.metadata] if self.metadata else []

    def audio(self, payload: bytes, number: int) -> list[Message]:
        return [payload]

    def key(self, digit: str) -> list[Message]:
        """The module knows no keys; a dialplan may send some as text (``uuid_audio_stream UUID send_text``)."""
        return [json.dumps({"event": "DTMF_END", "digit": digit})]

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, str):
            self.texts.append(message)
            raise CarrierError(f"a text message, for which there is no use: {message[:60]!r}")
        if not message or len(message) > _MAX_RAW:
            raise CarrierError(f"{len(message)} bytes of audio in one message; small ones are meant")
        self.heard_audio(message, now)
