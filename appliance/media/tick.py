"""The audio clock: what happens to every call, every 20 ms, in this order.

Sending comes first: the packets were prepared by the tick before, so nothing that this tick does can delay them.
Each stage works on arrays over all connected legs (``rows`` is the array of their slots); only what is truly per
call (a socket, a jitter buffer, a playout queue) is a loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio import g711, level
from appliance.audio.conceal import FADE_FRAMES, conceal, merge
from appliance.errors import RtpError
from appliance.ipc.messages import (
    PACING_BOUNDS_MS,
    AnyMessage,
    Digit,
    MediaStats,
    MediaTimeout,
    PlayoutDone,
    PlayoutStarted,
    Tick,
)
from appliance.ipc.rings import FRAME_SAMPLES, RING_FRAMES, AudioRings
from appliance.media.leg import MediaLeg
from appliance.media.ports import Receiver
from appliance.media.vad import BatchVad
from appliance.rtp.packet import parse

logger = logging.getLogger(__name__)

FRAME_S: Final = 0.02
_HEADER_BYTES: Final = 12
_MAX_CATCH_UP: Final = 10
_QUIET_BELOW: Final = 0.2
_MAX_DRAINED: Final = 50
_CONCEAL_HISTORY_FRAMES: Final = 3
_SILENCE: Final = (b"\xff" * FRAME_SAMPLES, b"\xd5" * FRAME_SAMPLES)


class AudioClock:
    """All connected legs, and the tick over them.

    Args:
        rings: the shared audio memory.
        vad: batched voice activity detection over the same slots, or None (``speech`` is then 0).
        publish: where messages to control go.
        rtp_timeout_s: silence on the wire after which MediaTimeout is sent, once.
    """

    def __init__(
        self, rings: AudioRings, vad: BatchVad | None, publish: Callable[[AnyMessage], None], rtp_timeout_s: float
    ) -> None:
        self.rings = rings
        self.receiver = Receiver()
        self.legs: dict[int, MediaLeg] = {}
        self._vad = vad
        self._publish = publish
        self._rtp_timeout_s = rtp_timeout_s
        capacity = rings.capacity
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._connected: list[MediaLeg] = []
        self._alaw: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._generations = b""
        self._slots = b""
        self._packets = np.zeros((capacity, _HEADER_BYTES + FRAME_SAMPLES), np.uint8)
        self._views = [memoryview(row.data) for row in self._packets]
        self._staged = np.zeros((capacity, FRAME_SAMPLES), np.int16)
        self._staged_samples = [0] * capacity
        self._started: list[tuple[MediaLeg, int]] = []
        self._done: list[tuple[MediaLeg, int, int]] = []
        self._digit_packets: dict[int, bytes] = {}
        self._sequence = np.zeros(capacity, np.uint16)
        self._timestamp = np.zeros(capacity, np.uint32)
        self._ready = False
        self.number = 0
        self._reset_stats()

    # --- the tick -------------------------------------------------------------------------------------------------

    def run(self, due: int, lateness_s: float) -> None:
        """Do the ``due`` ticks whose time has come; the first of them was to begin ``lateness_s`` ago."""
        begun = time.monotonic()
        if due > _MAX_CATCH_UP:
            self._skip(due - _MAX_CATCH_UP)
            due = _MAX_CATCH_UP
        for _ in range(due):
            self._tick()
        self._lateness[int(np.searchsorted(PACING_BOUNDS_MS, lateness_s * 1000.0))] += 1
        self._busy_s += time.monotonic() - begun

    def _tick(self) -> None:
        now = time.monotonic()
        self._send(now)
        self._receive(now)
        if self._connected:
            caller = self._hear(now)
            levels = level.rms_dbfs(caller)
            if self._vad is not None:
                self._vad.tick(self._rows, caller)
            self._record(caller)
            self._report(now, levels)
            self._prepare(self._speak())
        self.number += 1
        self._ticks += 1

    def _send(self, now: float) -> None:
        if not self._ready:
            return
        views = self._views
        for leg in self._connected:
            data = self._digit_packets.get(leg.slot) or views[leg.slot]
            try:
                leg.sendto(data, leg.source.remote)
            except OSError:
                self._dropped += 1
        self._sent += len(self._connected)
        for leg, utterance in self._started:
            frame = int(self.rings.frames[leg.slot])
            self._publish(PlayoutStarted(leg.slot, leg.generation, utterance, frame, now))
        for leg, utterance, played in self._done:
            frame = int(self.rings.frames[leg.slot])
            self._publish(PlayoutDone(leg.slot, leg.generation, utterance, played, frame))
        self._started.clear()
        self._done.clear()

    def _receive(self, now: float) -> None:
        legs = self.legs
        for slot, data, source in self.receiver.drain():
            leg = legs[slot]
            if not leg.connected:
                continue
            try:
                payload_type, marker, sequence, timestamp, ssrc, payload = parse(data)
            except RtpError:
                self._dropped += 1
                continue
            if payload_type == leg.payload_type:
                if leg.source.accept(source, now):
                    leg.jitter.push(sequence, timestamp, payload, now, marker, ssrc)
                    leg.received += 1
                    leg.heard_at = now
                    self._received += 1
                else:
                    self._dropped += 1
            elif payload_type == leg.dtmf_payload_type and leg.source.accept(source, now):
                leg.heard_at = now
                leg.jitter.skip(sequence)
                self._key(leg, payload, timestamp, marker, sequence)
            else:
                self._dropped += 1

    def _key(self, leg: MediaLeg, payload: bytes, timestamp: int, marker: bool, sequence: int) -> None:
        try:
            digit = leg.dtmf_in.push(payload, timestamp, marker, sequence)
        except RtpError:
            self._dropped += 1
            return
        if digit is not None:
            self._publish(Digit(leg.slot, leg.generation, digit, int(self.rings.frames[leg.slot])))

    def _hear(self, now: float) -> NDArray[np.int16]:
        """The next frame of every caller, int16 [legs, 160]."""
        payloads: list[bytes] = []
        irregular: list[tuple[int, bool]] = []
        for row, leg in enumerate(self._connected):
            payload = leg.jitter.pop(leg.quiet)
            if payload is None or not leg.receive:
                irregular.append((row, False))
                payload = _SILENCE[leg.alaw]
                if now - leg.heard_at > self._rtp_timeout_s and not leg.timed_out:
                    leg.timed_out = True
                    self._publish(MediaTimeout(leg.slot, leg.generation, now - leg.heard_at))
            elif leg.lost_run:
                irregular.append((row, True))
            payloads.append(payload)
        coded = np.frombuffer(b"".join(payloads), np.uint8).reshape(-1, FRAME_SAMPLES)
        caller = g711.decode(coded, self._alaw)
        for row, came in irregular:
            self._bridge(self._connected[row], caller[row], came)
        return caller

    def _bridge(self, leg: MediaLeg, frame: NDArray[np.int16], came: bool) -> None:
        """Conceal a missing frame in place, or join the first one after a gap to what was made up."""
        index = int(self.rings.frames[leg.slot])
        # Before the first frame there is nothing to go on with, and the ring holds the call before this one.
        audible = leg.receive and leg.hearing and index >= _CONCEAL_HISTORY_FRAMES
        if came:
            if audible and leg.lost_run <= FADE_FRAMES:
                frame[:] = merge(self._history(leg, index), leg.lost_run, frame)
            leg.lost_run = 0
            leg.hearing = True
            leg.timed_out = False
            return
        leg.lost_run += 1
        if audible and leg.lost_run <= FADE_FRAMES:
            frame[:] = conceal(self._history(leg, index), leg.lost_run)
            leg.concealed += 1
            self._concealed += 1

    def _history(self, leg: MediaLeg, index: int) -> NDArray[np.int16]:
        picked = np.arange(index - _CONCEAL_HISTORY_FRAMES, index) % RING_FRAMES
        history: NDArray[np.int16] = self.rings.rx[leg.slot, picked].reshape(-1)
        return history

    def _record(self, caller: NDArray[np.int16]) -> None:
        """Put what was heard, and what has just been sent, where the other processes read it."""
        rows = self._rows
        at = self.rings.frames[rows] % RING_FRAMES
        self.rings.rx[rows, at] = caller
        self.rings.sent[rows, at] = self._staged[rows]
        self.rings.delay[rows] = [leg.jitter.delay_frames for leg in self._connected]
        self.rings.frames[rows] += 1

    def _report(self, now: float, levels: NDArray[np.float32]) -> None:
        rows = self._rows
        speech = self._vad.speech[rows] if self._vad is not None else np.full(len(rows), -1.0, np.float32)
        for leg, probability in zip(self._connected, speech.tolist(), strict=True):
            leg.quiet = probability < _QUIET_BELOW
        self._publish(
            Tick(
                self.number,
                now,
                self._slots,
                self._generations,
                (self.rings.frames[rows] - 1).astype(np.int32).tobytes(),
                levels.astype(np.float32).tobytes(),
                speech.astype(np.float32).tobytes(),
                np.array([leg.playout.played for leg in self._connected], np.int32).tobytes(),
            )
        )

    def _speak(self) -> NDArray[np.int16]:
        """The next frame towards every caller, int16 [legs, 160]."""
        agent = np.zeros((len(self._connected), FRAME_SAMPLES), np.int16)
        for row, leg in enumerate(self._connected):
            self._staged_samples[leg.slot] = 0
            if not leg.playout or not leg.send or leg.digits_out is not None:
                continue
            before = leg.playout.underruns
            popped = leg.playout.pop(agent[row])
            self._underruns += leg.playout.underruns - before
            self._staged_samples[leg.slot] = min(popped.done_samples or leg.playout.played, FRAME_SAMPLES)
            if popped.started >= 0:
                self._started.append((leg, popped.started))
            if popped.done >= 0:
                self._done.append((leg, popped.done, popped.done_samples))
            self.rings.tts_played[leg.slot] = leg.playout.position
        return agent

    def _prepare(self, agent: NDArray[np.int16]) -> None:
        """Encode all frames with one look-up and write the packets that the next tick sends first."""
        rows = self._rows
        self._staged[rows] = agent
        self._sequence[rows] += 1
        self._timestamp[rows] += FRAME_SAMPLES
        packets = self._packets
        packets[rows, 2:4] = self._sequence[rows].astype(">u2").view(np.uint8).reshape(-1, 2)
        packets[rows, 4:8] = self._timestamp[rows].astype(">u4").view(np.uint8).reshape(-1, 4)
        packets[rows, _HEADER_BYTES:] = g711.encode(agent, self._alaw)
        self._digit_packets.clear()
        for leg in self._connected:
            packets[leg.slot, 1] = leg.payload_type | (0x80 if leg.mark_next else 0)
            leg.mark_next = False
            if leg.digits_out is not None:
                self._prepare_digit(leg)
        self._ready = True

    def _prepare_digit(self, leg: MediaLeg) -> None:
        assert leg.digits_out is not None
        step = leg.digits_out.next()
        if step is None:
            leg.digits_out = None
            leg.mark_next = True
            return
        if step.payload is None:
            return
        header = bytearray(self._packets[leg.slot, :_HEADER_BYTES].tobytes())
        header[1] = leg.dtmf_payload_type | (0x80 if step.marker else 0)
        timestamp = (int(self._timestamp[leg.slot]) - step.timestamp_age) & 0xFFFFFFFF
        header[4:8] = timestamp.to_bytes(4, "big")
        self._digit_packets[leg.slot] = bytes(header) + step.payload

    # --- between ticks --------------------------------------------------------------------------------------------

    def legs_changed(self) -> None:
        """A leg was connected, changed or closed: rebuild the arrays over all legs."""
        self._connected = [leg for _, leg in sorted(self.legs.items()) if leg.connected]
        self._rows = np.array([leg.slot for leg in self._connected], np.int64)
        self._alaw = np.array([leg.alaw for leg in self._connected], np.bool_)
        self._slots = self._rows.astype(np.int16).tobytes()
        self._generations = np.array([leg.generation for leg in self._connected], np.int64).tobytes()

    def begin(self, leg: MediaLeg, sequence: int, timestamp: int) -> None:
        """First connection of a leg: silence is staged, so that its first packet leaves with the next tick."""
        slot = leg.slot
        self._sequence[slot] = sequence & 0xFFFF
        self._timestamp[slot] = timestamp & 0xFFFFFFFF
        packet = self._packets[slot]
        packet[0] = 0x80
        packet[1] = leg.payload_type | 0x80
        packet[2:4] = np.frombuffer((sequence & 0xFFFF).to_bytes(2, "big"), np.uint8)
        packet[4:8] = np.frombuffer((timestamp & 0xFFFFFFFF).to_bytes(4, "big"), np.uint8)
        packet[8:12] = np.frombuffer(leg.ssrc.to_bytes(4, "big"), np.uint8)
        packet[_HEADER_BYTES:] = np.frombuffer(_SILENCE[leg.alaw], np.uint8)
        leg.mark_next = False
        self._staged[slot] = 0
        self._staged_samples[slot] = 0
        self._ready = True
        if self._vad is not None:
            self._vad.reset(slot)

    def flush(self, leg: MediaLeg) -> tuple[int, int]:
        """Stop playout at once, the staged frame included. Returns (utterance or -1, its samples that left)."""
        slot = leg.slot
        unsent = self._staged_samples[slot]
        ended = [(utterance, played) for other, utterance, played in self._done if other is leg]
        utterance, played = leg.playout.flush()
        if utterance < 0 and ended:
            utterance, played = ended[-1]
        self._staged[slot] = 0
        self._staged_samples[slot] = 0
        self._packets[slot, _HEADER_BYTES:] = np.frombuffer(_SILENCE[leg.alaw], np.uint8)
        self._started = [item for item in self._started if item[0] is not leg]
        self._done = [item for item in self._done if item[0] is not leg]
        self.rings.tts_played[slot] = leg.playout.position
        return utterance, max(0, played - unsent)

    def forget(self, leg: MediaLeg) -> None:
        """The leg is being closed: nothing that was prepared for it is sent or reported."""
        del self.legs[leg.slot]
        self._started = [item for item in self._started if item[0] is not leg]
        self._done = [item for item in self._done if item[0] is not leg]
        self._digit_packets.pop(leg.slot, None)
        self.legs_changed()

    def _skip(self, ticks: int) -> None:
        """The process stood still for longer than can be made up: time passes for every leg, unheard."""
        logger.warning("the audio clock stood still; %d frames skipped on %d calls", ticks, len(self._connected))
        rows = self._rows
        for leg in self._connected:
            for _ in range(min(ticks, _MAX_DRAINED)):
                leg.jitter.pop(True)
        for _ in range(min(ticks, RING_FRAMES)):
            at = self.rings.frames[rows] % RING_FRAMES
            self.rings.rx[rows, at] = 0
            self.rings.sent[rows, at] = 0
            self.rings.frames[rows] += 1
        if ticks > RING_FRAMES:
            self.rings.frames[rows] += ticks - RING_FRAMES
        self._timestamp[rows] += np.uint32(ticks * FRAME_SAMPLES & 0xFFFFFFFF)
        self.number += ticks
        self._skipped += ticks

    # --- statistics -----------------------------------------------------------------------------------------------

    def take_stats(self, outbox: int) -> MediaStats:
        """What happened since the last call; ``outbox`` is the depth of the queue towards control."""
        stats = MediaStats(
            ticks=self._ticks,
            skipped=self._skipped,
            legs=len(self._connected),
            busy_s=self._busy_s,
            lateness=tuple(self._lateness),
            sent=self._sent,
            received=self._received,
            dropped=self._dropped,
            concealed=self._concealed,
            underruns=self._underruns,
            outbox=outbox,
        )
        self._reset_stats()
        return stats

    def _reset_stats(self) -> None:
        self._ticks = self._skipped = 0
        self._busy_s = 0.0
        self._lateness = [0] * (len(PACING_BOUNDS_MS) + 1)
        self._sent = self._received = self._dropped = self._concealed = self._underruns = 0
