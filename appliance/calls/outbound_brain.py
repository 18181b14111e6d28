"""What holds in every call that the box has placed, whoever leads it: opting out, and machines that have answered."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from appliance.calls import brains
from appliance.calls.key_use import KeyUse
from appliance.calls.tool_sources import DoNotCall
from appliance.conversation import opt_out
from appliance.conversation.brain import (
    OPEN,
    Brain,
    Detected,
    Gate,
    HangUp,
    Heard,
    Input,
    Key,
    Listen,
    Opening,
    Say,
    Spoken,
    Step,
)
from appliance.dialplan.schema import Line
from appliance.dialplan.text import normalise, render
from appliance.errors import StoreError
from appliance.events import ToolRun
from appliance.signalling.leg import CallInfo

logger = logging.getLogger(__name__)

DO_NOT_CALL: Final = "do_not_call"
"""The slot that says that the number is never to be called again."""
OPTED_OUT: Final = "opted_out"
MESSAGE_LEFT: Final = "message_left"
_WRITE_S: Final = 3.0
_TRIES: Final = 3
_AGAIN_S: Final = 1.0

Mode = Literal["talking", "waiting", "message", "screening", "over"]


@dataclass
class CallNotes:
    """What has become of the call so far. Shared by a brain and its forks: it changes only once a turn is certain.

    Attributes:
        conversed: a person has said or pressed something that was expected.
        unwritten: the wish not to be called is on no list yet.
        closed_list: the recogniser chooses among phrases.
    """

    slots: dict[str, str] = field(default_factory=dict)
    opted_out: bool = False
    message_left: bool = False
    conversed: bool = False
    unwritten: bool = False
    closed_list: bool = False


def identified(line: Line, info: CallInfo) -> Line:
    """``line`` with a disclosure that says on whose behalf the call is, where nothing in it does."""
    if not info.known.get("campaign.owner") or "campaign.owner" in (line.disclosure or ""):
        return line
    own = opt_out.of_language(opt_out.IDENTIFICATION, brains.spoken_language(line))
    return line.model_copy(update={"disclosure": f"{own} {line.disclosure or ''}".strip()})


class OutboundBrain:
    """Leaves to ``brain`` all but wishes not to be called again, and machines.

    Args:
        brain: leads, with a person.
        line: of the call.
        info: whom it is with.
        do_not_call: takes wishes; None where nothing is kept.
        notes: what becomes of the call.
        key: opts out at any time, unless whoever leads has asked for it; "" for none.
        message: said to a machine that records.
    """

    def __init__(
        self,
        brain: Brain,
        line: Line,
        info: CallInfo,
        do_not_call: DoNotCall | None,
        notes: CallNotes,
        *,
        key: str = "",
        message: str = "",
    ) -> None:
        self._brain = brain
        self._line = line
        self._info = info
        self._do_not_call = do_not_call
        self._notes = notes
        self._key = key
        self._message = message
        self._wishes = opt_out.phrases(line.language)
        self._use = KeyUse()
        self._expected: frozenset[str] = frozenset()
        self._mode: Mode = "talking"
        self._own: list[str] = []
        self._led = True

    @property
    def slots(self) -> Mapping[str, str]:
        return {**self._brain.slots, **self._notes.slots}

    @property
    def tokens(self) -> int:
        return self._brain.tokens

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        self._brain.report_tools(report)

    def fork(self) -> OutboundBrain:
        twin = copy.copy(self)
        twin._brain = self._brain.fork()
        twin._use = self._use.copy()
        twin._own = list(self._own)
        return twin

    async def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """Raises EngineError where whoever leads fails."""
        if not isinstance(heard, Spoken):
            self._own, self._led = [], True
            self._use.begin()
        if isinstance(heard, Detected):
            for step in self._detected(heard):
                yield step
            return
        if isinstance(heard, Opening):
            self._mode = "talking"
        elif self._mode != "talking":
            return
        if self._wants_out(heard):
            await gate.passed()
            self._led = False
            self._use.answered()
            await self._refuse(heard)
            for step in self._farewell():
                yield step
            return
        if isinstance(heard, Key | Heard):
            heard = self._as_expected(heard)
            self._use.pressed(heard.digit if isinstance(heard, Key) else None)
        steps = self._brain.reply(heard, gate)
        async with aclosing(steps):  # type: ignore[type-var]  # an async generator; its Protocol has no aclose
            async for step in steps:
                self._use.look_at(step)
                yield self._with_wishes(step) if isinstance(step, Listen) else step

    def was_said(self, meant: str, said: str) -> None:
        if meant in self._own:
            self._own[self._own.index(meant)] = said
        elif self._led:
            self._brain.was_said(meant, said)

    def was_heard(self, text: str) -> None:
        if self._led:
            self._brain.was_heard(text)
        elif self._mode == "message":
            whole = sum(len(said.split()) for said in self._own)
            self._notes.message_left = 0 < whole <= len(text.split())

    async def close(self) -> None:
        """What could not be written down is tried again."""
        for attempt in range(_TRIES):
            if not self._notes.unwritten:
                break
            await asyncio.sleep(_AGAIN_S if attempt else 0.0)
            await self._write("asked for in the call")
        if self._notes.unwritten:
            logger.error("call %s: %s is NOT on the do-not-call list", self._info.leg_id, self._info.person)
        await self._brain.close()

    # --- opting out ---------------------------------------------------------------------------------------------------

    def _wants_out(self, heard: Input) -> bool:
        match heard:
            case Key(digit):
                return digit == self._key and not self._use.taken(digit)
            case Heard(text, _, accepted):  # of a closed list, what is not accepted is only what is most like it
                return accepted and bool(text) and opt_out.opts_out(text, self._line.language)
        return False

    async def _refuse(self, heard: Input) -> None:
        notes = self._notes
        notes.opted_out = notes.unwritten = True
        notes.slots[DO_NOT_CALL] = self._info.person
        notes.slots["ending"] = OPTED_OUT
        await self._write(heard.text if isinstance(heard, Heard) else f"pressed {self._key}")

    async def _write(self, reason: str) -> None:
        """Put the number on the list."""
        info, number = self._info, brains.number_of(self._info)
        if self._do_not_call is None or not number:
            self._notes.unwritten = False
            logger.warning("call %s: there is no list for %s", info.leg_id, info.person)
            return
        try:
            async with asyncio.timeout(_WRITE_S):
                await self._do_not_call.refuse_calls(number, reason=reason, call_id=info.leg_id, line=self._line.name)
            self._notes.unwritten = False
        except (StoreError, TimeoutError) as error:
            logger.warning("call %s: the wish of %s is not on the list yet: %s", info.leg_id, info.person, error)

    def _farewell(self) -> list[Step]:
        self._mode = "over"
        text = opt_out.of_language(opt_out.CONFIRMED, brains.spoken_language(self._line))
        return [*self._says(text), HangUp(OPTED_OUT)]

    # --- what is expected ---------------------------------------------------------------------------------------------

    def _with_wishes(self, step: Listen) -> Listen:
        """A recogniser with a closed list has to know what may always be said, too."""
        expectation = step.expectation
        self._expected = frozenset(expectation.phrases)
        self._notes.closed_list = bool(self._expected)
        if not expectation.phrases:
            return step
        phrases = dict.fromkeys((*expectation.phrases, *self._wishes))
        return Listen(replace(expectation, phrases=tuple(phrases)))

    def _as_expected(self, heard: Key | Heard) -> Key | Heard:
        """As it is for whoever leads: what only this brain has a recogniser listen for is nothing expected."""
        if isinstance(heard, Key):
            self._notes.conversed = True
            return heard
        own = self._expected and normalise(heard.text) not in self._expected
        if heard.accepted and own and normalise(heard.text) in map(normalise, self._wishes):
            return replace(heard, accepted=False)
        if heard.accepted and heard.text and self._expected:
            self._notes.conversed = True
        return heard

    # --- machines -----------------------------------------------------------------------------------------------------

    def _detected(self, detected: Detected) -> list[Step]:
        self._led = False
        if self._mode == "over":
            return []
        if detected.what == "machine":
            self._mode = "waiting"
            return []
        if detected.what == "screening":
            self._mode = "screening"
            return self._says(" ".join(self._introduction()))
        self._mode = "message"
        self._notes.slots["ending"] = MESSAGE_LEFT
        return [*self._says(self._message), HangUp(MESSAGE_LEFT)]

    def _introduction(self) -> list[str]:
        """Who calls and why, for an assistant that asks: what a person is told first."""
        values = brains.values_of(self._line, self._info)
        greeting = self._line.greeting.text if self._line.greeting is not None else ""
        return [render(text, values) for text in (identified(self._line, self._info).disclosure, greeting) if text]

    def _says(self, text: str) -> list[Step]:
        steps: list[Step] = []
        for piece in brains.pieces_of(text):
            self._own.append(piece.strip())
            steps.append(Say(piece, interruptible=False))
        return steps
