"""What becomes of a caller when the language model fails: the line's ``fallback``."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from appliance.conversation.brain import (
    OPEN,
    Brain,
    Gate,
    HangUp,
    Heard,
    Input,
    Key,
    Opening,
    Say,
    Step,
    Transfer,
    TransferFailed,
    Trouble,
)
from appliance.errors import EngineError
from appliance.events import ToolRun

logger = logging.getLogger(__name__)

_NOBODY_THERE = "I am sorry, nobody can take your call right now. Please try again later. Goodbye."
_REASON = "the language model failed"


class FallbackBrain:
    """Asks ``brain`` until it has failed ``after`` times in a row, and then goes another way for good.

    Args:
        brain: asks the model.
        after: so many replies in a row have to fail. The ones before are the dialogue's to apologise for.
        say: said first; "" for nothing.
        onward: goes on with the caller, from :class:`Opening`; None where nobody does.
        transfer: hands the caller on, where there is no ``onward``; without both the call ends.
    """

    def __init__(self, brain: Brain, *, after: int, say: str, onward: Brain | None, transfer: Transfer | None) -> None:
        self._brain = brain
        self._after = after
        self._say = say
        self._onward = onward
        self._transfer = transfer
        self._failures = 0
        self._given_up = False

    @property
    def slots(self) -> Mapping[str, str]:
        return {**self._brain.slots, **(self._onward.slots if self._onward is not None else {})}

    @property
    def tokens(self) -> int:
        return self._brain.tokens

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        self._brain.report_tools(report)

    def fork(self) -> FallbackBrain:
        twin = copy.copy(self)
        twin._brain = self._brain.fork()
        twin._onward = self._onward.fork() if self._onward is not None else None
        return twin

    async def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """Raises EngineError where the model fails, and will be asked again."""
        if not self._given_up:
            steps = self._brain.reply(heard, gate)
            answered = False
            try:
                async for step in steps:
                    answered = answered or isinstance(step, Say)
                    yield step
                if answered and isinstance(heard, Heard | Key):
                    self._failures = 0
                return
            except EngineError as error:
                if not gate.is_open:
                    raise  # when the turn is certain, the model is asked once more
                self._failures += 1
                if self._failures < self._after:
                    raise
                logger.error("the line's fallback is taken: %s", error)
                problem = str(error)
            finally:
                await steps.aclose()  # type: ignore[attr-defined]  # an async generator; its Protocol has no aclose
            self._given_up = True
            yield Trouble(problem)
            async for step in self._begin_the_other_way():
                yield step
        elif self._onward is not None:
            async for step in self._onward.reply(heard, gate):
                yield step
        elif isinstance(heard, TransferFailed):
            yield Say(_NOBODY_THERE, False)
            yield HangUp(_REASON)

    def was_said(self, meant: str, said: str) -> None:
        (self._onward if self._given_up and self._onward is not None else self._brain).was_said(meant, said)

    def was_heard(self, text: str) -> None:
        (self._onward if self._given_up and self._onward is not None else self._brain).was_heard(text)

    async def close(self) -> None:
        await self._brain.close()
        if self._onward is not None:
            await self._onward.close()

    async def _begin_the_other_way(self) -> AsyncIterator[Step]:
        if self._say:
            yield Say(self._say, False)
        if self._onward is not None:
            async for step in self._onward.reply(Opening()):
                yield step
        else:
            yield self._transfer or HangUp(_REASON)
