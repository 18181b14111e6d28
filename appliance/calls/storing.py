"""What one call says, on its way into the record: in the order in which it was said, and as plugins let it be kept.

Where no plugin of the line wants to see what is stored, an event goes on at once. Else the events of the call wait for
one another in a queue: the call itself never does. What a plugin fails to answer for is withheld, never let through.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from itertools import repeat
from typing import Final, Protocol

from appliance.conversation.hooked import WITHHELD, HooksOfCall
from appliance.events import (
    CallEnded,
    CallEvent,
    RecordingStarted,
    ToolRun,
    TurnAmended,
    TurnFinished,
    TurnProgress,
)
from appliance.hook_types import Said

logger = logging.getLogger(__name__)

_WITHHELD: Final = f"{WITHHELD}: too much was waiting]"
_WITHHELD_FAILED: Final = f"{WITHHELD}: plugins could not be asked]"
_MAX_WAITING: Final = 256
_CLOSE_S: Final = 10.0
_MAX_TRANSCRIPT: Final = 30_000
"""Characters of it that plugins are told at the end of a call."""


class Sayer(Protocol):
    """Takes events; see :class:`~appliance.calls.services.CallLog`."""

    def say(self, event: CallEvent) -> None: ...


class CallKeeping:
    """Says the events of one call.

    Args:
        log: takes them.
        hooks: of the call.

    Attributes:
        transcript: what was said and may be kept, where a plugin will be told of it at the end; the latest of it.
        ended: the end of the call, as it may be kept; None as long as it goes on.
        turns: how many there were.
        recording: path of the recording; "" without one.
        own_slots: names of those that hold the operator's words and the box's, which no plugin changes.
    """

    def __init__(self, log: Sayer, hooks: HooksOfCall) -> None:
        self._log = log
        self._hooks = hooks
        self._asks = hooks.wanted("before_storing")
        self._sums_up = hooks.wanted("call_ended")
        self._waiting: deque[CallEvent] = deque()
        self._task: asyncio.Task[None] | None = None
        self._last_turn: TurnFinished | None = None
        self.transcript: deque[Said] = deque()
        self._said = 0
        self.ended: CallEnded | None = None
        self.turns = 0
        self.recording = ""
        self.own_slots = {"line.closed", "line.changed"}

    def go_on_with(self, hooks: HooksOfCall) -> None:
        """Another line has the call now: ask its plugins. Where none of them asks to be, those before still are."""
        if hooks.wanted("before_storing") or not self._asks:
            self._hooks, self._asks = hooks, hooks.wanted("before_storing")
        self._sums_up = self._sums_up or hooks.wanted("call_ended")

    def say(self, event: CallEvent) -> None:
        """Have it kept. Returns at once."""
        if isinstance(event, TurnFinished):
            self._last_turn = event
        if not self._asks:
            self._pass_on(event)
            return
        if isinstance(event, TurnProgress):
            if len(self._waiting) >= _MAX_WAITING:
                return
            # Half a number is no number to any plugin: what is under way is shown once it is complete.
            event = replace(event, turn=_turn(event.turn, repeat("")), hearing="")
        elif len(self._waiting) >= _MAX_WAITING:
            logger.error("call %s: too much waits to be stored; a text is withheld", event.call_id)
            event = with_texts(event, [_WITHHELD for _ in texts_of(event)])
        self._waiting.append(event)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"keeping {event.call_id}")

    def lost_tool(self, run: ToolRun) -> None:
        """A tool was used that no turn tells of: the last one does."""
        if self._last_turn is not None:
            turn = self._last_turn = replace(self._last_turn, tools=(*self._last_turn.tools, run))
            self.say(TurnAmended(call_id=turn.call_id, turn=turn))

    async def close(self) -> None:
        """Return when all has been passed on; what takes too long is withheld. More may be said afterwards."""
        if self._task is None:
            return
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await asyncio.shield(self._task)
        finally:
            if self._task is not None:
                self._task.cancel()
                self._task = None
                while self._waiting:
                    event = self._waiting.popleft()
                    self._pass_on(self._kept(event, with_texts(event, [_WITHHELD for _ in texts_of(event)])))

    async def _run(self) -> None:
        while self._waiting:
            event = self._waiting[0]
            texts = texts_of(event)
            if any(texts):
                try:
                    event = self._kept(event, with_texts(event, await self._hooks.before_storing(texts)))
                except Exception:
                    logger.exception("call %s: a text is withheld: plugins could not be asked", event.call_id)
                    event = self._kept(event, with_texts(event, [_WITHHELD_FAILED for _ in texts]))
            self._waiting.popleft()
            self._pass_on(event)
        self._task = None

    def _kept(self, before: CallEvent, after: CallEvent) -> CallEvent:
        """``after`` with those slots of ``before`` that stay as they are."""
        if not isinstance(before, CallEnded) or not isinstance(after, CallEnded):
            return after
        own = {name: value for name, value in before.slots.items() if name in self.own_slots}
        return replace(after, slots={**after.slots, **own})

    def _pass_on(self, event: CallEvent) -> None:
        self._log.say(event)
        match event:
            case TurnFinished():
                self.turns += 1
                if self._sums_up:
                    self._tell("caller", event.caller_text)
                    self._tell("agent", event.heard_text)
            case RecordingStarted():
                self.recording = event.path
            case CallEnded():
                self.ended = event
            case _:
                pass

    def _tell(self, by: str, text: str) -> None:
        """Add to the transcript; of too much, the oldest is left out."""
        if not text:
            return
        self.transcript.append(Said(by, text[:_MAX_TRANSCRIPT]))
        self._said += len(text)
        while self._said > _MAX_TRANSCRIPT and len(self.transcript) > 1:
            self._said -= len(self.transcript.popleft().text)


def texts_of(event: CallEvent) -> list[str]:
    """Every text in it that people or tools have made, in an order that :func:`with_texts` knows."""
    match event:
        case TurnFinished():
            tools = [text for tool in event.tools for text in (tool.arguments, tool.result, tool.problem)]
            return [event.caller_text, event.agent_text, event.heard_text, event.asked, event.problem, *tools]
        case TurnAmended():
            return texts_of(event.turn)
        case CallEnded():
            return [event.hangup_text, *(value for value in event.slots.values() if isinstance(value, str))]
        case _:
            return []


def with_texts(event: CallEvent, texts: Iterable[str]) -> CallEvent:
    """``event`` with other texts, as many as :func:`texts_of` has found."""
    left = iter(texts)
    match event:
        case TurnFinished():
            return _turn(event, left)
        case TurnAmended():
            return replace(event, turn=_turn(event.turn, left))
        case CallEnded():
            hangup_text = next(left)
            slots = {name: next(left) if isinstance(value, str) else value for name, value in event.slots.items()}
            return replace(event, hangup_text=hangup_text, slots=slots)
        case _:
            return event


def _turn(turn: TurnFinished, left: Iterable[str]) -> TurnFinished:
    texts = iter(left)
    changed = replace(
        turn,
        caller_text=next(texts),
        agent_text=next(texts),
        heard_text=next(texts),
        asked=next(texts),
        problem=next(texts),
    )
    tools = [replace(tool, arguments=next(texts), result=next(texts), problem=next(texts)) for tool in turn.tools]
    return replace(changed, tools=tuple(tools))
