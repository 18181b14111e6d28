"""No dead air and no lost turn where tools, recognisers or models take long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from appliance.api.tools import Arguments, OngoingCall, Tool
from appliance.calls import builtin_tools
from appliance.dialplan.schema import Line
from appliance.errors import EngineError
from appliance.events import InputBy
from appliance.ipc.messages import Generate, Recognise, Recognised, ToolCall
from tests.calls.virtual_call import Step, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

LONGEST_SILENCE_S = 3.0


def llm_line(**changes: Any) -> Line:
    return Line.model_validate(
        {"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there.", **changes}
    )


def offer_look_up(monkeypatch: Any, takes_s: float) -> None:
    """The one tool of every line is ``look``, which finds three of them."""

    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        await asyncio.sleep(takes_s)
        return {"found": 3}

    look = Tool(name="look", description="Look it up.", parameters={"type": "object"}, run=run, timeout_s=20.0)
    monkeypatch.setattr(builtin_tools, "builtin_tools", lambda *of_the_call: [look])


async def asks_and_waits(made: VirtualCall) -> None:
    """The caller asks how many there are, is told so, and is never left in silence for long."""
    await made.until_quiet()
    made.speaks(0.8, "how many are there")
    await made.until(lambda: bool(made.media.playout))
    said = made.engines.said
    assert await longest_silence(made, lambda: "There are three of them." in said) < LONGEST_SILENCE_S
    await made.ends()


async def longest_silence(made: VirtualCall, until: Any) -> float:
    """Seconds of the longest stretch in which the caller hears nothing, from now until it is so."""
    longest = silent = 0.0
    for _ in range(60 * 50):
        if until():
            return longest
        silent = 0.0 if made.media.playout else silent + 0.02
        longest = max(longest, silent)
        await asyncio.sleep(0.02)
    raise AssertionError("it has not come to that within a minute")


def test_a_tool_that_takes_very_long_is_bridged_again_and_again(monkeypatch: Any) -> None:
    offer_look_up(monkeypatch, takes_s=12.0)

    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)

        def reply(request: Generate) -> Iterator[Step]:
            yield 0.1
            if request.messages[-1].role == "tool":
                yield "There are three of them."
            else:
                yield ToolCall("", "look", "{}")

        made.replies(reply)
        await asks_and_waits(made)
        assert made.log.turns[-1].heard_text == "There are three of them."

    run_virtual(call())


def test_a_filler_that_may_not_be_interrupted_does_not_cost_the_turn_it_bridges() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(barge_in=False))
        made.recognises_after(3.0)
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        ended = await made.ends()
        assert ended.slots["drink"] == "tea"
        assert made.log.turns[-1].caller_text == "tea please"

    run_virtual(call())


def test_a_cough_while_the_agent_thinks_does_not_cost_the_answer() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)

        def reply(request: Generate) -> Iterator[Step]:
            yield 2.5
            yield "We open at nine."

        made.replies(reply)
        await made.until_quiet()
        made.speaks(0.8, "when do you open")
        await made.until(lambda: bool(made.engines.prompts))
        await asyncio.sleep(0.8)
        made.speaks(0.3, "", accepted=False)
        await made.until_says("We open at nine.")
        await made.ends()
        (turn,) = [turn for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert (turn.caller_text, turn.heard_text) == ("when do you open", "We open at nine.")

    run_virtual(call())


def test_a_model_line_says_so_when_the_caller_cannot_be_recognised() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.tokens = ["Very ", "well. "]

        async def broken(request: Recognise) -> Recognised:
            raise EngineError("no ears")

        recognise, made.engines.recognise = made.engines.recognise, broken  # type: ignore[method-assign]
        await made.until_quiet()
        made.speaks(0.8, "hello")
        assert await longest_silence(made, lambda: any("went wrong" in said for said in made.engines.said)) < 3.0
        await made.until_quiet()
        made.engines.recognise = recognise  # type: ignore[method-assign]
        made.speaks(0.8, "hello")
        await made.until_says("Very well.")
        await made.ends()
        failed, answered = made.log.turns[-2:]
        assert "no ears" in failed.problem
        assert (answered.caller_text, answered.problem) == ("hello", "")

    run_virtual(call())


def test_a_slow_answer_to_keys_is_bridged() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)

        def reply(request: Generate) -> Iterator[Step]:
            yield 6.0
            yield "Thank you."

        made.replies(reply)
        await made.until_quiet()
        made.session.on_digit("4", 0)
        await asyncio.sleep(0.5)
        made.session.on_digit("2", 0)
        await made.until(lambda: bool(made.engines.prompts))
        assert await longest_silence(made, lambda: "Thank you." in made.engines.said) < LONGEST_SILENCE_S
        await made.ends()

    run_virtual(call())


def test_a_model_that_takes_long_in_the_middle_of_its_reply_is_bridged(monkeypatch: Any) -> None:
    offer_look_up(monkeypatch, takes_s=0.0)

    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)

        def reply(request: Generate) -> Iterator[Step]:
            if request.messages[-1].role == "tool":
                yield 8.0
                yield "There are three of them."
            else:
                yield 0.1
                yield "Let me look. "
                yield ToolCall("", "look", "{}")

        made.replies(reply)
        await asks_and_waits(made)
        assert made.engines.said.count("One moment, please.") == 1
        assert made.log.turns[-1].heard_text == "Let me look. There are three of them."

    run_virtual(call())


def test_a_reply_that_is_only_a_little_late_is_not_bridged() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)

        def reply(request: Generate) -> Iterator[Step]:
            for sentence in (
                "Let me think about that. ",
                "It is open today. ",
                "It opens at nine. ",
                "It closes at five. ",
            ):
                yield sentence
                yield len(sentence) * 0.06 + 0.9

        made.replies(reply)
        await made.until_quiet()
        made.speaks(0.8, "is it open")
        await made.until_says("It closes at five.")
        await made.ends()
        assert "One moment, please." not in made.engines.said

    run_virtual(call())


def test_two_who_bridge_the_same_wait_do_not_both_say_so(monkeypatch: Any) -> None:
    offer_look_up(monkeypatch, takes_s=4.0)

    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)

        def reply(request: Generate) -> Iterator[Step]:
            if request.messages[-1].role == "tool":
                yield "There are three of them."
            else:
                yield 1.9
                yield ToolCall("", "look", "{}")

        made.replies(reply)
        await asks_and_waits(made)
        assert made.engines.said.count("One moment, please.") == 1

    run_virtual(call())
