"""Sounds over the agent: it falls silent at once, and goes on or not when it is known what they were."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from appliance.conversation.spoken import spoken_form
from appliance.conversation.utterance import Clause, Utterance, quietest
from tests.calls.virtual_call import SAMPLES_PER_CHARACTER, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

GREETING = "Hello, this is the desk. Do you want tea or coffee?"


async def speaking(made: VirtualCall, seconds: float) -> None:
    await made.until(lambda: bool(made.media.playout))
    await asyncio.sleep(seconds)


def test_the_agent_goes_on_with_the_word_it_was_at() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await speaking(made, 0.5)
        dialogue = made.session._dialogue
        assert dialogue is not None
        dialogue.paused()
        assert not made.media.playout
        (utterance,) = dialogue._turn.utterances
        stopped_at = utterance.start + utterance.played
        assert 3200 <= stopped_at <= 4800
        await asyncio.sleep(0.4)
        assert not made.media.playout
        dialogue.resumed()
        await asyncio.sleep(0.1)
        assert made.media.playout
        begun_again_at = made.media.resumed_at[-1]
        assert stopped_at - 0.8 * 8000 <= begun_again_at <= stopped_at
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        greeting = made.log.turns[0]
        assert greeting.heard_text == greeting.agent_text == GREETING
        assert greeting.pauses == 1
        assert not greeting.interrupted

    run_virtual(call())


def test_a_pause_that_becomes_an_interruption_keeps_what_was_heard() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await speaking(made, 1.0)
        dialogue = made.session._dialogue
        assert dialogue is not None
        dialogue.paused()
        await asyncio.sleep(0.3)
        dialogue.barged_in()
        await asyncio.sleep(0.3)
        assert not made.media.playout
        made.hangs_up()
        await made.over()
        greeting = made.log.turns[0]
        assert greeting.interrupted
        assert GREETING.startswith(greeting.heard_text)
        assert 2 <= len(greeting.heard_text.split()) <= 5

    run_virtual(call())


@pytest.mark.parametrize("before", [True, False])
def test_what_was_synthesised_for_an_interrupted_reply_does_not_fill_the_ring_for_good(before: bool) -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await speaking(made, 0.5)
        dialogue = made.session._dialogue
        assert dialogue is not None and dialogue._speaker is not None
        (utterance,) = dialogue._turn.utterances
        for paused in (not before, before):
            if paused:
                dialogue.paused()
            else:
                dialogue._speaker.add(utterance, "Welcome to the desk. " * 10)
                await made.until(lambda: utterance.end > 10 * 8000)
        dialogue.barged_in()
        await asyncio.sleep(0.3)
        assert utterance.over
        dialogue._speaker.say(["There is always room for what is said next. " * 6])
        await made.until(lambda: bool(made.media.playout))
        made.hangs_up()
        await made.over()

    run_virtual(call())


def test_a_long_reply_that_was_paused_goes_on_without_a_break() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await speaking(made, 0.5)
        await made.until_quiet()
        dialogue = made.session._dialogue
        assert dialogue is not None and dialogue._speaker is not None
        utterance = dialogue._speaker.say(["Welcome to the desk. " * 8] * 4)
        await speaking(made, 1.0)
        dialogue.paused()
        await asyncio.sleep(0.3)
        dialogue.resumed()
        resumed_at = made.media.frame
        await made.until(lambda: utterance.over)
        left = (utterance.end - made.media.resumed_at[-1]) / 160
        assert made.media.frame - resumed_at == pytest.approx(left, abs=5)
        made.hangs_up()
        await made.over()

    run_virtual(call())


def test_pauses_one_after_the_other_lose_nothing() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        dialogue = made.session._dialogue
        await speaking(made, 0.2)
        dialogue = made.session._dialogue
        assert dialogue is not None
        for _ in range(4):
            dialogue.paused()
            await asyncio.sleep(0.02)
            dialogue.resumed()
            await asyncio.sleep(0.3)
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        greeting = made.log.turns[0]
        assert greeting.heard_text == greeting.agent_text == GREETING
        assert greeting.pauses == 4

    run_virtual(call())


def test_a_pause_before_the_first_sound_plays_everything() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: made.session._dialogue is not None and made.session._speaker is not None)
        dialogue = made.session._dialogue
        speaker = made.session._speaker
        assert dialogue is not None
        assert speaker is not None
        await made.until(lambda: speaker.speaking)
        dialogue.paused()
        await asyncio.sleep(0.5)
        dialogue.resumed()
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].heard_text == GREETING

    run_virtual(call())


def test_where_the_word_begins() -> None:
    text = "one two three"
    clause = Clause(text, spoken_form(text), 0.0, 1000, 1000 + len(text) * SAMPLES_PER_CHARACTER)
    utterance = Utterance(1, clauses=[clause], end=9000)
    at = 1000 + 6 * SAMPLES_PER_CHARACTER  # the "o" of "two"
    assert utterance.word_at(at) == 1000 + 4 * SAMPLES_PER_CHARACTER
    assert utterance.word_at(1000) == 1000


def test_it_begins_again_where_it_is_quietest() -> None:
    ring = np.full(32 * 8000, 9000, np.int16)
    ring[3000:3160] = 3
    assert 3000 <= quietest(ring, 1000, 3500, 6000) < 3160
    assert quietest(ring, 3400, 3500, 3450) == 3450
    assert 5000 <= quietest(ring, 5000, 5200, 5600) <= 5600


def test_a_closed_list_is_offered_backchannels_only_over_the_agent() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await speaking(made, 0.5)
        made.speaks(0.4, "yeah")
        await made.until(lambda: len(made.engines.asked) == 1)
        assert {"tea please", "yeah", "mm hmm"} <= set(made.engines.asked[0].phrases)
        await made.until_quiet()
        assert made.log.turns == []
        made.speaks(0.8, "tea please")
        await made.until(lambda: len(made.engines.asked) == 3)
        early, last = made.engines.asked[1:]
        assert {"tea please", "yeah"} <= set(early.phrases)
        assert early.end < last.end
        assert "tea please" in last.phrases
        assert not {"yeah", "mm hmm"} & set(last.phrases)
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].heard_text == GREETING
        assert made.log.turns[0].pauses == 1

    run_virtual(call())


def test_an_expected_answer_over_the_agent_stops_it() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await speaking(made, 0.5)
        made.speaks(0.4, "tea please")
        await made.until_says("Please enter your four digit code.")
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].interrupted
        assert made.log.turns[1].caller_text == "tea please"

    run_virtual(call())
