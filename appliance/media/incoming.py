"""What comes for a leg: its voice into its jitter buffer, its keys to control, its comfort noise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from appliance.api.streams import Audio
from appliance.audio import g711
from appliance.audio.comfort_noise import ComfortNoise
from appliance.errors import RtpError
from appliance.ipc.messages import AnyMessage, Digit
from appliance.ipc.rings import AudioRings
from appliance.media.leg import MediaLeg
from appliance.media.ports import Address
from appliance.media.reports import Reports
from appliance.rtp.packet import parse
from appliance.rtp.rtcp import is_rtcp


class Incoming:
    """Takes datagrams, messages of streams and keys, one at a time.

    Args:
        rings: where a leg is in its recording.
        publish: where Digit goes.
        reports: take the RTCP that comes between the voice.

    Attributes:
        received: voice packets, and messages of streams.
        dropped: datagrams that were nothing of their call's.
    """

    def __init__(self, rings: AudioRings, publish: Callable[[AnyMessage], None], reports: Reports) -> None:
        self._rings = rings
        self._publish = publish
        self._reports = reports
        self.received = self.dropped = 0

    def receive(self, leg: MediaLeg, data: bytes, source: Address, now: float, tick: int) -> None:
        """A datagram on a leg's RTP port, taken in the tick of this number."""
        filter_ = leg.source
        locked = filter_.locked
        known = source == locked
        if not known and locked is not None and source != filter_.rival:
            filter_.strangers += 1
            self.dropped += 1
            return
        srtp = leg.srtp_rx
        try:
            plain = data if srtp is None or is_rtcp(data) else srtp.unprotect(data)
            payload_type, marker, sequence, timestamp, ssrc, payload = parse(plain)
        except RtpError:
            if leg.rtcp_mux and is_rtcp(data):
                self._reports.receive(leg, data, source, now)
            else:
                self.dropped += 1
            return
        voice = payload_type == leg.payload_type_in
        if not voice and payload_type not in (leg.dtmf_payload_type_in, leg.noise_payload_type_in):
            if payload_type != leg.alternative_in:
                self.dropped += 1
                return
            payload = payload.translate(g711.OTHER_LAW[leg.alaw])
            voice = True
        if not known and not filter_.accept(source, ssrc, sequence, srtp is not None):
            self.dropped += 1
            return
        leg.heard_at = now
        if voice:
            if ssrc != leg.remote_ssrc and not leg.take_stream(ssrc, sequence, tick, same_source=known):
                self.dropped += 1
                return
            leg.jitter.push(sequence, timestamp, payload, now, marker, ssrc)
            leg.received += 1
            leg.voice_tick = tick
            self.received += 1
        else:
            # Some gateways number their events apart from the voice: those say nothing about it.
            if ssrc == leg.remote_ssrc:
                leg.jitter.skip(sequence)
            self._no_voice(leg, payload_type, payload, timestamp, marker, sequence)
        if ssrc == leg.remote_ssrc and 0 < (sequence - leg.sequence_in & 0xFFFF) < 0x8000:
            leg.sequence_in = sequence

    def hear(self, leg: MediaLeg, audio: Audio) -> None:
        """A message with audio on a leg's stream, at any time between two ticks."""
        if leg.connected and leg.stream is not None:
            now = time.monotonic()
            leg.stream.hear(audio, leg.jitter, now)
            leg.heard_at = now
            leg.received += 1
            self.received += 1

    def pressed(self, leg: MediaLeg, digit: str, way: str) -> None:
        """The caller pressed a key: say so once however it came, and pass it on over a bridge."""
        if not leg.keys.press(digit, way, time.monotonic()):
            return
        self._publish(Digit(leg.slot, leg.generation, digit, int(self._rings.frames[leg.slot])))
        # A tone goes over the bridge as sound: beside it, a peer that takes tones would hear two.
        if leg.partner is not None and (way != "inband" or leg.partner.dtmf_payload_type >= 0):
            with contextlib.suppress(ValueError):
                leg.partner.send_digits(digit)

    def _no_voice(
        self, leg: MediaLeg, payload_type: int, payload: bytes, timestamp: int, marker: bool, sequence: int
    ) -> None:
        """An event or comfort noise."""
        try:
            if payload_type == leg.dtmf_payload_type_in:
                digit = leg.dtmf_in.push(payload, timestamp, marker, sequence)
                if digit is not None:
                    self.pressed(leg, digit, "rfc4733")
            elif leg.noise is None:
                leg.noise = ComfortNoise(payload, leg.slot)
            else:
                leg.noise.update(payload)
        except RtpError:
            self.dropped += 1
