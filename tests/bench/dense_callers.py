"""Hundreds of callers in one process, as cheap as Python makes them: packets are encoded once and only numbered anew.

Each call speaks recorded sentences with pauses, over RTP or SRTP, and stamps what comes with the kernel's receive
time. Writes the ``.npz`` of :mod:`tests.bench.load_calls`, without what it would cost to be a real telephone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import secrets
import select
import socket
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import uvloop

from appliance.audio.codec import Codec, new_codec
from appliance.cli.softphone import read_wav
from appliance.errors import ApplianceError
from tests.bench.load_calls import PAUSE_S, RATE_OF_SET_UP, measured, save
from tests.bench.uac import BareCall, BareUac
from tests.peers.capture import SO_TIMESTAMPNS

FRAME_S = 0.02
FRAME_SAMPLES = 160
GROUPS = 10
"""The calls send in turns, 2 ms apart, as independent telephones would."""
BUFFER_BYTES = 1 << 20
SRTP_SUITE = "AES_CM_128_HMAC_SHA1_80"
PAYLOAD_TYPES = {"pcmu": 0, "pcma": 8, "g722": 9, "opus": 107}
_RTPMAPS = {"pcmu": "PCMU/8000", "pcma": "PCMA/8000", "g722": "G722/8000", "opus": "opus/48000/2"}
_HEADER = struct.Struct("!BBHII")
_TIMESPEC = struct.Struct("qq")


def encoded(codec: Codec, paths: Sequence[Path]) -> list[bytes]:
    """One packet's payload per 20 ms: every sentence, each followed by a pause."""
    pause = np.zeros(int(PAUSE_S * 8000), np.int16)
    samples = np.concatenate([part for path in paths for part in (read_wav(path), pause)])
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return [codec.encode(frame) for frame in frames]


class DenseCall(BareCall):
    """A call that offers one codec, over SRTP where ``key`` is given."""

    codec = "pcmu"
    key = b""

    def offer(self) -> str:
        host, port = self.rtp
        number = PAYLOAD_TYPES[self.codec]
        crypto = f"a=crypto:1 {SRTP_SUITE} inline:{base64.b64encode(self.key).decode()}\r\n" if self.key else ""
        return (
            f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/{'SAVP' if self.key else 'AVP'} {number} 101\r\n"
            f"a=rtpmap:{number} {_RTPMAPS[self.codec]}\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n"
            f"{crypto}a=sendrecv\r\n"
        )


class Stream:
    """The audio of one call: what it sends next, and when what came had come."""

    def __init__(self, payloads: list[bytes], first: int, clock_hz: int, payload_type: int) -> None:
        self.rtp, self.rtcp = _pair()
        self.at: array[float] = array("d")
        self.sequence: array[int] = array("H")
        self._payloads = payloads
        self._next = first % len(payloads)
        self._step = int(clock_hz * FRAME_S)
        self._type = payload_type
        self._number = secrets.randbelow(1 << 15)
        self._timestamp = secrets.randbits(31)
        self._ssrc = secrets.randbits(32)
        self._protect: Callable[[bytes], bytes] | None = None

    def connect(self, remote: tuple[str, int], key: bytes) -> None:
        self.rtp.connect(remote)
        if key:
            import pylibsrtp

            policy = pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
            self._protect = pylibsrtp.Session(policy).protect

    def send(self) -> None:
        packet = (
            _HEADER.pack(0x80, self._type, self._number & 0xFFFF, self._timestamp & 0xFFFFFFFF, self._ssrc)
            + self._payloads[self._next]
        )
        self._number += 1
        self._timestamp += self._step
        self._next = (self._next + 1) % len(self._payloads)
        try:
            self.rtp.send(packet if self._protect is None else self._protect(packet))
        except OSError:
            return  # the box has closed its port; the call's end is seen on its signalling

    def receive(self) -> None:
        """Everything that has come."""
        while True:
            try:
                data, ancillary, _, _ = self.rtp.recvmsg(2048, 64)
            except OSError:
                return
            if data[1] & 0x7F == self._type:
                seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                self.at.append(seconds + nanoseconds * 1e-9)
                self.sequence.append(data[2] << 8 | data[3])


def _pair() -> tuple[socket.socket, socket.socket]:
    """Sockets on an even port and the one above it."""
    while True:
        rtp, rtcp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        rtp.bind(("127.0.0.1", 0))
        port = rtp.getsockname()[1]
        try:
            if port % 2 == 0:
                rtcp.bind(("127.0.0.1", port + 1))
                break
        except OSError:
            pass
        rtp.close()
        rtcp.close()
    rtp.setblocking(False)
    rtp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return rtp, rtcp


class Crowd:
    """All streams of the process: one clock that sends, one epoll that receives."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self._by_fd: dict[int, Stream] = {}
        self._epoll = select.epoll()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._readable)
        self._due = self._loop.time()
        self._group = 0
        self._tick()

    def add(self, stream: Stream) -> None:
        self.streams.append(stream)
        self._by_fd[stream.rtp.fileno()] = stream
        self._epoll.register(stream.rtp.fileno(), select.EPOLLIN)

    def _tick(self) -> None:
        for stream in self.streams[self._group :: GROUPS]:
            stream.send()
        self._group = (self._group + 1) % GROUPS
        self._due += FRAME_S / GROUPS
        self._loop.call_at(self._due, self._tick)

    def _readable(self) -> None:
        for fd, _ in self._epoll.poll(0):
            self._by_fd[fd].receive()


async def run(args: argparse.Namespace) -> int:
    codec = new_codec(args.codec)
    payloads = encoded(codec, args.speech)
    crowd = Crowd()
    calls = []
    async with BareUac(("127.0.0.1", args.port)) as uac:
        for number in range(args.calls):
            first = number * len(payloads) // args.calls
            stream = Stream(payloads, first, codec.rtp_clock_hz, PAYLOAD_TYPES[args.codec])
            call = DenseCall(uac, args.uri, stream.rtp.getsockname())
            call.codec = args.codec
            call.key = secrets.token_bytes(30) if args.srtp else b""
            uac.calls[call.call_id] = call
            await call.invite(10.0)
            stream.connect(call.answer.remote, call.key)
            crowd.add(stream)
            calls.append(call)
            await asyncio.sleep(1 / RATE_OF_SET_UP)
        await asyncio.sleep(args.settle)
        span = await measured(args.seconds)
        early = sum(call.ended.done() for call in calls)
        await asyncio.gather(*(call.hangup() for call in calls))
    save(args.out, [(np.asarray(stream.at), np.asarray(stream.sequence)) for stream in crowd.streams], span)
    if early:
        print(f"{early} calls ended before the measurement did", file=sys.stderr)
    return 1 if early else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="SIP port of the box on loopback")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between the last answer and measuring")
    parser.add_argument("--codec", choices=sorted(PAYLOAD_TYPES), default="pcmu")
    parser.add_argument("--srtp", action="store_true")
    parser.add_argument("--speech", type=Path, nargs="+", required=True, help="WAV files that the callers speak")
    parser.add_argument("--cores", default="", help="cores to run on, for example 0,2")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    try:
        return uvloop.run(run(args))
    except (ApplianceError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
