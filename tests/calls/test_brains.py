"""What a dialplan's variables stand for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from appliance.calls import brains
from appliance.calls.brains import FlowBrain, variables
from appliance.config.trunks import NETWORK_VARIABLES
from appliance.conversation import brain
from appliance.conversation.hooked import HooksOfCall
from appliance.dialplan.schema import Line
from appliance.errors import StoreError
from appliance.plugins.hooks import HookCall
from appliance.signalling.headers import read_headers
from appliance.sip.message import Headers
from tests.calls.virtual_call import Leg, flow_line
from tests.plugins.spoken_hooks import SpokenHooks

HEADERS = [
    ("P-Asserted-Identity", '"Ann Lee" <sip:+4930123@carrier.example>'),
    ("From", "<sip:anonymous@anonymous.invalid;verstat=TN-Validation-Passed>;tag=1"),
    ("Privacy", "id;critical"),
    ("Diversion", "<sip:+4930200@carrier.example>;reason=user-busy"),
    ("Reason", 'SIP;cause=486, Q.850;cause=17;text="User busy"'),
    ("User-to-User", "56a390f3;encoding=hex"),
]


def test_what_the_network_says_about_a_call_can_be_said_and_passed_on() -> None:
    info = replace(Leg().info, about=read_headers(Headers(HEADERS)), offered={"X-Customer": "7"})
    assert variables(info) == {
        "caller.asserted": "+4930123",
        "caller.asserted_name": "Ann Lee",
        "caller.verstat": "TN-Validation-Passed",
        "caller.privacy": "id;critical",
        "diverted.number": "+4930200",
        "call.reason": 'SIP;cause=486, Q.850;cause=17;text="User busy"',
        "call.user_to_user": "56a390f3;encoding=hex",
        "header.X-Customer": "7",
    }


def test_a_call_that_says_nothing_leaves_every_variable_empty() -> None:
    assert variables(Leg().info) == dict.fromkeys(NETWORK_VARIABLES, "")


async def test_a_flow_says_them() -> None:
    text = "Hello " + " ".join(
        f"${{{name}}}" for name in ("caller.asserted_name", "caller.privacy", "call.user_to_user")
    )
    line = Line.model_validate({"name": "x", "greeting": {"text": text}, "flow": {"bye": {"hang_up": "Goodbye."}}})
    info = replace(Leg().info, about=read_headers(Headers(HEADERS)))
    said = [step.text async for step in FlowBrain(line, info).reply(brain.Opening()) if isinstance(step, brain.Say)]
    assert said[0] == "Hello Ann Lee id;critical 56a390f3;encoding=hex"


# --- manners in a flow ----------------------------------------------------------------------------------------------


def flow_brain(**changes: Any) -> FlowBrain:
    return FlowBrain(flow_line(**changes), Leg().info)


async def steps_of(agent: brain.Brain, heard: brain.Input | str) -> list[brain.Step]:
    value = brain.Heard(heard, 0.9, True) if isinstance(heard, str) else heard
    return [step async for step in agent.reply(value)]


def said(steps: list[brain.Step]) -> list[str]:
    return [step.text for step in steps if isinstance(step, brain.Say)]


async def test_a_flow_says_its_last_words_again_and_still_expects_the_answer() -> None:
    agent = flow_brain()
    first = await steps_of(agent, brain.Opening())
    again = await steps_of(agent, "could you repeat that")
    assert said(again) == said(first) == ["Hello, this is the desk.", "Do you want tea or coffee?"]
    assert again[-1] == first[-1]
    assert said(await steps_of(agent, "tea please")) == ["Please enter your four digit code."]
    assert said(await steps_of(agent, "what did you say")) == ["Please enter your four digit code."]


async def test_a_flow_speaks_more_slowly_when_asked() -> None:
    agent = flow_brain()
    await steps_of(agent, brain.Opening())
    paces = [step.factor for _ in range(2) for step in await steps_of(agent, "please speak slower")
             if isinstance(step, brain.Pace)]  # fmt: skip
    assert 1.0 > paces[0] > paces[1]


async def test_the_recogniser_knows_the_wishes_that_the_line_grants() -> None:
    async def phrases(**changes: Any) -> tuple[str, ...]:
        steps = await steps_of(flow_brain(**changes), brain.Opening())
        return next(step.expectation.phrases for step in steps if isinstance(step, brain.Listen))

    assert (await phrases())[:2] == ("tea please", "coffee please")
    assert "please repeat that" in await phrases()
    assert "please speak slower" in await phrases()
    assert "please speak slower" not in await phrases(manners=["repeat"])
    assert await phrases(manners=[]) == ("tea please", "coffee please")
    assert await phrases(language="de-de") == ("tea please", "coffee please")


async def test_what_a_question_expects_is_never_taken_for_a_wish() -> None:
    questions = {
        "what": {
            "ask": "Fast or slow?",
            "expect": {"slow": ["slower please"], "fast": ["faster please"]},
            "slot": "how",
        },
        "bye": {"hang_up": "Goodbye."},
    }
    agent = flow_brain(flow=questions)
    await steps_of(agent, brain.Opening())
    assert said(await steps_of(agent, "slower please")) == ["Goodbye."]
    assert agent.slots == {"how": "slow"}


async def test_a_wish_that_was_only_a_guess_is_a_no_match() -> None:
    agent = flow_brain()
    await steps_of(agent, brain.Opening())
    heard = brain.Heard("please repeat that", 0.1, False)
    assert said(await steps_of(agent, heard)) == ["Sorry, what was that?"]


async def test_the_lines_hints_go_with_every_question() -> None:
    flow = flow_brain(hints=["Bistro Ann", "Grünberg"])
    asked = [step async for step in flow.reply(brain.Opening()) if isinstance(step, brain.Listen)]
    assert [step.expectation.hints for step in asked] == [("Bistro Ann", "Grünberg")]


class _Callers:
    """Where notes of callers are kept."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    async def keep(self, number: str, line: str, notes: str, *, days: int) -> None:
        self.kept.append(notes)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (lambda texts: [text.replace("4111", "[card]") for text in texts], ["Pays with [card]."]),
        (lambda texts: ["[withheld: redact failed]"], []),
        (lambda texts: [], []),
    ],
)
def test_what_is_remembered_of_a_caller_passes_plugins_and_is_not_replaced_where_one_fails(
    answer: Any, kept: list[str]
) -> None:
    callers: Any = _Callers()
    hooks = HooksOfCall(SpokenHooks(before_storing=answer), HookCall("call", line="x"))
    line = Line.model_validate({"name": "x", "agent": "llm", "prompt": "y", "memory": {"enabled": True}})
    notes = brains._Notes(callers, "+4930", line, hooks)
    if kept:
        asyncio.run(notes.keep("Pays with 4111."))
    else:
        with pytest.raises(StoreError):
            asyncio.run(notes.keep("Pays with 4111."))
    assert callers.kept == kept
