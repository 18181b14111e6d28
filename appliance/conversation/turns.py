"""When the caller has begun, paused, gone on and finished: one small machine per call.

It is fed one level and one speech probability per 20 ms frame and says what to do: finalise the recogniser, ask the
turn model, commit the turn, stop the agent. It knows no clock, model or thread; its time is the frame index of the
leg (20 ms each, from the moment the leg was connected), so that every range it names can be read from the audio.

The caller's *speech end* is the end of the last frame within ``fall_db`` of the utterance's loudest. Energy falls well
before the speech probability does (a median of 137 ms on telephone clips), so the first silence, on which speculation
may begin, is taken from the energy; the probability says whether a sound is speech at all. Where background noise
reaches into those 30 dB, the adaptive noise floor and the probability decide together.

How much silence commits a turn is a continuous function of the turn model's answer and of what was heard, see
:func:`~appliance.conversation.endpointing.required_silence`. Where a recogniser listens, its words are waited for
first: nothing can be answered without them, and they may show that the caller has not finished. Ranges are half-open
frame indices [start, end).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from appliance.conversation.endpointing import FRAME_S, TurnConfig, frames, required_silence


class State(enum.Enum):
    """What the caller is doing."""

    QUIET = "quiet"
    ONSET = "onset"
    SPEAKING = "speaking"
    PAUSING = "pausing"


class Event(enum.Enum):
    """What moves the machine on."""

    VOICE = "voice begins"
    VOICE_LOST = "it was a click"
    VOICE_HELD = "voice has held"
    FELL = "first silence"
    RESUMED = "voice again"
    ENOUGH_SILENCE = "enough silence"
    TOO_LONG = "utterance too long"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.QUIET, Event.VOICE): State.ONSET,
        (State.ONSET, Event.VOICE_LOST): State.QUIET,
        (State.ONSET, Event.VOICE_HELD): State.SPEAKING,
        (State.SPEAKING, Event.FELL): State.PAUSING,
        (State.SPEAKING, Event.TOO_LONG): State.QUIET,
        (State.PAUSING, Event.RESUMED): State.SPEAKING,
        (State.PAUSING, Event.ENOUGH_SILENCE): State.QUIET,
    }
)


class CommitReason(enum.Enum):
    """Why a turn was committed."""

    VERDICT = "verdict"
    NO_VERDICT = "no_verdict"
    MAX_UTTERANCE = "max_utterance"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller has begun to speak, at frame ``start``; it was certain after frame ``at``."""

    at: int
    start: int


@dataclass(frozen=True, slots=True)
class FirstSilence:
    """The caller may have finished [speech_start, speech_end): finalise the recogniser, begin to speculate.

    ``attempt`` names this pause; cues about what was heard come back with it (:meth:`TurnMachine.partial`).
    """

    at: int
    attempt: int
    speech_start: int
    speech_end: int


@dataclass(frozen=True, slots=True)
class AskTurnModel:
    """Ask how likely it is that the caller has finished, given the audio up to frame ``at`` (inclusive)."""

    at: int
    ask: int
    speech_start: int


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The caller goes on: whatever ``attempt`` has begun is to be cancelled."""

    at: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The turn [speech_start, speech_end) is the agent's to answer.

    A :class:`FirstSilence` of the same ``attempt`` has always come before; ``speech_end`` may lie a little later than
    it said (the released "t" of "eight" after its closure). ``probability`` is the turn model's last answer, None
    where there was none.
    """

    at: int
    attempt: int
    speech_start: int
    speech_end: int
    reason: CommitReason
    probability: float | None


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller speaks over the agent since frame ``start``: stop the agent now."""

    at: int
    start: int


@dataclass(frozen=True, slots=True)
class NoInput:
    """The caller has said nothing for the time the line waits."""

    at: int


Action: TypeAlias = SpeechStarted | FirstSilence | AskTurnModel | SpeechResumed | TurnCommitted | BargeIn | NoInput
Actions: TypeAlias = tuple[Action, ...]

_NOTHING: Final[Actions] = ()
_NEVER: Final = -(1 << 30)
_FLOOR_START_DBFS: Final = -65.0
_FLOOR_MIN_DBFS: Final = -90.0
_FLOOR_MAX_DBFS: Final = -25.0
_FLOOR_FALL: Final = 0.2
_FLOOR_RISE: Final = 0.02
_FLOOR_CREEP_DB: Final = 0.01
_UTTERANCE_MARGIN_DB: Final = 6.0
_UTTERANCE_MIN_DBFS: Final = -60.0
_NOISY_BELOW_PEAK_DB: Final = 20.0
_CERTAIN: Final = 0.85
_CERTAIN_MARGIN_DB: Final = 3.0
_ENERGY_ONLY_MARGIN_DB: Final = 4.0
_ECHO_MARGIN_DB: Final = 6.0
_ECHO_RISE_DB: Final = 1.0
_ECHO_FALL_DB: Final = 0.05
_ECHO_MAX_DBFS: Final = -40.0
_RUN_GAP_FRAMES: Final = 3
_MAX_BACKDATE_FRAMES: Final = 15
_SURE_FRAMES: Final = 2
_RESUME_FRAMES: Final = 3
_MAX_HOLD_FRAMES: Final = 10
_PEAK_LEARNING: Final = 0.3


def turn_diagram() -> str:
    """The machine's state diagram in Mermaid, drawn from the table that runs it."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.QUIET.value}"]
    lines += [f"    {state.value} --> {to.value}: {event.value}" for (state, event), to in TRANSITIONS.items()]
    return "\n".join(lines) + "\n"


class TurnMachine:
    """The turns of one call.

    Every method returns the actions that follow, in order; most steps return none. ``second_verdicts`` and
    ``no_input_s`` may be changed at any time (the box gives up second verdicts under load). ``awaits_text`` says that
    every :class:`FirstSilence` will be answered by :meth:`partial`.
    """

    def __init__(self, config: TurnConfig | None = None) -> None:
        config = config if config is not None else TurnConfig()
        self.config = config
        self.state = State.QUIET
        self.second_verdicts = True
        self.awaits_text = False
        self.no_input_s = config.no_input_s
        self._min_speech = frames(config.min_speech_s)
        self._barge_in = frames(config.barge_in_s)
        self._first_silence = frames(config.first_silence_s)
        self._text_wait = frames(config.text_wait_s)
        self._second_after = frames(config.second_verdict_after_s)
        self._still_speech = frames(config.still_speech_s)
        self._max_utterance = frames(config.max_utterance_s)
        self._frame = -1
        self._floor = _FLOOR_START_DBFS
        self._echo = config.echo_level_dbfs - _ECHO_MARGIN_DB
        self._usual_peak: float | None = None
        self._probability = 0.0
        self._agent_speaking = False
        self._interruptible = True
        self._barged = False
        self._over_agent = 0
        self._listening_since: int | None = None
        self._attempt = 0
        self._next_ask = 1
        self._open_ask = 0
        self._start = 0
        self._voiced = 0
        self._sure = 0
        self._last_voiced = _NEVER
        self._peak = _FLOOR_MIN_DBFS
        self._run_start = 0
        self._run_last = _NEVER
        self._run_frames = 0
        self._run_peak = _FLOOR_MIN_DBFS
        self._paused_at = 0
        self._verdict: float | None = None
        self._text_due = False
        self._completes = False
        self._unfinished = False
        self._asked_twice = False
        self._required = 0
        self._rise = 0
        self._rise_last = _NEVER
        self._held = 0

    @property
    def noise_floor_dbfs(self) -> float:
        """The estimated level of the background, RMS dBFS."""
        return self._floor

    @property
    def frame(self) -> int:
        """The newest frame seen; -1 before the first."""
        return self._frame

    def step(self, frame: int, level_dbfs: float, speech_probability: float) -> Actions:
        """Take one frame.

        Args:
            frame: its index on the leg; a gap means frames nobody heard, an index seen before is ignored.
            level_dbfs: its RMS level relative to int16 full scale, dB.
            speech_probability: the newest speech probability, 0 to 1; negative where there is none (energy alone
                decides then).
        """
        if frame <= self._frame:
            return _NOTHING
        self._frame = frame
        config = self.config
        level = level_dbfs if level_dbfs > _FLOOR_MIN_DBFS else _FLOOR_MIN_DBFS
        self._probability = speech_probability
        state = self.state
        floor = self._track_floor(level, speech_probability, state is State.QUIET)

        if state is State.QUIET:
            threshold = floor + config.floor_margin_db
            threshold = threshold if threshold > config.min_level_dbfs else config.min_level_dbfs
            if self._agent_speaking:
                threshold = max(threshold, self._echo_threshold())
                self._track_echo(level)
            if level >= threshold:
                return self._loud_while_quiet(frame, level, speech_probability, threshold)
            if speech_probability >= _CERTAIN and not self._agent_speaking and level >= floor + _CERTAIN_MARGIN_DB:
                return self._loud_while_quiet(frame, level, speech_probability, level)
            if self._listening_since is not None and self.no_input_s is not None:
                return self._check_no_input(frame)
            return _NOTHING

        threshold = self._peak - config.fall_db
        noise_limit = floor + _UTTERANCE_MARGIN_DB
        noisy = noise_limit > self._peak - _NOISY_BELOW_PEAK_DB
        threshold = threshold if threshold > noise_limit else noise_limit
        threshold = threshold if threshold > _UTTERANCE_MIN_DBFS else _UTTERANCE_MIN_DBFS
        if self._agent_speaking:
            threshold = max(threshold, self._echo_threshold())
        loud = level >= threshold
        speech = speech_probability >= config.speech_on or speech_probability < 0
        voiced = (loud and (speech or speech_probability >= config.speech_off)) or (
            noisy and speech_probability >= config.speech_on
        )
        if state is State.PAUSING:
            return self._pausing(frame, loud or (noisy and voiced), speech)
        if voiced:
            self._last_voiced = frame
            self._voiced += 1
            if speech:
                self._sure += 1
                self._peak = level if level > self._peak else self._peak
        if state is State.ONSET:
            return self._onset(frame)
        return self._speaking(frame, voiced)

    def verdict(self, ask: int, probability: float) -> Actions:
        """The turn model's answer to :class:`AskTurnModel` number ``ask``; a late one changes nothing."""
        if self.state is not State.PAUSING or ask != self._open_ask:
            return _NOTHING
        self._open_ask = 0
        self._verdict = probability
        self._renew_requirement()
        return self._commit_if_due()

    def partial(
        self, attempt: int, *, completes: bool = False, trailing_filler: bool = False, unfinished: bool = False
    ) -> Actions:
        """What the recogniser heard of the pause ``attempt`` says about whether it is over; late news change nothing.

        Args:
            attempt: of the :class:`FirstSilence` that asked.
            completes: it completes an expected phrase or digit count.
            trailing_filler: it breaks off in a filler ("um", "and"); see :mod:`appliance.conversation.fillers`.
            unfinished: fewer digits than expected, say, or the beginning of an expected phrase.
        """
        if self.state is not State.PAUSING or attempt != self._attempt:
            return _NOTHING
        self._text_due = False
        self._completes = completes
        self._unfinished = trailing_filler or unfinished
        self._renew_requirement()
        return self._commit_if_due()

    def agent_speaking(self, speaking: bool, *, interruptible: bool = True) -> None:
        """The agent's speech has begun to leave, or has ended; after its end the caller is listened to."""
        self._agent_speaking = speaking
        self._interruptible = interruptible
        self._barged = False
        self._over_agent = 0
        self._listening_since = None
        if not speaking and self.state in (State.QUIET, State.ONSET):
            self.listen()

    def listen(self) -> None:
        """From now on the caller is expected to say something within ``no_input_s``."""
        self._listening_since = self._frame

    def reset(self) -> None:
        """Forget the utterance under way, committing nothing (the caller pressed a key instead, say)."""
        self.state = State.QUIET
        self._clear_utterance()

    # --- states ---------------------------------------------------------------------------------------------------

    def _loud_while_quiet(self, frame: int, level: float, probability: float, threshold: float) -> Actions:
        if frame - self._run_last > _RUN_GAP_FRAMES:
            self._run_start = frame
            self._run_frames = 0
            self._run_peak = level
        self._run_last = frame
        self._run_frames += 1
        self._run_peak = max(self._run_peak, level)
        if probability < 0:
            begins = level >= threshold + _ENERGY_ONLY_MARGIN_DB
        else:
            begins = probability >= self.config.speech_on
        if not begins:
            if self._listening_since is not None and self.no_input_s is not None:
                return self._check_no_input(frame)
            return _NOTHING
        self._start = max(self._run_start, frame - _MAX_BACKDATE_FRAMES)
        self._voiced = min(self._run_frames, frame - self._start + 1)
        self._sure = 1
        self._last_voiced = frame
        self._peak = self._run_peak
        self._go(Event.VOICE)
        return _NOTHING

    def _onset(self, frame: int) -> Actions:
        if frame - self._last_voiced >= self._first_silence:
            self._go(Event.VOICE_LOST)
            self._clear_utterance()
            return _NOTHING
        needed = self._barge_in if self._agent_speaking else self._min_speech
        if self._voiced < needed or self._sure < _SURE_FRAMES:
            return _NOTHING
        self._go(Event.VOICE_HELD)
        self._listening_since = None
        started = SpeechStarted(frame, self._start)
        if self._agent_speaking and self._interruptible:
            self._barged = True
            return (started, BargeIn(frame, self._start))
        return (started,)

    def _speaking(self, frame: int, voiced: bool) -> Actions:
        if frame - self._last_voiced >= self._first_silence:
            self._go(Event.FELL)
            return (self._first_silence_action(frame), self._ask(frame))
        if frame - self._start >= self._max_utterance:
            self._last_voiced = frame
            first = self._first_silence_action(frame)
            return (first, self._commit(Event.TOO_LONG, CommitReason.MAX_UTTERANCE))
        if voiced and self._agent_speaking and self._interruptible and not self._barged:
            self._over_agent += 1
            if self._over_agent >= self._barge_in:
                self._barged = True
                return (BargeIn(frame, self._start),)
        return _NOTHING

    def _pausing(self, frame: int, loud: bool, speech: bool) -> Actions:
        if loud:
            self._rise += 1
            self._rise_last = frame
            if speech:
                self._last_voiced = frame
        elif frame - self._rise_last >= _RUN_GAP_FRAMES:
            self._rise = 0
        if self._rise >= _RESUME_FRAMES and speech:
            self._rise = 0
            self._open_ask = 0
            self._go(Event.RESUMED)
            return (SpeechResumed(frame, self._attempt),)
        if self._rise and self._held < _MAX_HOLD_FRAMES:
            self._held += 1
            return _NOTHING
        committed = self._commit_if_due()
        if committed:
            return committed
        verdict = self._verdict
        if (
            verdict is not None
            and not self._asked_twice
            and self.second_verdicts
            and self.config.ambiguous[0] <= verdict <= self.config.ambiguous[1]
            and frame - self._paused_at >= self._second_after
        ):
            self._asked_twice = True
            return (self._ask(frame),)
        return _NOTHING

    def _check_no_input(self, frame: int) -> Actions:
        since, limit_s = self._listening_since, self.no_input_s
        if since is None or limit_s is None or self._agent_speaking or (frame - since) * FRAME_S < limit_s:
            return _NOTHING
        self._listening_since = None
        return (NoInput(frame),)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _track_floor(self, level: float, probability: float, quiet: bool) -> float:
        """Follow the background: down at once, up slowly, and hardly at all while somebody speaks."""
        floor = self._floor
        if level < floor:
            floor += _FLOOR_FALL * (level - floor)
        elif quiet and 0 <= probability < self.config.speech_off:
            floor += _FLOOR_RISE * (level - floor)
        else:
            floor += _FLOOR_CREEP_DB
        floor = floor if floor < _FLOOR_MAX_DBFS else _FLOOR_MAX_DBFS
        self._floor = floor
        return floor

    def _track_echo(self, level: float) -> None:
        """How loud the agent comes back: up too slowly for a caller who interrupts, down as nothing is heard."""
        if level > self._echo:
            self._echo = min(self._echo + min(level - self._echo, _ECHO_RISE_DB), _ECHO_MAX_DBFS)
        else:
            self._echo -= _ECHO_FALL_DB

    def _echo_threshold(self) -> float:
        threshold = self._echo + _ECHO_MARGIN_DB
        if self._usual_peak is None:
            return threshold
        return max(threshold, self._usual_peak - self.config.echo_below_peak_db)

    def _first_silence_action(self, frame: int) -> FirstSilence:
        self._attempt += 1
        self._paused_at = frame
        self._verdict = None
        self._text_due = self.awaits_text
        self._completes = False
        self._unfinished = False
        self._asked_twice = False
        self._rise = 0
        self._rise_last = _NEVER
        self._held = 0
        self._renew_requirement()
        return FirstSilence(frame, self._attempt, self._start, self._last_voiced + 1)

    def _ask(self, frame: int) -> AskTurnModel:
        self._open_ask = self._next_ask
        self._next_ask += 1
        return AskTurnModel(frame, self._open_ask, self._start)

    def _renew_requirement(self) -> None:
        seconds = required_silence(self.config, self._verdict, completes=self._completes, unfinished=self._unfinished)
        self._required = frames(seconds)

    def _commit_if_due(self) -> Actions:
        required = self._required
        if self._probability >= self.config.speech_on:
            required += self._still_speech
        if self._frame - self._last_voiced < required or (self._rise and self._held < _MAX_HOLD_FRAMES):
            return _NOTHING
        if self._text_due and self._frame - self._paused_at < self._text_wait:
            return _NOTHING
        reason = CommitReason.NO_VERDICT if self._verdict is None else CommitReason.VERDICT
        return (self._commit(Event.ENOUGH_SILENCE, reason),)

    def _commit(self, event: Event, reason: CommitReason) -> TurnCommitted:
        committed = TurnCommitted(self._frame, self._attempt, self._start, self._last_voiced + 1, reason, self._verdict)
        if self._usual_peak is None:
            self._usual_peak = self._peak
        else:
            self._usual_peak += _PEAK_LEARNING * (self._peak - self._usual_peak)
        self._go(event)
        self._clear_utterance()
        return committed

    def _go(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]

    def _clear_utterance(self) -> None:
        """What the next utterance must not inherit; a pause clears the rest when it begins."""
        self._voiced = 0
        self._sure = 0
        self._last_voiced = _NEVER
        self._peak = _FLOOR_MIN_DBFS
        self._run_last = _NEVER
        self._run_frames = 0
        self._open_ask = 0
        self._over_agent = 0
