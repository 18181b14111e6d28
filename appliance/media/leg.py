"""One call's media: its sockets, what comes in and what goes out. Arrays over all calls live in media/tick.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio import comfort_noise, tones
from appliance.audio.codec import Codec, new_codec
from appliance.audio.comfort_noise import ComfortNoise
from appliance.audio.conceal import Concealment
from appliance.audio.linear import LinearCodec
from appliance.carriers.playback import Heard
from appliance.errors import MediaError
from appliance.ipc.rings import FRAME_SAMPLES
from appliance.media.outgoing import Packetiser, packet_ms
from appliance.media.playout import Playout
from appliance.media.ports import Address, PortPair, SourceFilter, address
from appliance.media.stream_leg import StreamEnd
from appliance.rtp.dtmf import DtmfReceiver, DtmfSender, KeyPresses
from appliance.rtp.jitter import JitterBuffer
from appliance.rtp.packet_buffer import PacketBuffer
from appliance.rtp.rtcp import RtcpSession
from appliance.rtp.srtp import SrtpContext
from appliance.rtp_params import RtpParams

logger = logging.getLogger(__name__)

_PLAIN_CODECS: Final = ("pcmu", "pcma")
_PACKET_CODECS: Final = ("opus", "l16")
"""Whose packets cannot be cut."""
_TONE_SAMPLES: Final = 800
_TONE_GAP_SAMPLES: Final = 640
_MAX_TONES: Final = 64
_STREAM_GONE_TICKS: Final = 3
"""After so long without a packet of the stream that is heard, another one is taken up at once."""
_STREAM_CONSECUTIVE: Final = 3
"""Packets of another stream, none of the present one between them, that make it the one to hear."""
_COUNTERS: Final = ("received", "lost", "late", "duplicate", "discarded", "concealed", "skipped", "repeated")


class MediaLeg:
    """State of one leg between OpenLeg and CloseLeg.

    Args:
        slot, generation: which one.
        pair: its ports; None where its audio will be a stream.
        playout: what is to be said on it.
        ssrc: of what is sent by RTP.

    Attributes:
        stream: where its audio comes and goes, instead of RTP.
    """

    __slots__ = (
        "ahead",
        "alaw",
        "alternative_in",
        "away_from",
        "carried",
        "cn_payload_type",
        "codec",
        "codec_name",
        "concealed",
        "connected",
        "delay_samples",
        "delay_total",
        "digits_out",
        "dtmf",
        "dtmf_clock_hz",
        "dtmf_in",
        "dtmf_payload_type",
        "dtmf_payload_type_in",
        "gap",
        "generation",
        "heard_at",
        "hearing",
        "jitter",
        "keys",
        "mark_next",
        "music_at",
        "noise",
        "noise_payload_type_in",
        "other_stream",
        "packet_ms",
        "packetiser",
        "packets",
        "pair",
        "partner",
        "payload_type",
        "payload_type_in",
        "playout",
        "quiet",
        "receive",
        "received",
        "remote_ssrc",
        "rtcp",
        "rtcp_mux",
        "rtcp_to",
        "send",
        "sendto",
        "sent_octets",
        "sent_packets",
        "sequence_in",
        "slot",
        "source",
        "srtp_failures",
        "srtp_rx",
        "srtp_tx",
        "ssrc",
        "stream",
        "timed_out",
        "tones_out",
        "voice_tick",
    )

    def __init__(self, slot: int, generation: int, pair: PortPair | None, playout: Playout, ssrc: int) -> None:
        self.slot = slot
        self.generation = generation
        self.pair = pair
        self.stream: StreamEnd | None = None
        self.carried = Heard(-1, 0)
        """What went over its stream before of the utterance that was cut short with that."""
        self.away_from = -1
        """The tick in which its last stream ended; -1 where it had none."""
        self.sendto: Callable[[bytes | memoryview, Address], int] = _nowhere if pair is None else pair.rtp.sendto
        self.playout = playout
        self.ssrc = ssrc
        self.jitter = JitterBuffer()
        self.packets: PacketBuffer | None = None
        """The same buffer, where it hands out samples because its packets cannot be cut (Opus)."""
        self.codec_name = ""
        self.codec: Codec | None = None
        """Decodes and encodes what is not G.711; None for that, which is done for all legs at once."""
        self.packet_ms = 20
        self.packetiser: Packetiser | None = None
        """Makes the packets of a leg that sends anything but G.711 at 20 ms."""
        self.dtmf = "rfc4733"
        self.dtmf_in = DtmfReceiver()
        self.dtmf_clock_hz = 8000
        self.keys = KeyPresses()
        self.digits_out: DtmfSender | None = None
        self.tones_out: NDArray[np.int16] | None = None
        """Keys still to be sent as tones, int16 [samples], whole frames."""
        self.source = SourceFilter(("0.0.0.0", 0))
        self.payload_type = self.payload_type_in = 0
        self.alternative_in = -1
        """Of packets in the other law of G.711."""
        self.dtmf_payload_type = self.dtmf_payload_type_in = -1
        self.cn_payload_type = self.noise_payload_type_in = -1
        self.srtp_tx: SrtpContext | None = None
        self.srtp_rx: SrtpContext | None = None
        self.srtp_failures = 0
        """Of keys that were replaced; the newest key's own count is in ``srtp_rx``."""
        self.rtcp: RtcpSession | None = None
        self.rtcp_mux = False
        self.rtcp_to: Address = ("0.0.0.0", 0)
        self.alaw = False
        self.send = True
        self.receive = True
        self.connected = False
        self.mark_next = True
        self.partner: MediaLeg | None = None
        self.music_at = -1
        """Position in the hold music, -1 while there is none."""
        self.heard_at = 0.0
        self.timed_out = False
        self.gap = Concealment()
        self.ahead: tuple[bytes, NDArray[np.int16]] | None = None
        """A payload that is still in the jitter buffer, and what the leg's own codec has made of it."""
        self.noise: ComfortNoise | None = None
        """What to play in a gap that the peer has announced; None in one that it has not."""
        self.hearing = False
        self.quiet = True
        self.received = 0
        self.remote_ssrc = -1
        self.sequence_in = 0
        """The highest sequence number of that stream."""
        self.voice_tick = 0
        """When the newest packet of its audio came."""
        self.other_stream = (-1, 0, 0)
        """The one that may follow it, how many packets have come of that, and ``received`` when they did."""
        self.concealed = 0
        self.sent_packets = self.sent_octets = 0
        self.delay_total = self.delay_samples = 0

    def connect(self, params: RtpParams, now: float) -> None:
        """Take the negotiated parameters; sent again for a re-negotiation mid-call.

        Raises:
            RtpError: a key is none; nothing has changed then.
            MediaError: the address is of a family that our socket cannot reach; nothing has changed then.
            ValueError: there is no such codec; nothing has changed then.
        """
        if self.pair is None:
            raise MediaError("the leg was opened without ports")
        family = self.pair.rtp.family
        described = address(params.remote_host, params.remote_port, family)
        srtp_tx = _context(params.srtp_tx, self.srtp_tx, inbound=False)
        srtp_rx = _context(params.srtp_rx, self.srtp_rx, inbound=True)
        if params.codec != self.codec_name:
            self.codec = None if params.codec in _PLAIN_CODECS else new_codec(params.codec)
            self.codec_name = params.codec
            self._new_buffer()
        if self.srtp_rx is not None and srtp_rx is not self.srtp_rx:
            self.srtp_failures += self.srtp_rx.failures
        self.srtp_tx, self.srtp_rx = srtp_tx, srtp_rx
        if self.connected:
            self.source.redirect(described)
        else:
            self.source = SourceFilter(described)
        if not self.connected or (params.receive and not self.receive):
            self.heard_at = now
            self.timed_out = False
        self.rtcp_mux = params.rtcp_mux
        rtcp_port = min(params.rtcp_port or params.remote_port + 1, 65535)
        self.rtcp_to = address(params.remote_host, rtcp_port, family)
        self.payload_type = params.payload_type
        self.payload_type_in = _or(params.payload_type_in, params.payload_type)
        self.alternative_in = params.alternative_in
        waiting = ""
        if self.digits_out is not None and (params.dtmf_payload_type < 0 or params.dtmf_clock_hz != self.dtmf_clock_hz):
            waiting, self.digits_out = self.digits_out.remaining, None
        self.dtmf = params.dtmf
        self.dtmf_payload_type = params.dtmf_payload_type
        self.dtmf_payload_type_in = _or(params.dtmf_payload_type_in, params.dtmf_payload_type)
        self.dtmf_clock_hz = self.dtmf_in.clock_hz = params.dtmf_clock_hz
        self.cn_payload_type = params.cn_payload_type
        # Many peers send the static type unasked; it can stand for nothing else unless it was given away.
        self.noise_payload_type_in = _or(params.cn_payload_type, comfort_noise.PAYLOAD_TYPE)
        self.packet_ms = packet_ms(params.codec, params.ptime_ms)
        self.alaw = params.codec == "pcma"
        self.send = params.send
        self.receive = params.receive
        self.mark_next = True
        self.connected = True
        if waiting:
            self._send_again(waiting)

    def connect_stream(self, stream: StreamEnd, now: float) -> None:
        """Let a stream be the audio, in place of what was."""
        self.stream = stream
        stream.carry(self.carried)
        if stream.codec != self.codec_name:
            self.codec = LinearCodec() if stream.codec == "l16" else None
            self.codec_name = stream.codec
            self._new_buffer()
        else:
            self.jitter.reset()
        self.packetiser = None
        self.packet_ms = 20
        self.alaw = stream.codec == "pcma"
        self.cn_payload_type = self.dtmf_payload_type = -1
        self.dtmf = "inband"
        self.send = self.receive = self.connected = True
        self.heard_at = now
        self.timed_out = False

    def part_from_stream(self) -> None:
        """The stream is over; the leg may get another one."""
        self.stream = None
        self.connected = False

    def _send_again(self, digits: str) -> None:
        """Queue keys that could not leave in the way that was agreed before."""
        try:
            sent = self.send_digits(digits)
        except ValueError:
            sent = False
        if not sent:
            logger.warning("slot %d: the peer takes keys no longer; %d were not sent", self.slot, len(digits))

    def _new_buffer(self) -> None:
        """The jitter buffer that goes with the codec, its counters those of the call so far."""
        before = self.jitter
        self.ahead = None
        if self.codec_name in _PACKET_CODECS and self.codec is not None:
            self.jitter = self.packets = PacketBuffer(self.codec)
        elif self.packets is not None:
            self.jitter, self.packets = JitterBuffer(), None
        else:
            before.reset()
            return
        for counter in _COUNTERS:
            setattr(self.jitter, counter, getattr(before, counter))

    @property
    def hears_tones(self) -> bool:
        """Whether keys may come as tones: where that was configured, or the peer knows no events."""
        if self.stream is not None:
            return False
        return self.dtmf == "inband" or (self.dtmf == "auto" and self.dtmf_payload_type < 0)

    @property
    def plain(self) -> bool:
        """Whether its packets can be written together with those of all other such legs: G.711, one frame each."""
        return self.codec is None and self.packet_ms == 20 and self.cn_payload_type < 0

    @property
    def clock_hz(self) -> int:
        """The RTP clock of what comes."""
        return 8000 if self.codec is None else self.codec.rtp_clock_hz

    def send_digits(self, digits: str) -> bool:
        """Queue keys as the leg's ``dtmf`` says; False where the peer would not understand any.

        Raises:
            ValueError: for a character that is not a key, or too many of them.
        """
        if self.dtmf_payload_type >= 0 and self.dtmf in ("rfc4733", "auto"):
            if self.digits_out is None:
                self.digits_out = DtmfSender(digits, clock_hz=self.dtmf_clock_hz)
            else:
                self.digits_out.add(digits)
            return True
        if self.dtmf not in ("inband", "auto"):
            return False
        waiting = self.tones_out if self.tones_out is not None else np.zeros(0, np.int16)
        if len(waiting) + len(digits) * (_TONE_SAMPLES + _TONE_GAP_SAMPLES) > _MAX_TONES * _TONE_SAMPLES * 2:
            raise ValueError(f"more than {_MAX_TONES} keys queued")
        gap = np.zeros(_TONE_GAP_SAMPLES, np.int16)
        pieces = [piece for key in digits.upper() for piece in (tones.key_tone(key, _TONE_SAMPLES), gap)]
        self.tones_out = np.concatenate([waiting, *pieces])
        return True

    def next_tone(self, out: NDArray[np.int16]) -> None:
        """Fill ``out`` (int16 [160]) with the next frame of ``tones_out``."""
        assert self.tones_out is not None
        out[:] = self.tones_out[:FRAME_SAMPLES]
        self.tones_out = self.tones_out[FRAME_SAMPLES:] if len(self.tones_out) > FRAME_SAMPLES else None

    def take_stream(self, ssrc: int, sequence: int, tick: int, *, same_source: bool) -> bool:
        """Whether to hear audio of a stream that is not the present one, from now on.

        Two streams of one source at once (a mixer, a gateway that repeats an announcement) would each make the other
        void with every packet. So one is heard until it is over: nothing has come of it for a while, or only of the
        other, or the packets come from somewhere else now.
        """
        other, count, received = self.other_stream
        count = count + 1 if (other, received) == (ssrc, self.received) else 1
        over = not same_source or not self.received or tick - self.voice_tick >= _STREAM_GONE_TICKS
        if over or count >= _STREAM_CONSECUTIVE:
            self._new_stream(ssrc, sequence)
            return True
        self.other_stream = (ssrc, count, self.received)
        return False

    def _new_stream(self, ssrc: int, sequence: int) -> None:
        """The peer counts anew: what is known of its numbers and times is void."""
        self.remote_ssrc = ssrc
        self.sequence_in = sequence
        self.jitter.reset()
        self.dtmf_in.reset()

    def part(self) -> None:
        """End a bridge, for both sides."""
        if self.partner is not None:
            self.partner.partner = None
            self.partner = None


def _nowhere(data: bytes | memoryview, to: Address) -> int:
    raise OSError("the leg has no port")


def _or(number: int, otherwise: int) -> int:
    return number if number >= 0 else otherwise


def _context(keying: str, now: SrtpContext | None, *, inbound: bool) -> SrtpContext | None:
    """The context for a key: the one there is where it has not changed, so that counters go on."""
    if not keying:
        return None
    return now if now is not None and now.keying == keying else SrtpContext(keying, inbound=inbound)
