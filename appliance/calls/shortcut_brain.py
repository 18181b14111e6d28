"""Keys that do something at any time, whoever leads the conversation."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from appliance.calls import brains
from appliance.calls.key_use import KeyUse
from appliance.conversation import manners
from appliance.conversation.brain import (
    OPEN,
    Brain,
    Gate,
    GoTo,
    HangUp,
    Input,
    Key,
    Say,
    Speak,
    Spoken,
    Step,
    Transfer,
    TransferFailed,
)
from appliance.dialplan.schema import Line
from appliance.dialplan.shortcuts import Shortcut
from appliance.dialplan.text import render
from appliance.events import ToolRun
from appliance.signalling.leg import CallInfo

_ENDING: Final = "completed"


def with_shortcuts(brain: Brain, line: Line, info: CallInfo) -> Brain:
    """``brain``, which leads a call on ``line``, with the line's keys before it."""
    return ShortcutBrain(
        brain,
        line.keys,
        values=brains.values_of(line, info),
        nobody=manners.nobody_there(brains.spoken_language(line)),
        barge_in=line.barge_in,
        make_flow=None if line.agent == "flow" else lambda: brains.FlowBrain(line, info),
    )


class ShortcutBrain:
    """Leaves to ``brain`` all that is no shortcut, and every key that ``brain`` has asked for.

    Args:
        brain: leads.
        keys: telephone key to what it does.
        values: what ``${...}`` stands for beside the slots.
        nobody: said where a transfer came to nothing and nobody else says so.
        barge_in: whether what is said here may be talked over.
        make_flow: makes the flow that a key goes to where ``brain`` has none; None: ``brain`` takes :class:`GoTo`.
    """

    def __init__(
        self,
        brain: Brain,
        keys: Mapping[str, Shortcut],
        *,
        values: Mapping[str, str],
        nobody: str,
        barge_in: bool,
        make_flow: Callable[[], Brain] | None,
    ) -> None:
        self._brain = brain
        self._keys = keys
        self._values = values
        self._nobody = nobody
        self._barge_in = barge_in
        self._make_flow = make_flow
        self._flow: Brain | None = None
        self._use = KeyUse()
        self._handing_on: Shortcut | None = None
        self._own: list[str] = []
        self._led = True
        """Whoever leads has a part in the reply under way."""
        self._ending: dict[str, str] = {}

    @property
    def slots(self) -> Mapping[str, str]:
        return {**self._brain.slots, **(self._flow.slots if self._flow is not None else {}), **self._ending}

    @property
    def tokens(self) -> int:
        return self._brain.tokens

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        self._brain.report_tools(report)

    def fork(self) -> ShortcutBrain:
        twin = copy.copy(self)
        twin._brain = self._brain.fork()
        twin._flow = self._flow.fork() if self._flow is not None else None
        twin._use = self._use.copy()
        twin._own, twin._ending = list(self._own), dict(self._ending)
        return twin

    async def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """Raises EngineError where whoever leads fails."""
        failed = self._handing_on if isinstance(heard, TransferFailed) else None
        if isinstance(heard, Spoken):
            if self._handing_on is not None:
                return  # what became of it comes next
        else:
            self._own, self._led, self._handing_on = [], True, None
            self._use.begin()
        shortcut = self._shortcut(heard.digit) if isinstance(heard, Key) else None
        if shortcut is not None:
            await gate.passed()
            self._use.answered()
            for step in self._carry_out(shortcut):
                yield step
            if shortcut.goto is None:
                return
            heard = self._to(shortcut.goto)
        elif failed is not None and failed.failed is not None:
            heard = self._to(failed.failed)
        elif not isinstance(heard, Spoken):
            self._use.pressed(heard.digit if isinstance(heard, Key) else None)
        said = False
        steps = (self._flow or self._brain).reply(heard, gate)
        async with aclosing(steps):  # type: ignore[type-var]  # an async generator; its Protocol has no aclose
            async for step in steps:
                self._use.look_at(step)
                said = said or isinstance(step, Say | Speak | HangUp)
                yield step
        if failed is not None and not said:
            yield self._says(self._nobody, self._barge_in)

    def was_said(self, meant: str, said: str) -> None:
        if meant in self._own:
            self._own[self._own.index(meant)] = said
        elif self._led:
            (self._flow or self._brain).was_said(meant, said)

    def was_heard(self, text: str) -> None:
        """What was said here is no part of what whoever leads has said."""
        if self._led:
            own = sum(len(said.split()) for said in self._own)
            (self._flow or self._brain).was_heard(" ".join(text.split()[own:]))

    async def close(self) -> None:
        await self._brain.close()
        if self._flow is not None:
            await self._flow.close()

    # --- keys -----------------------------------------------------------------------------------------------------

    def _shortcut(self, digit: str) -> Shortcut | None:
        """What the key does now; None where it belongs to whoever leads."""
        return None if self._use.taken(digit) else self._keys.get(digit)

    def _carry_out(self, shortcut: Shortcut) -> list[Step]:
        self._led = shortcut.goto is not None
        target, farewell = shortcut.transfer, shortcut.hang_up
        cut = self._barge_in and target is None
        steps: list[Step] = [self._says(piece, cut) for piece in self._pieces(shortcut.say or farewell or "")]
        if target is not None:
            self._handing_on = shortcut
            steps.append(self._transfer(shortcut))
        elif farewell is not None:
            self._ending["ending"] = _ENDING
            steps.append(HangUp(_ENDING))
        return steps

    def _transfer(self, shortcut: Shortcut) -> Transfer:
        assert shortcut.transfer is not None
        return brains.transfer_to(shortcut.transfer, self._filled)

    @property
    def _filled(self) -> Mapping[str, str]:
        return {**self._values, **{f"slots.{name}": value for name, value in self.slots.items()}}

    def _pieces(self, template: str) -> list[str]:
        return brains.pieces_of(render(template, self._filled))

    def _says(self, text: str, interruptible: bool) -> Say:
        self._own.append(text.strip())
        return Say(text, interruptible)

    def _to(self, step: str) -> GoTo:
        if self._flow is None and self._make_flow is not None:
            self._flow = self._make_flow()
        return GoTo(step)
