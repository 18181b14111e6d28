"""How a call ends that takes too long: the caller is told in time, never interrupted, and said goodbye to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.dialplan.checks import Draft, problems
from appliance.dialplan.schema import Line
from appliance.events import HangupBy
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

WARNING = "One more minute."
GOODBYE = "Time is up, ${caller.number | digits}."


def slow_line(**changes: Any) -> Line:
    warning = {"before_s": 10, "text": WARNING, "goodbye": GOODBYE}
    patient = {"after_s": 300}
    return flow_line(max_duration_s=30, max_duration_warning=warning, no_input=patient, **changes)


def test_a_silent_caller_is_told_and_then_said_goodbye_to() -> None:
    async def call() -> None:
        made = VirtualCall(slow_line())
        began = asyncio.get_running_loop().time()
        await made.until_says(WARNING)
        assert 20 <= asyncio.get_running_loop().time() - began < 21
        ended = await made.over()
        took = asyncio.get_running_loop().time() - began
        assert (ended.hangup_by, ended.hangup_text) == (HangupBy.BOX, "maximum duration reached")
        assert made.engines.said[-1] == "Time is up, two zero zero."
        assert 31 < took < 33  # the goodbye is said to its end
        assert [turn.agent_text for turn in made.log.turns][1:] == [WARNING, "Time is up, 2 0 0."]

    run_virtual(call())


def test_the_warning_waits_until_the_caller_has_been_answered() -> None:
    async def call() -> None:
        made = VirtualCall(slow_line())
        await asyncio.sleep(18)
        made.speaks(4.0, "tea please")
        await made.until_says(WARNING)
        assert made.engines.said[-2:] == ["Please enter your four digit code.", WARNING]
        assert not made.media.caller
        await made.ends()

    run_virtual(call())


def test_the_warning_waits_for_a_number_that_is_being_pressed() -> None:
    async def call() -> None:
        made = VirtualCall(slow_line())
        await made.until_quiet()
        made.speaks(1.0, "tea please")
        await asyncio.sleep(12)
        made.session.on_digit("1", 1)
        for digit in "234":
            await asyncio.sleep(2.5)
            assert WARNING not in made.engines.said
            made.session.on_digit(digit, 1)
        ended = await made.over()
        assert (ended.slots["pin"], ended.hangup_by) == ("1234", HangupBy.AGENT)

    run_virtual(call())


def test_what_the_caller_says_over_the_warning_is_answered() -> None:
    async def call() -> None:
        made = VirtualCall(slow_line())
        await made.until_says(WARNING)
        made.speaks(1.0, "tea please")
        await made.until_says("Please enter your four digit code.")
        await made.ends()

    run_virtual(call())


@pytest.mark.parametrize(
    ("language", "said"),
    [("en-us", "longest time"), ("de", "Höchstdauer"), ("fr", "maximale"), ("es", "máxima"), ("it", "massima")],
)
def test_without_a_warning_the_goodbye_is_in_the_language_of_the_line(language: str, said: str) -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(max_duration_s=3, language=language))
        await made.over()
        assert said in made.engines.said[-1]

    run_virtual(call())


def test_a_caller_on_hold_is_not_spoken_to_and_a_dead_voice_does_not_keep_the_line() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(max_duration_s=8))
        await asyncio.sleep(4)
        assert made.leg.on_held is not None
        made.leg.on_held(True)
        await made.over()
        assert "longest time" not in made.engines.said[-1]

        made = VirtualCall(flow_line(max_duration_s=8))
        await asyncio.sleep(6)
        made.engines.broken.add("tts")
        began = asyncio.get_running_loop().time()
        await made.over()
        assert asyncio.get_running_loop().time() - began < 13

    run_virtual(call())


def test_a_warning_before_the_call_begins_is_a_mistake() -> None:
    line = flow_line(max_duration_s=60, max_duration_warning={"text": "Soon."})
    (found,) = problems(Draft(line, tuple(line.flow)))
    assert found.path == ("max_duration_warning", "before_s")
    assert "less than max_duration_s (60)" in found.hint
