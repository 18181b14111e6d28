"""Whole calls on lines with keys that do something at any time, whoever leads them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.dialplan.schema import Line
from appliance.ipc.messages import ToolCall
from tests.calls.test_call_recording import RecordedCall
from tests.calls.test_tool_calls import Desk, Script
from tests.calls.test_tool_calls import line as llm_line
from tests.calls.virtual_call import FLOW, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

MENU = "Do you want tea or coffee?"
CODE = "Please enter your four digit code."
KEYS: dict[str, Any] = {
    "0": {"say": "I will get somebody.", "transfer": "sip:desk@192.0.2.1"},
    "1": {"say": "Never said."},
    "7": {"say": "We are open until five, ${caller.number}."},
    "8": {"goto": "pin"},
    "9": {"hang_up": "So long."},
}


def any_line(agent: str, **changes: Any) -> Line:
    if agent == "flow":
        return flow_line(keys=KEYS, **changes)
    flow = {name: FLOW["flow"][name] for name in ("pin", "bye")}
    return llm_line(keys=KEYS, flow=flow, turn={"speculate": 0}, **changes)


def made_call(agent: str, desk: Desk | None = None, **changes: Any) -> VirtualCall:
    made = VirtualCall(any_line(agent, **changes), llm=agent == "llm", transfers=desk)
    Script(made.engines, "The model answers.")
    return made


def press(made: VirtualCall, digits: str) -> None:
    for digit in digits:
        made.session.on_digit(digit, 0)


@pytest.mark.parametrize("agent", ["flow", "llm"])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_key_says_something_and_leaves_the_call_where_it_was(agent: str, quiet: bool) -> None:
    async def call() -> None:
        made = made_call(agent)
        await (made.until_quiet() if quiet else asyncio.sleep(0.5))
        press(made, "7")
        await made.until(lambda: any(text.startswith("We are open until five") for text in made.engines.said))
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says(CODE if agent == "flow" else "The model answers.")
        ended = await made.ends()
        assert made.log.turns[1].agent_text == "We are open until five, 200."
        assert agent == "llm" or ended.slots["drink"] == "tea"

    run_virtual(call())


@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_a_key_ends_the_call_after_its_farewell(agent: str) -> None:
    async def call() -> None:
        made = made_call(agent)
        await made.until_quiet()
        press(made, "9")
        ended = await made.over()
        assert made.log.turns[-1].heard_text == "So long."
        assert ended.slots["ending"] == "completed"

    run_virtual(call())


@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_a_key_hands_the_caller_on(agent: str) -> None:
    async def call() -> None:
        desk = Desk("transferred")
        made = made_call(agent, desk)
        await made.until_quiet()
        press(made, "0")
        ended = await made.over()
        (asked,) = desk.asked
        assert asked.to == "sip:desk@192.0.2.1"
        assert made.log.turns[-1].heard_text == "I will get somebody."
        assert ended.hangup_text == "transferred"

    run_virtual(call())


@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_a_caller_whom_nobody_takes_is_told_so_and_the_call_goes_on(agent: str) -> None:
    async def call() -> None:
        made = made_call(agent, Desk(None))
        await made.until_quiet()
        press(made, "0")
        nobody = "I am sorry, nobody can take your call right now."
        await made.until_says(nobody if agent == "flow" else "The model answers.")
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        if agent == "flow":
            await made.until_says(CODE)
        await made.ends()

    run_virtual(call())


@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_a_failed_transfer_goes_on_at_its_step(agent: str) -> None:
    async def call() -> None:
        keys = {"0": {"transfer": "sip:desk@192.0.2.1", "failed": "pin"}}
        made = VirtualCall(
            any_line(agent).model_copy(update={"keys": flow_line(keys=keys).keys}),
            llm=agent == "llm",
            transfers=Desk(None),
        )
        await made.until_quiet()
        press(made, "0")
        await made.until_says(CODE)
        await made.ends()

    run_virtual(call())


@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_digits_of_a_number_are_no_shortcuts_and_the_flow_leads_after_goto(agent: str) -> None:
    async def call() -> None:
        made = made_call(agent)
        await made.until_quiet()
        press(made, "8")
        await made.until_says(CODE)
        await made.until_quiet()
        for digit in "9087":
            press(made, digit)
            await asyncio.sleep(0.3)
        ended = await made.over()
        assert (ended.slots["pin"], ended.slots["ending"]) == ("9087", "done")
        assert made.log.turns[-1].heard_text == "Thank you, goodbye."

    run_virtual(call())


def test_a_question_that_gives_the_key_a_meaning_has_it() -> None:
    async def call() -> None:
        made = made_call("flow")
        await made.until_quiet()
        press(made, "1")
        await made.until_says(CODE)
        ended = await made.ends()
        assert ended.slots["drink"] == "tea"
        assert "Never said." not in made.engines.said

    run_virtual(call())


def test_keys_that_a_model_or_its_tool_is_given_are_a_number() -> None:
    async def call() -> None:
        made = VirtualCall(any_line("llm"), llm=True)
        ask = ToolCall("a", "collect_digits", '{"question": "What is your code?", "min": 4, "max": 4}')
        script = Script(made.engines, ask, "Thank you.", "I see.")
        await made.until_quiet()
        made.speaks(0.8, "check my code")
        await made.until_says("What is your code?")
        await made.until_quiet()
        for digit in "9087":
            press(made, digit)
            await asyncio.sleep(0.3)
        await made.until_says("Thank you.")
        await made.until_quiet()
        for digit in "497":
            press(made, digit)
            await asyncio.sleep(0.3)
        await made.until_says("I see.")
        await made.until_quiet()
        assert "pressed the keys 4 9 7" in str(script.prompts[-1])
        press(made, "9")
        await made.until_says("So long.")
        await made.over()
        assert made.log.turns[2].caller_text == "9087"

    run_virtual(call())


def test_a_private_answer_and_the_question_of_consent_come_first() -> None:
    async def call() -> None:
        flow = {"who": {"ask": "Your name?", "expect": ["smith"], "private": True}, "bye": {"hang_up": "Goodbye."}}
        keys = {**KEYS, "8": {"goto": "bye"}}
        line = flow_line(flow=flow, keys=keys, record={"consent": "ask", "ask": "May we record this call?"})
        made = RecordedCall(line)
        await made.until_says("May we record this call?")
        await made.until_quiet()
        press(made, "1")
        await made.until_says("Your name?")
        await made.until_quiet()
        press(made, "9")
        await asyncio.sleep(1)
        made.speaks(0.8, "smith")
        await made.over()
        assert not {"So long.", "Never said."} & set(made.engines.said)
        assert made.log.turns[-1].agent_text == "Goodbye."

    run_virtual(call())


def test_a_key_takes_the_caller_from_the_model_of_a_step_and_back_to_it() -> None:
    async def call() -> None:
        flow = {
            "talk": {"converse": "Chat.", "say": "Let us talk.", "failed": "bye"},
            "bye": {"hang_up": "Goodbye."},
            "menu": {"ask": MENU, "expect": ["tea"], "next": "bye"},
        }
        keys = {"8": {"goto": "menu"}, "6": {"say": "Back to it.", "goto": "talk"}}
        made = VirtualCall(flow_line(flow=flow, keys=keys, turn={"speculate": 0}), llm=True)
        Script(made.engines, "The model answers.")
        await made.until_says("Let us talk.")
        await made.until_quiet()
        press(made, "8")
        await made.until_says(MENU)
        await made.until_quiet()
        press(made, "6")
        await made.until_says("Back to it.")
        await made.until_quiet()
        made.speaks(0.8, "well")
        await made.until_says("The model answers.")
        await made.until_quiet()
        press(made, "8")
        await made.until_quiet()
        made.speaks(0.8, "tea")
        ended = await made.over()
        assert made.log.turns[-1].agent_text == "Goodbye."
        assert ended.slots["ending"] == "completed"

    run_virtual(call())
