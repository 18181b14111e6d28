"""Calls on a line whose model hears and speaks by itself, in virtual time: only the model is played."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from appliance.dialplan.schema import Line
from appliance.engines.talk import RingTalk
from appliance.ipc.messages import AnyMessage, Converse, Failed
from appliance.ipc.rings import RATE_HZ
from appliance.plugins.hook_table import ToolOffer
from appliance.plugins.hooks import NO_HOOKS, Hooks
from tests.calls.virtual_call import VirtualCall
from tests.engines.virtual_time import run_virtual
from tests.plugins.spoken_hooks import SpokenHooks

TEXT = "Sure I can help you with that today"


class Model:
    """The engine's worker and its model: says ``text``, all of it at once, ``delay_s`` after it was asked.

    ``seconds`` is how long the speech is.
    """

    def __init__(self, text: str = TEXT, seconds: float = 3.0, delay_s: float = 0.3) -> None:
        self.text = text
        self.delay_s = delay_s
        self.seconds = seconds
        self.calls: list[tuple[str, str, str]] = []
        self.rings: Any = None
        self.opened: list[Converse] = []
        self.heard: list[tuple[str, Any]] = []
        self.broken = False
        self._numbers = itertools.count(1)
        self._told: dict[int, asyncio.Queue[AnyMessage]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._answers: dict[int, Callable[[Any], None]] = {}

    # --- as control sees it ---------------------------------------------------------------------------------------

    def number(self) -> int:
        return next(self._numbers)

    def ask(self, request: Converse, on_answer: Callable[[Any], None]) -> None:
        self.opened.append(request)
        loop = asyncio.get_running_loop()
        if self.broken:
            loop.call_soon(on_answer, Failed(request.request, "no model", True))
            return
        told = self._told[request.request] = asyncio.Queue()
        self._answers[request.request] = on_answer
        self.talk = RingTalk(request, self.rings, told, lambda message: loop.call_soon(on_answer, message) and None)
        self._tasks[request.request] = loop.create_task(self.talk.attend(self))

    def tell(self, message: Any) -> None:
        if message.request in self._told:
            self._told[message.request].put_nowait(message)

    def cancel(self, number: int) -> None:
        self.heard.append(("cancelled", number))
        if number in self._tasks:
            self._tasks.pop(number).cancel()

    def breaks(self) -> None:
        """All conversations are lost."""
        for number, task in self._tasks.items():
            task.cancel()
            self._answers[number](Failed(number, "it died", True))
        self._tasks.clear()

    # --- as the box sees it ---------------------------------------------------------------------------------------

    def hear(self, start: int) -> None:
        self.heard.append(("hear", start))

    def caller_silent(self, keep: bool) -> None:
        self.heard.append(("silent", keep))

    def add(self, message: Any) -> None:
        self.heard.append((message.role, message.content))

    def cut_short(self, reply: int, heard: int) -> None:
        self.heard.append(("cut", heard))

    def respond(self, reply: int, heard: bool) -> None:
        self.heard.append(("respond", heard))
        if heard:
            self.talk.caller_words(reply, "hello there", final=True)
        asyncio.get_running_loop().call_later(self.delay_s, self._speak, reply)

    def _speak(self, reply: int) -> None:
        calls, self.calls = self.calls, []
        self.talk.words(reply, self.text)
        self.talk.say(reply, np.ones(int(self.seconds * RATE_HZ), np.int16))
        self.talk.done(reply, calls=calls)


def line(**changes: Any) -> Line:
    common = {"name": "desk", "agent": "realtime", "prompt": "Be brief.", "greeting": "Hello."}
    return Line.model_validate({**common, **changes})


def called(model: Model, hooks: Hooks = NO_HOOKS, **changes: Any) -> VirtualCall:
    call = VirtualCall(line(**changes), speech=model, hooks=hooks)
    model.rings = call.rings
    return call


def test_a_turn_is_heard_replied_to_and_recorded() -> None:
    async def scene() -> None:
        model = Model()
        call = called(model)
        await call.until_quiet()
        call.speaks(1.0, "")
        await call.until(lambda: ("respond", True) in model.heard)
        await call.until(lambda: bool(call.media.playout))
        await call.until_quiet()
        call.hangs_up()
        await call.over()
        assert [name for name, _ in model.heard] == ["assistant", "hear", "silent", "respond", "cancelled"]
        greeting, turn = call.log.turns
        assert greeting.heard_text == "Hello."
        assert (turn.caller_text, turn.heard_text, turn.interrupted) == ("hello there", TEXT, False)

    run_virtual(scene())


def test_an_interruption_tells_the_model_what_was_heard() -> None:
    async def scene() -> None:
        model = Model(seconds=8.0)
        call = called(model)
        await call.until_quiet()
        call.speaks(1.0, "")
        await call.until(lambda: bool(call.media.playout))
        await asyncio.sleep(4.0)
        call.speaks(2.0, "")
        await call.until(lambda: any(name == "cut" and heard >= 0 for name, heard in model.heard))
        heard = next(heard for name, heard in model.heard if name == "cut" and heard >= 0)
        call.hangs_up()
        await call.over()
        assert 3.9 < heard / RATE_HZ < 5.5
        turn = call.log.turns[1]
        assert turn.interrupted
        assert abs(len(turn.heard_text.split()) - heard / RATE_HZ) <= 1  # eight words in eight seconds

    run_virtual(scene())


def test_a_caller_who_goes_on_before_the_reply_is_replied_to_anew() -> None:
    async def scene() -> None:
        model = Model(delay_s=3.0)
        call = called(model)
        await call.until_quiet()
        call.speaks(1.0, "")
        await call.until(lambda: ("respond", True) in model.heard)
        call.speaks(1.0, "")
        await call.until(lambda: model.heard.count(("respond", True)) == 2)
        await asyncio.sleep(9.0)  # a filler, the reply, and not yet a question whether anybody is there
        call.hangs_up()
        await call.over()
        assert ("cut", 0) in model.heard
        assert call.log.turns[-1].heard_text == TEXT

    run_virtual(scene())


def test_a_reply_longer_than_the_ring_is_heard_to_its_end() -> None:
    async def scene() -> None:
        model = Model(seconds=75.0)
        call = called(model)
        await call.until_quiet()
        call.speaks(1.0, "")
        await call.until(lambda: bool(call.media.playout))
        await call.until(lambda: not call.media.playout, within_s=120.0)
        assert call.media.playout.underruns == 0
        call.hangs_up()
        await call.over()
        assert call.log.turns[1].heard_text == TEXT

    run_virtual(scene())


def test_a_tool_of_the_model_ends_the_call_after_what_was_said() -> None:
    async def scene() -> None:
        model = Model()
        model.calls = [("c1", "hang_up", '{"reason": "bye"}')]
        call = called(model)
        await call.until_quiet()
        call.speaks(1.0, "")
        ended = await call.over()
        assert ended.hangup_text == "bye"
        assert call.log.turns[1].heard_text == TEXT
        assert ("tool", '{"status":"the call ends when you have finished speaking"}') in model.heard

    run_virtual(scene())


def test_plugins_add_what_they_know_and_tools_but_none_that_has_to_ask_the_caller() -> None:
    async def look(arguments: Any, call: Any) -> Any:
        return {"seen": call.idempotency_key}

    async def scene() -> None:
        model = Model()
        model.calls = [("c1", "look", "{}")]
        parameters = '{"type": "object"}'
        offers = [
            ToolOffer(name="look", description="Look.", parameters=parameters),
            ToolOffer(name="pay", description="Pay.", parameters=parameters, confirm="Shall I?"),
        ]
        hooks = SpokenHooks(tools=[offers], before_llm=lambda request: ["It <rains>."], call_ended=None)
        hooks.tools["look"] = look
        call = called(model, hooks)
        await call.until_quiet()
        call.speaks(1.0, "")
        await call.until(lambda: [name for name, _ in model.heard].count("respond") == 2)
        await call.until(lambda: bool(call.media.playout))
        await call.until_quiet()
        call.hangs_up()
        await call.over()
        names = [tool.name for tool in model.opened[0].tools]
        assert "look" in names
        assert "pay" not in names
        told = [text for role, text in model.heard if role == "system"]
        assert told == ['[This may be of use: <context source="plugin0">It &lt;rains&gt;.</context>]']
        assert ("tool", '{"seen":"leg1-1"}') in model.heard
        (used,) = call.log.turns[1].tools
        assert (used.name, used.source, used.key) == ("look", "plugin0", "leg1-1")
        (ended,) = hooks.told["call_ended"]
        assert [said.text for said in ended["summary"].transcript if said.by == "caller"] == ["hello there"]

    run_virtual(scene())


def test_a_conversation_that_is_lost_is_begun_again_with_what_was_said() -> None:
    async def scene() -> None:
        model = Model()
        call = called(model)
        await call.until_quiet()
        call.speaks(1.0, "")
        await call.until(lambda: ("hear", 0) in model.heard or any(name == "hear" for name, _ in model.heard))
        model.breaks()
        await call.until(lambda: ("respond", True) in model.heard)
        await call.until(lambda: bool(call.media.playout))
        await call.until_quiet()
        call.hangs_up()
        await call.over()
        assert len(model.opened) == 2
        assert [message.content for message in model.opened[1].history] == ["Hello."]
        assert len({start for name, start in model.heard if name == "hear"}) == 1
        assert call.log.turns[1].heard_text == TEXT

    run_virtual(scene())


def test_without_a_model_the_caller_is_told_and_the_call_ends() -> None:
    async def scene() -> None:
        model = Model()
        model.broken = True
        call = called(model)
        await call.until_quiet()
        for _ in range(2):
            call.speaks(1.0, "")
            await asyncio.sleep(3.0)
            await call.until_quiet()
        ended = await call.over()
        assert ended.hangup_text == "the agent's engines failed"
        assert call.log.turns[1].problem == "no model"

    run_virtual(scene())


def test_a_silent_caller_is_asked_by_the_box_in_its_own_words() -> None:
    async def scene() -> None:
        model = Model()
        call = called(model, no_input={"after_s": 3, "prompts": ["Are you there?"]})
        ended = await call.over()
        assert ended.hangup_text == "no_input"
        assert ("assistant", "Are you there?") in model.heard
        assert ("respond", False) not in model.heard

    run_virtual(scene())
