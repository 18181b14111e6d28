"""A caller by SIP and RTP with the interface of those on media streams, so that one script drives either.

Signalling is the bare one of :mod:`tests.bench.uac`; what comes is stamped by the kernel.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Final

import numpy as np

from appliance.cli.carrier_caller import CarrierCaller, Message
from appliance.cli.playout import GAP_S, Codec, Gap, Pcm, Piece, Playout
from appliance.errors import CarrierError, RtpError
from appliance.rtp.packet import build, parse
from tests.bench.uac import BareCall, BareUac
from tests.peers.capture import SO_TIMESTAMPNS

FRAME_SAMPLES: Final = 160
BREAK_S: Final = 0.03
"""Sound that comes back later than this after the last of it was interrupted."""
_TIMESPEC: Final = struct.Struct("qq")
_BUFFER_BYTES: Final = 1 << 18
_PCMU: Final = 0
_DIAL_TIMEOUT_S: Final = 15.0


class RtpPlayout(Playout):
    """What arrives by RTP, each packet heard when it came: silence is sent as well, and is no sound."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._sampled: list[float] = []
        self._first: int | None = None
        self._anchor = 0.0
        self._sounded = 0.0

    @property
    def end(self) -> float:
        """When the last of what has sounded was over."""
        return self._sounded

    def stamped(self, timestamp: int, payload: bytes, now: float) -> Piece:
        """A packet has arrived."""
        if self._first is None:
            self._first, self._anchor = timestamp, now
        sampled = ((timestamp - self._first + (1 << 31)) % (1 << 32) - (1 << 31)) / self.codec.rate_hz
        self._sampled.append(sampled)
        self._anchor = min(self._anchor, now - sampled)
        return self.receive(payload, now)

    def receive(self, payload: bytes, now: float) -> Piece:
        piece = Piece(now, payload, self.codec.loud(payload))
        self.pieces.append(piece)
        self._end = now + self.duration(piece)
        self._cleared = False
        if not piece.loud:
            return piece
        dry_s = now - self._sounded
        if dry_s > BREAK_S:
            self._new_run = True
            if dry_s <= GAP_S and self._caller_at <= self._sounded:
                self.gaps.append(Gap(self._sounded, dry_s))
        self._sounded = self._end
        if self._asked_at is not None and self._new_run:
            self.turns.append((self._asked_at, now))
            self._asked_at = None
        return piece

    def when(self, index: int) -> float:
        """The time of a piece by its timestamp, behind the packet that was the quickest: without the jitter."""
        return self._anchor + self._sampled[index]

    def heard(self, since: float, until: float) -> Pcm:
        """As it was sampled, each packet at its :meth:`when`."""
        return between(self, since, until)


def between(playout: Playout, since: float, until: float, longest_s: float = math.inf) -> Pcm:
    """What was heard from one time to another; what began over ``longest_s`` earlier is not looked at."""
    rate = playout.codec.rate_hz
    out = np.zeros(max(0, round((until - since) * rate)), np.int16)
    for index in range(len(playout.pieces) - 1, -1, -1):
        piece = playout.pieces[index]
        start = playout.when(index) if isinstance(playout, RtpPlayout) else piece.start
        if start < since - longest_s:
            break
        at = round((start - since) * rate)
        if at >= len(out) or at + len(piece.payload) <= 0:
            continue
        samples = playout.codec.decode(piece.payload)
        begin, stop = max(0, at), min(len(out), at + len(samples))
        out[begin:stop] = samples[begin - at : stop - at]
    return out


class RtpWire:
    """A UDP port on loopback. ``came_at`` is when the datagram given last had arrived, of ``time.monotonic``."""

    close_code: int | None = 1000

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self.address: tuple[str, int] = self._socket.getsockname()
        self.came_at = 0.0
        self._closed = asyncio.Event()

    def connect(self, remote: tuple[str, int]) -> None:
        self._socket.connect(remote)

    def send(self, message: Message) -> None:
        if isinstance(message, bytes) and not self._closed.is_set():
            try:
                self._socket.send(message)
            except OSError:
                return  # the box has closed its port; the call's end is seen on its signalling

    async def messages(self) -> AsyncIterator[Message]:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket.fileno(), readable.set)
        try:
            while not self._closed.is_set():
                try:
                    data, ancillary, _, _ = self._socket.recvmsg(2048, 64)
                except OSError:
                    readable.clear()
                    await readable.wait()
                    continue
                seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                self.came_at = time.monotonic() - (time.time() - seconds - nanoseconds * 1e-9)
                yield data
        finally:
            loop.remove_reader(self._socket.fileno())
            self._socket.close()

    async def close(self) -> None:
        self._closed.set()

    def sever(self, within: bytes = b"") -> None:
        self._closed.set()


class RtpCaller(CarrierCaller):
    """A caller on a softphone that speaks mu-law."""

    name = "sip"

    def __init__(self) -> None:
        codec = Codec("pcmu")
        super().__init__(codec)
        self.playout: RtpPlayout = RtpPlayout(codec)
        self._ssrc = secrets.randbits(32)
        self._number = secrets.randbelow(1 << 15)
        self._rtp = RtpWire()
        self._call: BareCall | None = None

    async def dial(self, uac: BareUac, uri: str) -> None:
        """Call, and begin to speak once answered.

        Raises:
            CallFailed: refused, or not answered.
            CarrierError: answered with another codec.
        """
        call = await uac.dial(uri, self._rtp.address, _DIAL_TIMEOUT_S)
        if call.answer.codecs.payload_type != _PCMU:
            raise CarrierError(f"answered with payload type {call.answer.codecs.payload_type}, not mu-law")
        self._call = call
        self._rtp.connect(call.answer.remote)
        call.ended.add_done_callback(lambda ended: None if ended.cancelled() else self._over(ended.result()))
        self.begin(self._rtp)

    @property
    def call_id(self) -> str:
        return self._call.call_id if self._call is not None else ""

    async def hang_up(self) -> None:
        await super().hang_up()
        if self._call is not None:
            await self._call.hangup()

    def hello(self) -> list[Message]:
        return []

    def audio(self, payload: bytes, number: int) -> list[Message]:
        sequence = (self._number + number) & 0xFFFF
        return [build(_PCMU, sequence, number * FRAME_SAMPLES & 0xFFFFFFFF, self._ssrc, payload, number == 1)]

    def take(self, message: Message, now: float) -> None:
        try:
            packet = parse(message if isinstance(message, bytes) else message.encode())
        except RtpError as error:
            raise CarrierError(str(error)) from None
        if packet.payload_type == _PCMU:
            self.playout.stamped(packet.timestamp, packet.payload, self._rtp.came_at)

    def key(self, digit: str) -> list[Message]:
        raise CarrierError("this caller has no keys")
