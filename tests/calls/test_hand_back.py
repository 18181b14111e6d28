"""A flow hands its caller over to the language model and gets the caller back: whole calls in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from appliance.dialplan.schema import Line
from appliance.errors import EngineError
from appliance.events import HangupBy
from appliance.ipc.messages import Generate, ToolCall
from tests.calls.virtual_call import Step, VirtualCall
from tests.engines.virtual_time import run_virtual

LINE: dict[str, Any] = {
    "name": "table",
    "prompt": "You work for a restaurant.",
    "turn": {"speculate": 0},
    "flow": {
        "what": {
            "ask": "A table, or something else?",
            "expect": {"table": ["a table"], "other": ["something else"]},
            "slot": "wish",
            "next": {"table": "book", "other": "bye"},
            "no_match": {"retries": 0, "then": "book"},
        },
        "book": {
            "converse": "Find out how many people come.",
            "slots": {"people": {"type": "integer", "min": 1, "max": 12}, "window": {"type": "boolean"}},
            "next": {"booked": "confirm", "else": "bye"},
            "unfilled": ["else"],
            "failed": "sorry",
            "max_turns": 3,
        },
        "confirm": {
            "ask": "For ${slots.people}, is that right?",
            "expect": {"yes": ["yes"], "no": ["no"]},
            "next": {"yes": "bye", "no": "book"},
        },
        "sorry": {"hang_up": "I am sorry. Goodbye.", "disposition": "failed"},
        "bye": {"hang_up": "Goodbye."},
    },
}


def line(**book: Any) -> Line:
    steps = {**LINE["flow"], "book": {**LINE["flow"]["book"], **book}}
    return Line.model_validate({**LINE, "flow": steps})


def done(**arguments: Any) -> ToolCall:
    return ToolCall("a", "continue_flow", json.dumps(arguments))


def shown(request: Generate) -> str:
    return "\n".join(message.content for message in request.messages)


async def answered(made: VirtualCall, text: str, then: str, *, accepted: bool = True) -> None:
    await made.until_quiet()
    made.speaks(0.8, text, accepted)
    await made.until_says(then)


def test_there_and_back_and_there_again() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        script: list[list[Step]] = [
            ["How many are you?"],
            [done(outcome="booked", people=4, window=True)],
            ["How many, then?"],
            [done(outcome="booked", people=5, window=False)],
        ]
        made.replies(lambda request: script.pop(0))
        await answered(made, "a table", "How many are you?")
        await answered(made, "four of us", "For four, is that right?")
        await answered(made, "no", "How many, then?")
        await answered(made, "five", "For five, is that right?")
        await answered(made, "yes", "Goodbye.")
        ended = await made.over()
        assert ended.hangup_by is HangupBy.AGENT
        assert ended.slots == {"wish": "table", "people": "5", "window": "false", "ending": "completed"}
        first, _, third, _ = made.engines.prompts
        assert first.messages[0].content.startswith("You work for a restaurant.\nFind out how many people come.\n")
        assert "a table" in shown(first) and "A table, or something else?" in shown(first)
        assert all(text in shown(third) for text in ("How many are you?", "four of us", "For 4, is that right?"))
        assert '<fact what="people">4</fact>' in shown(third)
        assert {spec.name for spec in first.tools} == {"continue_flow", "hang_up"}
        used = [tool for turn in made.log.turns for tool in turn.tools]
        assert [tool.name for tool in used] == ["continue_flow"] * 2
        assert json.loads(used[0].arguments) == {"outcome": "booked", "people": 4, "window": True}

    run_virtual(call())


def test_words_that_no_question_expects_are_for_the_model() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        made.replies(lambda request: ["We have fish."])
        await answered(made, "what do you have", "We have fish.", accepted=False)
        assert "what do you have" in made.engines.prompts[0].messages[-1].content
        await made.ends()

    run_virtual(call())


def test_what_the_step_says_needs_no_model() -> None:
    async def call() -> None:
        made = VirtualCall(line(say="How many?"), llm=True)
        made.replies(lambda request: [done(outcome="else")])
        await answered(made, "a table", "How many?")
        assert made.engines.prompts == []
        await answered(made, "never mind", "Goodbye.")
        assert "How many?" in shown(made.engines.prompts[0])
        ended = await made.over()
        assert ended.slots == {"wish": "table", "ending": "completed"}

    run_virtual(call())


def test_slots_that_are_missing_or_wrong_are_asked_for() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        script: list[list[Step]] = [
            [done(outcome="booked", window=True)],
            [done(outcome="booked", people=40, window=True)],
            ["For how many?"],
        ]
        made.replies(lambda request: script.pop(0))
        await answered(made, "a table", "For how many?")
        assert "ask for people first" in shown(made.engines.prompts[1])
        assert "40" in shown(made.engines.prompts[2])
        await made.ends()

    run_virtual(call())


@pytest.mark.parametrize("how", ["fails", "never ends"])
def test_a_model_that_cannot_go_on_leaves_the_caller_to_the_flow(how: str) -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)

        def reply(request: Generate) -> Iterable[Step]:
            if how == "fails":
                raise EngineError("no thought")
            return ["And how many?"]

        made.replies(reply)
        if how == "fails":
            await answered(made, "a table", "I am sorry. Goodbye.")
        else:
            await answered(made, "a table", "And how many?")
            for text in ("hm", "hm hm"):
                await made.until_quiet()
                made.engines.said.clear()
                await answered(made, text, "And how many?")
            await answered(made, "hm hm hm", "I am sorry. Goodbye.")
        ended = await made.over()
        assert ended.slots["ending"] == "failed"
        if how == "fails":
            assert "no thought" in made.log.turns[-1].problem

    run_virtual(call())


def test_a_line_may_begin_with_the_model() -> None:
    async def call() -> None:
        steps = {"book": LINE["flow"]["book"], **LINE["flow"]}
        plan = Line.model_validate({**LINE, "greeting": "Good evening.", "flow": steps})
        made = VirtualCall(plan, llm=True)
        made.replies(lambda request: ["How many are you?"])
        await made.until_says("How many are you?")
        assert made.engines.said[0] == "Good evening."
        await made.ends()

    run_virtual(call())


def test_a_caller_can_be_silent_and_can_interrupt() -> None:
    async def call() -> None:
        made = VirtualCall(line(say="How many?"), llm=True)
        made.replies(lambda request: ["Take your time, there is no hurry at all, we have many tables."])
        await answered(made, "a table", "How many?")
        await made.until(lambda: made.engines.said.count("How many?") == 2)
        await answered(made, "well", "Take your time, there is no hurry")
        made.speaks(1.2, "stop it please")
        await made.until(lambda: len(made.engines.prompts) == 2)
        assert "[interrupted]" in shown(made.engines.prompts[1])
        made.hangs_up()
        await made.over()

    run_virtual(call())
