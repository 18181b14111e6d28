"""Pauses of the agent that cross with what happens meanwhile: it never stays silent for good, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from appliance.conversation.dialogue import Dialogue
from appliance.conversation.speaker import Speaker
from appliance.dialplan.schema import Line
from appliance.ipc.messages import Generate, Token, ToolCall
from appliance.ipc.rings import RING_SAMPLES
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

GREETING = "Hello, this is the desk. Do you want tea or coffee?"


def llm_line(**changes: Any) -> Line:
    return Line.model_validate(
        {"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there.", **changes}
    )


def parts(made: VirtualCall) -> tuple[Dialogue, Speaker]:
    dialogue, speaker = made.session._dialogue, made.session._speaker
    assert dialogue is not None
    assert speaker is not None
    return dialogue, speaker


def flushes_late(made: VirtualCall, after_s: float) -> None:
    """Media gets to it only then."""
    flush = made.media.flush
    made.media.flush = lambda: asyncio.get_running_loop().call_later(after_s, flush)  # type: ignore[assignment, method-assign]


def acknowledges_late(made: VirtualCall, after_s: float) -> None:
    """Media falls silent at once, and control hears of it only then."""
    listener = made.media.listener
    on_flushed = listener.on_flushed
    listener.on_flushed = lambda *said: asyncio.get_running_loop().call_later(after_s, on_flushed, *said)


class Desk:
    """Who hands callers on."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def hand_on(self, leg: Any, media: Any, transfer: Any, *more: Any) -> str:
        self.asked.append(transfer.to)
        return "transferred"


def answers(made: VirtualCall, text: str, after_s: float, last: Token) -> None:
    """The model says ``text``, and ``after_s`` later ``last``."""

    async def generate(request: Generate) -> AsyncIterator[Token]:
        made.engines.prompts.append(request)
        await asyncio.sleep(0.1)
        yield Token(request.request, text, False)
        await asyncio.sleep(after_s)
        yield last

    made.engines.generate = generate  # type: ignore[method-assign]


def test_a_transfer_that_is_decided_while_the_agent_pauses_is_carried_out() -> None:
    async def call() -> None:
        desk = Desk()
        made = VirtualCall(
            llm_line(transfers={"sales": "sip:sales@192.0.2.1"}, turn={"speculate": 0}), llm=True, transfers=desk
        )
        said = "I will put you through to our sales department now, one moment."
        answers(made, said + " ", 1.5, Token(0, "", True, (ToolCall("", "transfer", '{"to": "sales"}'),)))
        await made.until_quiet()
        made.speaks(0.8, "sales please")
        await made.until(lambda: bool(made.media.playout))
        await asyncio.sleep(1.2)
        made.speaks(2.0, "wait a moment")
        await made.until(lambda: parts(made)[1].paused)
        ended = await made.over(30.0)
        assert desk.asked == ["sip:sales@192.0.2.1"]
        assert ended.hangup_text == "transferred"
        assert made.log.turns[-1].heard_text == said

    run_virtual(call())


def test_what_must_be_heard_ends_a_pause_of_what_is_said_before_it() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: bool(made.media.playout))
        dialogue, speaker = parts(made)
        await asyncio.sleep(0.5)
        made.speaks(2.0, "wait a moment")
        await made.until(lambda: speaker.paused)
        last = dialogue._mouth.begin(False)
        speaker.add(last, "This call is recorded.")
        speaker.finish(last)
        await made.until(lambda: not speaker.speaking, 10.0)
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].heard_text == f"{GREETING} This call is recorded."
        assert not made.log.turns[0].interrupted

    run_virtual(call())


def test_a_reply_that_ended_as_it_was_paused_leaves_the_next_one_free_to_pause() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        flushes_late(made, 0.2)
        await made.until(lambda: bool(made.media.playout))
        dialogue, speaker = parts(made)
        (greeting,) = dialogue._turn.utterances
        await made.until(lambda: greeting.synthesised and int(made.rings.tts_played[0]) >= greeting.end - 800)
        assert speaker.speaking
        speaker.pause()
        speaker.resume()
        await asyncio.sleep(0.5)
        assert not speaker.speaking
        utterance = speaker.say(["There is more to be said."])
        await made.until(lambda: bool(made.media.playout))
        speaker.pause()
        await asyncio.sleep(0.4)
        assert not made.media.playout
        speaker.resume()
        await made.until(lambda: utterance.over, 10.0)
        assert utterance.heard == "There is more to be said."
        made.hangs_up()
        await made.over()

    run_virtual(call())


def test_another_sound_before_the_pause_is_acknowledged_keeps_the_agent_silent() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: bool(made.media.playout))
        acknowledges_late(made, 0.2)
        _, speaker = parts(made)
        await asyncio.sleep(0.5)
        speaker.pause()
        speaker.resume()
        speaker.pause()
        await asyncio.sleep(0.5)
        assert speaker.paused
        assert not made.media.playout
        speaker.resume()
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].heard_text == GREETING

    run_virtual(call())


def test_nothing_that_is_still_to_be_played_is_overwritten_before_the_pause_is_acknowledged() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        acknowledges_late(made, 0.4)
        _, speaker = parts(made)
        utterance = speaker.say(["Welcome to the desk. " * 5] * 12)
        await made.until(lambda: utterance.end - utterance.start > 20 * 8000)
        await asyncio.sleep(3.0)
        reached = int(made.rings.tts_played[0])
        speaker.pause()
        await asyncio.sleep(0.9)
        assert utterance.end - reached <= RING_SAMPLES
        speaker.resume()
        await made.until(lambda: utterance.over, 120.0)
        assert utterance.heard == utterance.text
        made.hangs_up()
        await made.over()

    run_virtual(call())


def test_a_number_whose_keys_have_ended_is_answered_although_a_draft_is_held() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        made.session.on_digit("1", made.media.frame)
        await made.until_says("Please enter your four digit code.")
        await made.until_quiet()
        made.session.on_digit("4", made.media.frame)
        dialogue, speaker = parts(made)
        await asyncio.sleep(0.3)
        assert dialogue._key_timer is not None
        left = dialogue._key_timer.when() - asyncio.get_running_loop().time()
        made.engines.probability = 0.05
        await asyncio.sleep(left - 0.9)
        made.speaks(0.6, "one two three four")
        await made.until(lambda: speaker._held is not None, 5.0)
        await made.until(lambda: speaker.speaking, 5.0)
        assert speaker._held is None
        ended = await made.over()
        assert ended.slots["pin"] == "1234"
        assert made.log.turns[-1].heard_text == "Thank you, goodbye."

    run_virtual(call())


def test_a_sound_while_the_agent_is_being_stopped_does_not_hold_up_what_follows() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: bool(made.media.playout))
        acknowledges_late(made, 0.1)
        dialogue, _ = parts(made)
        await asyncio.sleep(0.5)
        made.session.on_digit("1", made.media.frame)
        await asyncio.sleep(0.03)
        dialogue.paused()
        await asyncio.sleep(0.4)
        assert "Please enter your four digit code." in made.engines.said
        made.hangs_up()
        await made.over()

    run_virtual(call())
