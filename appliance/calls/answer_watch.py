"""Listens beside the agent for who has answered a call that the box has placed, and before the answer for tones."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio.call_tones import CallTones, Tone
from appliance.calls.greeting_words import GreetingWords
from appliance.conversation.answering import Answering, AnsweringMachine, Event, HearWords, LeaveMessage, Verdict
from appliance.conversation.answering_words import Words
from appliance.errors import StaleSlot
from appliance.ipc.rings import FRAME_SAMPLES, RATE_HZ

logger = logging.getLogger(__name__)

_EVERY_FRAMES: Final = 5
"""Samples are looked at in pieces of 100 ms."""
_MAX_HEARD: Final = 500
_STAYS: Final = re.compile(
    r"stay|hold|one (?:moment|second)|connect|thank|let (?:me|you)|checking|see if|moment|bleiben|patient|espere|attend"
)
"""What assistants say when they pass on who calls, in the languages that callees are told in."""
_ACKNOWLEDGED_S: Final = 5.0
"""Who says something so soon is the assistant: the person takes longer to decide, or says it again."""
_TICK_S: Final = 0.02
_BETWEEN_S: Final = 1.0
"""Utterances of those who may be somebody else have so much silence between them."""
_SPEECH: Final = 0.4
_LAST_WORDS_S: Final = 8.0
_WORDS_WITHIN_S: Final = 2.2
_LATE_CONFIDENCE: Final = 0.9
_SPEAKING_DBFS: Final = -70.0
_HANG_FRAMES: Final = 10
"""The agent has stopped once nothing was sent for 0.2 s."""


class AnswerWatch:
    """One call's.

    Args:
        answering: what is wanted; without ``detect`` only tones before the answer are heard.
        audio: what was heard, samples [start, end); raises StaleSlot where they are gone.
        on_tone: told of a tone before the answer.
        on_event: told of everything after it.
        words: hears the words of the greeting; None for nobody.

    Attributes:
        awaits: an assistant has been told who calls, and whatever is said from then on may be a person's greeting:
            each utterance is judged by itself.
    """

    def __init__(
        self,
        answering: Answering,
        audio: Callable[[int, int], NDArray[np.int16]],
        on_tone: Callable[[Tone], None],
        on_event: Callable[[Event], None],
        words: GreetingWords | None = None,
    ) -> None:
        self._answering = answering
        self._audio = audio
        self._on_tone = on_tone
        self._on_event = on_event
        self._words = words
        self._tones = CallTones(answered=False)
        self._machine = AnsweringMachine(answering.config)
        self._answered_at: float | None = None
        self._since = 0.0
        """What the detection counts from: the answer, or the end of what a screening assistant was told."""
        self._screened = False
        self._introduced_at = 0.0
        self._silent = 0
        self._spoke = False
        self.awaits = False
        self._heard = ""
        self._asking: asyncio.TimerHandle | None = None
        self._at = 0.0
        self._next = self._first = 0
        self._agent = False
        self._quiet = 0
        self._closed = False

    @property
    def verdict(self) -> Verdict | None:
        """The last one."""
        return self._machine.verdict

    def answered(self, at: float, frame: int) -> None:
        """The call was answered at ``at`` (CLOCK_MONOTONIC), with ``frame`` the next one to be heard."""
        self._answered_at = self._since = self._at = at
        self._next = self._first = frame * FRAME_SAMPLES

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float, sent_dbfs: float) -> None:
        """Take a frame, by its number and the time at which it had been heard."""
        self._at = at
        if self._closed:
            return
        if self._answered_at is None:
            self._early(frame)
        elif self._answering.detect:
            t = max(0.0, at - self._since)
            self._silent = 0 if speech > _SPEECH else self._silent + 1
            self._spoke = self._spoke or speech > _SPEECH
            self._agent_speaks(t, sent_dbfs > _SPEAKING_DBFS)
            self._tell(self._machine.on_tick(t, level_dbfs, speech))
            if (frame + 1) % _EVERY_FRAMES == 0:
                self._hear(frame, t)
            if self.awaits and self._spoke and self.silent_s >= _BETWEEN_S:
                self.afresh()
            due = self._machine.get_timer()
            if due is not None and t >= due:
                self._tell(self._machine.handle_timer(t))

    def on_text(self, text: str, final: bool) -> None:
        """Words that were understood."""
        if text:
            self._understood(text, final)

    def _understood(self, text: str, final: bool) -> None:
        if self._answered_at is not None and self._answering.detect and not self._closed:
            self._heard = f"{self._heard} {text}".strip()[-_MAX_HEARD:]
            self._tell(self._machine.on_text(max(0.0, self._at - self._since), text, final))

    def screened(self) -> None:
        """A screening assistant is being told who calls: what comes after that is listened to as a call's beginning."""
        self._screened = True

    @property
    def heard(self) -> str:
        """The words that were understood since, for the log."""
        return self._heard

    @property
    def acknowledged(self) -> bool:
        """Whether what was heard since was the assistant's word that it passes that on, and nobody's greeting."""
        return self._at - self._introduced_at < _ACKNOWLEDGED_S or _STAYS.search(self._heard.lower()) is not None

    @property
    def silent_s(self) -> float:
        """How long the far end has been silent."""
        return self._silent * _TICK_S

    def afresh(self) -> None:
        """Forget what was heard: somebody else may come."""
        self._since, self._first, self._heard, self._spoke = self._at, self._next, "", False
        config = replace(self._answering.config, give_up_s=math.inf)
        self._machine = AnsweringMachine(config)

    def close(self) -> None:
        """Nothing more is wanted."""
        self._closed = True
        if self._words is not None:
            self._words.close()
        if self._asking is not None:
            self._asking.cancel()

    def _agent_speaks(self, t: float, sounds: bool) -> None:
        self._quiet = 0 if sounds else self._quiet + 1
        speaking = sounds or (self._agent and self._quiet < _HANG_FRAMES)
        if speaking != self._agent:
            self._agent = speaking
            self._tell(self._machine.on_agent(t, speaking))
            if not speaking and self._screened:
                self._screened, self.awaits, self._introduced_at = False, True, self._at
                self.afresh()

    def _hear(self, frame: int, t: float) -> None:
        samples = self._new(frame)
        if len(samples):
            began = max(0.0, t - len(samples) / RATE_HZ)
            self._tell(self._machine.on_audio(began, samples))

    def _early(self, frame: int) -> None:
        if (frame + 1) % _EVERY_FRAMES:
            return
        samples = self._new(frame)
        if not len(samples):
            return
        for heard in self._tones.on_audio(self._at - len(samples) / RATE_HZ, samples):
            if isinstance(heard, Tone):
                self._on_tone(heard)

    def _new(self, frame: int) -> NDArray[np.int16]:
        start, end = self._next, (frame + 1) * FRAME_SAMPLES
        self._next = max(start, end)
        try:
            return self._audio(start, end) if end > start else np.zeros(0, np.int16)
        except StaleSlot:
            return np.zeros(0, np.int16)

    def _tell(self, events: tuple[Event, ...]) -> None:
        for event in events:
            if isinstance(event, HearWords):
                self._hear_words(event)
            elif isinstance(event, LeaveMessage) and event.after != "beep" and self._words is not None:
                self._look_again(event, self._words)
            elif not self._closed:
                self._on_event(self._since_answer(event) if isinstance(event, Verdict) else event)

    def _since_answer(self, verdict: Verdict) -> Verdict:
        return replace(verdict, at_s=round(verdict.at_s + self._since - (self._answered_at or 0.0), 3))

    def _look_again(self, event: LeaveMessage, words: GreetingWords) -> None:
        """A greeting without a beep may have been an assistant's question, whose words have not come in time."""
        end = self._next
        start = max(self._first, end - round(_LAST_WORDS_S * RATE_HZ))

        def understood(text: str, final: bool) -> None:
            if self._asking is None:
                return
            self._asking.cancel()
            decide(Words().hear(text).screens, text)

        def decide(screens: bool, text: str = "") -> None:
            self._asking = None
            if not self._closed:
                self._on_event(Verdict("screening", _LATE_CONFIDENCE, event.at_s, text[:60]) if screens else event)

        self._asking = asyncio.get_running_loop().call_later(_WORDS_WITHIN_S, decide, False)
        words.hear(start, end, True, understood)

    def _hear_words(self, wanted: HearWords) -> None:
        if self._words is not None and not self._closed:
            start, end = (self._first + round(at * RATE_HZ) for at in (wanted.start_s, wanted.end_s))
            self._words.hear(start, end, wanted.final, self._understood)
