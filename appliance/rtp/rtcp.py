"""RTCP (RFC 3550 §6): compound packets read and written, and the exchange of reports of one leg.

Reading follows the validity rules of §A.2: a compound begins with a report, every length adds up to the datagram, and
padding stands at the end only. What breaks them is :class:`~appliance.errors.RtpError`, and so is a compound of more
packets than any peer puts into one. Extended reports, feedback and application packets inside a valid compound are
skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from appliance.errors import RtpError

SR: Final = 200
RR: Final = 201
SDES: Final = 202
BYE: Final = 203

INTERVAL_S: Final = 5.0
MAX_BYTES: Final = 1500
MAX_PACKETS: Final = 8
"""Packets in a compound: reports, names and goodbye are three; feedback and extended reports of browsers add a few."""

_HEADER: Final = struct.Struct("!BBHI")
_SENDER: Final = struct.Struct("!QIII")
_BLOCK: Final = struct.Struct("!IIIIII")
_NTP_UNIX_S: Final = 2_208_988_800
_CNAME: Final = 1
_MAX_ROUND_TRIP_S: Final = 30.0


class SenderInfo(NamedTuple):
    """What the sender of an SR says of itself: ``ntp`` is 32.32 seconds since 1900, ``timestamp`` in its RTP clock."""

    ntp: int
    timestamp: int
    packets: int
    octets: int


class ReportBlock(NamedTuple):
    """How one source was received. ``fraction`` is in 256ths, ``jitter`` in the RTP clock's units.

    ``last_sr`` (middle 32 bits of the last SR's time) and ``delay`` (since then, in 65536ths of a second) are 0 where
    no SR has come.
    """

    ssrc: int
    fraction: int
    lost: int
    highest: int
    jitter: int
    last_sr: int
    delay: int


class Compound(NamedTuple):
    """One RTCP datagram: who sent it, its own figures if it sends audio, its report blocks, and who says goodbye."""

    ssrc: int
    sender: SenderInfo | None
    blocks: tuple[ReportBlock, ...]
    byes: tuple[int, ...]


def is_rtcp(data: bytes) -> bool:
    """Whether a datagram on a shared port is RTCP (RFC 5761 §4)."""
    return len(data) > 1 and 192 <= data[1] <= 223


def parse(data: bytes) -> Compound:
    """The compound packet in a datagram.

    Raises:
        RtpError: it breaks the rules of RFC 3550 §A.2, or holds more than ``MAX_PACKETS`` packets.
    """
    if len(data) < 8 or len(data) % 4 or len(data) > MAX_BYTES:
        raise RtpError(f"{len(data)} bytes are no RTCP packet")
    if data[1] not in (SR, RR):
        raise RtpError(f"an RTCP packet that begins with type {data[1]}, not with a report")
    ssrc = int.from_bytes(data[4:8], "big")
    sender: SenderInfo | None = None
    blocks: list[ReportBlock] = []
    byes: list[int] = []
    at, end, packets = 0, len(data), 0
    while at < end:
        packets += 1
        if packets > MAX_PACKETS:
            raise RtpError(f"more than {MAX_PACKETS} packets in an RTCP compound")
        if end - at < 4:
            raise RtpError("an RTCP packet ends inside a header")
        first, kind = data[at], data[at + 1]
        length = 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        if first >> 6 != 2:
            raise RtpError("an RTCP packet of another version")
        if at + length > end:
            raise RtpError("an RTCP packet runs past the end of the datagram")
        if first & 0x20 and at + length != end:
            raise RtpError("RTCP padding before the last packet")
        body, count = data[at + 4 : at + length], first & 0x1F
        if kind == SR:
            sender = _sender(body)
            blocks += _blocks(body[24:], count)
        elif kind == RR:
            blocks += _blocks(body[4:], count)
        elif kind == BYE:
            byes += [int.from_bytes(body[4 * i : 4 * i + 4], "big") for i in range(min(count, len(body) // 4))]
        at += length
    return Compound(ssrc, sender, tuple(blocks), tuple(byes))


def _sender(body: bytes) -> SenderInfo:
    if len(body) < 24:
        raise RtpError("a sender report too short for its figures")
    return SenderInfo(*_SENDER.unpack_from(body, 4))


def _blocks(body: bytes, count: int) -> list[ReportBlock]:
    if len(body) < 24 * count:
        raise RtpError("an RTCP report too short for its blocks")
    found = []
    for number in range(count):
        ssrc, loss, highest, jitter, last_sr, delay = _BLOCK.unpack_from(body, 24 * number)
        lost = loss & 0xFFFFFF
        found.append(
            ReportBlock(ssrc, loss >> 24, lost - (1 << 24) if lost >> 23 else lost, highest, jitter, last_sr, delay)
        )
    return found


def build(
    ssrc: int, cname: str, sender: SenderInfo | None, blocks: Sequence[ReportBlock] = (), *, bye: bool = False
) -> bytes:
    """A compound packet: SR (or RR without ``sender``), SDES with the CNAME, and BYE if that is wanted."""
    body = b"".join(
        _BLOCK.pack(
            block.ssrc,
            (block.fraction & 0xFF) << 24 | max(-0x800000, min(block.lost, 0x7FFFFF)) & 0xFFFFFF,
            block.highest & 0xFFFFFFFF,
            min(block.jitter, 0xFFFFFFFF),
            block.last_sr,
            block.delay & 0xFFFFFFFF,
        )
        for block in blocks
    )
    if sender is None:
        report = _packet(RR, len(blocks), ssrc, body)
    else:
        figures = _SENDER.pack(
            sender.ntp & 0xFFFFFFFFFFFFFFFF,
            sender.timestamp & 0xFFFFFFFF,
            sender.packets & 0xFFFFFFFF,
            sender.octets & 0xFFFFFFFF,
        )
        report = _packet(SR, len(blocks), ssrc, figures + body)
    name = cname.encode()[:255]
    item = bytes((_CNAME, len(name))) + name + b"\x00"
    description = _packet(SDES, 1, ssrc, item + bytes(-len(item) % 4))
    return report + description + (_packet(BYE, 1, ssrc, b"") if bye else b"")


def _packet(kind: int, count: int, ssrc: int, body: bytes) -> bytes:
    return _HEADER.pack(0x80 | count, kind, 1 + len(body) // 4, ssrc) + body


class Reception(NamedTuple):
    """What has come from the peer so far. ``sequence`` is the newest number seen, ``jitter_s`` the mean deviation."""

    ssrc: int
    sequence: int
    received: int
    lost: int
    jitter_s: float
    clock_hz: int


class RtcpSession:
    """The reports of one leg: when ours are due, what they say, and what the peer's say about us.

    Args:
        ssrc: of what we send.
        cname: our canonical name; random, so that it tells nothing (RFC 7022).
        begin_s: when the leg was connected, seconds on a monotonic clock.
        unix_offset_s: what to add to that clock for seconds since 1970. Taken once, so that a step of the wall clock
            changes nothing.
        chance: gives numbers in [0, 1), for the interval.

    Attributes:
        due_s: when the next report should leave.
        round_trip_s: the newest round trip, or -1.0.
        far_loss: share of our packets that the peer says it lost, 0 to 1, or -1.0 without a report.
        far_jitter: jitter that the peer measures, in units of the RTP clock of what we send.
        sent, received: compound packets.
    """

    __slots__ = (
        "_before",
        "_chance",
        "_cname",
        "_cycles",
        "_heard",
        "_offset",
        "_sr_at",
        "_sr_ntp",
        "due_s",
        "far_jitter",
        "far_loss",
        "received",
        "round_trip_s",
        "sent",
        "ssrc",
    )

    def __init__(
        self, ssrc: int, cname: str, begin_s: float, unix_offset_s: float, chance: Callable[[], float]
    ) -> None:
        self.ssrc = ssrc
        self.due_s = begin_s + INTERVAL_S * (0.5 + chance()) / 2
        self.round_trip_s = -1.0
        self.far_loss = -1.0
        self.far_jitter = 0
        self.sent = self.received = 0
        self._cname = cname
        self._chance = chance
        self._offset = unix_offset_s + _NTP_UNIX_S
        self._heard = -1
        self._cycles = 0
        self._before = (0, 0, 0)
        self._sr_ntp = 0
        self._sr_at = 0.0

    def report(
        self,
        now: float,
        timestamp: int,
        packets: int,
        octets: int,
        reception: Reception | None,
        *,
        bye: bool = False,
    ) -> bytes:
        """The compound packet to send now; the next one is due half to one and a half intervals later (§6.3.1).

        Args:
            now: seconds on the monotonic clock.
            timestamp: the RTP timestamp of an instant that is now.
            packets, octets: sent so far, octets without headers.
            reception: what has come, or None if nothing has.
        """
        self.due_s = now + INTERVAL_S * (0.5 + self._chance())
        self.sent += 1
        sender = SenderInfo(self._ntp(now), timestamp, packets, octets) if packets else None
        blocks = (self._block(now, reception),) if reception is not None else ()
        return build(self.ssrc, self._cname, sender, blocks, bye=bye)

    def receive(self, data: bytes, now: float, packets_sent: int) -> None:
        """Take the peer's compound packet; ``packets_sent`` is what we had sent by now.

        Raises:
            RtpError: it is no valid compound packet.
        """
        compound = parse(data)
        self.received += 1
        if compound.sender is not None:
            self._sr_ntp = compound.sender.ntp >> 16 & 0xFFFFFFFF
            self._sr_at = now
        for block in compound.blocks:
            if block.ssrc == self.ssrc:
                self._about_us(block, now, packets_sent)

    def _about_us(self, block: ReportBlock, now: float, packets_sent: int) -> None:
        self.far_jitter = block.jitter
        if packets_sent > 0:
            self.far_loss = min(max(block.lost / packets_sent, 0.0), 1.0)
        if block.last_sr:
            middle = self._ntp(now) >> 16 & 0xFFFFFFFF
            took = (middle - block.last_sr - block.delay & 0xFFFFFFFF) / 65536.0
            if took <= _MAX_ROUND_TRIP_S:
                self.round_trip_s = took

    def _block(self, now: float, reception: Reception) -> ReportBlock:
        ssrc, sequence, received, lost, jitter_s, clock_hz = reception
        known, received_before, lost_before = self._before
        if self._heard < 0 or known != ssrc:
            self._cycles = 0
            if self._heard < 0:
                received_before, lost_before = 0, 0
        elif sequence < self._heard and self._heard - sequence > 0x8000:
            self._cycles += 1
        self._heard = sequence
        self._before = (ssrc, received, lost)
        newly_lost = max(0, lost - lost_before)
        expected = newly_lost + max(0, received - received_before)
        fraction = min(255, newly_lost * 256 // expected) if expected else 0
        delay = min(int((now - self._sr_at) * 65536), 0xFFFFFFFF) if self._sr_ntp else 0
        highest = (self._cycles << 16 | sequence) & 0xFFFFFFFF
        return ReportBlock(ssrc, fraction, lost, highest, int(jitter_s * clock_hz), self._sr_ntp, delay)

    def _ntp(self, now: float) -> int:
        return int((now + self._offset) * 4294967296.0)
