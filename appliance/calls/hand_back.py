"""A flow that hands its caller over to a language model for a while, and gets the caller back.

What the model finds out it tells by a tool (``continue_flow``), whose arguments are the slots of the step and one of
its outcomes. Each such step has a model of its own: its instructions and tools, and what was said in the call before.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from appliance.calls.brains import FlowBrain, ModelServices, model_brain, pieces_of
from appliance.calls.tool_sources import Offered
from appliance.conversation.brain import (
    OPEN,
    Gate,
    GoTo,
    HangUp,
    Heard,
    Input,
    Opening,
    Say,
    Spoken,
    Step,
    Trouble,
)
from appliance.conversation.hooked import NONE, HooksOfCall
from appliance.conversation.inputs import PRIVATE
from appliance.conversation.llm_brain import LlmBrain
from appliance.dialplan import flow
from appliance.dialplan.checks import HAND_BACK
from appliance.dialplan.schema import Line
from appliance.dialplan.steps import ConverseStep, SlotSpec
from appliance.errors import EngineError
from appliance.events import ToolRun
from appliance.hook_types import Said
from appliance.signalling.leg import CallInfo
from appliance.tool_types import Arguments, OngoingCall, Tool

TO_THE_CALLED: Final = ("stop_calling", "callback")
"""What a model may always do in a call that the box has placed."""
MAX_HAND_OVERS: Final = 8
"""So often a caller may go back and forth before anybody waits for an answer."""
_MAX_TALK: Final = 100
_RULE: Final = f"""
You lead one part of this call. When it is done, or the caller wants something else, use the tool {HAND_BACK}: the
call then goes on without you. Do not say goodbye, and do not announce that you hand over."""


@dataclass
class _Done:
    """What the model has said about its part; None while it goes on. Shared by a brain and its forks."""

    told: flow.HandedBack | None = None


def hand_back_tool(step: ConverseStep, done: _Done) -> Tool:
    """The tool by which the model gives the caller back."""
    wanted = [name for name in step.slots if not step.unfilled]
    properties: dict[str, Any] = {name: _schema(spec) for name, spec in step.slots.items()}
    if step.outcomes:
        properties["outcome"] = {"type": "string", "enum": list(step.outcomes), "description": "How your part ended."}

    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        outcome = str(arguments.get("outcome", ""))
        missing = [name for name in step.slots if name not in arguments and outcome not in step.unfilled]
        if missing:
            return {"error": f"ask for {', '.join(missing)} first"}
        call.hang_up(HAND_BACK, "")
        done.told = flow.HandedBack(outcome, {name: _text(arguments[name]) for name in step.slots if name in arguments})
        return {"status": "the call goes on without you"}

    return Tool(
        name=HAND_BACK,
        description="Your part of the call is done: tell what you have found out. Nothing is made up or guessed.",
        parameters={
            "type": "object",
            "properties": properties,
            "required": wanted + (["outcome"] if step.outcomes else []),
            "additionalProperties": False,
        },
        run=run,
    )


def _schema(spec: SlotSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"type": spec.type, "description": spec.description}
    if spec.choices:
        found["enum"] = list(spec.choices)
    if spec.type == "string" and not spec.choices:
        found |= {"minLength": 1, "maxLength": 500}
    found |= {key: value for key, value in (("minimum", spec.min), ("maximum", spec.max)) if value is not None}
    return {key: value for key, value in found.items() if value != ""}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e15 else str(value)


def make_shared_brain(
    line: Line,
    info: CallInfo,
    services: ModelServices | None,
    hooks: HooksOfCall = NONE,
    of_host: Sequence[Offered] = (),
) -> SharedBrain:
    """The brain of one call on a line whose flow has ``converse`` steps.

    Raises:
        EngineError: the box has no language model.
    """
    if services is None:
        text = f"line {line.name!r} has a `converse` step but engines.llm.provider is none"
        raise EngineError(text, retryable=False)
    model_services = services

    def make(step: ConverseStep, filled: Callable[[str], str], done: _Done, slots: dict[str, str]) -> LlmBrain:
        plan = line.model_copy(
            update={
                "agent": "llm",
                "prompt": f"{line.prompt or ''}\n{filled(step.converse)}\n{_RULE}".strip(),
                "tools": (*step.tools, HAND_BACK, *(TO_THE_CALLED if info.outbound else ())),
            }
        )
        own = Offered("builtin", hand_back_tool(step, done))
        opening = [Say(piece, line.barge_in) for piece in pieces_of(filled(step.say or ""))]
        return model_brain(
            plan,
            info,
            model_services,
            hooks,
            [own, *of_host],
            opening=opening,
            memory=None,
            slots=slots,
            begins=True,
            private=leader.private_numbers,
        )

    leader = FlowBrain(line, info)
    return SharedBrain(leader, make)


class SharedBrain:
    """The flow leads, and the model where a ``converse`` step says so.

    Args:
        leader: the flow.
        make: a model for a step: with what fills in texts, where it tells of its end, and where its tools put notes.
    """

    def __init__(
        self,
        leader: FlowBrain,
        make: Callable[[ConverseStep, Callable[[str], str], _Done, dict[str, str]], LlmBrain],
    ) -> None:
        self._flow = leader
        self._make = make
        self._model: LlmBrain | None = None
        self._past: list[LlmBrain] = []
        self._done = _Done()
        self._notes: dict[str, str] = {}
        self._talk: tuple[Said, ...] = ()
        self._agent_said = False
        self._own: list[str] = []
        self._turns = 0
        self._report: Callable[[ToolRun], None] = lambda run: None

    @property
    def slots(self) -> Mapping[str, str]:
        return {**self._notes, **self._flow.slots}

    @property
    def tokens(self) -> int:
        models = [*self._past, self._model] if self._model is not None else self._past
        return sum(model.tokens for model in models)

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        self._report = report
        if self._model is not None:
            self._model.report_tools(report)

    def fork(self) -> SharedBrain:
        twin = copy.copy(self)
        twin._flow = self._flow.fork()
        twin._model = self._model.fork() if self._model is not None else None
        twin._past, twin._own = list(self._past), list(self._own)
        return twin

    async def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """Raises EngineError where the model fails before the turn is certain; later the flow goes on."""
        self._note(heard)
        if isinstance(heard, GoTo) and self._model is not None:
            self._past.append(self._model)
            self._model = None
        if self._model is None:
            said = False
            async for step in self._flow.reply(heard, gate):
                said = said or isinstance(step, Say)
                yield self._led(step)
            if self._flow.conversing is None:
                return
            fresh = isinstance(heard, Heard) and heard.text and not said and self._flow.conversing.say is None
            unknown = fresh and not (self._talk and self._talk[-1].text == PRIVATE)
            self._hand_over(heard_last=bool(unknown))
            heard = heard if unknown else Opening()
        for _ in range(MAX_HAND_OVERS):
            model = self._model
            assert model is not None
            if self._done.told is None:
                try:
                    async with aclosing(model.reply(heard, gate)) as steps:
                        async for step in steps:
                            if not (isinstance(step, HangUp) and self._done.told is not None):
                                yield step
                    if self._done.told is None and not self._too_long(heard):
                        return
                    after: flow.HandedBack | flow.ModelFailed = self._done.told or flow.ModelFailed()
                except EngineError as error:
                    if not gate.is_open:
                        raise
                    yield Trouble(str(error))
                    after = flow.ModelFailed()
            else:  # the caller cut in after the model had told
                after = self._done.told
            for step in self._take_back(after):
                yield self._led(step)
            if self._flow.conversing is None:
                return
            self._hand_over(heard_last=False)
            heard = Opening()
        raise EngineError("the flow and the language model hand the caller to and fro", retryable=False)

    def was_said(self, meant: str, said: str) -> None:
        if meant in self._own:
            self._own[self._own.index(meant)] = said
        elif self._model is not None:
            self._model.was_said(meant, said)
        else:
            self._flow.was_said(meant, said)

    def was_heard(self, text: str) -> None:
        """What the flow said in a reply comes before what the model says in it."""
        if text:
            before = self._talk[:-1] if self._agent_said else self._talk
            self._talk = (*before[1 - _MAX_TALK :], Said("agent", text))
            self._agent_said = True
        if self._model is not None:
            own = sum(len(said.split()) for said in self._own)
            self._model.was_heard(" ".join(text.split()[own:]))

    async def close(self) -> None:
        for model in (*self._past, self._model):
            if model is not None:
                await model.close()

    def _note(self, heard: Input) -> None:
        if isinstance(heard, Spoken):
            return
        self._own, self._agent_said = [], False
        if isinstance(heard, Heard) and heard.text:
            text = PRIVATE if self._model is None and self._flow.private else heard.text
            self._talk = (*self._talk[1 - _MAX_TALK :], Said("caller", text))

    def _led(self, step: Step) -> Step:
        """``step``, which is the flow's."""
        if isinstance(step, Say):
            self._own.append(step.text)
        return step

    def _hand_over(self, *, heard_last: bool) -> None:
        """The model has the caller from now on. ``heard_last``: it is going to be told what the caller said last."""
        step = self._flow.conversing
        assert step is not None
        self._done = _Done()
        self._turns = 0
        self._model = self._make(step, self._flow.filled, self._done, self._notes)
        self._model.report_tools(self._report)
        self._model.has_missed(self._talk[:-1] if heard_last else self._talk, self._flow.slots)

    def _take_back(self, after: flow.HandedBack | flow.ModelFailed) -> Iterator[Step]:
        assert self._model is not None
        self._past.append(self._model)
        self._model = None
        self._own = []
        return self._flow.taken_back(after)

    def _too_long(self, heard: Input) -> bool:
        step = self._flow.conversing
        self._turns += isinstance(heard, Heard) and bool(heard.text)
        return step is not None and self._turns > step.max_turns
