"""What becomes of a caller when the engines fail: the line's ``on_engine_failure``."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from appliance.conversation.brain import (
    OPEN,
    Brain,
    ChangeLine,
    EnginesFailed,
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

_OPENING = Opening()
_REASON = "the language model failed"
_ANY_REASON = "the agent's engines failed"


class FallbackBrain:
    """Asks ``brain`` until that has failed ``after`` times in a row, or engines have; then goes another way for good.

    Args:
        brain: asks the model.
        after: so many replies in a row have to fail. The ones before are the dialogue's to apologise for.
        say: said first; "" for nothing.
        onward: goes on with the caller; None where nobody does. It may be ``brain`` itself.
        enter: what ``onward`` is told first.
        transfer: hands the caller on, where there is no ``onward``.
        line: the line that goes on with the caller, where there is neither. Without any of them the call ends.
        nobody: said where the caller could not be handed on, before the end.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        after: int,
        say: str,
        onward: Brain | None,
        transfer: Transfer | None,
        enter: Input = _OPENING,
        line: str = "",
        nobody: str = "",
    ) -> None:
        self._brain = brain
        self._after = after
        self._say = say
        self._onward = onward
        self._enter = enter
        self._transfer = transfer
        self._line = line
        self._nobody = nobody
        self._failures = 0
        self._given_up = False
        self._reason = _REASON

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
        if self._onward is not None:
            twin._onward = twin._brain if self._onward is self._brain else self._onward.fork()
        return twin

    async def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """Raises EngineError where the model fails, and will be asked again."""
        if isinstance(heard, EnginesFailed):
            if self._given_up:
                yield HangUp(_ANY_REASON)
                return
            self._given_up, self._reason = True, _ANY_REASON
            logger.error("the line's on_engine_failure is taken: %s", heard.problem)
            async for step in self._begin_the_other_way():
                yield step
        elif not self._given_up:
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
                logger.error("the line's on_engine_failure is taken: %s", error)
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
            if self._nobody:
                yield Say(self._nobody, False)
            yield HangUp(self._reason)

    def was_said(self, meant: str, said: str) -> None:
        (self._onward if self._given_up and self._onward is not None else self._brain).was_said(meant, said)

    def was_heard(self, text: str) -> None:
        (self._onward if self._given_up and self._onward is not None else self._brain).was_heard(text)

    async def close(self) -> None:
        await self._brain.close()
        if self._onward is not None and self._onward is not self._brain:
            await self._onward.close()

    async def _begin_the_other_way(self) -> AsyncIterator[Step]:
        if self._say:
            yield Say(self._say, False)
        if self._onward is not None:
            async for step in self._onward.reply(self._enter):
                yield step
        elif self._transfer is not None:
            yield self._transfer
        else:
            yield ChangeLine(self._line, self._reason) if self._line else HangUp(self._reason)
