"""Who has the floor, and what is told of it."""

import asyncio
from typing import Any

from appliance.conversation.brain import Silence
from appliance.conversation.floor import Floor
from appliance.conversation.inputs import Inputs
from appliance.conversation.turn_log import TurnLog
from appliance.events import Doing


def made(told: list[tuple[Doing, str]] | None = None) -> tuple[Floor, Inputs]:
    inputs = Inputs(lambda: 0.0)
    news = told if told is not None else []
    return Floor(inputs, TurnLog(0), lambda turn, doing, hearing: news.append((doing, hearing))), inputs


async def test_the_callers_voice_is_told_before_what_the_agent_works_out() -> None:
    floor, inputs = made()
    assert floor.doing is Doing.LISTENING
    inputs.put(Silence())
    assert floor.doing is Doing.THINKING
    floor.caller_speaks = True
    assert floor.doing is Doing.CALLER_SPEAKS


async def test_a_caller_waits_until_the_reply_has_been_given() -> None:
    floor, _ = made()
    floor.caller_done = True
    assert floor.awaited
    floor.caller_said_nothing()
    assert not floor.awaited
    given: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def reply() -> None:
        await given

    floor.reply = asyncio.create_task(reply())
    assert floor.replying and floor.awaited
    floor.replied = True
    assert floor.replying and not floor.awaited
    given.set_result(None)
    await floor.reply
    assert not floor.replying


async def test_who_is_handed_on_is_nobody_whom_the_agent_listens_to() -> None:
    floor, _ = made()
    floor.handing_on = True
    assert floor.doing is Doing.HANDED_ON


async def test_the_same_is_told_once_and_what_is_heard_is_forgotten_with_its_turn() -> None:
    told: list[tuple[Doing, str]] = []
    floor, _ = made(told)
    floor.caller_speaks, floor.hearing = True, "I would"
    floor.tell()
    floor.tell()
    floor.caller_said_nothing()
    floor.tell()
    assert told == [(Doing.CALLER_SPEAKS, "I would"), (Doing.LISTENING, "")]
