"""Messages between control and media: legs, streams and what is played to the caller."""

from __future__ import annotations

from typing import Final, TypeAlias

from appliance.ipc.message_base import Message
from appliance.rtp_params import RtpParams

PACING_BOUNDS_MS: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 40.0, 100.0)
"""Upper bounds of the buckets of MediaStats.lateness; one more bucket counts what is later still."""


# --- control -> media ------------------------------------------------------------------------------------------------


class OpenLeg(Message, frozen=True):
    """Take this slot, and with ``rtp`` bind ports for it. Answered by LegOpened or LegFailed.

    ``denoise`` is the line's noise suppression: "webrtc", "rnnoise", "off", or "" for the box's own choice.
    """

    slot: int
    generation: int
    rtp: bool = True
    denoise: str = ""


class ConnectLeg(Message, frozen=True):
    """Start sending and receiving. Sent again to change the remote address, codec, keys or direction mid-call."""

    slot: int
    generation: int
    rtp: RtpParams


class ConnectStream(Message, frozen=True):
    """The leg's audio is the stream that brings ``token``, of a trunk of this ``kind``: one waits, or will come.

    Answered by StreamStarted, or by StreamEnded where none comes within ``timeout_s``. Sent again it makes the token
    before void and parts the leg from the stream it had.
    """

    slot: int
    generation: int
    kind: str
    token: str
    timeout_s: float


class RefuseStream(Message, frozen=True):
    """Nobody wants the stream that was offered under ``token``; its peer is told ``reason``."""

    token: str
    reason: str


class Bridge(Message, frozen=True):
    """Join two legs: what the caller of each says is what the peer of the other hears, instead of playout.

    What was queued for playout on either is dropped. Keys are passed on too, and still reported. ``other_slot`` -1
    parts this leg and its partner; so does the end of either leg.
    """

    slot: int
    generation: int
    other_slot: int
    other_generation: int


class HoldMusic(Message, frozen=True):
    """While ``on``, and as long as nothing else is queued, the leg's peer hears the hold music in a loop."""

    slot: int
    generation: int
    on: bool


class CloseLeg(Message, frozen=True):
    """Stop and free the slot. Answered by LegClosed."""

    slot: int
    generation: int


class Play(Message, frozen=True):
    """Queue samples [tts_start, tts_end) of the slot's synthesis ring for playout as part of ``utterance``.

    ``last``: nothing of this utterance follows; PlayoutDone is sent when the end has left.
    An empty range with ``last`` true closes an utterance.
    """

    slot: int
    generation: int
    utterance: int
    tts_start: int
    tts_end: int
    last: bool


class Flush(Message, frozen=True):
    """Stop what is playing and drop all that is queued, the frame already staged included. Answered by Flushed."""

    slot: int
    generation: int


class SendDigits(Message, frozen=True):
    """Send these keys as RFC 4733 events, or as tones where the leg's ``dtmf`` says so. Characters 0-9, *, #, A-D.

    To a leg that is bridged they come from the other side, which has told of them by signalling; what media hears of
    the same presses there is not sent again.
    """

    slot: int
    generation: int
    digits: str


# --- media -> control ------------------------------------------------------------------------------------------------


class LegOpened(Message, frozen=True):
    slot: int
    generation: int
    port: int


class LegFailed(Message, frozen=True):
    slot: int
    generation: int
    reason: str


class StreamOffered(Message, frozen=True):
    """A stream came that nobody asked for, from an address of ``trunk``; it waits under ``token`` for a leg.

    Answered by ConnectStream or RefuseStream; without either it is closed after some seconds.
    """

    token: str
    trunk: str
    source: str
    call_id: str
    called: str
    calling: str
    parameters: dict[str, str]


class StreamStarted(Message, frozen=True):
    """The leg's stream, that of ``token``, is there; ``source`` is "address:port" of its peer."""

    slot: int
    generation: int
    token: str
    call_id: str
    codec: str
    rate_hz: int
    source: str


class StreamEnded(Message, frozen=True):
    """The leg's stream, that of ``token``, is over or never came. ``orderly``: its peer said goodbye.

    If not, ``reason`` says what broke.
    """

    slot: int
    generation: int
    token: str
    orderly: bool
    reason: str


class LegClosed(Message, frozen=True):
    """``frames`` is the number of 20 ms frames the leg lived; the rest are statistics over its whole life.

    ``received`` to ``strangers`` are packets, ``concealed`` frames; ``srtp_failures`` are packets that did not
    authenticate. ``jitter_ms`` is the interarrival jitter at the end (RFC 3550 §6.4.1), ``loss_percent`` what the
    network lost and what came too late, ``round_trip_ms`` the newest from RTCP (-1: the peer reported none).
    ``mos`` is the E-model's estimate of what was heard here and ``mos_far`` of what the peer heard, by its own
    reports; 1.0 to 4.5, 0.0 where nothing is known.
    """

    slot: int
    generation: int
    frames: int
    received: int
    lost: int
    late: int
    concealed: int
    strangers: int
    duplicates: int = 0
    srtp_failures: int = 0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    round_trip_ms: float = -1.0
    mos: float = 0.0
    mos_far: float = 0.0


class Tick(Message, frozen=True):
    """Once per 20 ms: what every connected leg heard. Arrays are raw little-endian bytes, one item per leg.

    ``slots`` int16, ``generations`` int64, ``frames`` int32 (index of the frame just received), ``levels`` float32
    (RMS dBFS of that frame), ``speech`` float32 (probability of speech, newest), ``played`` int32 (samples of the
    current utterance that have left, 0 when none), ``sent`` float32 (RMS dBFS of the frame just sent, the source of any
    echo).
    """

    number: int
    at: float
    slots: bytes
    generations: bytes
    frames: bytes
    levels: bytes
    speech: bytes
    played: bytes
    sent: bytes


class Digit(Message, frozen=True):
    """The caller pressed a key (RFC 4733); sent once per key."""

    slot: int
    generation: int
    digit: str
    frame: int


class PlayoutStarted(Message, frozen=True):
    """The first packet with samples of ``utterance`` has left the socket, at ``at``; ``frame`` is its index."""

    slot: int
    generation: int
    utterance: int
    frame: int
    at: float


class PlayoutDone(Message, frozen=True):
    """All of ``utterance`` has left."""

    slot: int
    generation: int
    utterance: int
    played: int
    frame: int


class Flushed(Message, frozen=True):
    """Playout has stopped. ``utterance`` is what was playing (-1: nothing) and ``played`` its samples that left."""

    slot: int
    generation: int
    utterance: int
    played: int
    frame: int


class MediaTimeout(Message, frozen=True):
    """No RTP has come for ``silent_s`` seconds."""

    slot: int
    generation: int
    silent_s: float


class MediaStats(Message, frozen=True):
    """Once a second: what happened since the last one. ``lateness`` is a histogram of how late ticks began.

    ``dropped`` are datagrams that were nothing of their call's; ``rtcp_sent`` and ``rtcp_received`` are compound RTCP
    packets. ``streams`` are the connections of carriers, PBXs and browsers now; those refused were not taken at all,
    those faulted closed because of what they sent, those broken cut off without a goodbye in a call. ``denoised`` are
    the callers whose noise is suppressed now, ``denoise_replaced`` those who got WebRTC's suppression instead of a
    costly one.
    """

    ticks: int
    skipped: int
    legs: int
    busy_s: float
    lateness: tuple[int, ...]
    sent: int
    received: int
    dropped: int
    concealed: int
    underruns: int
    outbox: int
    rtcp_sent: int = 0
    rtcp_received: int = 0
    streams: int = 0
    streams_refused: int = 0
    streams_faulted: int = 0
    streams_broken: int = 0
    denoised: int = 0
    denoise_replaced: int = 0


MediaMessage: TypeAlias = (
    OpenLeg | ConnectLeg | ConnectStream | RefuseStream | Bridge | HoldMusic | CloseLeg | Play | Flush | SendDigits
    | LegOpened | LegFailed | StreamOffered | StreamStarted | StreamEnded | LegClosed | Tick | Digit | PlayoutStarted
    | PlayoutDone | Flushed | MediaTimeout | MediaStats
)  # fmt: skip
