"""From packets to samples: the next frame of every caller, gaps filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.conceal import FADE_FRAMES
from appliance.errors import RtpError
from appliance.ipc.messages import AnyMessage, MediaTimeout
from appliance.ipc.rings import FRAME_SAMPLES, RING_FRAMES, AudioRings
from appliance.media.leg import MediaLeg

SILENCE: Final = (b"\xff" * FRAME_SAMPLES, b"\xd5" * FRAME_SAMPLES)
"""A silent frame in each law: mu-law, A-law."""

_CONCEAL_HISTORY_FRAMES: Final = 3
_MAX_BRIDGED: Final = 48
"""Gaps that are bridged from both sides in one tick, at about 70 us each; more are only faded out, at 26."""


class Hearing:
    """Pops all jitter buffers and decodes what comes: G.711 of all legs at once, other codecs leg by leg.

    Args:
        rings: what was heard before, for concealment.
        publish: where MediaTimeout goes.
        rtp_timeout_s: silence on the wire after which it is sent, once; time on hold does not count.

    Attributes:
        concealed: frames made up for lost ones.
        broken: payloads that were none of their codec.
    """

    def __init__(self, rings: AudioRings, publish: Callable[[AnyMessage], None], rtp_timeout_s: float) -> None:
        self._rings = rings
        self._publish = publish
        self._rtp_timeout_s = rtp_timeout_s
        self._looked_ahead = 0
        self.concealed = self.broken = 0

    def next(self, legs: Sequence[MediaLeg], alaw: NDArray[np.bool_], now: float) -> NDArray[np.int16]:
        """The next frame of these legs, int16 [legs, 160]; ``alaw`` [legs] is their law."""
        payloads: list[bytes] = []
        irregular: list[tuple[int, bool]] = []
        decoded: list[tuple[int, NDArray[np.int16]]] = []
        self._looked_ahead = 0
        for row, leg in enumerate(legs):
            if leg.codec is None:
                payload = leg.jitter.pop(leg.quiet)
            else:
                frame = self._decode(leg)
                payload = None if frame is None else SILENCE[0]
                if frame is not None:
                    decoded.append((row, frame))
            if payload is None or not leg.receive:
                irregular.append((row, False))
                payload = SILENCE[leg.alaw]
                if leg.receive and now - leg.heard_at > self._rtp_timeout_s and not leg.timed_out:
                    leg.timed_out = True
                    self._publish(MediaTimeout(leg.slot, leg.generation, now - leg.heard_at))
            elif leg.gap.lost_run:
                irregular.append((row, True))
            payloads.append(payload)
        coded = np.frombuffer(b"".join(payloads), np.uint8).reshape(-1, FRAME_SAMPLES)
        caller = g711.decode(coded, alaw)
        for row, frame in decoded:
            caller[row] = frame
        for row, came in irregular:
            self._fill_gap(legs[row], caller[row], came)
        return caller

    def _decode(self, leg: MediaLeg) -> NDArray[np.int16] | None:
        """The next frame of a leg with a codec of its own; None where there is none, or nobody listens."""
        if leg.packets is not None:
            frame = leg.packets.hear(leg.quiet)
            return frame if leg.receive else None
        assert leg.codec is not None
        payload = leg.jitter.pop(leg.quiet)
        if payload is None or not leg.receive:
            return None
        if leg.ahead is not None and leg.ahead[0] is payload:
            frame, leg.ahead = leg.ahead[1], None
            return frame
        try:
            return leg.codec.decode(payload)
        except RtpError:
            self.broken += 1
            return None

    def _following(self, leg: MediaLeg) -> NDArray[np.int16] | None:
        """The frame behind the one that is missing, where it has come.

        Where a whole network stutters every leg has a gap in the same tick, and only some are bridged at that cost.
        """
        if leg.gap.lost_run >= FADE_FRAMES or self._looked_ahead >= _MAX_BRIDGED:
            return None
        payload = leg.jitter.following()
        if payload is None:
            return None
        self._looked_ahead += 1
        if leg.codec is None:
            return g711.decode(np.frombuffer(payload, np.uint8), leg.alaw)
        if leg.ahead is None or leg.ahead[0] is not payload:
            # The decoder has a state, so that what it made of this payload is kept until it is played.
            try:
                leg.ahead = (payload, leg.codec.decode(payload))
            except RtpError:
                return None
        return leg.ahead[1]

    def _fill_gap(self, leg: MediaLeg, frame: NDArray[np.int16], came: bool) -> None:
        """Conceal a missing frame in place, or join the first one after a gap to what was made up."""
        if came:
            frame[:] = leg.gap.came(frame)
            leg.hearing = True
            leg.timed_out = False
            leg.noise = None
            return
        if not leg.receive:
            frame[:] = 0
            leg.gap.silent()
            return
        if leg.noise is not None:
            frame[:] = leg.noise.frame()
            leg.gap.silent()
            return
        index = int(self._rings.frames[leg.slot])
        # Before the first frame there is nothing to go on with, and the ring holds the call before this one. What a
        # packet buffer leaves silent it has concealed as long as its codec can.
        if not leg.hearing or leg.packets is not None or index < _CONCEAL_HISTORY_FRAMES:
            leg.gap.silent()
            return
        frame[:] = leg.gap.lost(self._history(leg, index), self._following(leg))
        if leg.gap.lost_run <= FADE_FRAMES:
            leg.concealed += 1
            self.concealed += 1

    def _history(self, leg: MediaLeg, index: int) -> NDArray[np.int16]:
        picked = np.arange(index - _CONCEAL_HISTORY_FRAMES, index) % RING_FRAMES
        history: NDArray[np.int16] = self._rings.rx[leg.slot, picked].reshape(-1)
        return history
