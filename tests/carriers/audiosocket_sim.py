"""Asterisk's end of an AudioSocket: a UUID, then what the channel says as signed linear audio, keys, a hang-up.

Asterisk has no buffer of its own for what comes back: each frame goes out to the telephone as it came, and what is sent
ahead fills the telephone's jitter buffer. Source: Asterisk's documents, "AudioSocket", and its ``app_audiosocket``.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Final

from appliance.cli.carrier_caller import CarrierCaller, Message
from appliance.cli.playout import Codec
from appliance.cli.stream_caller import sever
from appliance.errors import CarrierError
from tests.waiting import LIMIT_S

HANGUP, UUID, DTMF, ERROR = 0x00, 0x01, 0x03, 0xFF
KINDS: Final = {8000: 0x10, 12_000: 0x11, 16_000: 0x12, 24_000: 0x13, 32_000: 0x14, 44_100: 0x15, 48_000: 0x16}

JITTER_BUFFER_S: Final = 0.25
"""What a telephone holds at most; Asterisk's own jitter buffer holds 200 ms."""


def message(kind: int, payload: bytes = b"") -> bytes:
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload


class TcpWire:
    """A TCP connection; what comes is given in whole AudioSocket messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.close_code: int | None = None

    def send(self, message: Message) -> None:
        assert isinstance(message, bytes)
        if not self._writer.is_closing():
            self._writer.write(message)

    async def messages(self) -> AsyncIterator[Message]:
        try:
            while True:
                try:
                    head = await self._reader.readexactly(3)
                except asyncio.IncompleteReadError as error:
                    # A clean end between two messages is a hang-up too.
                    self.close_code = None if error.partial else 1000
                    return
                yield head + await self._reader.readexactly(int.from_bytes(head[1:], "big"))
        except (ConnectionError, asyncio.IncompleteReadError):
            return

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def sever(self, within: bytes = b"") -> None:
        raw = self._writer.get_extra_info("socket")
        if raw is not None:
            sever(raw.fileno(), within)


class AudioSocketCaller(CarrierCaller):
    """One call of Asterisk's ``AudioSocket()``.

    Attributes:
        hung_up: the box sent a hang-up, rather than only closing the connection.
    """

    name = "audiosocket"

    def __init__(self, rate_hz: int = 8000, call_id: str = "") -> None:
        super().__init__(Codec("l16", rate_hz))
        self.call_id = call_id or str(uuid.uuid4())
        self.hung_up = False
        self._kind = KINDS[rate_hz]

    @classmethod
    async def open(
        cls, host: str, port: int, *, rate_hz: int = 8000, call_id: str = "", source: str = ""
    ) -> AudioSocketCaller:
        """Connect, from the address ``source`` where given.

        Raises:
            CarrierError: nobody listens there.
        """
        caller = cls(rate_hz, call_id)
        try:
            local = (source, 0) if source else None
            opened = await asyncio.wait_for(asyncio.open_connection(host, port, local_addr=local), LIMIT_S)
        except (OSError, TimeoutError) as error:
            raise CarrierError(f"no AudioSocket at {host}:{port}: {error}") from None
        caller.begin(TcpWire(*opened))
        return caller

    def hello(self) -> list[Message]:
        return [message(UUID, uuid.UUID(self.call_id).bytes)]

    def audio(self, payload: bytes, number: int) -> list[Message]:
        return [message(self._kind, payload)]

    def key(self, digit: str) -> list[Message]:
        return [message(DTMF, digit.encode())]

    def goodbye(self) -> list[Message]:
        return [message(HANGUP)]

    def take(self, message: Message, now: float) -> None:
        assert isinstance(message, bytes)
        kind, payload = message[0], message[3:]
        if self.hung_up:
            raise CarrierError(f"a message of kind 0x{kind:02x} after the hang-up")
        if kind == self._kind:
            if not payload or len(payload) % 2:
                raise CarrierError(f"{len(payload)} bytes of audio are no whole samples")
            self.heard_audio(payload, now)
            if self.playout.end - now > JITTER_BUFFER_S:
                raise CarrierError(f"{self.playout.end - now:.3f} s ahead: telephones throw that away")
        elif kind == HANGUP:
            if payload:
                raise CarrierError("a hang-up with a payload")
            self.hung_up = True
            self._over("them")
        elif kind in KINDS.values():
            raise CarrierError(f"audio of kind 0x{kind:02x} on a channel of kind 0x{self._kind:02x}")
        else:
            raise CarrierError(f"kind 0x{kind:02x} is unknown to Asterisk, which ends the call")
