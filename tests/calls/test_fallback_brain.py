"""What becomes of a caller when the language model fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from appliance.calls.brains import ModelServices, make_brain
from appliance.calls.brains import with_fallback as with_lines_way
from appliance.calls.fallback_brain import FallbackBrain
from appliance.conversation import brain
from appliance.conversation.brain import Gate, HangUp, Heard, Input, Listen, Say, Step, Transfer, Trouble
from appliance.dialplan.schema import Line
from appliance.errors import EngineError
from tests.calls.virtual_call import Leg, VirtualClock

TABLE = Heard("a table for four", 0.9, True)


class Model:
    """A brain whose model answers or fails as the next entry of ``script`` says; "" fails."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.heard: list[str] = []
        self.slots: dict[str, str] = {}
        self.tokens = 7
        self.closed = False

    def fork(self) -> Model:
        return Model(*self.script)

    async def reply(self, heard: Input, gate: Gate = brain.OPEN) -> AsyncIterator[Step]:
        text = self.script.pop(0)
        if not text:
            raise EngineError("the server died", retryable=False)
        yield Say(text)

    def was_heard(self, text: str) -> None:
        self.heard.append(text)

    async def close(self) -> None:
        self.closed = True


def with_fallback(model: Any, **more: Any) -> FallbackBrain:
    settings: dict[str, Any] = {"after": 2, "say": "I am sorry.", "onward": None, "transfer": Transfer("100"), **more}
    settings = {"nobody": "Nobody is there.", **settings}
    return FallbackBrain(model, **settings)


async def steps_of(agent: brain.Brain, heard: Input = TABLE, gate: Gate = brain.OPEN) -> list[Step]:
    return [step async for step in agent.reply(heard, gate)]


async def test_a_model_that_answers_is_all_there_is() -> None:
    agent = with_fallback(Model("Yes.", "", "No.", ""))
    assert await steps_of(agent) == [Say("Yes.")]
    for _ in range(2):
        with pytest.raises(EngineError, match="the server died"):
            await steps_of(agent)
        if agent._brain.script:  # type: ignore[attr-defined]
            assert await steps_of(agent) == [Say("No.")]


async def test_after_two_failures_the_caller_is_handed_on() -> None:
    agent = with_fallback(Model("", ""))
    with pytest.raises(EngineError):
        await steps_of(agent)
    assert await steps_of(agent) == [Trouble("the server died"), Say("I am sorry.", False), Transfer("100")]
    assert await steps_of(agent) == []
    nobody, end = await steps_of(agent, brain.TransferFailed())
    assert nobody == Say("Nobody is there.", False)
    assert end == HangUp("the language model failed")


async def test_without_anywhere_to_go_the_call_ends() -> None:
    agent = with_fallback(Model(""), after=1, transfer=None, say="")
    assert await steps_of(agent) == [Trouble("the server died"), HangUp("the language model failed")]


async def test_what_fails_before_the_turn_is_certain_does_not_count() -> None:
    agent = with_fallback(Model("", "Yes."), after=1)
    draft = agent.fork()
    with pytest.raises(EngineError):
        await steps_of(draft, gate=Gate(is_open=False))
    assert not draft._given_up
    assert agent.tokens == 7


async def test_a_fork_that_goes_the_other_way_leaves_the_brain_where_it_is() -> None:
    agent = with_fallback(Model("", ""), after=1)
    await steps_of(agent.fork())
    assert not agent._given_up


async def test_the_end_of_the_call_reaches_the_model() -> None:
    model = Model()
    agent = with_fallback(model)
    agent.was_heard("Yes.")
    await agent.close()
    assert (model.heard, model.closed) == (["Yes."], True)


class DeadPool:
    """A language model of which nothing comes."""

    def number(self) -> int:
        return 1

    async def generate(self, request: Any) -> AsyncIterator[Any]:
        raise EngineError("the server died", retryable=False)
        yield


def line_with(fallback: dict[str, Any], **more: Any) -> Line:
    return Line.model_validate(
        {"name": "desk", "agent": "llm", "prompt": "Take bookings.", "on_engine_failure": fallback, **more}
    )


async def test_a_line_goes_on_with_its_flow() -> None:
    flow = {
        "people": {"ask": "For how many, ${caller.number}?", "expect": ["two", "four"], "slot": "people"},
        "bye": {"hang_up": "For ${slots.people}. Goodbye."},
    }
    line = line_with({"after": 1, "say": "One question.", "step": "people"}, greeting="Hello.", flow=flow)
    made = make_brain(line, Leg().info, ModelServices(DeadPool(), 10.0, VirtualClock()))
    agent = with_lines_way(made, line, Leg().info)
    steps = await steps_of(agent)
    assert steps[1:3] == [Trouble("the server died"), Say("One question.", False)]
    assert [step.text for step in steps if isinstance(step, Say)][1].startswith("For how many")
    listen = next(step for step in steps if isinstance(step, Listen))
    assert listen.expectation.phrases[:2] == ("two", "four")
    goodbye = await steps_of(agent, Heard("four", 0.9, True))
    assert Say("For four. Goodbye.") in goodbye
    assert agent.slots == {"people": "four"}
    assert await steps_of(agent, brain.Spoken()) == [HangUp("completed")]


async def test_a_line_hands_the_caller_on() -> None:
    line = line_with({"after": 1, "say": "", "transfer": {"to": "sip:desk@192.0.2.1", "kind": "attended",
                                                            "announce": "A call from ${caller.number}."}})  # fmt: skip
    info = Leg().info
    made = make_brain(line, info, ModelServices(DeadPool(), 10.0, VirtualClock()))
    agent = with_lines_way(made, line, info)
    steps = await steps_of(agent)
    assert steps[-1] == Transfer("sip:desk@192.0.2.1", "", True, 30.0, f"A call from {info.calling}.")
