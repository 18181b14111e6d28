"""Whole calls in which the language model uses tools: the real session, dialogue and brain, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from appliance.conversation.brain import Transfer
from appliance.dialplan.schema import Line
from appliance.events import InputBy
from appliance.ipc.messages import Generate, Token, ToolCall
from tests.calls.virtual_call import Engines, VirtualCall
from tests.engines.virtual_time import run_virtual


def line(**changes: Any) -> Line:
    return Line.model_validate(
        {"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there.", **changes}
    )


class Script:
    """What the model answers, one request after the other: words, or tools."""

    def __init__(self, engines: Engines, *answers: str | ToolCall) -> None:
        self.prompts: list[Generate] = []
        self.answers = list(answers)
        engines.generate = self.generate  # type: ignore[method-assign]

    async def generate(self, request: Generate) -> AsyncIterator[Token]:
        self.prompts.append(request)
        await asyncio.sleep(0.1)
        answer = self.answers[min(len(self.prompts), len(self.answers)) - 1]
        if isinstance(answer, ToolCall):
            yield Token(request.request, "", True, (answer,), "model")
        else:
            for word in answer.split(" "):
                await asyncio.sleep(0.01)
                yield Token(request.request, word + " ", False)
            yield Token(request.request, "", True, (), "model")


def test_a_number_is_collected_by_keys_and_read_back() -> None:
    async def call() -> None:
        made = VirtualCall(line(turn={"speculate": 0}), llm=True)
        ask = ToolCall("a", "collect_digits", '{"question": "What is your code?", "min": 4, "max": 4}')
        Script(made.engines, ask, "Four two one seven, thank you.")
        await made.until_quiet()
        made.speaks(0.8, "check my code")
        await made.until(lambda: "What is your code?" in made.engines.said)
        await made.until_quiet()
        for digit in "4217":
            made.session.on_digit(digit, 0)
            await asyncio.sleep(0.3)
        await made.until(lambda: any("Four two" in text for text in made.engines.said))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        keyed = made.log.turns[-1]
        assert (keyed.by, keyed.caller_text) == (InputBy.KEY, "4217")
        assert keyed.heard_text == "Four two one seven, thank you."
        (used,) = keyed.tools
        assert json.loads(used.result) == {"digits": "4217", "by": "keys"}
        assert keyed.server == "model"
        assert "collect_digits" in keyed.asked

    run_virtual(call())


def test_the_model_hangs_up_after_its_farewell() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        Script(made.engines, ToolCall("", "hang_up", '{"farewell": "Goodbye, and thank you.", "reason": "done"}'))
        await made.until_quiet()
        made.speaks(0.8, "that was all")
        ended = await made.over()
        assert (ended.hangup_text, ended.slots) == ("done", {})
        assert made.log.turns[-1].heard_text == "Goodbye, and thank you."
        assert [tool.name for tool in made.log.turns[-1].tools] == ["hang_up"]

    run_virtual(call())


class Desk:
    """Who hands callers on."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        self.asked: list[Transfer] = []

    async def hand_on(self, leg: Any, media: Any, transfer: Transfer, *more: Any) -> str | None:
        self.asked.append(transfer)
        await asyncio.sleep(2.0)
        return self.reason


def test_a_transfer_that_fails_brings_the_caller_back_to_the_model() -> None:
    async def call() -> None:
        desk = Desk(None)
        made = VirtualCall(line(transfers={"sales": "sip:sales@192.0.2.1"}), llm=True, transfers=desk)
        script = Script(
            made.engines, ToolCall("", "transfer", '{"to": "sales"}'), "Nobody is there, I am afraid. Anything else?"
        )
        await made.until_quiet()
        made.speaks(0.8, "sales please")
        await made.until(lambda: any("Nobody is there" in text for text in made.engines.said))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        assert [transfer.to for transfer in desk.asked] == ["sip:sales@192.0.2.1"]
        assert "Nobody could be reached there" in script.prompts[-1].messages[-1].content

    run_virtual(call())


def test_a_message_that_was_taken_is_in_the_record_although_the_caller_hangs_up_at_once() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        Script(made.engines, ToolCall("", "take_message", '{"message": "Call Ann."}'), "I have noted it down for them.")
        await made.until_quiet()
        made.speaks(0.8, "tell them to call ann")
        await made.until(lambda: bool(made.media.playout))
        made.hangs_up()
        ended = await made.over()
        assert ended.slots == {"message": "Call Ann.", "message.number": "200"}

    run_virtual(call())


def test_a_caller_who_wants_it_slower_hears_it_again_and_slower() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        script = Script(made.engines, "The shop is open from nine to five.")
        rates: list[tuple[str, float]] = []
        ask = made.engines.ask

        def watched(request: Any, on_answer: Any) -> None:
            rates.append((request.text, request.rate))
            ask(request, on_answer)

        made.engines.ask = watched  # type: ignore[method-assign]
        await made.until_quiet()
        made.speaks(0.8, "when are you open")
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.speaks(0.8, "slower please")
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        assert made.log.turns[-1].heard_text == "The shop is open from nine to five."
        assert len(script.prompts) == 1
        assert rates[1][1] == 1.0
        assert rates[-1][1] < 0.9

    run_virtual(call())


def test_a_tool_with_side_effects_that_was_asked_for_in_a_pause_is_not_run() -> None:
    async def call() -> None:
        made = VirtualCall(line(), llm=True)
        made.engines.probability = 0.05
        script = Script(made.engines, ToolCall("", "take_message", '{"message": "Half."}'), "I have noted that down.")
        await made.until_quiet()
        made.speaks(0.6, "take a message")
        made.media.caller.extend([(-80.0, 0.02)] * 35)
        await made.until(lambda: len(script.prompts) == 1)
        await asyncio.sleep(0.2)
        made.hangs_up()
        ended = await made.over()
        assert ended.slots == {}

    run_virtual(call())


def test_what_follows_keys_is_not_said_to_a_caller_who_has_interrupted() -> None:
    async def call() -> None:
        made = VirtualCall(line(tools=["send_digits"], turn={"speculate": 0}), llm=True)
        pressed: list[str] = []
        made.media.send_digits = pressed.append  # type: ignore[attr-defined]
        made.leg.send_digits = lambda digits: False  # type: ignore[attr-defined]

        async def generate(request: Generate) -> AsyncIterator[Token]:
            await asyncio.sleep(0.1)
            if any(message.role == "tool" for message in request.messages):
                yield Token(request.request, "And that was all that there is to say about it.", True)
            else:
                yield Token(request.request, "I am going to press the key for you, so listen to this now. ", False)
                yield Token(request.request, "", True, (ToolCall("", "send_digits", '{"digits": "5"}'),))

        made.engines.generate = generate  # type: ignore[method-assign]
        await made.until_quiet()
        made.speaks(0.8, "press five")
        await made.until(lambda: bool(made.media.playout))
        await asyncio.sleep(1.0)
        made.speaks(1.0, "wait a moment please")
        await asyncio.sleep(1.2)
        assert pressed == ["5"]
        assert "And that was all that" not in " ".join(made.engines.said)
        made.hangs_up()
        await made.over()

    run_virtual(call())
