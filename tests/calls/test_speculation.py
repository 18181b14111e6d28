"""Replies begun in advance: used when the turn ends as it seemed, thrown away without a trace when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.conversation.speculation import Lead, SpeculationBudget
from appliance.dialplan.schema import Line
from appliance.events import InputBy, Stage, TurnFinished
from tests.calls.virtual_call import LOUD, QUIET, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

WORDS = ["Sure, ", "I can ", "help you ", "with that. ", "What ", "is your ", "name?"]


def llm_line(**changes: Any) -> Line:
    return Line.model_validate(
        {"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there.", **changes}
    )


async def one_turn(line: Line) -> TurnFinished:
    made = VirtualCall(line, llm=True)
    made.engines.tokens = WORDS
    made.engines.probability = 0.8
    await made.until_quiet()
    made.speaks(0.8, "can you help me")
    await made.until(lambda: bool(made.media.playout))
    await made.until_quiet()
    made.hangs_up()
    await made.over()
    (turn,) = [turn for turn in made.log.turns if turn.by is InputBy.VOICE]
    return turn


def test_the_reply_is_there_when_the_turn_is_certain() -> None:
    async def compare() -> None:
        begun = await one_turn(llm_line())
        waited = await one_turn(llm_line(turn={"speculate": 0}))
        assert begun.agent_text == waited.agent_text == "".join(WORDS)
        assert begun.speculation.begun == 1
        assert begun.speculation.used
        assert (begun.speculation.wasted_tokens, begun.speculation.wasted_speech_s) == (0, 0.0)
        assert waited.speculation.begun == 0
        assert begun.latency_s is not None
        assert waited.latency_s is not None
        assert waited.latency_s - begun.latency_s > 0.1
        assert begun.speculation.gained_s > 0.0
        stages = {timing.stage: timing for timing in begun.stages}
        assert stages[Stage.REPLY].start_at < stages[Stage.ENDPOINTING].end_at

    run_virtual(compare())


def test_what_was_begun_for_a_pause_is_thrown_away_and_counted() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.tokens = WORDS
        made.engines.probability = 0.05
        await made.until_quiet()
        made.engines.hears.append(("can you", True))
        made.media.caller.extend([LOUD] * 40 + [QUIET] * 35 + [LOUD] * 40)
        await made.until(lambda: "Sure, I can help" in made.engines.said)
        assert not made.media.playout
        made.engines.hears.clear()
        made.engines.hears.append(("can you help me", True))
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        (turn,) = [turn for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert turn.caller_text == "can you help me"
        assert turn.heard_text == turn.agent_text == "".join(WORDS)
        assert (turn.speculation.begun, turn.speculation.used) == (2, True)
        assert turn.speculation.wasted_speech_s > 0.0
        histories = [[message.content for message in prompt.messages[1:]] for prompt in made.engines.prompts]
        assert "can you</caller>" not in " ".join(histories[-1])

    run_virtual(call())


def test_nothing_is_thrown_away_for_a_pause_that_is_over_before_a_reply_would_have_to_be_begun() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.tokens = WORDS
        await made.until_quiet()
        made.speaks(0.8, "hello there")
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.engines.probability = 0.05
        made.engines.hears.clear()
        made.engines.hears.append(("can you help me", True))
        made.media.caller.extend([LOUD] * 40 + [QUIET] * 35 + [LOUD] * 40)
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        first, second = [turn.speculation for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert (first.begun, first.used) == (1, True)
        assert (second.begun, second.used, second.wasted_tokens) == (1, True, 0)
        assert 0.0 < second.gained_s < 0.2

    run_virtual(call())


def test_replies_are_begun_at_once_until_it_is_known_how_long_they_take() -> None:
    assert SpeculationBudget().lead("desk").seconds == float("inf")


def test_a_line_knows_from_all_its_calls_how_long_its_replies_take() -> None:
    budget = SpeculationBudget()
    budget.lead("desk").took(0.3)
    assert 0.3 < budget.lead("desk").seconds < 0.4
    assert budget.lead("shop").seconds == float("inf")


def test_replies_are_begun_sooner_as_soon_as_they_take_longer_and_later_only_when_all_are_faster() -> None:
    lead = Lead()
    lead.took(0.3)
    usual = lead.seconds
    for _ in range(4):
        lead.took(0.7)
    slow = lead.seconds
    assert slow > usual + 0.2
    lead.took(0.3)
    assert lead.seconds > slow - 0.05
    for _ in range(100):
        lead.took(0.3)
    assert abs(lead.seconds - usual) < 0.02


def test_a_model_that_stood_still_once_does_not_have_all_replies_begun_at_once() -> None:
    lead = Lead()
    lead.took(0.3)
    lead.took(60.0)
    assert lead.seconds < 1.0


def test_a_flow_does_not_move_for_a_pause() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.engines.probability = 0.05
        await made.until_quiet()
        made.engines.hears.append(("coffee please", True))
        made.media.caller.extend([LOUD] * 40 + [QUIET] * 14 + [LOUD] * 40)
        await asyncio.sleep(1.1)
        made.engines.hears.clear()
        made.engines.hears.append(("tea please", True))
        await made.until_says("Please enter your four digit code.")
        made.hangs_up()
        ended = await made.over()
        assert ended.slots["drink"] == "tea"

    run_virtual(call())


def test_a_key_instead_of_the_rest_of_the_sentence_throws_the_draft_away() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.engines.probability = 0.05
        await made.until_quiet()
        made.speaks(0.8, "coffee please")
        await made.until(lambda: "Please enter your four digit code." in made.engines.said)
        assert not made.media.playout
        made.session.on_digit("1", made.media.frame)
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        ended = await made.over()
        assert ended.slots["drink"] == "tea"
        assert made.engines.said.count("Please enter your four digit code.") == 2

    run_virtual(call())


def test_a_model_that_fails_in_advance_is_asked_again_when_it_matters() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.tokens = WORDS
        made.engines.probability = 0.3
        made.engines.broken = {"llm"}
        await made.until_quiet()
        made.speaks(0.8, "can you help me")
        await made.until(lambda: len(made.engines.prompts) == 1)
        await asyncio.sleep(0.2)
        made.engines.broken = set()
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        (turn,) = [turn for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert turn.agent_text == "".join(WORDS)
        assert (turn.speculation.begun, turn.speculation.used, turn.problem) == (1, False, "")

    run_virtual(call())


def test_the_callers_words_are_in_the_history_once() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.tokens = WORDS
        for number in range(3):
            await made.until_quiet()
            made.speaks(0.8, f"question {number}")
            await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        said = [
            message.content for message in made.engines.prompts[-1].messages if message.content.startswith("<caller")
        ]
        assert len(said) == 3
        assert all(f"question {number}" in said[number] for number in range(3))
        assert len({turn.agent_text for turn in made.log.turns[1:]}) == 1

    run_virtual(call())


@pytest.mark.parametrize(("per_second", "allowed"), [(0.0, 0), (2.0, 4)])
def test_the_boxs_budget_refuses_what_is_too_much(per_second: float, allowed: int) -> None:
    budget = SpeculationBudget(per_second)
    assert sum(budget.take(10.0) for _ in range(10)) == allowed
    assert (budget.begun, budget.refused) == (allowed, 10 - allowed)


def test_nothing_is_begun_in_advance_on_a_strained_box() -> None:
    assert not SpeculationBudget(strained=lambda: True).take(1.0)
