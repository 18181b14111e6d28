"""The audio clock: what happens to every call, every 20 ms, in this order.

Sending comes first: the packets were prepared by the tick before, so nothing that this tick does can delay them.
Each stage works on arrays over all connected legs (``rows`` is the array of their slots); only what is truly per
call (a socket, a jitter buffer, a playout queue) is a loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio import g711, level
from appliance.audio.codec import new_codec
from appliance.audio.goertzel import ToneKeys
from appliance.errors import RtpError
from appliance.ipc.messages import (
    PACING_BOUNDS_MS,
    AnyMessage,
    MediaStats,
    MediaTimeout,
    PlayoutDone,
    PlayoutStarted,
    Tick,
)
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.media.ahead import SpeakingAhead
from appliance.media.denoise import CallerVoice, LineDenoise
from appliance.media.hearing import SILENCE, Hearing
from appliance.media.incoming import Incoming
from appliance.media.leg import MediaLeg
from appliance.media.outgoing import Packetiser
from appliance.media.ports import Receiver
from appliance.media.reports import Reports
from appliance.media.stream_leg import StreamEnd
from appliance.media.vad import BatchVad
from appliance.rtp.packet import build

logger = logging.getLogger(__name__)

FRAME_S: Final = 0.02
_HEADER_BYTES: Final = 12
_MAX_CATCH_UP: Final = 10
_QUIET_BELOW: Final = 0.2
_MAX_DRAINED: Final = 50


class AudioClock:
    """All connected legs, and the tick over them.

    Args:
        rings: the shared audio memory.
        vad: batched voice activity detection over the same slots, or None (``speech`` is then 0).
        publish: where messages to control go.
        rtp_timeout_s: silence on the wire after which MediaTimeout is sent, once.
        hold_music: int16 [samples] at 8 kHz, whole frames, played in a loop to legs on hold.
        denoise: the noise suppressors over the same slots, or None.
    """

    def __init__(
        self,
        rings: AudioRings,
        vad: BatchVad | None,
        publish: Callable[[AnyMessage], None],
        rtp_timeout_s: float,
        hold_music: NDArray[np.int16] | None = None,
        denoise: LineDenoise | None = None,
    ) -> None:
        self.rings = rings
        self.receiver = Receiver()
        self.legs: dict[int, MediaLeg] = {}
        self.reports = Reports(self._timestamp_of)
        self._hold_music = hold_music if hold_music is not None else np.zeros(FRAME_SAMPLES, np.int16)
        self.voice = CallerVoice(rings.capacity, vad, denoise)
        self._publish = publish
        self.incoming = Incoming(rings, publish, self.reports)
        self._hearing = Hearing(rings, publish, rtp_timeout_s)
        self._ahead = SpeakingAhead(rings, publish, self._hold_music)
        capacity = rings.capacity
        self._tones = ToneKeys(capacity)
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._connected: list[MediaLeg] = []
        self._by_rtp: list[MediaLeg] = []
        self._row_of: dict[int, int] = {}
        self._alaw: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._types: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._tone_rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._tone_slots: NDArray[np.int64] = np.zeros(0, np.int64)
        self._marked: list[MediaLeg] = []
        self._broken: list[MediaLeg] = []
        self._generations = b""
        self._slots = b""
        self._packets = np.zeros((capacity, _HEADER_BYTES + FRAME_SAMPLES), np.uint8)
        self._views = [memoryview(row.data) for row in self._packets]
        self._staged = np.zeros((capacity, FRAME_SAMPLES), np.int16)
        self._staged_samples = [0] * capacity
        self._started: list[tuple[MediaLeg, int]] = []
        self._done: list[tuple[MediaLeg, int, int]] = []
        self._queued: dict[int, Sequence[bytes]] = {}
        """What leaves next for the slots that send anything else than their row of ``_packets``."""
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
        self.voice.began_late(lateness_s)
        self._busy_s += time.monotonic() - begun

    def _tick(self) -> None:
        now = time.monotonic()
        self._send(now)
        self._receive(now)
        if self._connected:
            caller = self._hearing.next(self._connected, self._alaw, now)
            levels, speech = self.voice.tick(self._rows, caller)
            if len(self._tone_rows):
                self._listen_for_tones(caller)
            self._record(caller)
            self._report(now, levels, speech)
            self._prepare(self._speak(caller))
            self.reports.send_due(self.legs, now)
        if self._broken:
            self._mute(now)
        self.number += 1
        self._ticks += 1

    def _send(self, now: float) -> None:
        if not self._ready:
            return
        views, queued = self._views, self._queued
        sent = 0
        for leg in self._by_rtp:
            try:
                packets = queued.get(leg.slot)
                if packets is not None or leg.srtp_tx is not None:
                    sent += self._send_others(leg, (views[leg.slot],) if packets is None else packets)
                    continue
                leg.sent_packets += 1
                leg.sent_octets += FRAME_SAMPLES
                sent += 1
                leg.sendto(views[leg.slot], leg.source.remote)
            except OSError:
                self._dropped += 1
            except Exception:
                self._failed(leg)
        self._sent += sent
        for leg, utterance in self._started:
            frame = int(self.rings.frames[leg.slot])
            self._publish(PlayoutStarted(leg.slot, leg.generation, utterance, frame, now))
        for leg, utterance, played in self._done:
            frame = int(self.rings.frames[leg.slot])
            self._publish(PlayoutDone(leg.slot, leg.generation, utterance, played, frame))
        self._started.clear()
        self._done.clear()

    def _send_others(self, leg: MediaLeg, packets: Sequence[bytes | memoryview]) -> int:
        """Send what is encrypted, or does not come as one plain packet a tick; how many there were."""
        for packet in packets:
            leg.sent_packets += 1
            leg.sent_octets += len(packet) - _HEADER_BYTES
            try:
                data = packet if leg.srtp_tx is None else leg.srtp_tx.protect(bytes(packet))
                leg.sendto(data, leg.source.remote)
            except (OSError, RtpError):
                self._dropped += 1
        return len(packets)

    def _receive(self, now: float) -> None:
        legs, number, take = self.legs, self.number, self.incoming.receive
        for key, data, source in self.receiver.drain():
            leg = legs[key if key >= 0 else ~key]
            if not leg.connected or leg.stream is not None:
                continue
            try:
                if key >= 0:
                    take(leg, data, source, now, number)
                else:
                    self.reports.receive(leg, data, source, now)
            except Exception:
                self._failed(leg)

    def _listen_for_tones(self, caller: NDArray[np.int16]) -> None:
        """Keys pressed as tones, on the legs whose peers know no events."""
        for slot, key in self._tones.tick(self._tone_slots, caller[self._tone_rows]):
            self.incoming.pressed(self.legs[slot], key, "inband")

    def _record(self, caller: NDArray[np.int16]) -> None:
        """Put what was heard, and what has just been sent, where the other processes read it."""
        held = np.array([leg.jitter.held_frames for leg in self._connected], np.int64)
        quiet = np.array([leg.quiet for leg in self._connected], np.bool_)
        self.rings.record(self._rows, caller, self._staged[self._rows], held, quiet)

    def _report(self, now: float, levels: NDArray[np.float32], speech: NDArray[np.float32]) -> None:
        rows = self._rows
        for leg, probability in zip(self._connected, self.voice.heard[rows].tolist(), strict=True):
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
                level.rms_dbfs(self._staged[rows]).tobytes(),
            )
        )

    def _speak(self, caller: NDArray[np.int16]) -> NDArray[np.int16]:
        """The next frame towards every caller, int16 [legs, 160]; ``caller`` is what was just heard of them."""
        agent = np.zeros((len(self._connected), FRAME_SAMPLES), np.int16)
        for row, leg in enumerate(self._connected):
            self._staged_samples[leg.slot] = 0
            if leg.stream is not None:
                self._speak_ahead(leg, leg.stream, caller, agent[row])
                continue
            if not leg.send or leg.digits_out is not None:
                continue
            if leg.tones_out is not None:
                leg.next_tone(agent[row])
            elif leg.partner is not None:
                partner = self._row_of.get(leg.partner.slot)
                if partner is not None:
                    agent[row] = caller[partner]
            elif leg.playout:
                self._play(leg, agent[row])
            elif leg.music_at >= 0:
                agent[row] = self._hold_music[leg.music_at : leg.music_at + FRAME_SAMPLES]
                leg.music_at = (leg.music_at + FRAME_SAMPLES) % len(self._hold_music)
        return agent

    def _speak_ahead(self, leg: MediaLeg, stream: StreamEnd, caller: NDArray[np.int16], out: NDArray[np.int16]) -> None:
        bridged = None
        if leg.partner is not None:
            partner = self._row_of.get(leg.partner.slot)
            bridged = caller[partner] if partner is not None else np.zeros(FRAME_SAMPLES, np.int16)
        try:
            self._ahead.speak(leg, stream, bridged, out)
        except Exception:
            self._failed(leg)

    def _play(self, leg: MediaLeg, out: NDArray[np.int16]) -> None:
        before = leg.playout.underruns
        popped = leg.playout.pop(out)
        self._underruns += leg.playout.underruns - before
        self._staged_samples[leg.slot] = popped.filled
        if popped.started >= 0:
            self._started.append((leg, popped.started))
        if popped.done >= 0:
            self._done.append((leg, popped.done, popped.done_samples))
        self.rings.tts_played[leg.slot] = leg.playout.position

    def _prepare(self, agent: NDArray[np.int16]) -> None:
        """Encode all frames with one look-up and write the packets that the next tick sends first."""
        rows = self._rows
        self._staged[rows] = agent
        self._sequence[rows] += 1
        self._timestamp[rows] += FRAME_SAMPLES
        packets = self._packets
        packets[rows, 1] = self._types
        packets[rows, 2:4] = self._sequence[rows].astype(">u2").view(np.uint8).reshape(-1, 2)
        packets[rows, 4:8] = self._timestamp[rows].astype(">u4").view(np.uint8).reshape(-1, 4)
        packets[rows, _HEADER_BYTES:] = g711.encode(agent, self._alaw)
        marked, self._marked = self._marked, []
        for leg in marked:
            packets[leg.slot, 1] |= 0x80
        self._queued.clear()
        for row, leg in enumerate(self._connected):
            try:
                if leg.digits_out is not None and self._prepare_digit(leg):
                    continue
                if leg.packetiser is not None:
                    self._packetise(leg, leg.packetiser, agent[row])
            except Exception:
                self._failed(leg)
        self._ready = True

    def _packetise(self, leg: MediaLeg, packetiser: Packetiser, frame: NDArray[np.int16]) -> None:
        slot = leg.slot
        mark = bool(self._packets[slot, 1] & 0x80)
        self._queued[slot] = packetiser.push(frame, int(self._timestamp[slot]), mark)
        self._sequence[slot] = packetiser.sequence

    def _prepare_digit(self, leg: MediaLeg) -> bool:
        """Whether an event packet takes the place of the voice in this tick."""
        assert leg.digits_out is not None
        slot = leg.slot
        step = leg.digits_out.next()
        if step is None or leg.dtmf_payload_type < 0:
            leg.digits_out = None
            self._marked.append(leg)
            return False
        if step.payload is None:
            return False
        if leg.packetiser is not None:
            leg.packetiser.clear()
            leg.packetiser.sequence = (leg.packetiser.sequence + 1) & 0xFFFF
            self._sequence[slot] = leg.packetiser.sequence
        timestamp = int(self._timestamp[slot]) * (leg.dtmf_clock_hz // 8000) - step.timestamp_age & 0xFFFFFFFF
        number = int(self._sequence[slot])
        self._queued[slot] = (build(leg.dtmf_payload_type, number, timestamp, leg.ssrc, step.payload, step.marker),)
        return True

    def _failed(self, leg: MediaLeg) -> None:
        """To be called in an except block: work on one leg has failed in a way that nobody foresaw.

        The tick goes on for everybody else; this leg takes no further part once it is over.
        """
        if leg not in self._broken:
            logger.exception("slot %d: a fault of ours; the media of this call ends here", leg.slot)
            self._broken.append(leg)

    def _mute(self, now: float) -> None:
        """Take the legs that failed in this tick out of the clock; to control they are callers who fell silent."""
        for leg in self._broken:
            leg.connected = False
            self._publish(MediaTimeout(leg.slot, leg.generation, now - leg.heard_at))
        self._broken.clear()
        self.legs_changed()

    # --- between ticks --------------------------------------------------------------------------------------------

    def legs_changed(self) -> None:
        """A leg was connected, changed or closed: rebuild the arrays over all legs."""
        self._connected = [leg for _, leg in sorted(self.legs.items()) if leg.connected]
        self._by_rtp = [leg for leg in self._connected if leg.stream is None]
        self._rows = np.array([leg.slot for leg in self._connected], np.int64)
        self._row_of = {leg.slot: row for row, leg in enumerate(self._connected)}
        self._alaw = np.array([leg.alaw for leg in self._connected], np.bool_)
        self._tone_rows = np.array([row for row, leg in enumerate(self._connected) if leg.hears_tones], np.int64)
        self._tone_slots = self._rows[self._tone_rows]
        self._types = np.array([leg.payload_type for leg in self._connected], np.uint8)
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
        packet[_HEADER_BYTES:] = np.frombuffer(SILENCE[leg.alaw], np.uint8)
        self._staged[slot] = 0
        self._staged_samples[slot] = 0
        self.changed(leg)
        if leg.packetiser is not None:
            leg.packetiser.sequence = (sequence - 1) & 0xFFFF
            self._packetise(leg, leg.packetiser, self._staged[slot])
        self._marked.remove(leg)
        self._ready = True
        self.voice.restart(slot)
        self._tones.reset(slot)
        if leg.rtcp is None:
            self.reports.begin(leg, time.monotonic())

    def begin_stream(self, leg: MediaLeg) -> None:
        """The leg's audio is a stream from now on; see :meth:`MediaLeg.connect_stream`.

        The time since its last one has passed for its recording too.
        """
        if leg.away_from >= 0:
            self.rings.pass_by(np.array([leg.slot], np.int64), self.number - leg.away_from)
        self._staged[leg.slot] = 0
        self._staged_samples[leg.slot] = 0
        self._queued.pop(leg.slot, None)
        self.voice.restart(leg.slot)
        self.legs_changed()

    def end_stream(self, leg: MediaLeg) -> None:
        """The leg's stream is over; until the next one nothing is heard or said."""
        if leg.stream is not None:
            self._ahead.part(leg, leg.stream)
            leg.part_from_stream()
            leg.away_from = self.number
            self.legs_changed()

    def changed(self, leg: MediaLeg) -> None:
        """The leg has been connected, or connected anew: from the next packet on it sends as agreed now."""
        before, leg.packetiser = leg.packetiser, None
        if not leg.plain:
            codec = leg.codec if leg.codec is not None else new_codec(leg.codec_name)
            if before is not None and before.sends(codec, leg.packet_ms, leg.payload_type, leg.cn_payload_type):
                leg.packetiser = before
            else:
                number = int(self._sequence[leg.slot])
                leg.packetiser = Packetiser(
                    codec, leg.packet_ms, leg.payload_type, leg.cn_payload_type, leg.ssrc, number
                )
        if leg not in self._marked:
            self._marked.append(leg)
        self.legs_changed()

    def flush(self, leg: MediaLeg) -> tuple[int, int]:
        """Stop playout at once, the staged frame included. Returns (utterance or -1, its samples that left).

        Of a stream, the samples that its peer has played.
        """
        if leg.stream is not None:
            return self._ahead.flush(leg, leg.stream)
        slot = leg.slot
        unsent = self._staged_samples[slot]
        ended = [(utterance, played) for other, utterance, played in self._done if other is leg]
        utterance, played = leg.playout.flush()
        if utterance < 0 and ended:
            utterance, played = ended[-1]
        self._staged[slot] = 0
        self._staged_samples[slot] = 0
        self._packets[slot, _HEADER_BYTES:] = np.frombuffer(SILENCE[leg.alaw], np.uint8)
        if leg.packetiser is not None and leg.digits_out is None and slot in self._queued:
            silence = leg.packetiser.silence()
            if silence is not None:
                self._queued[slot] = silence
                self._sequence[slot] = leg.packetiser.sequence
        self._started = [item for item in self._started if item[0] is not leg]
        self._done = [item for item in self._done if item[0] is not leg]
        self.rings.tts_played[slot] = leg.playout.position
        return utterance, max(0, played - unsent)

    def send_digits(self, leg: MediaLeg, digits: str) -> bool:
        """Send keys to a leg's peer; False where it would not understand any.

        Over a bridge they are keys that signalling has told of on the other side: those that were also heard there have
        been passed on already, and those that are heard there from now on will not be again.

        Raises:
            ValueError: for a character that is not a key, or too many of them.
        """
        if leg.partner is not None:
            now = time.monotonic()
            keys = leg.partner.keys
            digits = "".join(digit for digit in digits if keys.press(digit, "info", now))
        return not digits or leg.send_digits(digits)

    def forget(self, leg: MediaLeg) -> None:
        """The leg is being closed: nothing that was prepared for it is sent or reported."""
        del self.legs[leg.slot]
        self._started = [item for item in self._started if item[0] is not leg]
        self._done = [item for item in self._done if item[0] is not leg]
        self._marked = [other for other in self._marked if other is not leg]
        self._queued.pop(leg.slot, None)
        leg.part()
        self.voice.end(leg.slot)
        self.legs_changed()

    def _timestamp_of(self, leg: MediaLeg) -> int:
        """The RTP timestamp of what leaves in this tick."""
        return (int(self._timestamp[leg.slot]) - FRAME_SAMPLES) * leg.clock_hz // 8000 & 0xFFFFFFFF

    def _skip(self, ticks: int) -> None:
        """The process stood still for longer than can be made up: time passes for every leg, unheard."""
        logger.warning("the audio clock stood still; %d frames skipped on %d calls", ticks, len(self._connected))
        rows = self._rows
        for leg in self._connected:
            for _ in range(min(ticks, _MAX_DRAINED)):
                leg.jitter.pop(True)
            if leg.packetiser is not None:
                leg.packetiser.clear()
        self.rings.pass_by(rows, ticks)
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
            sent=self._sent + self._ahead.sent,
            received=self.incoming.received,
            dropped=self._dropped + self.incoming.dropped + self._hearing.broken + self.reports.refused,
            concealed=self._hearing.concealed,
            underruns=self._underruns + self._ahead.underruns,
            outbox=outbox,
            rtcp_sent=self.reports.sent,
            rtcp_received=self.reports.received,
            denoised=self.voice.denoised,
            denoise_replaced=self.voice.take_replaced(),
        )
        self._reset_stats()
        return stats

    def _reset_stats(self) -> None:
        self._busy_s = 0.0
        self._lateness = [0] * (len(PACING_BOUNDS_MS) + 1)
        self._ticks = self._skipped = self._sent = self._dropped = self._underruns = 0
        self.incoming.received = self.incoming.dropped = 0
        self._hearing.concealed = self._hearing.broken = 0
        self._ahead.sent = self._ahead.underruns = 0
        self.reports.sent = self.reports.received = self.reports.refused = 0
