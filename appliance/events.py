"""What happens to a call, as facts that other parts of the box may want to know.

One call, in order::

    CallStarted ─▶ CallRinging ─▶ CallAnswered ─▶ RecordingStarted ─▶ TurnFinished* ─▶ LineMeasured ─▶ CallEnded
         │              │                                                              and RecordingFinished
         └──────────────┴────────────────────── CallEnded (refused, cancelled, not answered)

and any number of TurnProgress between CallAnswered and CallEnded, for whoever watches. Where callers are told of the
recording or asked, RecordingConsent comes before RecordingStarted; RecordingPaused comes after it, where a
part is silence.

The call's session says each fact once, to every :class:`CallObserver`: the record (:mod:`appliance.store`) keeps
it, the metrics (:mod:`appliance.admin`) count it. Observers never answer, and the session does not know them.

Two kinds of time, told apart by name:

* ``*_at``   float seconds of CLOCK_MONOTONIC, the same in every process of the box; differences are durations
* ``*_utc``  timezone-aware UTC, for people and the record; never subtracted from one another
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias


class Direction(StrEnum):
    """Who placed the call."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Disposition(StrEnum):
    """What became of a call."""

    IN_PROGRESS = "in_progress"
    """It is still going on."""
    COMPLETED = "completed"
    """It was answered and ended as calls end, by either side."""
    NO_ANSWER = "no_answer"
    """It rang until a time limit."""
    CANCELLED = "cancelled"
    """The calling side gave up before the answer."""
    REJECTED = "rejected"
    """The called side refused it: no line, no capacity, no codec, busy."""
    FAILED = "failed"
    """Something broke: a time-out of the protocol, no media, an error of ours."""
    INTERRUPTED = "interrupted"
    """The box or one of its processes stopped while the call was going on."""


class HangupBy(StrEnum):
    """Which side ended the call."""

    CALLER = "caller"
    """The far end: whoever has called, or was called by the box."""
    AGENT = "agent"
    """The dialplan or the model said goodbye."""
    BOX = "box"
    """A limit, a drain, or a failure of ours."""


class Doing(StrEnum):
    """What a call is at right now."""

    LISTENING = "listening"
    """Nobody speaks: it is the caller's turn."""
    CALLER_SPEAKS = "caller_speaks"
    THINKING = "thinking"
    """The caller has stopped, and the reply is being worked out."""
    AGENT_SPEAKS = "agent_speaks"
    HANDED_ON = "handed_on"
    """The caller is being connected with somebody else, or speaks with them."""


class InputBy(StrEnum):
    """How the caller said what a turn is about."""

    VOICE = "voice"
    KEY = "key"
    NONE = "none"
    """Not at all: the greeting, or a reply to silence."""


class Stage(StrEnum):
    """The parts of turn latency. Stages may overlap: speculation starts before the turn is committed."""

    VAD = "vad"
    """Speech end until the detector fell below its threshold."""
    ENDPOINTING = "endpointing"
    """Silence heard until the turn was committed."""
    TURN_MODEL = "turn_model"
    """The turn model was asked until it answered."""
    ASR = "asr"
    """Recognition was asked for until the text was there."""
    REPLY = "reply"
    """The flow or the language model was asked until the first clause was there."""
    TTS = "tts"
    """The first clause was given to synthesis until its first samples were there."""
    PLAYOUT = "playout"
    """The first samples were queued until their first packet had left the socket."""


@dataclass(frozen=True, slots=True)
class StageTiming:
    """When one stage of a turn began and ended."""

    stage: Stage
    start_at: float
    end_at: float

    @property
    def duration_s(self) -> float:
        return self.end_at - self.start_at


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    """A call was offered to us, or we offer one; nothing has been answered yet.

    ``protocol`` is "sip", "twilio", ...; ``protocol_call_id`` what the other side calls this call (SIP: Call-ID).
    ``line`` is the dialplan's name for what was called, empty while none has matched.
    """

    call_id: str
    started_at: float
    started_utc: datetime
    direction: Direction
    protocol: str
    protocol_call_id: str
    trunk: str
    line: str
    called: str
    calling: str
    calling_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlaced:
    """A call of ours has been placed by ``trunk``; again where another one is tried. See :class:`CallStarted`."""

    call_id: str
    protocol: str
    protocol_call_id: str
    trunk: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRinging:
    """The called side is being alerted (SIP: 180 sent or received)."""

    call_id: str
    ringing_at: float
    ringing_utc: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered:
    """The call was answered (SIP: 200 to the INVITE sent or received); billing and ``TurnFinished`` count from here."""

    call_id: str
    answered_at: float
    answered_utc: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted:
    """Audio from frame ``start_frame`` (20 ms each, of the leg) on goes to the WAV file ``path``, which is deleted at
    ``delete_utc``; None: with the call's record."""

    call_id: str
    path: str
    start_frame: int
    delete_utc: datetime | None = None


class Consent(StrEnum):
    """What the caller was told or asked about being recorded."""

    NOT_NEEDED = ""
    """Nothing: the line does not record, or records without telling."""
    ANNOUNCED = "announced"
    """Told, and did not hang up."""
    GIVEN = "given"
    """Asked, and said yes."""
    REFUSED = "refused"
    """Asked, and said no."""
    UNANSWERED = "unanswered"
    """Asked, and said nothing that is a yes or a no: not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingConsent:
    """The caller has been told of the recording, or asked."""

    call_id: str
    consent: Consent


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPaused:
    """``parts`` of the WAV file are silence: frames from its beginning, [first, end); None: until the file's end."""

    call_id: str
    parts: tuple[tuple[int, int | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFinished:
    """The WAV file is closed with ``frames`` frames of 20 ms.

    ``problem`` is empty, or says in words why the file is incomplete.
    """

    call_id: str
    path: str
    frames: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingKept:
    """A plugin has taken the finished recording elsewhere: to ``path``, which need not be a file's."""

    call_id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineMeasured:
    """How the line was over the whole call, from the audio that came and the peer's own reports (RTCP).

    ``mos`` is the E-model's estimate of what the box heard and ``mos_far`` of what the other side heard, 1.0 to 4.5.
    ``loss_percent`` counts packets that never came or came too late. None where nothing is known.
    """

    call_id: str
    mos: float | None
    mos_far: float | None
    loss_percent: float
    jitter_ms: float
    round_trip_ms: float | None


class Confirmed(StrEnum):
    """Who gave leave for what a tool did."""

    NOT_NEEDED = ""
    """It needs none."""
    CALLER = "caller"
    NOBODY = "nobody"
    """The caller was asked and did not say yes."""


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A tool that the agent used: one for every time that it ran, or was refused.

    Attributes:
        name: of the tool; what the model wrote, where there is no such tool.
        arguments: JSON text: what the tool was run with, or what the model wrote where it was not run.
        result: JSON text, as the model is told it.
        start_at, end_at: CLOCK_MONOTONIC.
        problem: why there is no result, in words; "" where there is one.
        source: the plugin that the tool is from, ``builtin`` for the box's own, "" where there is no such tool.
        confirmed: who gave leave for it.
        key: the same for repetitions of what did not succeed, and different for everything else; "" where it did not
            come to that.
    """

    name: str
    arguments: str
    result: str
    start_at: float
    end_at: float
    problem: str = ""
    source: str = ""
    confirmed: Confirmed = Confirmed.NOT_NEEDED
    key: str = ""


@dataclass(frozen=True, slots=True)
class Speculation:
    """What was worked out before the turn was certain.

    Attributes:
        begun: replies that were begun in advance.
        used: one of them was the reply.
        wasted_tokens: of the language model, in replies that were thrown away.
        wasted_speech_s: synthesised, and thrown away.
        gained_s: how much earlier the first audio was there than the commit; 0 where it was not.
    """

    begun: int = 0
    used: bool = False
    wasted_tokens: int = 0
    wasted_speech_s: float = 0.0
    gained_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """The caller said something (or nothing, ``by`` is NONE) and the agent's reply is over.

    The greeting is turn 0. Attributes:
        answered_at: when the call was answered; the record counts the turn's times from there.
        caller_text: what was recognised, or the keys pressed.
        confidence: 0 to 1; None where the engine gives none, or nothing was said.
        accepted: it was something the dialplan expected.
        agent_text: the whole reply as it was meant.
        heard_text: the part of it that left before the caller interrupted or hung up.
        interrupted: the caller cut the reply short.
        speech_start_at: onset of the caller's speech; of the first key for BY KEY; None for BY NONE.
        speech_end_at: end of the last 10 ms frame within 30 dB of the utterance's loudest; the last key for BY KEY.
        reply_at: the first packet of the spoken reply left the socket; None where nothing was spoken.
        stages: what the time between ``speech_end_at`` and ``reply_at`` went into, in order of their start.
        ended_by: why the caller's turn was taken to be over: verdict, no_verdict, max_utterance, ...; "" for no speech.
        probability: the turn model's last answer.
        pauses: times that the agent fell silent for a sound and went on.
        speculation: what was begun before the turn was certain.
        tools: what the agent used.
        asked: JSON of the messages that were new to the language model with this turn; "" without one.
        server: which language model answered.
        problem: what went wrong in this turn, in words.
    """

    call_id: str
    number: int
    finished_utc: datetime
    answered_at: float
    by: InputBy = InputBy.NONE
    caller_text: str = ""
    confidence: float | None = None
    accepted: bool = True
    agent_text: str = ""
    heard_text: str = ""
    interrupted: bool = False
    speech_start_at: float | None = None
    speech_end_at: float | None = None
    reply_at: float | None = None
    stages: tuple[StageTiming, ...] = ()
    ended_by: str = ""
    probability: float | None = None
    pauses: int = 0
    speculation: Speculation = Speculation()
    tools: tuple[ToolRun, ...] = ()
    asked: str = ""
    server: str = ""
    problem: str = ""

    @property
    def latency_s(self) -> float | None:
        """Turn latency: speech end to the first packet of the reply; None where there was no speech or no reply."""
        if self.speech_end_at is None or self.reply_at is None:
            return None
        return self.reply_at - self.speech_end_at

    def after_answer_s(self, at: float | None) -> float | None:
        """A time of this turn as seconds after the answer."""
        return None if at is None else at - self.answered_at

    def waterfall_ms(self) -> dict[str, tuple[float, float]]:
        """Stage to (start, end) in ms after speech end; empty where there was no speech.

        A start before speech end is negative. A stage that ran twice keeps its first start and last end.
        """
        spans: dict[str, tuple[float, float]] = {}
        if self.speech_end_at is None:
            return spans
        for timing in self.stages:
            start = round((timing.start_at - self.speech_end_at) * 1000, 1)
            end = round((timing.end_at - self.speech_end_at) * 1000, 1)
            before = spans.get(timing.stage.value, (start, end))
            spans[timing.stage.value] = (min(before[0], start), max(before[1], end))
        return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAmended:
    """More is known of the call's last turn than when it was said to be finished: a tool has ended since."""

    call_id: str
    turn: TurnFinished


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnProgress:
    """A turn goes on. ``turn`` is what is known of it so far: TurnFinished of the same number follows, unless nothing
    is said in it. ``hearing`` is what has been understood of the caller's next turn, where the recogniser says so
    before its end. For watching a call as it happens; neither recorded nor counted.
    """

    call_id: str
    doing: Doing
    turn: TurnFinished
    hearing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """The call is over, whatever became of it. Said exactly once for every CallStarted while the process lives.

    ``hangup_code`` is the protocol's code (SIP: the status of the final response, 200 after a BYE), 0 where it has
    none; ``hangup_text`` says why in words. ``slots`` is what the dialplan collected: name to value.
    """

    call_id: str
    ended_at: float
    ended_utc: datetime
    disposition: Disposition
    hangup_by: HangupBy
    hangup_code: int = 0
    hangup_text: str = ""
    slots: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFailed:
    """A plugin's hook failed or was too slow in this call, which went on by the hook's default.

    ``outcome`` is failed, over_budget, wrong_type, unavailable (the plugin host is being restarted) or switched_off
    (after too many failures). ``text`` says what went wrong. ``plugin`` is "" where it is not about one of them.
    """

    call_id: str
    hook: str
    plugin: str
    outcome: str
    at: float
    seconds: float
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTraced:
    """What was said in SIP for a call that is over; comes a moment after CallEnded, for the last answers' sake.

    Each of ``messages`` has ``at_s`` (after the call began), ``sent``, ``peer`` and ``text`` without keys and
    credentials.
    """

    call_id: str
    messages: Sequence[Mapping[str, str | float | bool]]


CallEvent: TypeAlias = (
    CallStarted
    | CallPlaced
    | CallRinging
    | CallAnswered
    | RecordingConsent
    | RecordingStarted
    | RecordingPaused
    | TurnProgress
    | TurnFinished
    | TurnAmended
    | LineMeasured
    | CallEnded
    | RecordingFinished
    | RecordingKept
    | HookFailed
    | CallTraced
)


class CallObserver(Protocol):
    """Wants to know what happens to calls.

    ``observe`` is called in the event loop of the control process: it must return at once and must not raise.
    """

    def observe(self, event: CallEvent) -> None: ...
