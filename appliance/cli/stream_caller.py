"""The caller's side of a WebSocket media stream, and Twilio's: what ``appliance bench`` and the tests call with."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import secrets
import socket
import struct
import time
import types
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from appliance.cli.carrier_caller import CarrierCaller, Message
from appliance.cli.playout import Codec
from appliance.errors import CarrierError

MAX_UNSENT: Final = 1500
"""Messages that wait for a box which does not read; a stream that is further behind is closed."""
_CLOSE_S: Final = 3.0


class WebSocketWire:
    """A WebSocket whose frames are sent at once where the peer reads, without a task each."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession | None = None) -> None:
        self._socket = socket_
        self._session = session
        self._unsent: deque[Message] = deque()
        self._draining: asyncio.Task[None] | None = None
        self.close_code: int | None = None

    def send(self, message: Message) -> None:
        if self._socket.closed:
            return
        if self._draining is not None:
            if len(self._unsent) >= MAX_UNSENT:
                self.sever()
                return
            self._unsent.append(message)
            return
        sending = self._sending(message)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            return
        except (ConnectionError, aiohttp.ClientError):
            return
        self._draining = asyncio.create_task(self._drain(waits_for, sending))

    def _sending(self, message: Message) -> Coroutine[Any, Any, None]:
        return self._socket.send_str(message) if isinstance(message, str) else self._socket.send_bytes(message)

    async def _drain(self, waits_for: Any, sending: Coroutine[Any, Any, None]) -> None:
        """Finish a frame that has to wait for the peer, and send what has come behind it."""
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await _rest(waits_for, sending)
            while self._unsent:
                await self._sending(self._unsent.popleft())
        self._draining = None

    async def messages(self) -> AsyncIterator[Message]:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            async for message in self._socket:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    yield message.data
        self.close_code = self._socket.close_code

    async def close(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
        with contextlib.suppress(ConnectionError, aiohttp.ClientError, TimeoutError):
            await asyncio.wait_for(self._socket.close(code=1000), _CLOSE_S)
        if self.close_code is None:
            self.close_code = self._socket.close_code
        if self._session is not None:
            await self._session.close()

    def sever(self, within: bytes = b"") -> None:
        raw = self._socket.get_extra_info("socket")
        if raw is not None:
            sever(raw.fileno(), within)


@types.coroutine
def _rest(waits_for: Any, begun: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """What is left of a coroutine that has been sent None once and waits for something."""
    yield waits_for
    yield from begun


def sever(descriptor: int, within: bytes = b"") -> None:
    """Send ``within`` and reset the TCP connection."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as raw:
        if within:
            raw.send(within)
        else:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RDWR)


async def connect(
    url: str,
    *,
    session: aiohttp.ClientSession | None = None,
    headers: Mapping[str, str] | None = None,
    protocols: Sequence[str] = (),
    timeout_s: float = 10.0,
) -> WebSocketWire:
    """Open a WebSocket.

    Raises:
        CarrierError: nobody answers there, or not with a WebSocket.
    """
    own = aiohttp.ClientSession() if session is None else None
    try:
        async with asyncio.timeout(timeout_s):
            opened = await (session or own or aiohttp.ClientSession()).ws_connect(
                url, headers=dict(headers or {}), protocols=tuple(protocols), max_msg_size=1 << 22, autoclose=True
            )
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        if own is not None:
            await own.close()
        status = getattr(error, "status", None)
        said = f"refused with {status}" if status else str(error) or type(error).__name__
        raise CarrierError(f"no stream at {url.partition('?')[0]}: {said}") from None
    return WebSocketWire(opened, own)


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    payload: str


class _Name(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Media(msgspec.Struct, tag_field="event", tag="media", rename="camel", forbid_unknown_fields=True):
    stream_sid: str
    media: _Payload


class _Mark(msgspec.Struct, tag_field="event", tag="mark", rename="camel", forbid_unknown_fields=True):
    stream_sid: str
    mark: _Name


class _Clear(msgspec.Struct, tag_field="event", tag="clear", rename="camel", forbid_unknown_fields=True):
    stream_sid: str


_FROM_BOX: Final = msgspec.json.Decoder(_Media | _Mark | _Clear)


def sid(prefix: str) -> str:
    """A name as Twilio makes them: two letters and 32 hexadecimal digits."""
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True)
class TwilioStreamOf:
    """Which call a stream is of, and what its TwiML gave it."""

    account_sid: str = field(default_factory=lambda: sid("AC"))
    call_sid: str = field(default_factory=lambda: sid("CA"))
    parameters: Mapping[str, str] = field(default_factory=dict)


class TwilioCaller(CarrierCaller):
    """A bidirectional Media Stream as Twilio opens it: mu-law at 8 kHz in JSON messages.

    Source: Twilio's documents on Media Streams, "WebSocket messages".
    """

    name = "twilio"

    def __init__(self, of: TwilioStreamOf | None = None) -> None:
        super().__init__(Codec("pcmu"))
        self.of = of or TwilioStreamOf()
        self.stream_sid = sid("MZ")
        self.marks_answered: list[tuple[float, str]] = []
        self._sequence = 0
        self._head = ""
        self._tail = f'"}},"streamSid":"{self.stream_sid}"}}'

    @classmethod
    async def open(
        cls,
        url: str,
        of: TwilioStreamOf | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> TwilioCaller:
        """Connect to ``url`` and begin the stream.

        Raises:
            CarrierError: nobody answers there, or not with a WebSocket.
        """
        caller = cls(of)
        caller.begin(await connect(url, session=session, headers=headers, timeout_s=timeout_s))
        return caller

    def hello(self) -> list[Message]:
        start = {
            "accountSid": self.of.account_sid,
            "streamSid": self.stream_sid,
            "callSid": self.of.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(self.of.parameters),
        }
        return [
            json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}),
            self._event("start", start=start),
        ]

    def audio(self, payload: bytes, number: int) -> list[Message]:
        self._sequence += 1
        coded = binascii.b2a_base64(payload, newline=False).decode("ascii")
        return [
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound","chunk":"{number}",'
            f'"timestamp":"{number * 20}","payload":"{coded}{self._tail}'
        ]

    def key(self, digit: str) -> list[Message]:
        return [self._event("dtmf", dtmf={"track": "inbound_track", "digit": digit})]

    def marked(self, name: str) -> list[Message]:
        self.marks_answered.append((time.monotonic(), name))
        return [self._event("mark", mark={"name": name})]

    def goodbye(self) -> list[Message]:
        return [self._event("stop", stop={"accountSid": self.of.account_sid, "callSid": self.of.call_sid})]

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, bytes):
            raise CarrierError(f"a binary message of {len(message)} bytes; Media Streams are text")
        try:
            said = _FROM_BOX.decode(message)
        except msgspec.MsgspecError as error:
            raise CarrierError(f"{error}: {message[:120]!r}") from None
        if said.stream_sid != self.stream_sid:
            raise CarrierError(f"streamSid {said.stream_sid[:40]!r} is not of this stream")
        if isinstance(said, _Media):
            self.heard_audio(mulaw_of(said.media.payload), now)
        elif isinstance(said, _Mark):
            if not said.mark.name:
                raise CarrierError("a mark without a name")
            self.heard_mark(said.mark.name, now)
        else:
            self.heard_clear(now)

    def _event(self, event: str, **parts: object) -> str:
        self._sequence += 1
        numbered = {"event": event, "sequenceNumber": str(self._sequence), **parts, "streamSid": self.stream_sid}
        return json.dumps(numbered)


def mulaw_of(text: str) -> bytes:
    """The bytes of a payload.

    Raises:
        CarrierError: it is no base64, empty, or begins as an audio file does, which Twilio would play as noise.
    """
    try:
        payload = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise CarrierError(f"a payload that is no base64: {error}") from None
    if not payload:
        raise CarrierError("an empty payload")
    if payload.startswith((b"RIFF", b"ID3", b"OggS")):
        raise CarrierError("the payload has the header of an audio file")
    return payload
