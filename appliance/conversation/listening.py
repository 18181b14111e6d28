"""From frames to inputs: the turn machine of one call with the recogniser and the turn model around it.

At the first silence the caller's words are recognised and the turn model is asked, both at once; if the caller goes
on, the work is dropped. So when the silence is long enough, the text is usually there already, and with it the reply,
which is begun as long before as it takes. A recogniser that gives partial results is asked all the while.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.audio.prosody import is_held
from appliance.conversation.barge_in import RIVALS
from appliance.conversation.brain import Expectation, Heard
from appliance.conversation.budget import VerdictBudget
from appliance.conversation.cues import Cues, cues_of
from appliance.conversation.endpointing import FRAME_S
from appliance.conversation.hooked import NONE, HooksOfCall
from appliance.conversation.turn_actions import (
    Action,
    AskTurnModel,
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
    TurnCommitted,
)
from appliance.conversation.turns import TurnMachine
from appliance.engines.client import EnginePool
from appliance.errors import EngineError, StaleSlot
from appliance.events import Stage, StageTiming
from appliance.hook_types import Blocked
from appliance.ipc.messages import JudgeTurn, Recognise, Recognised
from appliance.ipc.rings import FRAME_SAMPLES, RATE_HZ

logger = logging.getLogger(__name__)

_PRE_ROLL_S: Final = 0.3
_POST_ROLL_S: Final = 0.1
_TURN_WINDOW_S: Final = 8.0
_VERDICT_DEADLINE_S: Final = 1.0
_PARTIAL_EVERY_S: Final = 0.3
SURE_OF_HALF: Final = 0.95
"""The confidence in words of which only the beginning was heard; half of a sentence gets 0.9 by chance."""


@dataclass
class _Attempt:
    """Recognition of what was said up to one pause."""

    asked_at: float
    task: asyncio.Task[Recognised]
    done_at: float = 0.0
    instead: str | None = None


@dataclass(frozen=True)
class HeardTurn:
    """A turn the caller has finished, or may have finished. Times are CLOCK_MONOTONIC seconds.

    Attributes:
        attempt: the pause it ended with.
        reason: why it was taken to be over; "" while that is not certain.
        probability: the turn model's last answer.
        problem: why nothing was recognised.
        unwritten: nobody has tried to write down what was said, so an empty ``text`` says nothing.
        instead: a plugin has kept back what was said: what is to be answered, "" for what one answers to what was not
            understood. None where none has.
    """

    attempt: int
    text: str
    confidence: float | None
    accepted: bool
    speech_start_at: float
    speech_end_at: float
    stages: tuple[StageTiming, ...] = ()
    reason: str = ""
    probability: float | None = None
    problem: str = ""
    unwritten: bool = False
    instead: str | None = None

    @property
    def as_input(self) -> Heard:
        """What the brain is told of it."""
        return Heard(self.text, self.confidence, self.accepted, self.instead)


class Ears(Protocol):
    """Who wants to know what the caller does. Called on the event loop; must return at once."""

    def heard(self, turn: HeardTurn) -> None:
        """The caller has finished a turn."""

    def may_have_finished(self, turn: HeardTurn) -> None:
        """The caller is silent, these are the words so far, and the turn may be over within ``lead_s``."""

    def hearing(self, text: str) -> None:
        """The caller speaks, and this is what was understood so far."""

    def goes_on(self) -> None:
        """The caller had not finished after all."""

    def paused(self) -> None:
        """There is a sound over the agent: be silent until it is known what it is."""

    def resumed(self) -> None:
        """It was nothing: go on."""

    def barged_in(self) -> None:
        """The caller speaks over the agent, and means it."""

    def caller_dropped(self) -> None:
        """What the caller began to say is no turn."""

    def silent(self) -> None:
        """The caller says nothing."""

    def caller_speaks(self, speaks: bool) -> None:
        """The caller has begun to speak (true), or has finished the turn (false)."""


class Listening:
    """Feeds the machine and does what it asks for.

    Args:
        slot, generation: of the media leg, whose ring the engines read.
        machine: the turn machine.
        asr, turn: the engine workers; None where the box has no such engine.
        verdicts: the box's budget of turn verdicts.
        language: of the line.
        asr_timeout_s: a recognition that takes longer has failed.
        delay_s: how much later than its arrival at the socket the newest frame is heard (the jitter buffer).
        ears: who is told what the caller does.
        audio: the caller's samples [start, end); raises StaleSlot where they are gone.
        hooks: asked what the caller is taken to have said.
        lead_s: how long before the end of a turn ``ears`` want to know of it, seconds.
        overhear: told all words that are understood, whatever the agent does: the text, and whether that was all.
    """

    def __init__(
        self,
        slot: int,
        generation: int,
        machine: TurnMachine,
        asr: EnginePool | None,
        turn: EnginePool | None,
        verdicts: VerdictBudget,
        *,
        language: str,
        asr_timeout_s: float,
        delay_s: Callable[[], float],
        ears: Ears,
        audio: Callable[[int, int], NDArray[np.int16]],
        hooks: HooksOfCall = NONE,
        lead_s: Callable[[], float] = lambda: math.inf,
        overhear: Callable[[str, bool], None] = lambda text, final: None,
    ) -> None:
        self._overhear = overhear
        self._hooks = hooks
        self._slot = slot
        self._generation = generation
        self.machine = machine
        machine.awaits_text = asr is not None
        self._asr = asr
        self._turn = turn
        self._verdicts = verdicts
        self._asked_in_pause = 0
        self._language = language
        self._asr_timeout_s = asr_timeout_s
        self._delay_s = delay_s
        self._ears = ears
        self._audio = audio
        self._lead_s = lead_s
        self._may_have_finished: HeardTurn | None = None
        self._utterances = 0
        self._partials: asyncio.Task[None] | None = None
        self._expectation = Expectation()
        self._attempts: dict[int, _Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._commits: set[asyncio.Task[None]] = set()
        self._closed = False
        self._at = 0.0
        self._frame = 0
        self._start = 0
        self._verdict_asked_at: float | None = None
        self._verdict_at: float | None = None
        self._first_silence_at: float | None = None

    def expect(self, expectation: Expectation) -> None:
        """What may be said from now on."""
        self._expectation = expectation
        self.machine.no_input_s = expectation.no_input_s

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float, sent_dbfs: float) -> None:
        """One frame of the caller, heard at ``at``; ``sent_dbfs`` is the level of what was sent with it."""
        if self._closed:
            return
        self._at = at
        self._frame = frame
        for action in self.machine.step(frame, level_dbfs, speech, sent_dbfs):
            self._do(action)
        self._tell_in_time()

    def drop(self) -> None:
        """Forget what was said and is not understood yet (a key was pressed instead, or the call ends)."""
        self.machine.reset()
        self._stop_following()
        self._cancel_attempts()
        for commit in self._commits:
            commit.cancel()

    async def close(self) -> None:
        self._closed = True
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def time_of(self, frame: int) -> float:
        """When the beginning of ``frame`` arrived at the socket."""
        return self._at - (self._frame + 1 - frame) * FRAME_S - self._delay_s()

    # --- actions --------------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        match action:
            case FirstSilence():
                self._first_silence_at = self._at
                self._verdict_asked_at = self._verdict_at = None
                self._asked_in_pause = 0
                self._recognise(action)
            case AskTurnModel():
                self._asked_in_pause += 1
                if self._verdicts.take(self._at, second=self._asked_in_pause > 1):
                    self._spawn(self._judge(action))
            case SpeechResumed():
                self._cancel_attempts()
                self._ears.goes_on()
                self._follow(self._start)
            case TurnCommitted():
                self._ears.caller_speaks(False)
                attempt = self._attempts.pop(action.attempt, None)
                self._cancel_attempts()
                commit = self._spawn(self._commit(action, attempt, self._at))
                self._commits.add(commit)
                commit.add_done_callback(self._commits.discard)
            case PauseAgent():
                self._ears.paused()
            case StopAgent():
                self._ears.barged_in()
            case JudgeSound(at, start):
                self._judge_sound(start, at + 1)
            case HearSound(at, start):
                if self._asr is not None and not self._asr.partials:
                    request = self._request(self._asr, start, at + 1, final=True)
                    self._partials = asyncio.get_running_loop().create_task(self._hear_sound(self._asr, request))
            case ResumeAgent():
                self._stop_following()
                self._cancel_attempts()
                self._ears.resumed()
            case SpeechDropped():
                self._stop_following()
                self._cancel_attempts()
                self._ears.caller_dropped()
            case NoInput():
                self._ears.silent()
            case SpeechStarted():
                self._utterances += 1
                self._start = action.start
                self._ears.caller_speaks(True)
                self._follow(action.start)

    def _request(self, asr: EnginePool, speech_start: int, speech_end: int, *, final: bool) -> Recognise:
        """What to ask about the frames [speech_start, speech_end)."""
        expectation = self._expectation
        phrases = expectation.phrases
        if phrases and self.machine.paused and self._language.lower().startswith("en"):
            phrases += tuple(rival for rival in RIVALS if rival not in phrases)
        return Recognise(
            asr.number(),
            self._slot,
            self._generation,
            max(0, speech_start * FRAME_SAMPLES - int(_PRE_ROLL_S * RATE_HZ)),
            speech_end * FRAME_SAMPLES + (int(_POST_ROLL_S * RATE_HZ) if final else 0),
            self._language,
            phrases,
            expectation.pronunciations,
            expectation.reject,
            self._at + self._asr_timeout_s,
            self._utterances,
            final,
            expectation.hints,
        )

    def _follow(self, speech_start: int) -> None:
        """Have what is being said recognised while it goes on, where the recogniser can."""
        if self._asr is not None and self._asr.partials:
            self._stop_following()
            self._partials = asyncio.get_running_loop().create_task(self._follow_speech(self._asr, speech_start))

    def _stop_following(self) -> None:
        if self._partials is not None:
            self._partials.cancel()
            self._partials = None

    async def _follow_speech(self, asr: EnginePool, speech_start: int) -> None:
        loop = asyncio.get_running_loop()
        guess = taken = ""
        while True:
            due = loop.time() + _PARTIAL_EVERY_S
            try:
                async with asyncio.timeout(self._asr_timeout_s):
                    result = await asr.recognise(self._request(asr, speech_start, self._frame + 1, final=False))
                if result.text and not self._expectation.private and self._hooks.wanted("partial_transcript"):
                    if result.text != guess:  # the same guess again is nothing new to plugins
                        taken = await self._hooks.partial_transcript(result.text)
                        guess = result.text
                    result = msgspec.structs.replace(result, text=taken)
            except (EngineError, TimeoutError) as error:
                logger.info("slot %d: no partial result (%s)", self._slot, error)
            else:
                self._overhear(result.text, False)
                self._ears.hearing(result.text)
                for action in self.machine.heard_over_agent(0, result.text, accepted=result.accepted, final=False):
                    self._do(action)
                self.machine.partial(0, self._cues(result, self._frame + 1 - speech_start))
            await asyncio.sleep(max(due - loop.time(), 0.0))

    async def _hear_sound(self, asr: EnginePool, request: Recognise) -> None:
        """Have the recogniser, which has no partial results, say what a sound over the agent is so far."""
        try:
            async with asyncio.timeout(self._asr_timeout_s):
                result = await asr.recognise(request)
        except (EngineError, TimeoutError) as error:
            logger.info("slot %d: nobody knows the words of the sound over the agent (%s)", self._slot, error)
            return
        if result.confidence is not None and result.confidence < SURE_OF_HALF:
            return
        expected = self._expected(result)
        for action in self.machine.heard_over_agent(
            0, result.text, accepted=result.accepted, final=False, expected=expected
        ):
            self._do(action)

    def _expected(self, result: Recognised) -> bool:
        """Whether it is an answer to what the line has asked."""
        phrases = self._expectation.phrases
        rival = result.text in RIVALS and result.text not in phrases
        return bool(phrases) and result.accepted and not rival

    def _recognise(self, pause: FirstSilence) -> None:
        self._stop_following()
        if self._asr is None:
            return
        request = self._request(self._asr, pause.speech_start, pause.speech_end, final=True)
        attempt = _Attempt(self._at, asyncio.ensure_future(self._asr.recognise(request)))
        if not self._expectation.private and self._hooks.wanted("final_transcript"):
            attempt.task = asyncio.ensure_future(self._as_taken(attempt, attempt.task))
        task = attempt.task
        self._attempts[pause.attempt] = attempt
        task.add_done_callback(lambda done: self._recognised(pause, attempt, done))

    async def _as_taken(self, attempt: _Attempt, recognising: asyncio.Task[Recognised]) -> Recognised:
        """What was recognised, in the words of the line's plugins."""
        result = await recognising
        text = await self._hooks.final_transcript(result.text) if result.text else ""
        if isinstance(text, Blocked):
            attempt.instead = text.say
            return msgspec.structs.replace(result, text="", accepted=False)
        return msgspec.structs.replace(result, text=text, accepted=result.accepted or text != result.text)

    def _recognised(self, pause: FirstSilence, attempt: _Attempt, task: asyncio.Task[Recognised]) -> None:
        number = pause.attempt
        attempt.done_at = asyncio.get_running_loop().time()
        failed = not task.cancelled() and task.exception() is not None
        if task.cancelled() or number not in self._attempts:
            return
        if failed:
            for action in self.machine.partial(number):
                self._do(action)
            return
        result = task.result()
        expected = self._expected(result)
        for action in self.machine.heard_over_agent(number, result.text, accepted=result.accepted, expected=expected):
            self._do(action)
        start_at, end_at = self.time_of(pause.speech_start), self.time_of(pause.speech_end)
        if number in self._attempts:
            self._may_have_finished = HeardTurn(
                number, result.text, result.confidence, result.accepted, start_at, end_at, instead=attempt.instead
            )
        for action in self.machine.partial(number, self._cues(result, pause.speech_end - pause.speech_start)):
            self._do(action)
        self._tell_in_time()

    def _tell_in_time(self) -> None:
        """Say that the caller may have finished, once that may be certain before a reply could be there."""
        turn, left_s = self._may_have_finished, self.machine.silence_left_s
        if turn is not None and left_s is not None and left_s <= self._lead_s():
            self._may_have_finished = None
            self._ears.may_have_finished(turn)

    def _judge_sound(self, start: int, end: int) -> None:
        """Whether the frames [start, end) are one sound; it is asked when an agent that paused has to stop or go on."""
        try:
            steady = is_held(self._audio(start * FRAME_SAMPLES, end * FRAME_SAMPLES))
        except StaleSlot:
            steady = False
        for action in self.machine.sounded(steady):
            self._do(action)

    def _cues(self, result: Recognised, spoken_frames: int) -> Cues:
        expected = self._expectation
        return cues_of(
            result.text,
            accepted=result.accepted,
            phrases=expected.phrases,
            min_digits=expected.min_digits,
            sound_s=spoken_frames * FRAME_S,
        )

    async def _judge(self, ask: AskTurnModel) -> None:
        if self._turn is None:
            return
        end = (ask.at + 1) * FRAME_SAMPLES
        start = max(0, end - int(_TURN_WINDOW_S * RATE_HZ))
        begins = ask.speech_start * FRAME_SAMPLES
        if self._verdict_asked_at is None:
            self._verdict_asked_at = self._at
        number = self._turn.number()
        try:
            async with asyncio.timeout(_VERDICT_DEADLINE_S):
                verdict = await self._turn.judge_turn(
                    JudgeTurn(number, self._slot, self._generation, start, end, self._at + _VERDICT_DEADLINE_S, begins)
                )
        except (EngineError, TimeoutError) as error:
            reason = str(error) or f"none within {_VERDICT_DEADLINE_S:g} s"
            logger.warning("slot %d: no turn verdict (%s); silence alone decides", self._slot, reason)
            return
        self._verdict_at = asyncio.get_running_loop().time()
        for action in self.machine.verdict(ask.ask, verdict.probability, verdict.ending):
            self._do(action)
        self._tell_in_time()

    async def _commit(self, turn: TurnCommitted, attempt: _Attempt | None, at: float) -> None:
        speech_start_at, speech_end_at = self.time_of(turn.speech_start), self.time_of(turn.speech_end)
        stages = [StageTiming(Stage.ENDPOINTING, speech_end_at, at)]
        if self._first_silence_at is not None:
            stages.append(StageTiming(Stage.VAD, speech_end_at, self._first_silence_at))
        if self._verdict_asked_at is not None and self._verdict_at is not None:
            stages.append(StageTiming(Stage.TURN_MODEL, self._verdict_asked_at, self._verdict_at))
        text, confidence, accepted, problem = "", None, False, ""
        if attempt is not None:
            try:
                async with asyncio.timeout(self._asr_timeout_s):
                    result = await attempt.task
                text, confidence, accepted = result.text, result.confidence, result.accepted
            except (EngineError, TimeoutError) as error:
                reason = str(error) or f"no result within {self._asr_timeout_s:g} s"
                problem = f"recognition failed: {reason}"
                logger.error("slot %d: %s", self._slot, problem)
            stages.append(
                StageTiming(Stage.ASR, attempt.asked_at, attempt.done_at or asyncio.get_running_loop().time())
            )
        self._overhear(text, True)
        self._ears.heard(
            HeardTurn(
                turn.attempt,
                text,
                confidence,
                accepted,
                speech_start_at,
                speech_end_at,
                tuple(stages),
                turn.reason.value,
                turn.probability,
                problem,
                instead=attempt.instead if attempt is not None else None,
            )
        )

    def _cancel_attempts(self) -> None:
        for attempt in self._attempts.values():
            attempt.task.cancel()
        self._attempts.clear()
        self._may_have_finished = None

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
