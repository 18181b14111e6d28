"""Inputs that cross: turns, keys and the end of the call while something is still being recognised or worked out."""

from __future__ import annotations

import asyncio
from typing import Any

from appliance.conversation.brain import Brain
from appliance.dialplan.schema import Line
from appliance.events import InputBy
from tests.calls.virtual_call import LOUD, QUIET, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual


def llm_line(**changes: Any) -> Line:
    return Line.model_validate(
        {"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there.", **changes}
    )


def test_no_turn_is_lost_where_control_stands_still_for_a_moment() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(turn={"speculate": 0}), llm=True)
        made.engines.tokens = ["Very ", "well. "]
        await made.until_quiet()
        session: Any = made.session
        on_tick = session.on_tick
        kept: list[tuple[Any, ...]] = []
        made.engines.hears.append(("and another thing", True))
        made.media.caller.extend([LOUD] * 40 + [QUIET] * 25 + [LOUD] * 20)
        await asyncio.sleep(0.8 + 0.3)
        session.on_tick = lambda *tick: kept.append(tick)
        await asyncio.sleep(0.8)
        session.on_tick = on_tick
        for tick in kept:
            on_tick(*tick)
        await asyncio.sleep(2.0)
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        texts = [turn.caller_text for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert texts == ["and another thing"] * 2

    run_virtual(call())


def test_a_key_takes_the_place_of_words_that_are_still_being_recognised() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.recognises_after(3.0)
        await made.until_quiet()
        made.speaks(0.8, "coffee please")
        await asyncio.sleep(1.9)
        assert made.session._listening is not None
        assert made.session._listening.machine.state.value == "quiet"
        made.session.on_digit("1", made.media.frame)
        await asyncio.sleep(8.0)
        made.hangs_up()
        ended = await made.over()
        assert ended.slots["drink"] == "tea"
        assert "Sorry, what was that?" not in made.engines.said

    run_virtual(call())


def test_nothing_that_comes_while_a_call_is_taken_down_does_any_harm() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.engines.partials = True
        await made.until_quiet()
        session: Any = made.session
        close = made.media.close

        async def close_late() -> None:
            for number in range(20):
                session.on_tick(asyncio.get_running_loop().time(), made.media.frame + number, *LOUD, -90.0)
            session.on_digit("5", made.media.frame)
            await close()

        made.media.close = close_late  # type: ignore[method-assign]
        made.hangs_up()
        await made.over()
        await asyncio.sleep(1.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(call())


def test_what_was_heard_of_the_last_reply_is_known_although_the_caller_has_hung_up_in_it() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: bool(made.media.playout))
        dialogue = made.session._dialogue
        assert dialogue is not None
        brain: Brain = dialogue.brain
        heard: list[str] = []
        brain.was_heard = heard.append  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        made.hangs_up()
        await made.over()
        assert heard == [made.log.turns[0].heard_text]
        assert heard[0].startswith("Hello,")

    run_virtual(call())
