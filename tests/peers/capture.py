"""What a softphone was sent, seen on the wire: every RTP packet out of the box's port range, stamped by the kernel.

The peers are programs of others and do not say when a packet came. Looking at the loopback interface needs the right
to do so (CAP_NET_RAW); :func:`may_capture` tells.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time

import numpy as np

from appliance.audio import g711
from appliance.audio.level import rms_dbfs
from appliance.cli.rtp_stream import FRAME_SAMPLES, SPEECH_DBFS
from tests.waiting import LIMIT_S

_ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
_PACKET_HOST = 0
_ETHERNET, _UDP = 14, 8


def kernel_time(ancillary: list[tuple[int, int, bytes]]) -> float:
    """CLOCK_REALTIME at which the kernel took a datagram, out of what came with it (SO_TIMESTAMPNS was asked for)."""
    data = next(data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS))
    seconds, nanoseconds = struct.unpack_from("qq", data)
    return float(seconds + nanoseconds * 1e-9)


def may_capture() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)).close()
    except (PermissionError, OSError):
        return False
    return True


class RtpCapture:
    """Listens on ``lo`` from ``with`` on.

    Args:
        ports: the box's RTP range, ``first-last``.
        payload_types: those that are looked at.
    """

    def __init__(self, ports: str, payload_types: tuple[int, ...] = (0, 8)) -> None:
        self._payload_types = payload_types
        first, _, last = ports.partition("-")
        self._ports = range(int(first), int(last) + 1)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.1)
        self._packets: list[tuple[float, int, int, bytes]] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="rtp-capture")

    def __enter__(self) -> RtpCapture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                data, ancillary, _, address = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                continue
            if address[2] != _PACKET_HOST or len(data) < 54 or data[12:14] != b"\x08\x00" or data[23] != 17:
                continue
            udp = _ETHERNET + 4 * (data[14] & 15)
            source = int.from_bytes(data[udp : udp + 2], "big")
            rtp = data[udp + _UDP :]
            if (
                source not in self._ports
                or len(rtp) < 12
                or rtp[0] >> 6 != 2
                or rtp[1] & 127 not in self._payload_types
            ):
                continue
            with self._changed:
                sequence = int.from_bytes(rtp[2:4], "big")
                self._packets.append((kernel_time(ancillary), rtp[1] & 127, sequence, rtp[12:]))
                self._changed.notify_all()

    def payloads(self, payload_type: int) -> list[bytes]:
        """The payloads of one type, in their order."""
        with self._changed:
            return [payload for _, kind, _, payload in self._packets if kind == payload_type]

    def mark(self) -> int:
        """A position to count from: packets so far."""
        with self._changed:
            return len(self._packets)

    def speech_s(self, since: int = 0) -> float:
        """Seconds of speech that came after ``since``."""
        with self._changed:
            packets = self._packets[since:]
        loud = 0
        for _, payload_type, _, payload in packets:
            samples = g711.decode(np.frombuffer(payload, np.uint8), payload_type == 8)
            loud += len(samples) // FRAME_SAMPLES * bool(rms_dbfs(samples[None])[0] > SPEECH_DBFS)
        return loud * 0.02

    def wait_speech(self, seconds: float, since: int = 0, timeout_s: float = LIMIT_S) -> float:
        """Wait until ``seconds`` of speech came after ``since``, or the time is up; gives what came."""
        deadline = time.monotonic() + timeout_s
        while (heard := self.speech_s(since)) < seconds and time.monotonic() < deadline:
            with self._changed:
                self._changed.wait(0.2)
        return heard

    def worst_gap_s(self) -> float:
        """Longest time between two packets in a row."""
        with self._changed:
            times = [packet[0] for packet in self._packets]
        return float(np.diff(times).max()) if len(times) > 1 else 0.0

    def missing(self) -> int:
        """Places where a sequence number does not follow the one before it; of one call at a time."""
        with self._changed:
            sequences = [packet[2] for packet in self._packets]
        return sum((after - before) % 65536 != 1 for before, after in itertools.pairwise(sequences))

    def count(self) -> int:
        return self.mark()
