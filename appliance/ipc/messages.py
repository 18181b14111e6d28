"""Every message that crosses a process boundary inside the box.

Messages name a slot, a generation and sample positions; they never carry audio (that is in
:mod:`appliance.ipc.rings`). ``slot`` is the row of the call's media leg in the rings, ``generation`` the number of
times the row has been given out: a message about an older generation is about a call that is over and is dropped.

Positions are samples at 8 kHz counted from the moment the leg was connected, except ``tts_*`` positions, which count
samples in the slot's synthesis ring from the same moment. Times named ``at`` are CLOCK_MONOTONIC seconds, the same
in every process.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from appliance.rtp_params import RtpParams

PACING_BOUNDS_MS: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 40.0, 100.0)
"""Upper bounds of the buckets of MediaStats.lateness; one more bucket counts what is later still."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages; the class name is the tag on the wire."""


# --- supervisor <-> everyone --------------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First message of a child to the supervisor."""

    name: str
    pid: int


class Ready(Message, frozen=True):
    """The child has loaded and warmed everything and can take work."""

    name: str


class Alive(Message, frozen=True):
    """The child's event loop is turning; sent about once a second."""

    name: str


class ProcessState(Message, frozen=True):
    """Supervisor to control: how a process is. ``state`` is starting, ready, restarting or stopped."""

    name: str
    state: str
    pid: int
    restarts: int


class Drain(Message, frozen=True):
    """Supervisor to control: take no new calls, let the running ones end; hang up what is left at the deadline."""

    deadline_s: float


class Drained(Message, frozen=True):
    """Control to supervisor: no call is left."""


class Stop(Message, frozen=True):
    """Supervisor to a child: finish and exit."""


# --- control -> media ---------------------------------------------------------------------------------------------


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


# --- media -> control ---------------------------------------------------------------------------------------------


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


# --- control <-> engine workers -----------------------------------------------------------------------------------


class Recognise(Message, frozen=True):
    """Recognise the caller's samples [start, end).

    ``phrases`` is the closed list of what the dialplan expects (empty: open vocabulary, engines that can).
    ``pronunciations`` are (word, phones) additions. ``reject``: say so when nothing expected was said. ``hints`` are
    words that are likely, for engines that can be biased.

    While the caller goes on speaking, an engine that gives partial results is asked again and again with ``final``
    false, the same ``start`` and a later ``end``; ``utterance`` tells it that these belong together (0: to nothing).
    """

    request: int
    slot: int
    generation: int
    start: int
    end: int
    language: str
    phrases: tuple[str, ...]
    pronunciations: tuple[tuple[str, str], ...]
    reject: bool
    deadline: float
    utterance: int = 0
    final: bool = True
    hints: tuple[str, ...] = ()


class HeardWord(msgspec.Struct, frozen=True, array_like=True):
    """One word of what was recognised, in the samples [start, end) of the leg."""

    text: str
    start: int
    end: int


class Recognised(Message, frozen=True):
    """``accepted`` false: speech, but nothing that was expected; ``text`` is then the best guess.

    ``words`` is empty where the engine gives no times. ``stable``: so many of the first words of ``text`` will not
    change any more; of a final result, all of them.
    """

    request: int
    text: str
    confidence: float
    accepted: bool
    queued_s: float
    run_s: float
    words: tuple[HeardWord, ...] = ()
    stable: int = 0


class JudgeTurn(Message, frozen=True):
    """How likely is it that the caller has finished, given the samples up to ``end``?

    ``speech_start`` is where the utterance begins; -1 where nobody is to listen to its prosody.
    """

    request: int
    slot: int
    generation: int
    start: int
    end: int
    deadline: float
    speech_start: int = -1


class TurnVerdict(Message, frozen=True):
    """``ending`` is how the utterance sounds at its end (:class:`appliance.audio.prosody.Ending`), () where it is too
    short to say.
    """

    request: int
    probability: float
    queued_s: float
    run_s: float
    ending: tuple[float, ...] = ()


class Synthesise(Message, frozen=True):
    """Speak ``text`` into the slot's synthesis ring from position ``tts_start``, at most ``room`` samples.

    Answered by any number of Spoken, the last of them with ``last`` true. ``pause_s`` of silence come first.
    ``urgent``: the caller hears nothing until it is there, so it goes before what only continues.

    With a negative ``slot`` nothing is written anywhere: the phrase is to be in the cache when somebody needs it, and
    with ``keep`` it stays there whatever else is spoken.
    """

    request: int
    slot: int
    generation: int
    text: str
    language: str
    voice: str
    rate: float
    tts_start: int
    room: int
    pause_s: float = 0.0
    urgent: bool = False
    keep: bool = False


class Spoken(Message, frozen=True):
    """Samples up to ``tts_end`` are in the ring. ``cached``: the phrase did not have to be synthesised."""

    request: int
    tts_end: int
    last: bool
    cached: bool
    queued_s: float
    run_s: float


class ToolCall(msgspec.Struct, frozen=True, array_like=True):
    """The model wants a tool to run; ``arguments`` is JSON text as the model wrote it, not checked yet."""

    id: str
    name: str
    arguments: str


class ToolSpec(msgspec.Struct, frozen=True, array_like=True):
    """A tool the model may ask for; ``parameters`` is a JSON schema, as text."""

    name: str
    description: str
    parameters: str


class ChatMessage(msgspec.Struct, frozen=True, array_like=True):
    """``role`` is system, user, assistant or tool. An assistant's may ask for tools; a tool's answers ``call_id``."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class Generate(Message, frozen=True):
    """Ask the language model for the next reply.

    ``first_token_by`` is when the first token has to be there (CLOCK_MONOTONIC; 0: by ``deadline``). ``session`` names
    the conversation, so that a server with several caches can be asked where this one's prompt is warm.
    """

    request: int
    messages: tuple[ChatMessage, ...]
    deadline: float
    tools: tuple[ToolSpec, ...] = ()
    first_token_by: float = 0.0
    session: str = ""
    max_tokens: int = 0


class Token(Message, frozen=True):
    """The next words of the reply, or tools that it asks for, or both. ``server`` is who answered, with ``last``."""

    request: int
    text: str
    last: bool
    calls: tuple[ToolCall, ...] = ()
    server: str = ""


class Converse(Message, frozen=True):
    """Hold a call's conversation, audio in and audio out, until it is cancelled or Failed.

    ``history`` is what has been said already. With ``detects_turns`` the engine says when the caller has finished.
    """

    request: int
    slot: int
    generation: int
    instructions: str
    voice: str
    language: str
    history: tuple[ChatMessage, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    detects_turns: bool = False


class HearCaller(Message, frozen=True):
    """The caller speaks, from this sample on; what was heard before and not replied to is forgotten."""

    request: int
    start: int


class CallerSilent(Message, frozen=True):
    """The caller does not speak any more. Not ``keep``: what was heard is no turn, and is forgotten."""

    request: int
    keep: bool


class Respond(Message, frozen=True):
    """Reply, by the number ``reply``, to what the caller has said, or without ``heard`` to what was added only."""

    request: int
    reply: int
    heard: bool


class GiveRoom(Message, frozen=True):
    """What there is of ``reply``, and what comes of it, goes into the synthesis ring: [tts_start, tts_end) is free.

    Sent again with a later ``tts_end`` as the ring is played; ``tts_start`` stays.
    """

    request: int
    reply: int
    tts_start: int
    tts_end: int


class CutShort(Message, frozen=True):
    """Nothing more is wanted of ``reply``. So many of its samples were heard; -1: that is not known yet."""

    request: int
    reply: int
    heard: int


class AddToTalk(Message, frozen=True):
    """Something that the model is to know: words of ``role`` (system, user, assistant), or what a tool has given."""

    request: int
    message: ChatMessage


class ReplySpoken(Message, frozen=True):
    """There is audio of ``reply``: samples up to ``tts_end`` are in the ring; -1 while there is no room given."""

    request: int
    reply: int
    tts_end: int


class ReplyWords(Message, frozen=True):
    """The next words of what ``reply`` says."""

    request: int
    reply: int
    text: str


class ReplyDone(Message, frozen=True):
    """All of ``reply`` is in the ring. ``problem`` says why there is not more of it."""

    request: int
    reply: int
    calls: tuple[ToolCall, ...] = ()
    problem: str = ""


class CallerWords(Message, frozen=True):
    """What the caller has said before ``reply``; without ``final`` as far as it has been understood by now."""

    request: int
    reply: int
    text: str
    final: bool


class CallerTurn(Message, frozen=True):
    """The engine has found that the caller begins to speak, or has finished."""

    request: int
    speaks: bool


class Cancel(Message, frozen=True):
    """Forget this request; nothing more is said about it."""

    request: int


class Failed(Message, frozen=True):
    """The request could not be served. ``retryable``: another worker may manage."""

    request: int
    reason: str
    retryable: bool


class WorkerStats(Message, frozen=True):
    """Once a second, from every engine worker; counts since its start."""

    name: str
    queued: int
    running: int
    done: int
    failed: int
    dropped: int
    cache_hits: int
    busy_s: float


# --- control <-> recorder -----------------------------------------------------------------------------------------


class StartRecording(Message, frozen=True):
    """Write the slot's audio from ``start_frame`` on into ``path`` (stereo WAV, caller left, agent right).

    Sent again for the same path after a restart of the recorder: it continues where the file ends.
    """

    recording: str
    slot: int
    generation: int
    path: str
    start_frame: int


class StopRecording(Message, frozen=True):
    """The leg is over; write up to ``end_frame`` and close. Answered by RecordingStopped."""

    recording: str
    end_frame: int


class RecordingStopped(Message, frozen=True):
    """``problem`` is empty, or says in words why the file is incomplete (a full disk, say)."""

    recording: str
    path: str
    frames: int
    problem: str


AnyMessage: TypeAlias = (
    Hello | Ready | Alive | ProcessState | Drain | Drained | Stop
    | OpenLeg | ConnectLeg | ConnectStream | RefuseStream | Bridge | HoldMusic | CloseLeg | Play | Flush | SendDigits
    | StreamOffered | StreamStarted | StreamEnded
    | LegOpened | LegFailed | LegClosed | Tick | Digit | PlayoutStarted | PlayoutDone | Flushed | MediaTimeout
    | MediaStats
    | Recognise | Recognised | JudgeTurn | TurnVerdict | Synthesise | Spoken | Generate | Token | Cancel | Failed
    | Converse | HearCaller | CallerSilent | Respond | GiveRoom | CutShort | AddToTalk
    | ReplySpoken | ReplyWords | ReplyDone | CallerWords | CallerTurn | WorkerStats
    | StartRecording | StopRecording | RecordingStopped
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """One message as bytes."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> AnyMessage:
    """The message in ``data``.

    Raises:
        msgspec.MsgspecError: if it is none of ours.
    """
    return _decoder.decode(data)
