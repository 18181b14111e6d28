"""RTCP for all legs: what is due, what comes, and what it says of a call when it is over."""

from __future__ import annotations

import heapq
import random
import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from appliance.errors import RtpError
from appliance.media.leg import MediaLeg
from appliance.media.ports import Address
from appliance.rtp import emodel
from appliance.rtp.rtcp import Reception, RtcpSession

_MAX_PER_TICK: Final = 16
_MAX_HEARD_PER_TICK: Final = 2
"""Datagrams taken from one leg in a tick; a peer that keeps to RFC 3550 sends one in five seconds."""
_FRAME_MS: Final = 20.0


class Quality(NamedTuple):
    """How a call was: the fields of LegClosed of the same names."""

    jitter_ms: float
    loss_percent: float
    round_trip_ms: float
    mos: float
    mos_far: float


class Reports:
    """The RTCP of every leg.

    Args:
        timestamp_of: the RTP timestamp of what a leg sends now.

    Attributes:
        sent, received: compound packets.
        refused: datagrams on RTCP ports that were none of ours, not RTCP, or too many at once.
    """

    def __init__(self, timestamp_of: Callable[[MediaLeg], int]) -> None:
        self._timestamp_of = timestamp_of
        self.sent = self.received = self.refused = 0
        self._due: list[tuple[float, int, int]] = []
        self._heard_at = 0.0
        self._heard: dict[int, int] = {}
        """Datagrams by slot, of the tick of ``_heard_at``."""
        self._chance = random.Random(secrets.randbits(64))
        self._unix_offset_s = time.time() - time.monotonic()

    def begin(self, leg: MediaLeg, now: float) -> None:
        """The leg is connected: its first report is due in a few seconds."""
        name = secrets.token_urlsafe(12)
        leg.rtcp = RtcpSession(leg.ssrc, name, now, self._unix_offset_s, self._chance.random)
        heapq.heappush(self._due, (leg.rtcp.due_s, leg.slot, leg.generation))

    def send_due(self, legs: dict[int, MediaLeg], now: float) -> None:
        """Send what is due, a few a tick at most."""
        for _ in range(_MAX_PER_TICK):
            if not self._due or self._due[0][0] > now:
                return
            _, slot, generation = heapq.heappop(self._due)
            leg = legs.get(slot)
            if leg is not None and leg.generation == generation and leg.rtcp is not None:
                self._send(leg, now)
                heapq.heappush(self._due, (leg.rtcp.due_s, slot, generation))

    def goodbye(self, leg: MediaLeg, now: float) -> None:
        """The leg is being closed: the last report, and BYE."""
        self._send(leg, now, bye=True)

    def receive(self, leg: MediaLeg, data: bytes, source: Address, now: float) -> None:
        """A datagram on the leg's RTCP port, or RTCP on its shared one. ``now`` is that of the tick."""
        rtcp = leg.rtcp
        if rtcp is None or source[0] != leg.source.remote[0] or not self._has_room(leg.slot, now):
            self.refused += 1
            return
        try:
            if leg.srtp_rx is not None:
                data = leg.srtp_rx.unprotect_rtcp(data)
            rtcp.receive(data, now, leg.sent_packets)
        except RtpError:
            self.refused += 1
            return
        if not leg.rtcp_mux:
            leg.rtcp_to = source
        self.received += 1

    def _has_room(self, slot: int, now: float) -> bool:
        """Whether one more may be taken in this tick, so that a flood on one leg cannot hold up all others."""
        if now != self._heard_at:
            self._heard_at = now
            self._heard.clear()
        count = self._heard[slot] = self._heard.get(slot, 0) + 1
        return count <= _MAX_HEARD_PER_TICK

    def _send(self, leg: MediaLeg, now: float, *, bye: bool = False) -> None:
        rtcp = leg.rtcp
        if rtcp is None or leg.pair is None or leg.stream is not None or not leg.source.remote[1]:
            return
        leg.delay_total += leg.jitter.delay_frames
        leg.delay_samples += 1
        jitter = leg.jitter
        heard = None
        if leg.received:
            heard = Reception(
                leg.remote_ssrc, leg.sequence_in, jitter.received, jitter.lost, jitter.jitter_s, leg.clock_hz
            )
        data = rtcp.report(now, self._timestamp_of(leg), leg.sent_packets, leg.sent_octets, heard, bye=bye)
        try:
            if leg.srtp_tx is not None:
                data = leg.srtp_tx.protect_rtcp(data)
            if leg.rtcp_mux:
                leg.sendto(data, leg.source.remote)
            else:
                leg.pair.rtcp.sendto(data, leg.rtcp_to)
        except (OSError, RtpError):
            return
        self.sent += 1


def quality(leg: MediaLeg) -> Quality:
    """What the whole life of a leg comes to; the peer's own reports are the source for its side."""
    rtcp, jitter = leg.rtcp, leg.jitter
    round_trip_s = rtcp.round_trip_s if rtcp is not None else -1.0
    network_ms = max(round_trip_s, 0.0) * 500.0
    packets = jitter.received + jitter.lost
    loss = 100.0 * (jitter.lost + jitter.late) / packets if packets else 0.0
    buffered = leg.delay_total / leg.delay_samples if leg.delay_samples else leg.jitter.delay_frames
    mos = far = 0.0
    if packets:
        # A packet of their own, the way, the buffer here, and the tick in which it is heard.
        mos = emodel.mos(network_ms + (buffered + 2.0) * _FRAME_MS, loss, leg.codec_name)
    if rtcp is not None and rtcp.far_loss >= 0.0:
        # How long the peer buffers is not reported; twice its jitter is what a good buffer takes.
        buffer_ms = 2000.0 * rtcp.far_jitter / leg.clock_hz
        far = emodel.mos(network_ms + leg.packet_ms + _FRAME_MS + buffer_ms, 100.0 * rtcp.far_loss, leg.codec_name)
    return Quality(
        jitter_ms=round(1000.0 * jitter.jitter_s, 2),
        loss_percent=round(loss, 2),
        round_trip_ms=round(1000.0 * round_trip_s, 1) if round_trip_s >= 0.0 else -1.0,
        mos=round(mos, 2),
        mos_far=round(far, 2),
    )
