"""A number that a caller presses for a tool: the model, the record and other plugins never learn it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.conversation.private_numbers import PrivateNumbers
from appliance.dialplan.checks import Draft, problems
from appliance.dialplan.schema import Line
from appliance.dialplan.surroundings import Surroundings, misfits
from appliance.errors import ToolError
from appliance.ipc.messages import ToolCall
from tests.calls.hooked_call import offer
from tests.calls.test_tool_calls import Script
from tests.calls.virtual_call import VirtualCall
from tests.engines.virtual_time import run_virtual
from tests.plugins.spoken_hooks import SpokenHooks

CARD = "4111111111111111"
ASK = ToolCall("a", "collect_private", '{"name": "card", "question": "Your card, please?"}')
PAY = ToolCall("b", "pay", '{"card": "[private card]", "note": "card [private card]"}')
PARAMETERS = json.dumps(
    {
        "type": "object",
        "properties": {"card": {"type": "string", "pattern": "^[0-9]{13,19}$"}, "note": {"type": "string"}},
        "required": ["card"],
    }
).encode()


def shop(**changes: Any) -> Line:
    data = {"name": "shop", "agent": "llm", "prompt": "Sell tables.", "greeting": "Hello.", "turn": {"speculate": 0}}
    private = {"card": {"tools": "pay", "min": 13, "max": 19, "check": "luhn"}}
    return Line.model_validate({**data, "private": private, **changes})


class Paying:
    """A call on the shop's line whose model asks for the card, and pays."""

    def __init__(self, *answers: str | ToolCall, line: Line | None = None) -> None:
        self.paid: list[Any] = []
        self.hooks = SpokenHooks(before_tool=None, after_tool=None, key=None, before_storing=lambda texts: texts)
        self.hooks.tools["pay"] = self._pay
        self.hooks._hooks["tools"] = [[offer("pay", parameters=PARAMETERS)]]
        self.made = VirtualCall(line or shop(), llm=True, hooks=self.hooks)
        self.script = Script(self.made.engines, *answers)

    async def _pay(self, arguments: Any, call: Any) -> Any:
        self.paid.append(dict(arguments))
        call.note("receipt", f"paid with {arguments['card']}")
        return {"card": arguments["card"], "ok": True}

    async def press(self, digits: str, times: int = 1) -> None:
        """Once the question has been asked so often."""
        await self.made.until(lambda: self.made.engines.said.count("Your card, please?") == times)
        await self.made.until_quiet()
        for digit in digits:
            self.made.session.on_digit(digit, self.made.media.frame)

    def everything(self) -> str:
        """All that the model, the record and other plugins were given."""
        return f"{self.script.prompts!r} {self.made.log.events!r} {dict(self.hooks.told)!r} {self.made.engines.said!r}"


def test_only_the_tool_is_given_the_number() -> None:
    async def call() -> None:
        paying = Paying(ASK, PAY, "It is paid.")
        made = paying.made
        await made.until_quiet()
        made.speaks(1.0, "I want to pay")
        await paying.press(CARD + "#")
        await made.until_says("It is paid.")
        ended = await made.ends()
        assert paying.paid == [{"card": CARD, "note": "card [private card]"}]
        assert ended.slots["receipt"] == "paid with [private card]"
        assert CARD not in paying.everything()
        assert "key" not in paying.hooks.told
        keyed = [turn for turn in made.log.turns if turn.by.value == "key"]
        assert [turn.caller_text for turn in keyed] == ["[private]"]
        results = [tool.result for turn in made.log.turns for tool in turn.tools]
        assert results == ['{"pass_on_as":"[private card]","digits":16}', '{"card":"[private card]","ok":true}']

    run_virtual(call())


def test_a_wrong_number_is_asked_for_again_and_never_told() -> None:
    async def call() -> None:
        paying = Paying(ASK, "What now?")
        made = paying.made
        await made.until_quiet()
        made.speaks(1.0, "I want to pay")
        for time in range(3):
            await paying.press("4111111111111112#", time + 1)
        await made.until_says("What now?")
        await made.ends()
        (result,) = [tool.result for turn in made.log.turns for tool in turn.tools]
        assert "the caller has pressed no number that is right" in result
        assert "4111111111111112" not in paying.everything()

    run_virtual(call())


def test_what_a_flow_has_asked_in_private_is_given_to_a_tool_of_a_later_step() -> None:
    async def call() -> None:
        flow = {
            "card": {"ask": "Your card, please?", "digits": {"min": 13, "max": 19}, "slot": "card", "private": True},
            "pay": {"converse": "Pay with [private card].", "tools": ["pay"], "next": "bye", "failed": "bye"},
            "bye": {"hang_up": "It is paid."},
        }
        line = {"agent": "flow", "flow": flow, "greeting": None}
        done = ToolCall("c", "continue_flow", "{}")
        paying = Paying(PAY, done, line=shop(**line))
        await paying.press(CARD + "#")
        ended = await paying.made.over()
        assert [one["card"] for one in paying.paid] == [CARD]
        assert ended.slots["card"] == "[private]"
        assert CARD not in paying.everything()

    run_virtual(call())


def test_other_tools_are_given_what_stands_for_it_and_none_before_there_is_one() -> None:
    numbers = PrivateNumbers({"pin": ["check"]})
    with pytest.raises(ToolError, match="has not given pin yet: use collect_private first"):
        numbers.revealed("check", {"pin": "[private pin]"})
    assert numbers.keep("pin", "1234") == "[private pin]"
    nested = {"deep": [{"pin": " [private pin] "}], "count": 3}
    assert numbers.revealed("check", nested) == {"deep": [{"pin": "1234"}], "count": 3}
    assert numbers.revealed("other", nested) == nested
    assert numbers.revealed("check", {"pin": "[private card]"}) == {"pin": "[private card]"}
    assert numbers.hidden("1234, 12345 and 91234") == "[private pin], 12345 and 91234"


def test_mistakes_are_told() -> None:
    line = shop()
    (tool,) = misfits(line, {}, Surroundings(tools=lambda line: ["pays"]))
    assert tool.path == ("private", "card", "tools", 0)
    assert "did you mean 'pays'?" in tool.hint
    (realtime,) = problems(Draft(shop(agent="realtime"), ()))
    assert realtime.path == ("private",)
    (nothing,) = problems(Draft(shop(private={}, tools=["collect_private"]), ()))
    assert nothing.hint == "name it under private"
    with pytest.raises(ValueError, match="min 5 is more than max 4"):
        shop(private={"pin": {"tools": ["pay"], "min": 5, "max": 4}})
