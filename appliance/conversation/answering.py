"""Who has answered an outgoing call: a person, an answering machine, a screening assistant or a fax. PURE.

The machine listens beside the agent, which greets at once as on any call: nobody is kept waiting for a verdict. Times
are seconds since the call was answered, given by the caller of each method.

What is weighed, as logarithms of odds that add up:

- **rhythm** (:mod:`~appliance.conversation.answering_score`): a person says something short and waits for an answer;
  a machine talks on, with short pauses, whoever speaks meanwhile;
- **words** (:mod:`~appliance.conversation.answering_words`), where there is a recogniser: :class:`HearWords` asks for
  them with the first silence, and every second while the greeting goes on;
- **tones** (:mod:`~appliance.audio.call_tones`): a beep is a machine, 2100 Hz is a fax.

A verdict may be revised: one who said "Hi" and paused, and then talks for five seconds, or beeps, was a machine. How
often that happens, and every other figure, is in ``docs/answering-machines.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from appliance.audio.call_tones import Beep, CallTones, Tone, ToneKind
from appliance.conversation import answering_score
from appliance.conversation.answering_cadence import UTTERANCE_PAUSE_S, Cadence
from appliance.conversation.answering_words import Weight, Words

__all__ = [
    "Answering",
    "AnsweringMachine",
    "Beep",
    "DetectionConfig",
    "Event",
    "HearWords",
    "LeaveMessage",
    "Tone",
    "ToneKind",
    "Verdict",
    "VerdictKind",
]

VerdictKind = Literal["human", "machine", "screening", "fax", "unsure"]
OnMachine = Literal["hang_up", "message", "talk"]
OnScreening = Literal["answer", "hang_up"]

_ASK_SILENCE_S: Final = 0.1
_ASK_EVERY_S: Final = 1.0
_ASK_LEAST_S: Final = 0.06
_ASK_BEFORE_S: Final = 0.3
_ASK_LONGEST_S: Final = 8.0
_MAX_ASKS: Final = 12
_SCREENED_S: Final = 90.0
_TAKES_CALL_S: Final = 1.2
_TAKES_CALL_CONFIDENCE: Final = 0.6
_REPLY_GAP_S: Final = 0.8
_TONE_CONFIDENCE: Final = 0.99
_MOST_CONFIDENCE: Final = 0.98
_WORDS_TELL: Final = 2.0
"""Words that weigh this much are named as the reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who has answered.

    Attributes:
        kind: ``unsure`` where nothing was heard that would tell: treat it as a human.
        confidence: that it is so, 0 to 1.
        at_s: when it was reached, seconds since the answer.
        why: what it rests on, in a few words for the record ("silence after a short greeting").
    """

    kind: VerdictKind
    confidence: float
    at_s: float
    why: str


@dataclass(frozen=True, slots=True)
class LeaveMessage:
    """A machine records from now on: a message may be left. Comes once, after a verdict of ``machine``.

    Attributes:
        at_s: seconds since the answer.
        after: the beep, the silence after a greeting without one, or the limit on waiting for either.
    """

    at_s: float
    after: Literal["beep", "silence", "limit"]


@dataclass(frozen=True, slots=True)
class HearWords:
    """A recogniser should hear what was said and answer with :meth:`AnsweringMachine.on_text`, if there is one.

    It is asked with :data:`appliance.engines.greetings.GREETING` as the only phrase. No answer is waited for.

    Attributes:
        start_s, end_s: what to hear, seconds since the answer; at most 8.3 s.
        final: whether the speech has paused; its :meth:`~AnsweringMachine.on_text` should say the same.
    """

    start_s: float
    end_s: float
    final: bool


Event = Verdict | Beep | Tone | LeaveMessage | HearWords


@dataclass(frozen=True, slots=True)
class DetectionConfig:
    """The numbers of the detection; times in seconds, thresholds as logarithms of the odds of a machine.

    Attributes:
        give_up_s: after so long without a word the verdict is ``unsure``.
        listen_s: a verdict may be revised by rhythm and words for so long after the answer, by a beep until
            ``message_limit_s`` after that.
        greeting_gap_s: what is said after a longer silence than this is no part of the greeting.
        human_silence_s: the least silence that makes a person.
        human_below: a pause whose odds are below this makes a person; above even, because nobody is kept waiting and a
            machine that goes on revises it.
        machine_above: odds above this make a machine.
        revise_above: odds above this make a machine of somebody who was taken for a person.
        settle_silence_s: whoever was not taken for a person in so much silence is a machine.
        message_silence_s: a greeting that ended in so much silence has no beep.
        message_limit_s: the longest wait for the end of a greeting, after the verdict.
    """

    give_up_s: float = 5.0
    listen_s: float = 15.0
    greeting_gap_s: float = 1.5
    human_silence_s: float = 0.26
    human_below: float = 0.8
    machine_above: float = 2.6
    revise_above: float = 3.0
    settle_silence_s: float = 2.0
    message_silence_s: float = 2.5
    message_limit_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Answering:
    """What a campaign wants done about machines.

    Attributes:
        detect: whether to listen for one at all.
        on_machine: hang up, leave ``message`` once :class:`LeaveMessage` says so, or go on talking.
        message: what to leave; its ``${...}`` are filled in already.
        on_screening: answer an assistant's question with who calls and why, or hang up.
        config: the times.
    """

    detect: bool = True
    on_machine: OnMachine = "hang_up"
    message: str = ""
    on_screening: OnScreening = "answer"
    config: DetectionConfig = field(default_factory=DetectionConfig)


NO_EVENTS: Final[tuple[Event, ...]] = ()


class AnsweringMachine:
    """The detection of one call.

    Every method returns the events that follow, mostly none. A later :class:`Verdict` replaces an earlier one. For each
    stretch of time :meth:`on_audio` comes before :meth:`on_tick`, so that a beep is not taken for a voice.

    Attributes:
        verdict: the one that stands; None before the first.
    """

    def __init__(self, config: DetectionConfig | None = None) -> None:
        self.config = config if config is not None else DetectionConfig()
        self.verdict: Verdict | None = None
        self._cadence = Cadence()
        self._tones = CallTones(answered=True)
        self._words = Words()
        self._weight = Weight()
        self._over = False
        self._agent_ended_s = math.inf
        self._asks = 0
        self._asked_s = -math.inf
        self._asked_last_s = -math.inf
        self._beeped = False
        self._message_by: float | None = None
        self._message_done = False

    def on_tick(self, t: float, level_dbfs: float, speech: float) -> tuple[Event, ...]:
        """Take a frame of 20 ms.

        Args:
            t: its end, seconds since the answer.
            level_dbfs: its RMS level.
            speech: the probability that it holds speech, 0 to 1; negative where there is none.
        """
        cadence = self._cadence
        if self._tones.sounding:
            speech = 0.0
        began = cadence.starts_s is not None
        silence = cadence.silence_s(t)
        speaks = cadence.tick(t, level_dbfs, speech)
        if began and speaks and silence > self._longest_gap_s(t):
            self._over = True
        if not began and not speaks:
            return self.handle_timer(t)
        return (*self._ask(t), *self._judge(t), *self._behind_assistant(t), *self.handle_timer(t))

    def on_agent(self, t: float, speaking: bool) -> tuple[Event, ...]:
        """The agent has begun (true) or stopped (false) to speak. What is said after that is an answer to it."""
        if not speaking:
            self._agent_ended_s = t
        return NO_EVENTS

    def on_audio(self, t: float, samples: NDArray[np.int16]) -> tuple[Event, ...]:
        """Take what was heard.

        Args:
            t: when the first sample was heard, seconds since the answer.
            samples: int16 [n] at 8 kHz, any number, following on what was given before.
        """
        events: list[Event] = []
        for sound in self._tones.on_audio(t, samples):
            events.append(sound)
            if isinstance(sound, Beep):
                events += self._hear_beep(sound)
            elif sound.kind == "fax":
                events += self._decide("fax", _TONE_CONFIDENCE, sound.at_s, "a fax tone")
            elif sound.kind == "sit":
                events += self._decide("machine", _TONE_CONFIDENCE, sound.at_s, "a special information tone")
        return tuple(events)

    def on_text(self, t: float, text: str, final: bool) -> tuple[Event, ...]:
        """What the recogniser makes of what is being said (not final), or has made of it (final).

        Args:
            t: when the text came, seconds since the answer.
            text: any part of the greeting, in its own language; what was said before need not be repeated. "" where a
                recogniser that knows the language has understood nothing that it knows.
            final: nothing can be added to it.
        """
        if self._over or t > self.config.listen_s or not (text or final):
            return NO_EVENTS
        self._weight = self._words.hear(text)
        return self._judge(t)

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called, seconds since the answer."""
        if self.verdict is None:
            return self.config.give_up_s if self._cadence.starts_s is None else None
        return None if self._message_done else self._message_due()[0]

    def handle_timer(self, now: float) -> tuple[Event, ...]:
        """The time of :meth:`get_timer` has come, or more."""
        if self.verdict is None:
            if self._cadence.starts_s is None and now >= self.config.give_up_s:
                return self._decide("unsure", 0.5, now, "nobody has said anything")
            return NO_EVENTS
        due, after = self._message_due()
        if self._message_done or due is None or now < due or (after == "silence" and self._tones.undecided):
            return NO_EVENTS
        self._message_done = True
        return (LeaveMessage(now, after),)

    def _longest_gap_s(self, t: float) -> float:
        """A longer silence than this ends the greeting."""
        return self.config.greeting_gap_s if t <= self._agent_ended_s else _REPLY_GAP_S

    def _message_due(self) -> tuple[float | None, Literal["beep", "silence", "limit"]]:
        if self._message_by is None:
            return None, "limit"
        silent_at = self._cadence.last_s + self.config.message_silence_s
        return (silent_at, "silence") if silent_at < self._message_by else (self._message_by, "limit")

    def _ask(self, t: float) -> tuple[Event, ...]:
        """Whether there is something for a recogniser to hear."""
        cadence = self._cadence
        start = cadence.starts_s
        settled = self.verdict is not None and self.verdict.kind in ("machine", "screening", "fax")
        if start is None or settled or self._over or self._asks >= _MAX_ASKS or t > self.config.listen_s:
            return NO_EVENTS
        silence = cadence.silence_s(t)
        fresh = cadence.last_s - max(self._asked_last_s, start)
        paused = silence >= _ASK_SILENCE_S and fresh >= _ASK_LEAST_S
        goes_on = silence < _ASK_SILENCE_S and t - max(self._asked_s, start) >= _ASK_EVERY_S
        if not (paused or goes_on):
            return NO_EVENTS
        self._asks += 1
        self._asked_s, self._asked_last_s = t, cadence.last_s
        return (HearWords(max(0.0, start - _ASK_BEFORE_S, t - _ASK_LONGEST_S), t, paused),)

    def _judge(self, t: float) -> tuple[Event, ...]:
        """What rhythm and words say at ``t``."""
        config, cadence, verdict = self.config, self._cadence, self.verdict
        if cadence.starts_s is None or self._over or t > config.listen_s:
            return NO_EVENTS
        if verdict is not None and verdict.kind in ("machine", "screening", "fax"):
            return NO_EVENTS
        if self._weight.screens:
            return self._decide("screening", _logistic(self._weight.screening), t, f"“{self._weight.said}”")
        silence = cadence.silence_s(t)
        pausing = silence >= config.human_silence_s
        score = answering_score.paused if pausing else answering_score.talking
        weights = answering_score.PAUSED if pausing else answering_score.TALKING
        odds = answering_score.log_odds(weights, score(cadence, t)) + self._weight.towards_machine
        person = verdict is not None and verdict.kind == "human"
        if odds >= (config.revise_above if person else config.machine_above):
            return self._decide("machine", _logistic(odds), t, self._machine_why(pausing))
        if person or not pausing:
            return NO_EVENTS
        if odds <= config.human_below:
            why = "silence after a short greeting" if cadence.talk_s < 1.5 else "silence after a greeting"
            return self._decide("human", max(0.5, _logistic(-odds)), t, why)
        if silence >= config.settle_silence_s:
            return self._decide("machine", _logistic(odds), t, self._machine_why(pausing))
        return NO_EVENTS

    def _behind_assistant(self, t: float) -> tuple[Event, ...]:
        """Whether somebody has taken the call that was screened: a short word after a long silence, and then none."""
        verdict, cadence = self.verdict, self._cadence
        if verdict is None or verdict.kind != "screening" or t - verdict.at_s > _SCREENED_S:
            return NO_EVENTS
        new = cadence.resumed_s > verdict.at_s and cadence.gap_s >= self.config.greeting_gap_s
        short = cadence.last_s - cadence.resumed_s <= _TAKES_CALL_S
        if not (new and short and cadence.silence_s(t) >= UTTERANCE_PAUSE_S):
            return NO_EVENTS
        return self._decide("human", _TAKES_CALL_CONFIDENCE, t, "a short word after the assistant")

    def _machine_why(self, pausing: bool) -> str:
        if self._weight.machine >= _WORDS_TELL:
            return f"“{self._weight.said}”"
        return "a long greeting" if pausing else "a greeting that goes on"

    def _hear_beep(self, beep: Beep) -> tuple[Event, ...]:
        verdict = self.verdict
        if verdict is not None and verdict.kind in ("screening", "fax"):
            return NO_EVENTS
        if beep.at_s > self.config.listen_s + self.config.message_limit_s:
            return NO_EVENTS
        events: tuple[Event, ...] = NO_EVENTS
        if verdict is None or verdict.kind != "machine":
            events = self._decide("machine", _TONE_CONFIDENCE, beep.at_s, f"a beep of {beep.hz:.0f} Hz")
        if self._message_done:
            return events
        self._message_done = True
        return (*events, LeaveMessage(beep.at_s, "beep"))

    def _decide(self, kind: VerdictKind, confidence: float, t: float, why: str) -> tuple[Event, ...]:
        if self.verdict is not None and self.verdict.kind == kind:
            return NO_EVENTS
        self.verdict = Verdict(kind, confidence, t, why)
        self._message_by = t + self.config.message_limit_s if kind == "machine" else None
        return (self.verdict,)


def _logistic(log_odds: float) -> float:
    """The probability of a class with these odds, as far as it is believed."""
    return round(min(1.0 / (1.0 + math.exp(-log_odds)), _MOST_CONFIDENCE), 3)
