"""Following a call while it happens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from appliance.calls.watch import CallWatch, WatchedCall
from appliance.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallRinging,
    CallStarted,
    Direction,
    Disposition,
    Doing,
    HangupBy,
    TurnProgress,
)
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual
from tests.waiting import LIMIT_S

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def started(number: int = 1, protocol: str = "browser") -> CallStarted:
    return CallStarted(
        call_id=f"c{number}", started_at=0.0, started_utc=NOW, direction=Direction.INBOUND, protocol=protocol,
        protocol_call_id=f"p{number}", trunk="phone", line="desk", called="100", calling="browser", calling_name="",
    )  # fmt: skip


def ended(number: int = 1) -> CallEnded:
    return CallEnded(
        call_id=f"c{number}", ended_at=9.0, ended_utc=NOW, disposition=Disposition.COMPLETED, hangup_by=HangupBy.CALLER
    )


def ringing(number: int = 1) -> CallRinging:
    return CallRinging(call_id=f"c{number}", ringing_at=0.1, ringing_utc=NOW)


def watching() -> CallWatch:
    return CallWatch(frozenset({"browser"}))


def kept(watch: CallWatch, name: str = "p1") -> WatchedCall:
    call = watch.call(name)
    assert call is not None
    return call


async def all_of(call: WatchedCall, after: int = 0) -> list[tuple[int, CallEvent | None]]:
    async with asyncio.timeout(LIMIT_S):
        return [said async for said in call.follow(after)]


async def test_what_was_said_before_and_what_comes_later() -> None:
    watch = watching()
    watch.observe(started())
    following = asyncio.create_task(all_of(kept(watch)))
    await asyncio.sleep(0)
    answered = CallAnswered(call_id="c1", answered_at=0.2, answered_utc=NOW)
    for event in (ringing(), answered, ended()):
        watch.observe(event)
        await asyncio.sleep(0)
    assert await following == [(1, started()), (2, ringing()), (3, answered), (4, ended())]
    assert await all_of(kept(watch), after=2) == [(3, answered), (4, ended())], "somebody who comes back"
    assert await all_of(kept(watch), after=99) == []
    assert not kept(watch).followers


async def test_silence_is_told_to_one_who_wants_to_know() -> None:
    watch = watching()
    watch.observe(started())
    following = kept(watch).follow(1, idle_s=0.01)
    assert await anext(following) == (1, None)
    watch.observe(ended())
    assert await anext(following) == (2, ended())
    await following.aclose()
    assert not kept(watch).followers


async def test_one_who_is_slow_misses_the_oldest() -> None:
    watch = watching()
    watch.observe(started())
    for _ in range(600):
        watch.observe(ringing())
    watch.observe(ended())
    said = await all_of(kept(watch))
    assert len(said) == 512
    assert said[-1] == (602, ended())
    assert said[0][0] == 602 - 511


async def test_calls_of_other_protocols_are_not_kept() -> None:
    watch = watching()
    watch.observe(started(protocol="sip"))
    watch.observe(ended())
    assert watch.call("p1") is None
    assert watch.call("") is None


async def test_only_the_last_calls_are_kept_when_they_are_over() -> None:
    watch = watching()
    for number in range(40):
        watch.observe(started(number))
        watch.observe(ended(number))
    watch.observe(started(99))
    assert [number for number in range(40) if watch.call(f"p{number}") is not None] == list(range(24, 40))
    assert watch.call("p99") is not None


async def test_followers_are_bounded() -> None:
    watch = watching()
    watch.observe(started())
    call = kept(watch)
    following = [asyncio.create_task(all_of(call)) for _ in range(4)]
    await asyncio.sleep(0)
    assert call.crowded
    watch.observe(ended())
    await asyncio.gather(*following)
    assert not call.crowded


def test_a_conversation_is_told_as_it_happens() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        await made.until_quiet()
        for digit in "12":
            made.session.on_digit(digit, made.media.frame)
            await asyncio.sleep(0.2)
        made.hangs_up()
        await made.over()
        told = [event for event in made.log.events if isinstance(event, TurnProgress)]
        steps = [(event.turn.number, event.doing) for event in told]
        doings = [doing for at, doing in enumerate(steps) if at == 0 or steps[at - 1] != doing]
        assert doings == [
            (0, Doing.THINKING),
            (0, Doing.AGENT_SPEAKS),
            (0, Doing.THINKING),
            (0, Doing.LISTENING),
            (0, Doing.CALLER_SPEAKS),
            (0, Doing.THINKING),
            (1, Doing.THINKING),
            (1, Doing.AGENT_SPEAKS),
            (1, Doing.THINKING),
            (1, Doing.LISTENING),
            (2, Doing.THINKING),
            (2, Doing.LISTENING),
            (2, Doing.THINKING),
            (2, Doing.LISTENING),
        ]
        speaking = next(event for event in told if event.turn.number == 1 and event.doing is Doing.AGENT_SPEAKS)
        assert speaking.turn.caller_text == "tea please"
        silent = [event for event in told if event.turn.number == 1 and event.doing is Doing.THINKING]
        assert silent[0].turn.agent_text == "", "nothing is shown before it can be heard"
        assert speaking.turn.agent_text == "Please enter your four digit code."
        assert speaking.turn.latency_s == made.log.turns[1].latency_s, "known as soon as the reply begins"
        assert [event.turn.caller_text for event in told if event.turn.number == 2][-1] == "12"

    run_virtual(call())


def test_a_reply_cut_short_is_told_with_what_was_heard() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(0.9)
        made.speaks(1.0, "coffee please")
        await made.until(lambda: "Please enter your four digit code." in made.engines.said)
        told = [event for event in made.log.events if isinstance(event, TurnProgress) and event.turn.number == 0]
        cut = told[-1]
        assert cut.doing in (Doing.CALLER_SPEAKS, Doing.THINKING)
        assert cut.turn.interrupted
        assert 0 < len(cut.turn.heard_text) < len(cut.turn.agent_text)
        made.hangs_up()
        await made.over()

    run_virtual(call())
