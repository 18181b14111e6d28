"""The built-in tools, in replies of a line that a language model answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.calls.brains import ModelServices, make_brain, number_of
from appliance.calls.builtin_tools import passes_luhn, tool_names
from appliance.conversation.brain import (
    Expectation,
    HangUp,
    Heard,
    Key,
    KeysEnded,
    Listen,
    Opening,
    Say,
    SendDigits,
    Silence,
    Step,
    Transfer,
    Used,
)
from appliance.dialplan.schema import Line
from appliance.errors import StoreError
from appliance.signalling.headers import read_headers
from appliance.sip.message import Headers
from tests.calls.virtual_call import Leg, VirtualClock
from tests.conversation.scripted_model import Made, Part, ScriptedModel, call, said
from tests.engines.virtual_time import run_virtual

INFO = replace(Leg().info, calling="+49 30 1234", calling_name="Ann")


class Callers:
    """What is kept of callers, in memory."""

    def __init__(self, broken: bool = False) -> None:
        self.notes: dict[tuple[str, str], str] = {}
        self.refused: list[tuple[str, str]] = []
        self.broken = broken

    async def recall(self, number: str, line: str) -> str:
        return self.notes.get((number, line), "")

    async def keep(self, number: str, line: str, notes: str, *, days: int) -> None:
        assert days == 7
        if self.broken:
            raise StoreError("the disk is full")
        self.notes[number, line] = notes

    async def refuse_calls(self, number: str, *, reason: str, call_id: str, line: str) -> None:
        if self.broken:
            raise StoreError("the disk is full")
        self.refused.append((number, reason))


def made_on(
    *answers: list[Part], callers: Callers | None = None, info: Any = INFO, digests: Any = (), **line: Any
) -> Made:
    model = ScriptedModel(list(answers), list(digests) or [["Nothing of note."]])
    made = Line.model_validate({"name": "desk", "agent": "llm", "prompt": "You are the desk.", **line})
    store: Any = callers if callers is not None else Callers()
    brain: Any = make_brain(made, info, ModelServices(model, 30.0, VirtualClock(), callers=store))
    return Made(brain, model, brain.slots)


def result(made: Made) -> str:
    return next(text for role, text in reversed(made.model.shown()) if role == "tool")


def expectation(steps: list[Step]) -> Expectation:
    return [step.expectation for step in steps if isinstance(step, Listen)][-1]


def test_which_tools_a_line_has() -> None:
    def names(**more: Any) -> tuple[str, ...]:
        return tool_names(Line.model_validate({"name": "x", "agent": "llm", "prompt": "y", **more}))

    assert names() == ("hang_up", "collect_digits", "take_message", "stop_calling", "callback")
    assert names(transfers={"sales": "100"})[-1] == "transfer"
    assert names(memory={"enabled": True})[-1] == "remember"
    assert names(tools=[]) == ("hang_up",)
    assert names(tools=["send_digits", "hang_up"]) == ("send_digits", "hang_up")


def test_the_model_chooses_a_name_and_never_a_number() -> None:
    async def story() -> None:
        transfers = {
            "sales": {"to": "sip:${caller.number}@192.0.2.1", "kind": "attended", "announce": "${line.name}",
                      "description": "orders", "say": "I will put you through."},
            "boss": "200",
        }  # fmt: skip
        made = made_on(
            [call("transfer", '{"to": "+1900"}')], [call("transfer", '{"to": "sales"}')], transfers=transfers
        )
        steps = await made.reply("sales please")
        assert steps[-2] == Transfer("sip:+49 30 1234@192.0.2.1", "", True, 30.0, "desk")
        assert Say("I will put you through.", False) in steps
        (spec,) = [spec for spec in made.model.asked[0].tools if spec.name == "transfer"]
        assert json.loads(spec.parameters)["properties"]["to"]["enum"] == ["sales", "boss"]
        assert "sales: orders; boss" in spec.description
        assert [bool(step.tool.problem) for step in steps if isinstance(step, Used)] == [True, False]

    run_virtual(story())


def test_goodbye() -> None:
    async def story() -> None:
        made = made_on([call("hang_up", '{"farewell": "Goodbye, Ann."}')])
        steps = await made.reply("that is all, thank you")
        assert said(steps) == "Goodbye, Ann."
        assert HangUp("goodbye") in steps

    run_virtual(story())


ASK = call("collect_digits", '{"question": "Your code?", "min": 4, "max": 6}')


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["one two three four"], {"digits": "1234", "by": "voice"}),
        (["my code is 4 5 6 7"], {"digits": "4567", "by": "voice"}),
        ([Key("1"), Key("2"), Key("3"), Key("4"), KeysEnded()], {"digits": "1234", "by": "keys"}),
        ([Key("1"), Key("2"), Key("3"), Key("4"), Key("#")], {"digits": "1234", "by": "keys"}),
        ([*map(Key, "123456")], {"digits": "123456", "by": "keys"}),
        ([Key("1"), Key("#"), "double five six seven"], {"digits": "5567", "by": "voice"}),
        ([Silence(), "one two", "one two three four"], {"digits": "1234", "by": "voice"}),
        ([Heard("tea please", 0.2, False), "one two three four"], {"digits": "1234", "by": "voice"}),
    ],
)
def test_a_number_is_collected_and_its_length_is_checked_in_code(answers: list[Any], told: dict[str, str]) -> None:
    async def story() -> None:
        made = made_on([ASK], ["Thank you for that."])
        steps = await made.reply("check my code")
        assert said(steps) == "Your code?"
        asked = expectation(steps)
        assert (asked.phrases, asked.min_digits, asked.key_timeout_s) == (("<digits 4 6>",), 4, 3.0)
        for answer in answers:
            assert said(steps) in ("Your code?", "")
            steps = await made.reply(answer)
        assert said(steps) == "Thank you for that."
        assert json.loads(result(made).partition(">")[2].rpartition("<")[0]) == told
        assert expectation(steps).phrases == ()

    run_virtual(story())


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["I do not have it here"], "the caller's last words were: 'I do not have it here'"),
        (["one two"] * 3, "no valid number was given"),
        ([Silence()] * 3, "no answer"),
    ],
)
def test_what_is_no_number_goes_to_the_model(answers: list[Any], told: str) -> None:
    async def story() -> None:
        made = made_on([ASK], ["Never mind about it."], no_match={"prompts": ["Once more?"]})
        steps = await made.reply("check my code")
        for answer in answers:
            steps = await made.reply(answer)
        assert said(steps) == "Never mind about it."
        assert told in result(made)

    run_virtual(story())


def test_a_card_number_has_its_check_digit_checked() -> None:
    assert passes_luhn("4111111111111111")
    assert not passes_luhn("4111111111111112")

    async def story() -> None:
        luhn = call("collect_digits", '{"question": "Card?", "min": 16, "max": 16, "check": "luhn"}')
        made = made_on([luhn], ["Thank you for that."])
        await made.reply("I will pay")
        assert said(await made.reply("4111 1111 1111 1112")) == "Card?"
        assert said(await made.reply("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1")) == "Thank you for that."

    run_virtual(story())


def test_messages_are_taken_down() -> None:
    async def story() -> None:
        first = call("take_message", '{"message": "Call me.", "name": "Ann", "number": "(030) 12-34"}')
        wrong = call("take_message", '{"message": "Hm.", "number": "my cell"}')
        made = made_on(
            [first], ["Noted, thank you."], [call("take_message", '{"message": "Soon."}')], [wrong], ["Well."]
        )
        await made.reply("tell them to call me")
        assert made.slots == {"message": "Call me.", "message.name": "Ann", "message.number": "0301234"}
        steps = await made.reply("soon")
        assert dict(made.slots) == {
            "message": "Call me.\nSoon.", "message.name": "Ann", "message.number": "+49301234"
        }  # fmt: skip
        assert "not a telephone number" in [step.tool.problem for step in steps if isinstance(step, Used)][-1]

    run_virtual(story())


@pytest.mark.parametrize(
    ("callers", "info", "told", "refused"),
    [
        (Callers(), INFO, "will not be called again", [("+49301234", "enough")]),
        (Callers(), replace(INFO, calling="anonymous"), "withheld", []),
        (Callers(broken=True), INFO, "could not be written", []),
    ],
)
def test_who_does_not_want_to_be_called_is_put_on_the_list(
    callers: Callers, info: Any, told: str, refused: list[Any]
) -> None:
    async def story() -> None:
        made = made_on(
            [call("stop_calling", '{"reason": "enough"}')], ["I see, of course."], callers=callers, info=info
        )
        await made.reply("stop calling me")
        assert told in result(made)
        assert callers.refused == refused
        assert ("do_not_call" in made.slots) == bool(refused)

    run_virtual(story())


def test_facts_are_remembered_at_once_and_notes_are_written_at_the_end() -> None:
    async def story() -> None:
        callers = Callers()
        callers.notes["+49301234", "desk"] = "Ann."
        memory = {"enabled": True, "days": 7}
        remember = call("remember", '{"fact": "Likes window seats."}')
        made = made_on(
            [remember], ["I will remember that."], callers=callers, memory=memory, digests=[["Ann, window."]]
        )
        await made.reply(Opening())
        await asyncio.sleep(0.1)
        await made.reply("I always want a window seat")
        assert callers.notes["+49301234", "desk"] == "Ann.\nLikes window seats."
        assert "<notes_from_earlier_calls>Ann.</notes_from_earlier_calls>" in made.model.asked[0].messages[1].content
        await made.brain.close()
        assert callers.notes["+49301234", "desk"] == "Ann, window."
        stranger = made_on(["Hello to you."], callers=callers, memory=memory, info=replace(INFO, calling="anonymous"))
        await stranger.reply("hello")
        assert "remember" not in [spec.name for spec in stranger.model.asked[0].tools]
        await stranger.brain.close()
        assert len(callers.notes) == 1

    run_virtual(story())


def test_keys_are_pressed() -> None:
    async def story() -> None:
        made = made_on([call("send_digits", '{"digits": "1#"}')], ["I have pressed it."], tools=["send_digits"])
        assert SendDigits("1#") in await made.reply("press one")

    run_virtual(story())


@pytest.mark.parametrize(
    ("calling", "privacy", "known"),
    [
        ("+49 (30) 12-34", "", "+49301234"),
        ("0049301234", "", "+49301234"),
        ("200", "", "200"),
        ("200", "none", "200"),
        ("+49301234", "id", ""),
        ("+49301234", "header;user", ""),
        ("anonymous", "", ""),
        ("ann", "", ""),
        ("", "", ""),
    ],
)
def test_whom_a_caller_is_known_as(calling: str, privacy: str, known: str) -> None:
    headers = Headers([("Privacy", privacy)] if privacy else [])
    assert number_of(replace(INFO, calling=calling, about=read_headers(headers))) == known
