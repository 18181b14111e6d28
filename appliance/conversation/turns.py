"""When the caller has begun, paused, gone on and finished: one small machine per call. PURE.

It is fed one level and one speech probability per 20 ms frame and says what to do: finalise the recogniser, ask the
turn model, commit the turn, silence the agent. It knows no clock, model or thread; its time is the frame index of the
leg (20 ms each, from the moment the leg was connected), so that every range it names can be read from the audio.

The caller's *speech end* is the end of the last frame within ``fall_db`` of the utterance's loudest. Energy falls well
before the speech probability does (a median of 137 ms on telephone clips), so the first silence, on which speculation
may begin, is taken from the energy; the probability says whether a sound is speech at all. Where background noise
reaches into those 30 dB, the adaptive noise floor and the probability decide together.

How much silence commits a turn is a continuous function of the turn model's answer and of what was heard, see
:func:`~appliance.conversation.endpointing.required_silence`. Where a recogniser listens, its words are waited for
first: nothing can be answered without them, and they may show that the caller has not finished. Ranges are half-open
frame indices [start, end).

A voice over the agent pauses it, and what the voice says and how long it lasts decides whether the agent goes on
(:mod:`appliance.conversation.barge_in`). Over an agent that may not be interrupted nothing is heard at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.conversation import barge_in
from appliance.conversation.barge_in import Agent, Floor, Overlap, Words
from appliance.conversation.cues import NO_CUES, Cues
from appliance.conversation.endpointing import FRAME_S, TurnConfig, frames
from appliance.conversation.evidence import Evidence
from appliance.conversation.levels import QUIETEST_DBFS, Echo, NoiseFloor
from appliance.conversation.pauses import CUT_OFF_S, Pauses
from appliance.conversation.turn_actions import (
    NOTHING,
    Actions,
    AskTurnModel,
    CommitReason,
    FirstSilence,
    HearSound,
    JudgeSound,
    NoInput,
    PauseAgent,
    ResumeAgent,
    SpeechDropped,
    SpeechResumed,
    SpeechStarted,
    StopAgent,
    StopReason,
    TurnCommitted,
)
from appliance.conversation.turn_states import TRANSITIONS, Event, State

_NEVER: Final = -(1 << 30)
_UTTERANCE_MARGIN_DB: Final = 6.0
_UTTERANCE_MIN_DBFS: Final = -60.0
_NOISY_BELOW_PEAK_DB: Final = 20.0
_CERTAIN: Final = 0.85
_CERTAIN_MARGIN_DB: Final = 3.0
_LEAST_FRAMES: Final = 3
_CLEAR_DB: Final = 6.0
"""Above what may be echo: a certain voice that is so loud counts twice."""
_ENERGY_ONLY_MARGIN_DB: Final = 4.0
_RUN_GAP_FRAMES: Final = 3
_MAX_BACKDATE_FRAMES: Final = 15
_SURE_FRAMES: Final = 2
_RESUME_FRAMES: Final = 3
_MAX_HOLD_FRAMES: Final = 10
_PEAK_LEARNING: Final = 0.3
_CLOSURE_FRAMES: Final = 2
_REJOIN_FRAMES: Final = 20
"""What follows a sound that was taken for nothing this soon belongs to it: "I'd like ... to book a table"."""
_MAX_REJOINED_FRAMES: Final = 150


class TurnMachine:
    """The turns of one call.

    Every method returns the actions that follow, in order; most steps return none. ``second_verdicts`` and
    ``no_input_s`` may be changed at any time (the box gives up second verdicts under load). ``awaits_text`` says that
    every :class:`FirstSilence` will be answered by :meth:`partial`, and by :meth:`heard_over_agent` before that while
    the agent is :attr:`paused`.
    """

    def __init__(self, config: TurnConfig | None = None) -> None:
        config = config if config is not None else TurnConfig()
        self.config = config
        self.state = State.QUIET
        self.floor = Floor()
        self.second_verdicts = True
        self.awaits_text = False
        self.no_input_s = config.no_input_s
        self._min_speech = frames(config.min_speech_s)
        self._barge_in = frames(config.barge_in_s)
        self._max_pause = frames(config.max_pause_s)
        self._slight_silence = frames(config.slight_silence_s)
        self._brief_silence = frames(config.brief_silence_s)
        self._words_after = frames(config.words_after_s)
        self._hum = frames(config.max_hum_s)
        self._agreement = frames(config.max_agreement_s)
        self._first_silence = frames(config.first_silence_s)
        self._text_wait = frames(config.text_wait_s)
        self._second_after = frames(config.second_verdict_after_s)
        self._still_speech = frames(config.still_speech_s)
        self._max_utterance = frames(config.max_utterance_s)
        self._frame = -1
        self._noise = NoiseFloor()
        self._echo = Echo(config.echo_level_dbfs, config.echo_gain_db)
        self._usual_peak: float | None = None
        self._probability = 0.0
        self._unheard = False
        self._hum_until = _NEVER
        self._judging = False
        self._judged = _NEVER
        self._words_due = False
        self._agrees = False
        self._listening_since: int | None = None
        self._attempt = 0
        self._next_ask = 1
        self._open_ask = 0
        self._start = self._said_from = 0
        self._passed_over = (_NEVER, _NEVER)
        self._voiced = 0
        self._sure = 0
        self._certain = 0
        self._last_voiced = _NEVER
        self._peak = QUIETEST_DBFS
        self._run_start = 0
        self._run_last = _NEVER
        self._run_frames = 0
        self._run_peak = QUIETEST_DBFS
        self._paused_at = 0
        self._paused_since = 0
        self.pauses = Pauses()
        self._evidence = Evidence(config, self.pauses)
        self._committed_end = _NEVER
        self._asked_twice = False
        self._rise = 0
        self._rise_last = _NEVER
        self._held = 0

    @property
    def noise_floor_dbfs(self) -> float:
        """The estimated level of the background, RMS dBFS."""
        return self._noise.dbfs

    @property
    def frame(self) -> int:
        """The newest frame seen; -1 before the first."""
        return self._frame

    @property
    def paused(self) -> bool:
        """Whether the agent is silent for a sound that is not decided on."""
        return self.floor.agent is Agent.PAUSED

    @property
    def silence_left_s(self) -> float | None:
        """Seconds of silence that still commit the turn, as far as is known now; None while the caller speaks."""
        if self.state is not State.PAUSING:
            return None
        return max(self._evidence.required - (self._frame - self._last_voiced), 0) * FRAME_S

    def step(
        self, frame: int, level_dbfs: float, speech_probability: float, agent_level_dbfs: float | None = None
    ) -> Actions:
        """Take one frame.

        Args:
            frame: its index on the leg; a gap means frames nobody heard, an index seen before is ignored.
            level_dbfs: its RMS level relative to int16 full scale, dB.
            speech_probability: the newest speech probability, 0 to 1; negative where there is none (energy alone
                decides then).
            agent_level_dbfs: the RMS level of what was sent with that frame; None where nobody knows.
        """
        if frame <= self._frame:
            return NOTHING
        self._frame = frame
        config = self.config
        level = level_dbfs if level_dbfs > QUIETEST_DBFS else QUIETEST_DBFS
        self._probability = speech_probability
        state = self.state
        quiet = state is State.QUIET
        noise = self._noise.follow(level, quiet and 0 <= speech_probability < config.speech_off)
        agent = self.floor.agent
        echo = self._echo
        if agent is not Agent.SILENT or agent_level_dbfs is not None:
            echo.sends(frame, agent_level_dbfs, agent is not Agent.SILENT)
        echoes = echo.audible(frame)

        if quiet:
            threshold = noise + config.floor_margin_db
            threshold = threshold if threshold > config.min_level_dbfs else config.min_level_dbfs
            if echoes:
                threshold = max(threshold, self._echo_threshold())
                echo.learn(level)
            if level >= threshold:
                return self._loud_while_quiet(frame, level, speech_probability, threshold)
            if speech_probability >= _CERTAIN and not echoes and level >= noise + _CERTAIN_MARGIN_DB:
                return self._loud_while_quiet(frame, level, speech_probability, level)
            if self._listening_since is not None and self.no_input_s is not None:
                return self._check_no_input(frame)
            return NOTHING

        threshold = self._peak - config.fall_db
        noise_limit = noise + _UTTERANCE_MARGIN_DB
        noisy = noise_limit > self._peak - _NOISY_BELOW_PEAK_DB
        threshold = threshold if threshold > noise_limit else noise_limit
        threshold = threshold if threshold > _UTTERANCE_MIN_DBFS else _UTTERANCE_MIN_DBFS
        if echoes:
            threshold = max(threshold, self._echo_threshold())
        loud = level >= threshold
        speech = speech_probability >= config.speech_on or speech_probability < 0
        voiced = (loud and (speech or speech_probability >= config.speech_off)) or (
            noisy and not echoes and speech_probability >= config.speech_on
        )
        if state is State.PAUSING:
            return self._pausing(frame, loud or (noisy and voiced), speech)
        if voiced:
            self._last_voiced = frame
            self._voiced += 1
            if speech:
                self._sure += 1
                self._peak = level if level > self._peak else self._peak
            if speech_probability >= _CERTAIN and (not echoes or level >= threshold + _CLEAR_DB):
                self._certain += 1
            if agent is not Agent.SILENT:
                self.floor.voice(frame, 1)
        if agent is Agent.PAUSED and (
            frame - self.floor.paused_at >= self._max_pause or self.floor.insists(at_once=True)
        ):
            return self._end_pause(frame)
        if state is State.ONSET:
            return self._onset(frame)
        return self._speaking(frame, voiced)

    def verdict(self, ask: int, probability: float, ending: Sequence[float] = ()) -> Actions:
        """The answer to :class:`AskTurnModel` number ``ask``: the turn model's ``probability``, and how the speech
        sounds at its ``ending`` (:class:`appliance.audio.prosody.Ending`) where it is long enough to say. A late
        answer changes nothing.
        """
        if self.state is not State.PAUSING or ask != self._open_ask:
            return NOTHING
        self._open_ask = 0
        self._evidence.judged(probability, ending)
        return self._commit_if_due()

    def partial(self, attempt: int, cues: Cues = NO_CUES) -> Actions:
        """What the recogniser heard of the pause ``attempt`` shows about whether it is over; late news change nothing.

        Args:
            attempt: of the :class:`FirstSilence` that asked; 0 for a result while the caller still speaks, which holds
                for the pause that follows until there are words of its own.
            cues: see :mod:`appliance.conversation.cues`.
        """
        if not attempt and self.state is State.SPEAKING:
            self._evidence.words(cues, final=False)
        if self.state is not State.PAUSING or attempt != self._attempt:
            return NOTHING
        self._evidence.words(cues, final=True)
        return self._commit_if_due()

    def heard_over_agent(
        self, attempt: int, text: str, *, accepted: bool, final: bool = True, expected: bool = False
    ) -> Actions:
        """What the recogniser makes of the sound that has :attr:`paused` the agent; otherwise this changes nothing.

        Args:
            attempt: of the :class:`FirstSilence` that asked; 0 for a partial result while the caller still speaks.
            text: what it heard; "" for no words.
            accepted: the recogniser stands by it. A closed grammar's answer that is not accepted says nothing.
            final: nothing can be added to ``text``.
            expected: it answers what the line has asked.
        """
        if not self.paused or attempt not in (0, self._attempt):
            return NOTHING
        sound_s = (self._last_voiced + 1 - self._start) * FRAME_S
        words = barge_in.weigh(text, sound_s, accepted=accepted, expected=expected)
        self._agrees = words is Words.BACKCHANNEL
        if words is Words.INTERRUPTION and (final or not barge_in.may_become_backchannel(barge_in.words_of(text))):
            return self._stop_agent(self._frame, StopReason.WORDS)
        if final and attempt and self.state is State.PAUSING:
            return self._resume_agent(self._frame)
        return NOTHING

    def sounded(self, steady: bool) -> Actions:
        """The answer to :class:`JudgeSound`. One sound that is held lets the agent go on, for some time at least."""
        if not self._judging:
            return NOTHING
        self._judging = False
        if not steady:
            return self._end_pause_of_speech(self._frame)
        return self._let_pass(self._frame, self._hum)

    def agent_speaking(self, speaking: bool, *, interruptible: bool = True) -> None:
        """The agent's speech has begun to leave, or has ended; after its end the caller is listened to.

        An agent that is paused still speaks, and goes on at once where it says what may not be interrupted. One that
        has been stopped has to be said to have ended, and so has one
        that was paused and will not go on for a reason of its own.
        """
        if speaking:
            self.floor.interruptible = interruptible
            if self.floor.agent is Agent.SILENT:
                self.floor.go(Overlap.BEGINS, self._frame)
            elif self.paused and not interruptible:
                self.floor.go(Overlap.SLIGHT, self._frame)
            self._listening_since = None
            return
        if self.floor.agent is not Agent.SILENT:
            self.floor.go(Overlap.ENDS, self._frame)
        self._listening_since = None
        if self.state in (State.QUIET, State.ONSET):
            self.listen()

    def listen(self) -> None:
        """From now on the caller is expected to say something within ``no_input_s``."""
        self._listening_since = self._frame

    def reset(self) -> None:
        """Forget the utterance under way, committing nothing (the caller pressed a key instead, say).

        An agent that is paused stays silent until it is said to have ended.
        """
        self.state = State.QUIET
        self._clear_utterance()
        if self.paused:
            self.floor.go(Overlap.MEANT, self._frame)

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
            return NOTHING
        self._start = self._said_from = max(self._run_start, frame - _MAX_BACKDATE_FRAMES)
        began, ended = self._passed_over
        if self._start - ended <= _REJOIN_FRAMES and self._start - began <= _MAX_REJOINED_FRAMES:
            self._said_from = began
        self._voiced = min(self._run_frames, frame - self._start + 1)
        self._sure = 1
        self._certain = int(probability >= _CERTAIN and level >= threshold + _CLEAR_DB)
        self._last_voiced = frame
        self._peak = self._run_peak
        self._go(Event.VOICE)
        return NOTHING

    def _onset(self, frame: int) -> Actions:
        if frame - self._last_voiced >= self._first_silence:
            self._go(Event.VOICE_LOST)
            self._clear_utterance()
            return NOTHING
        talking = self.floor.agent is Agent.TALKING
        needed = max(self._barge_in - self._certain, _LEAST_FRAMES) if talking else self._min_speech
        if self._voiced < needed or self._sure < _SURE_FRAMES:
            return NOTHING
        self._go(Event.VOICE_HELD)
        if self.floor.barred or (talking and frame < self._hum_until):
            self._unheard = True
            return NOTHING
        self._listening_since = None
        if not talking:
            self._note_cut_off()
        started = SpeechStarted(frame, self._start)
        return (started, self._pause_agent(frame)) if talking else (started,)

    def _speaking(self, frame: int, voiced: bool) -> Actions:
        barred = self.floor.barred
        if frame - self._last_voiced >= self._first_silence:
            if self._unheard or barred:
                return self._drop(frame)
            self._go(Event.FELL)
            return self._fell(frame)
        if not voiced or barred:
            return NOTHING
        talking = self.floor.agent is Agent.TALKING
        if self._unheard:
            if frame < self._hum_until:
                self.floor.goes_on(frame)
                return NOTHING
            self._unheard = False
            self._listening_since = None
            started = SpeechStarted(frame, self._start)
            return (started, self._pause_agent(frame)) if talking else (started,)
        if frame - self._start >= self._max_utterance and not self.paused:
            self._last_voiced = frame
            first = self._first_silence_action(frame)
            return (first, self._commit(Event.TOO_LONG, CommitReason.MAX_UTTERANCE))
        if talking and self.floor.lasted(self._barge_in):
            return (self._pause_agent(frame),)
        if self._words_due and self.paused and frame - self.floor.paused_at >= self._words_after:
            self._words_due = False
            return (HearSound(frame, self._start),)
        return NOTHING

    def _fell(self, frame: int) -> Actions:
        first = self._first_silence_action(frame)
        return (first,) if self.paused else (first, self._ask(frame))

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
            self.pauses.resumed((frame + 1 - _RESUME_FRAMES - self._paused_since) * FRAME_S)
            self._evidence.speaking()
            self._go(Event.RESUMED)
            self.floor.another()
            return (SpeechResumed(frame, self._attempt),)
        if self._rise and self._held < _MAX_HOLD_FRAMES:
            self._held += 1
            return NOTHING
        if self.paused:
            if frame - self.floor.paused_at >= self._max_pause:
                return self._end_pause(frame)
            silence = self._slight_silence if self._voiced > self._min_speech else self._brief_silence
            ended = frame - self._last_voiced >= silence
            return self._resume_agent(frame) if ended else NOTHING
        committed = self._commit_if_due()
        if committed:
            return committed
        verdict = self._evidence.probability
        if (
            verdict is not None
            and not self._asked_twice
            and self.second_verdicts
            and self.config.ambiguous[0] <= verdict <= self.config.ambiguous[1]
            and frame - self._paused_at >= self._second_after
        ):
            self._asked_twice = True
            return (self._ask(frame),)
        return NOTHING

    def _drop(self, frame: int) -> Actions:
        """The utterance was spoken to an agent that may not be interrupted."""
        announced = not self._unheard
        self._go(Event.NOT_MEANT)
        self._clear_utterance()
        if self.floor.agent is Agent.SILENT:
            self.listen()
        return (SpeechDropped(frame),) if announced else NOTHING

    def _check_no_input(self, frame: int) -> Actions:
        since, limit_s = self._listening_since, self.no_input_s
        if since is None or limit_s is None or (frame - since) * FRAME_S < limit_s:
            return NOTHING
        self._listening_since = None
        return (NoInput(frame),)

    # --- over the agent -------------------------------------------------------------------------------------------

    def _pause_agent(self, frame: int) -> PauseAgent:
        self.floor.go(Overlap.VOICE, frame)
        self.floor.voice(frame, self._voiced)
        self._words_due = self.awaits_text
        self._agrees = False
        return PauseAgent(frame, self._start)

    def _end_pause(self, frame: int) -> Actions:
        """The pause has to end: a sound that goes on is speech, unless its words or its shape say otherwise."""
        speaking = self.state is State.SPEAKING
        if self._hum_until < self._start:
            if self._agrees:
                return self._let_pass(frame, self._agreement) if speaking else self._resume_agent(frame)
            if speaking and self._judged != self.floor.paused_at:
                self._judged = self.floor.paused_at
                self._judging = True
                return (JudgeSound(frame, self._start),)
        return self._end_pause_of_speech(frame)

    def _end_pause_of_speech(self, frame: int) -> Actions:
        """Nothing speaks for a backchannel; a sound that has just ended is waited for a moment."""
        self._judging = False
        silent = frame - self._last_voiced
        speaking = self.state is State.SPEAKING
        if speaking and not silent:
            return self._stop_agent(frame, StopReason.SUSTAINED)
        if speaking and frame - self.floor.paused_at < self._max_pause + _CLOSURE_FRAMES:
            return NOTHING
        if (speaking and silent <= _CLOSURE_FRAMES) or self.floor.insists():
            return self._stop_agent(frame, StopReason.SUSTAINED)
        return self._resume_agent(frame)

    def _stop_agent(self, frame: int, reason: StopReason) -> Actions:
        self._judging = False
        self.floor.go(Overlap.MEANT, frame)
        self._note_cut_off()
        stop = StopAgent(frame, self._start, reason)
        return (stop, self._ask(frame)) if self.state is State.PAUSING else (stop,)

    def _resume_agent(self, frame: int) -> Actions:
        self._judging = False
        self.floor.go(Overlap.SLIGHT, frame)
        self._passed_over = (self._said_from, self._last_voiced)
        self._go(Event.NOT_MEANT)
        self._clear_utterance()
        return (ResumeAgent(frame),)

    def _let_pass(self, frame: int, frames: int) -> Actions:
        """The sound goes on and the agent too; only after so many more frames is it asked again what it is."""
        self.floor.go(Overlap.SLIGHT, frame)
        self._unheard = True
        self._hum_until = frame + frames
        return (ResumeAgent(frame),)

    def _echo_threshold(self) -> float:
        threshold = self._echo.threshold()
        if self._usual_peak is None:
            return threshold
        return max(threshold, self._usual_peak - self.config.echo_below_peak_db)

    # --- parts ----------------------------------------------------------------------------------------------------
    def _first_silence_action(self, frame: int) -> FirstSilence:
        self._attempt += 1
        self._paused_at = frame
        self._paused_since = self._last_voiced + 1
        self._evidence.begin(text_due=self.awaits_text)
        self._asked_twice = False
        self._rise = 0
        self._rise_last = _NEVER
        self._held = 0
        start = self._start if self.paused else self._said_from
        return FirstSilence(frame, self._attempt, start, self._last_voiced + 1)

    def _ask(self, frame: int) -> AskTurnModel:
        self._open_ask = self._next_ask
        self._next_ask += 1
        return AskTurnModel(frame, self._open_ask, self._start)

    def _commit_if_due(self) -> Actions:
        required = self._evidence.required
        if self.paused:
            return NOTHING
        if self._probability >= self.config.speech_on:
            required += self._still_speech
        if self._frame - self._last_voiced < required or (self._rise and self._held < _MAX_HOLD_FRAMES):
            return NOTHING
        if self._evidence.text_due and self._frame - self._paused_at < self._text_wait:
            return NOTHING
        if self.floor.barred:
            return self._drop(self._frame)
        reason = CommitReason.NO_VERDICT if self._evidence.probability is None else CommitReason.VERDICT
        return (self._commit(Event.ENOUGH_SILENCE, reason),)

    def _commit(self, event: Event, reason: CommitReason) -> TurnCommitted:
        end = self._last_voiced + 1
        committed = TurnCommitted(self._frame, self._attempt, self._said_from, end, reason, self._evidence.probability)
        self._committed_end = end
        self.pauses.finished()
        if self._usual_peak is None:
            self._usual_peak = self._peak
        else:
            self._usual_peak += _PEAK_LEARNING * (self._peak - self._usual_peak)
        self._go(event)
        self._clear_utterance()
        return committed

    def _note_cut_off(self) -> None:
        """Speech that begins right after a turn was its continuation."""
        silence_s = (self._start - self._committed_end) * FRAME_S
        if silence_s <= CUT_OFF_S:
            self.pauses.cut_off(silence_s)

    def _go(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]

    def _clear_utterance(self) -> None:
        """What the next utterance must not inherit; a pause clears the rest when it begins."""
        self._voiced = 0
        self._sure = 0
        self._certain = 0
        self._last_voiced = _NEVER
        self._peak = QUIETEST_DBFS
        self._run_last = _NEVER
        self._run_frames = 0
        self._open_ask = 0
        self.floor.quiet()
        self._evidence.speaking()
        self._unheard = False
