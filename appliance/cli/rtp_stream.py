"""One side of an RTP conversation in real time, and an exact account of what the other side sent.

This is the softphone's ear and mouth, made to measure with: packets leave on an absolute 20 ms clock, arrivals carry
the kernel's own receive time, and everything heard is kept. Audio is signed 16-bit PCM at 8 kHz; times are seconds of
CLOCK_REALTIME, because that is what the kernel stamps packets with.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.level import FLOOR_DBFS, rms_dbfs_one
from appliance.errors import RtpError
from appliance.rtp.dtmf import DtmfSender
from appliance.rtp.packet import build, parse

Pcm = NDArray[np.int16]

RATE_HZ: Final = 8000
FRAME_SAMPLES: Final = 160
FRAME_S: Final = 0.02
SPEECH_DBFS: Final = -50.0
"""Frames louder than this count as speech; the box sends digital silence when the agent has nothing to say."""

_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("qq")
_PCMA: Final = 8
_MAX_PACKETS: Final = 50 * 3600 * 4


class Arrival(NamedTuple):
    """One audio packet that came. ``at``: kernel receive time; ``level_dbfs``: RMS of its samples."""

    at: float
    sequence: int
    timestamp: int
    level_dbfs: float


@dataclass(frozen=True)
class Codecs:
    """What the two sides agreed on. ``dtmf_payload_type`` is None where telephone-event was not."""

    payload_type: int = 0
    dtmf_payload_type: int | None = 101


class Ticker:
    """One absolute 20 ms clock that sends for every stream of this process.

    Streams are spread over the 20 ms by the caller registering them at different moments of ``phases`` slices, as
    calls of different origin would be.
    """

    def __init__(self, phases: int = 1) -> None:
        self._phases: list[list[RtpStream]] = [[] for _ in range(phases)]
        self._next_phase = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: RtpStream) -> None:
        self._phases[self._next_phase].append(stream)
        self._next_phase = (self._next_phase + 1) % len(self._phases)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, stream: RtpStream) -> None:
        for streams in self._phases:
            if stream in streams:
                streams.remove(stream)
        if self._task is not None and not any(self._phases):
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        step = FRAME_S / len(self._phases)
        due = time.monotonic()
        while True:
            for streams in self._phases:
                for stream in streams:
                    stream.send_frame()
                due += step
                await asyncio.sleep(max(0.0, due - time.monotonic()))


def family_of(host: str) -> socket.AddressFamily:
    """Of a socket that reaches ``host``, an address or a name; names are taken for IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class RtpStream:
    """A UDP socket that sends and receives one call's audio.

    Args:
        host: address to bind.
        ticker: the clock that sends; its own when None.
        keep_audio: keep what is received, for :meth:`received`; arrivals are always kept.
        chance: source of the SSRC and the first sequence number.
    """

    def __init__(
        self,
        host: str,
        *,
        ticker: Ticker | None = None,
        keep_audio: bool = True,
        chance: random.Random | None = None,
    ) -> None:
        chance = chance or random.Random()
        self._ticker = ticker or Ticker()
        self._keep_audio = keep_audio
        self._sock = socket.socket(family_of(host), socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self._sock.bind((host, 0))
        self.host, self.port = self._sock.getsockname()[:2]
        self.arrivals: list[Arrival] = []
        self._audio: list[tuple[int, bytes]] = []
        self.last_speech_at = 0.0
        self.speaking_since = 0.0
        """Kernel time of the packet that began the speech going on (or last heard)."""
        self.foreign = 0
        """Packets of another source or payload type than agreed."""
        self._remote: tuple[str, int] | None = None
        self._codecs = Codecs()
        self._ssrc = chance.getrandbits(32)
        self._sequence = chance.getrandbits(16)
        self._timestamp = chance.getrandbits(32)
        self._queue: deque[tuple[bytes, asyncio.Future[float] | None]] = deque()
        self._keys = DtmfSender()
        self._marker = True
        self._silence = b""
        self._on_arrival: list[Callable[[Arrival], None]] = []
        self._closed = False

    def start(self, remote: tuple[str, int], codecs: Codecs) -> None:
        """Begin to send (silence until something is played) and to listen."""
        self._remote = remote
        self._codecs = codecs
        self._silence = self._encode(np.zeros(FRAME_SAMPLES, np.int16))
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._readable)
        self._ticker.add(self)

    def close(self) -> None:
        """Stop both ways; what was heard stays."""
        if self._closed:
            return
        self._closed = True
        if self._remote is not None:
            self._ticker.remove(self)
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        for _, done in self._queue:
            if done is not None and not done.done():
                done.cancel()
        self._queue.clear()

    # --- speaking -------------------------------------------------------------------------------------------------

    async def play(self, pcm: Pcm, speech_end: int | None = None) -> float:
        """Send ``pcm``; returns the time at which the packet with the end of its speech left.

        ``speech_end`` is that end in samples; when None, the end of the last 10 ms frame within 30 dB of the loudest.
        Cancelled when the call ends first.
        """
        frames = -(-len(pcm) // FRAME_SAMPLES)
        padded = np.zeros(frames * FRAME_SAMPLES, np.int16)
        padded[: len(pcm)] = pcm
        bound = speech_bounds(pcm, RATE_HZ)[1] if speech_end is None else speech_end
        last = min(max(0, -(-bound // FRAME_SAMPLES) - 1), frames - 1)
        loop = asyncio.get_running_loop()
        end: asyncio.Future[float] = loop.create_future()
        sent: asyncio.Future[float] = loop.create_future()
        if self._closed or not frames:
            raise asyncio.CancelledError
        for index in range(frames):
            payload = self._encode(padded[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES])
            self._queue.append((payload, end if index == last else sent if index == frames - 1 else None))
        left_at = await end
        if last != frames - 1:
            await sent
        return left_at

    def send_digits(self, digits: str) -> None:
        """Queue keys as RFC 4733 events.

        Raises:
            ValueError: not a key, or telephone-event was not agreed on.
        """
        if self._codecs.dtmf_payload_type is None:
            raise ValueError("the other side does not take telephone-event; digits cannot be sent")
        self._keys.add(digits)

    def send_frame(self) -> None:
        """Send one packet; the ticker calls this every 20 ms."""
        if self._remote is None or self._closed:
            return
        step = self._keys.next()
        if step is not None and step.payload is not None:
            started = self._timestamp - step.timestamp_age
            self._send(self._codecs.dtmf_payload_type or 0, started, step.payload, step.marker)
        else:
            payload, done = self._queue.popleft() if self._queue and step is None else (self._silence, None)
            self._send(self._codecs.payload_type, self._timestamp, payload, self._marker)
            if done is not None and not done.done():
                done.set_result(time.time())
            self._marker = False
        self._timestamp = (self._timestamp + FRAME_SAMPLES) & 0xFFFFFFFF

    def _send(self, payload_type: int, timestamp: int, payload: bytes, marker: bool) -> None:
        packet = build(payload_type, self._sequence, timestamp & 0xFFFFFFFF, self._ssrc, payload, marker)
        self._sequence = (self._sequence + 1) & 0xFFFF
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self._sock.sendto(packet, self._remote or ("", 0))

    def _encode(self, pcm: Pcm) -> bytes:
        return g711.encode(pcm, self._codecs.payload_type == _PCMA).tobytes()

    # --- listening ------------------------------------------------------------------------------------------------

    def on_arrival(self, heard: Callable[[Arrival], None]) -> None:
        """Call ``heard`` with every audio packet from now on."""
        self._on_arrival.append(heard)

    def _readable(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(2048, 64)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self._take(data, _kernel_time(ancillary))

    def _take(self, data: bytes, at: float) -> None:
        try:
            payload_type, _, sequence, timestamp, _, payload = parse(data)
        except RtpError:
            self.foreign += 1
            return
        if payload_type != self._codecs.payload_type:
            self.foreign += payload_type != self._codecs.dtmf_payload_type
            return
        silent = payload.count(payload[:1]) == len(payload)
        level = FLOOR_DBFS if silent else rms_dbfs_one(self._decode(payload))
        arrival = Arrival(at, sequence, timestamp, level)
        if len(self.arrivals) < _MAX_PACKETS:
            self.arrivals.append(arrival)
            if self._keep_audio:
                self._audio.append((timestamp, payload))
        if level > SPEECH_DBFS:
            if at - self.last_speech_at > 0.3:
                self.speaking_since = at
            self.last_speech_at = at
        for heard in self._on_arrival:
            heard(arrival)

    def _decode(self, payload: bytes) -> Pcm:
        return g711.decode(np.frombuffer(payload, np.uint8), self._codecs.payload_type == _PCMA)

    def received(self) -> Pcm:
        """Everything heard, each packet where its RTP timestamp says; what is missing is silence."""
        if not self._audio:
            return np.zeros(0, np.int16)
        first = self._audio[0][0]
        placed = [(_distance(first, timestamp), payload) for timestamp, payload in self._audio]
        pcm = np.zeros(max(at + len(payload) for at, payload in placed), np.int16)
        for at, payload in placed:
            if at >= 0:
                pcm[at : at + len(payload)] = self._decode(payload)
        return pcm


def speech_segments(arrivals: list[Arrival], join_s: float = 0.4) -> Iterator[tuple[float, float]]:
    """(start, end) of each stretch of speech in what arrived, pauses below ``join_s`` included."""
    start = end = 0.0
    for arrival in arrivals:
        if arrival.level_dbfs <= SPEECH_DBFS:
            continue
        if end and arrival.at - end > join_s:
            yield start, end
            start = arrival.at
        elif not end:
            start = arrival.at
        end = arrival.at + FRAME_S
    if end:
        yield start, end


def speech_bounds(pcm: Pcm, rate_hz: int) -> tuple[int, int]:
    """(start, end) in samples of the speech in ``pcm``: first and last 10 ms frame within 30 dB of the loudest."""
    size = rate_hz // 100
    count = len(pcm) // size
    if not count:
        return 0, len(pcm)
    frames = pcm[: count * size].reshape(count, size).astype(np.float64)
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power >= max(power.max(), 1e-9) / 1000.0)
    return (int(loud[0]) * size, (int(loud[-1]) + 1) * size) if len(loud) else (0, len(pcm))


def _kernel_time(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return float(seconds + nanoseconds * 1e-9)
    return time.time()


def _distance(first: int, timestamp: int) -> int:
    return ((timestamp - first + 0x80000000) & 0xFFFFFFFF) - 0x80000000
