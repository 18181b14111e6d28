"""What the brain is to reply to, in the order in which it came, and what each says about the turn that it begins."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from appliance.conversation.brain import Heard, Input, Key, KeysEnded, Notice
from appliance.conversation.listening import HeardTurn
from appliance.conversation.turn_log import TurnLog
from appliance.events import InputBy

_MAX_INPUTS: Final = 64
PRIVATE: Final = "[private]"
"""What is on record in place of words and keys that nobody is to know."""
KEPT_BACK: Final = "a plugin has kept back what the caller said"


@dataclass(frozen=True)
class Pending:
    """An input and what is known about how it came, at ``at`` (CLOCK_MONOTONIC). ``private``: without its words."""

    value: Input | Notice
    heard: HeardTurn | None = None
    at: float = 0.0
    private: bool = False

    @property
    def attempt(self) -> int:
        """Of the listening that has heard it; -1 where it was not heard."""
        return self.heard.attempt if self.heard is not None else -1

    def begins(self, turn: TurnLog) -> None:
        """Note in ``turn``, which is new, what the caller did and when."""
        match self.value:
            case Heard(text, confidence, accepted):
                turn.by = InputBy.VOICE
                turn.caller_text = PRIVATE if self.private and text else text
                turn.confidence, turn.accepted = confidence, accepted
            case Key(digit):
                turn.by = InputBy.KEY
                turn.caller_text = PRIVATE if self.private else digit
                turn.speech_start_at = turn.speech_end_at = self.at
            case _:
                turn.by = InputBy.NONE
        if self.heard is not None:
            turn.speech_start_at = self.heard.speech_start_at
            turn.speech_end_at = self.heard.speech_end_at
            turn.stages.extend(self.heard.stages)
            turn.ended_by, turn.probability = self.heard.reason, self.heard.probability
            turn.problem = self.heard.problem or ("" if self.heard.instead is None else KEPT_BACK)

    def continues(self, turn: TurnLog, now: float) -> bool:
        """Whether it is part of ``turn``, and is noted there.

        Keys that make up one number are one turn, answered when the number is complete.
        """
        if turn.by is not InputBy.KEY or turn.agent_text:
            return False
        if isinstance(self.value, Key):
            if not self.private:
                turn.caller_text += self.value.digit
            turn.speech_end_at = self.at
        turn.decided_at = now
        return isinstance(self.value, Key | KeysEnded)


class Inputs:
    """A bounded queue of them; of too many the oldest are forgotten.

    Args:
        now: CLOCK_MONOTONIC.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting: deque[Pending] = deque(maxlen=_MAX_INPUTS)
        self._arrived = asyncio.Event()

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._waiting)

    def put(self, value: Input | Notice, heard: HeardTurn | None = None, *, private: bool = False) -> None:
        """Add one that has come just now."""
        self._waiting.append(Pending(value, heard, self._now(), private))
        self._arrived.set()

    def clear(self) -> None:
        """Forget those that wait."""
        self._waiting.clear()

    async def next(self) -> Pending:
        """The oldest that waits, or the first to come."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def another(self, unless: asyncio.Task[Any]) -> None:
        """Until one more comes, or ``unless`` is done."""
        self._arrived.clear()
        arrived = asyncio.create_task(self._arrived.wait())
        try:
            await asyncio.wait({unless, arrived}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()
