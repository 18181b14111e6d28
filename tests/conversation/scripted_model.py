"""A language model that says what the test wrote down, with times; and a brain around it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from appliance.api.tools import Arguments, OngoingCall, Tool
from appliance.conversation.brain import OPEN, Expectation, Gate, Heard, Input, Say, Spoken, Step
from appliance.conversation.llm_brain import LlmBrain, Persona
from appliance.conversation.memory import CallerMemory, CallerNotes
from appliance.conversation.thinking import Manner
from appliance.conversation.tools import CallFacts, ToolSet
from appliance.ipc.messages import ChatMessage, Generate, Token, ToolCall

Part: TypeAlias = str | float | ToolCall | Exception
"""Words, seconds to wait, a tool that is asked for, or what goes wrong."""

NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass
class ScriptedModel:
    """Each request takes the next answer; the last one is given for ever. A summary has a script of its own."""

    answers: list[list[Part]] = field(default_factory=lambda: [["Very well."]])
    digests: list[list[Part]] = field(default_factory=lambda: [["Nothing of note."]])
    asked: list[Generate] = field(default_factory=list)
    digested: list[Generate] = field(default_factory=list)
    closed: int = 0
    numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def number(self) -> int:
        return next(iter(self.numbers))

    async def generate(self, request: Generate) -> AsyncIterator[Token]:
        aside = request.session.endswith((":summary", ":memory"))
        script, seen = (self.digests, self.digested) if aside else (self.answers, self.asked)
        seen.append(request)
        parts = script[min(len(seen), len(script)) - 1]
        try:
            for part in parts:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, ToolCall):
                    yield Token(request.request, "", False, (part,))
                elif isinstance(part, str):
                    yield Token(request.request, part, False)
                else:
                    await asyncio.sleep(part)
            yield Token(request.request, "", True, (), "first")
        finally:
            self.closed += 1

    def shown(self, index: int = -1) -> list[tuple[str, str]]:
        """What it was shown after the instructions and the facts of the call: (role, text)."""
        facts, *talk = [(message.role, message.content) for message in self.asked[index].messages[1:]]
        first = facts[1].partition("\n")[2]
        return [("user", first), *talk] if first else talk


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall("", name, arguments)


def tool(name: str, run: Callable[[Arguments, OngoingCall], Any], **more: Any) -> Tool:
    settings: dict[str, Any] = {"description": name, "parameters": {"type": "object"}, **more}
    return Tool(name=name, run=run, **settings)


@dataclass
class Made:
    """A brain, and the model and slots it has."""

    brain: LlmBrain
    model: ScriptedModel
    slots: dict[str, str]

    async def reply(self, heard: Input | str, gate: Gate = OPEN, *, heard_share: float = 1.0) -> list[Step]:
        """All steps of a reply, after which that share of its words was heard."""
        value = Heard(heard, 0.9, True) if isinstance(heard, str) else heard
        steps = [step async for step in self.brain.reply(value, gate)]
        if words := said(steps).split():
            self.brain.was_heard(" ".join(words[: round(len(words) * heard_share)]))
        assert [step async for step in self.brain.reply(Spoken())] == []
        return steps


def said(steps: Sequence[Step]) -> str:
    """The words of a reply, fillers left out."""
    return " ".join(step.text for step in steps if isinstance(step, Say) and not step.filler)


def make(
    *answers: list[Part],
    tools: Sequence[Tool] = (),
    manner: dict[str, Any] | None = None,
    notes: CallerNotes | None = None,
    digests: Sequence[list[Part]] = (),
    about: dict[str, str] | None = None,
    **persona: Any,
) -> Made:
    """A brain in a running loop."""
    model = ScriptedModel(list(answers) or [["Very well."]], list(digests) or [["Nothing of note."]])
    slots: dict[str, str] = {}
    now = asyncio.get_running_loop().time
    settings: dict[str, Any] = {
        "prompt": "You are the desk.",
        "opening": [Say("Hello, this is the desk.")],
        "expectation": Expectation(no_input_s=5.0),
        **persona,
    }
    brain = LlmBrain(
        model,
        Persona(**settings),
        Manner(session="call1", fillers=("One moment.", "Still there."), **(manner or {})),
        facts=CallFacts("call1", "desk", "+49301234", "100"),
        tools=ToolSet(tools),
        slots=slots,
        about=about or {},
        memory=CallerMemory(notes, model, "call1", now) if notes is not None else None,
        now=now,
        local_time=lambda: datetime(2026, 11, 21, 14, 5, tzinfo=UTC),
    )
    return Made(brain, model, slots)


def in_order(messages: Sequence[ChatMessage]) -> None:
    """A server takes these: every tool that is asked for is answered right after, and the sides take turns."""
    waiting: list[str] = []
    before = ""
    for message in messages:
        if message.role == "tool":
            assert waiting
            assert message.call_id == waiting.pop(0)
        else:
            assert not waiting
            assert message.role != before or message.role == "assistant"
            waiting = [wanted.id for wanted in message.tool_calls]
        before = message.role
    assert not waiting
