"""Whole calls in virtual time: greeting, turns, keys, silence, interruptions, failures and every way to end."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from appliance.dialplan.schema import Line
from appliance.errors import MediaError
from appliance.events import CallAnswered, CallEnded, CallRinging, CallStarted, Disposition, HangupBy, InputBy, Stage
from appliance.signalling.trunks import TrunkRule, TrunkTable
from tests.calls.virtual_call import Media, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual


def test_a_call_from_ring_to_record() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        await made.until_quiet()
        for digit in "1234":
            made.session.on_digit(digit, made.media.frame)
            await asyncio.sleep(0.2)
        ended = await made.over()
        assert made.leg.told == ["ring", "answer", "hangup"]
        assert [type(event) for event in made.log.events[:3]] == [CallStarted, CallRinging, CallAnswered]
        assert (ended.disposition, ended.hangup_by) == (Disposition.COMPLETED, HangupBy.AGENT)
        assert ended.slots["drink"] == "tea"
        assert ended.slots["pin"] == "1234"
        greeting, tea, pin = made.log.turns
        assert greeting.agent_text == "Hello, this is the desk. Do you want tea or coffee?"
        assert greeting.heard_text == greeting.agent_text
        assert (tea.by, tea.caller_text, tea.agent_text) == (
            InputBy.VOICE,
            "tea please",
            "Please enter your four digit code.",
        )
        assert tea.latency_s is not None
        assert 0.1 < tea.latency_s < 0.5
        assert {timing.stage for timing in tea.stages} >= {Stage.ASR, Stage.TURN_MODEL, Stage.ENDPOINTING, Stage.TTS}
        assert (pin.by, pin.caller_text, pin.agent_text) == (InputBy.KEY, "1234", "Thank you, goodbye.")
        assert [turn.number for turn in made.log.turns] == [0, 1, 2]

    run_virtual(call())


def test_the_record_comes_before_the_answer() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: "answer" in made.leg.told)
        assert any(isinstance(event, CallStarted) for event in made.log.events)
        made.hangs_up()
        await made.over()

    run_virtual(call())


def test_speech_over_the_agent_stops_it_and_only_what_was_heard_is_kept() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(0.9)
        before = made.media.frame
        made.speaks(1.0, "coffee please")
        await made.until(lambda: not made.media.playout)
        stopped_after_s = (made.media.frame - before) * 0.02
        assert stopped_after_s <= 0.25
        await made.until_says("Please enter your four digit code.")
        greeting = made.log.turns[0]
        assert greeting.interrupted
        assert greeting.agent_text.startswith(greeting.heard_text)
        assert 0 < len(greeting.heard_text) < len("Hello, this is the desk.")
        made.hangs_up()
        await made.over()
        assert made.log.turns[1].caller_text == "coffee please"

    run_virtual(call())


def test_what_must_be_heard_is_not_interrupted() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(disclosure="You are talking to a machine."))
        await asyncio.sleep(0.5)
        made.speaks(1.0, "tea please")
        await asyncio.sleep(1.4)
        assert made.media.playout
        assert not any(turn.interrupted for turn in made.log.turns)
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].heard_text.startswith("You are talking to a machine.") or made.log.turns[0].heard_text

    run_virtual(call())


def test_a_key_answers_during_the_question() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(1.0)
        made.session.on_digit("1", made.media.frame)
        await made.until_says("Please enter your four digit code.")
        made.hangs_up()
        await made.over()
        assert made.log.turns[0].interrupted
        assert made.log.turns[1].caller_text == "1"

    run_virtual(call())


def test_keys_that_come_by_rtp_and_by_info_are_counted_once() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(1.0)
        made.session.on_digit("1", made.media.frame)
        await made.until_says("Please enter your four digit code.")
        await made.until_quiet()
        assert made.leg.on_digits is not None
        for digit in "7755":
            made.session.on_digit(digit, made.media.frame)
            await asyncio.sleep(0.1)
            made.leg.on_digits(digit)
            await asyncio.sleep(0.1)
        ended = await made.over()
        assert ended.slots["pin"] == "7755"

    run_virtual(call())


def test_a_pause_inside_a_sentence_is_not_the_end() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        made.engines.probability = 0.05
        made.engines.hears.append(("tea", False))
        from tests.calls.virtual_call import LOUD, QUIET

        made.media.caller.extend([LOUD] * 40 + [QUIET] * 30 + [LOUD] * 40)
        await asyncio.sleep(1.7)
        made.engines.hears.clear()
        made.engines.hears.append(("tea please", True))
        await made.until_says("Please enter your four digit code.")
        made.hangs_up()
        await made.over()
        voices = [turn for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert [turn.caller_text for turn in voices] == ["tea please"]

    run_virtual(call())


def test_a_pause_inside_an_expected_phrase_is_not_the_end() -> None:
    """However sure the turn model is: "tea" alone answers nothing, and the caller is about to say "please"."""

    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        made.speaks(0.8, "tea", accepted=False)
        await asyncio.sleep(0.8 + 1.0)
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        made.hangs_up()
        await made.over()
        (turn,) = [turn for turn in made.log.turns if turn.by is InputBy.VOICE]
        assert turn.caller_text == "tea please"

    run_virtual(call())


def test_silence_and_misunderstanding_are_asked_again_and_then_the_call_ends() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until(lambda: "Are you there?" in made.engines.said, 30)
        await made.until_quiet()
        made.speaks(0.8, "banana", accepted=False)
        await made.until(lambda: "Sorry, what was that?" in made.engines.said)
        ended = await made.over(60)
        assert ended.hangup_by is HangupBy.AGENT
        assert ended.hangup_text == "no_input"
        assert not made.log.turns[2].accepted

    run_virtual(call())


def test_the_caller_hangs_up_while_the_agent_speaks() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(1.0)
        made.hangs_up()
        ended = await made.over(1.0)
        assert (ended.disposition, ended.hangup_by) == (Disposition.COMPLETED, HangupBy.CALLER)
        assert made.media.closed

    run_virtual(call())


def test_the_caller_hangs_up_while_listened_to() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        made.hangs_up()
        ended = await made.over(1.0)
        assert ended.hangup_by is HangupBy.CALLER

    run_virtual(call())


@pytest.mark.parametrize("when_s", [1.0, 6.0, 8.0], ids=["agent speaks", "caller speaks", "agent interrupted"])
def test_nothing_of_an_ended_call_waits_for_the_collector(when_s: float) -> None:
    """A call that is part of a reference cycle stays in memory until a full collection: 15 s, at 20 calls a second."""

    async def call() -> None:
        made = VirtualCall(flow_line())
        if when_s > 5.0:
            await made.until_quiet()
            made.speaks(1.5, "tea please")
            await asyncio.sleep(when_s - 5.0)
            made.speaks(0.5, "tea please")
            await asyncio.sleep(0.4)
        else:
            await asyncio.sleep(when_s)
        session = made.session
        parts = [session._dialogue, session._listening, session._speaker, session._dialogue.brain, session]
        gone = [weakref.ref(part) for part in parts if part is not None]
        assert len(gone) == 5
        made.hangs_up()
        await made.over(2.0)
        made.media.listener = None
        del made, session, parts
        await asyncio.sleep(1.0)
        alive = [type(part()).__name__ for part in gone if part() is not None]
        assert not alive

    gc.collect()
    gc.disable()
    try:
        run_virtual(call())
    finally:
        gc.enable()


def test_the_caller_gives_up_before_the_answer() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(0)
        made.hangs_up()
        ended = await made.over()
        assert ended.disposition is Disposition.CANCELLED
        assert "answer" not in made.leg.told

    run_virtual(call())


def test_a_call_ends_at_its_maximum_duration() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(max_duration_s=3))
        ended = await made.over()
        assert (ended.hangup_by, ended.hangup_text) == (HangupBy.BOX, "maximum duration reached")

    run_virtual(call())


def test_a_drain_ends_the_call_as_interrupted() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await asyncio.sleep(1.0)
        made.session.end(Disposition.INTERRUPTED, "shutting down")
        assert (await made.over()).disposition is Disposition.INTERRUPTED

    run_virtual(call())


def test_the_call_goes_on_without_the_turn_model_and_without_ears() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.engines.broken = {"turn"}
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until(lambda: "Please enter your four digit code." in made.engines.said, 5)
        await made.until_quiet()
        made.engines.broken = {"asr"}
        made.speaks(0.8, "one two three four")
        await made.until(lambda: "Sorry, what was that?" in made.engines.said, 5)
        made.hangs_up()
        await made.over()

    run_virtual(call())


def test_a_dead_voice_does_not_hang_the_call() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.engines.broken = {"tts"}
        await asyncio.sleep(2.0)
        made.engines.broken = set()
        made.speaks(0.8, "tea please")
        await made.until(lambda: "Please enter your four digit code." in made.engines.said, 5)
        made.hangs_up()
        await made.over()

    run_virtual(call())


def llm_line() -> Line:
    return Line.model_validate({"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there."})


def test_a_language_model_is_heard_clause_by_clause() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.tokens = ["Sure, ", "I can ", "help you ", "with that. ", "What ", "is your ", "name?"]
        await made.until_quiet()
        made.speaks(0.8, "can you help me")
        await made.until(lambda: len(made.engines.said) >= 3)
        await made.until_quiet()
        made.speaks(0.8, "my name is ann")
        await made.until(lambda: len(made.engines.prompts) == 2)
        made.hangs_up()
        await made.over()
        assert made.engines.said[1] == "Sure, I can help"
        assert " ".join(made.engines.said[1:]).startswith("Sure, I can help you with that. What is your name?")
        messages = made.engines.prompts[1].messages
        assert [message.role for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert messages[2].content == "Hello there."
        assert messages[4].content == "Sure, I can help you with that. What is your name?"

    run_virtual(call())


def test_the_model_remembers_only_what_the_caller_heard() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen. And more. And more."
        made.engines.tokens = [word + " " for word in words.split()]
        await made.until_quiet()
        made.speaks(0.8, "count please")
        await made.until(lambda: bool(made.media.playout))
        await asyncio.sleep(1.5)
        made.speaks(0.8, "stop it")
        await made.until(lambda: len(made.engines.prompts) == 2)
        made.hangs_up()
        await made.over()
        heard, _, interrupted = made.engines.prompts[1].messages[4].content.partition(" [")
        assert interrupted == "interrupted]"
        assert words.startswith(heard)
        assert 3 <= len(heard.split()) <= 9

    run_virtual(call())


def test_a_broken_model_is_apologised_for_and_then_ends_the_call() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True)
        made.engines.broken = {"llm"}
        await made.until_quiet()
        made.speaks(0.8, "hello")
        await made.until(lambda: any("went wrong" in text for text in made.engines.said))
        await made.until_quiet()
        made.speaks(0.8, "hello")
        ended = await made.over()
        assert ended.hangup_text == "the agent's engines failed"

    run_virtual(call())


def test_a_call_refused_because_media_is_down_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(media: Media, listener: object, *, rtp: bool = True, denoise: str = "") -> Media:
        raise MediaError("the media process is down; it is being restarted")

    async def call() -> None:
        made = VirtualCall(flow_line())
        ended = await made.over()
        assert made.leg.told[:2] == ["ring", "reject 503"]
        assert [type(event) for event in made.log.events] == [CallStarted, CallRinging, CallEnded]
        assert (ended.disposition, ended.hangup_code) == (Disposition.REJECTED, 503)

    monkeypatch.setattr(Media, "open_leg", down)
    run_virtual(call())


def test_a_call_whose_media_cannot_be_agreed_on_at_the_answer_is_not_on_record_as_answered() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.leg.answer = lambda media: made.hangs_up("system", 488, "media cannot go there")  # type: ignore[method-assign]
        ended = await made.over()
        assert [type(event) for event in made.log.events] == [CallStarted, CallRinging, CallEnded]
        assert (ended.disposition, ended.hangup_by) == (Disposition.FAILED, HangupBy.BOX)
        assert (ended.hangup_code, ended.hangup_text) == (488, "media cannot go there")
        assert made.engines.said == []

    run_virtual(call())


def test_on_hold_the_agent_neither_asks_nor_answers() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        await made.until_quiet()
        assert made.leg.on_held is not None
        made.leg.on_held(True)
        said = len(made.engines.said)
        made.speaks(3.0, "music on hold", accepted=False)
        await asyncio.sleep(60)
        made.session.on_media_timeout(30.0)
        assert len(made.engines.said) == said
        made.leg.on_held(False)
        await made.until(lambda: "Are you there?" in made.engines.said)
        made.hangs_up()
        assert (await made.over()).hangup_by is HangupBy.CALLER

    run_virtual(call())


def test_a_trunk_may_keep_calls_without_rtp() -> None:
    async def call(keep: bool) -> None:
        trunks = TrunkTable([TrunkRule("local", media_timeout="keep" if keep else "end")])
        made = VirtualCall(flow_line(), trunks=trunks)
        await made.until_quiet()
        made.session.on_media_timeout(30.0)
        await asyncio.sleep(1)
        assert made.task.done() is not keep
        if keep:
            made.hangs_up()
        await made.over()

    run_virtual(call(True))
    run_virtual(call(False))


def test_the_box_speaks_the_language_of_the_line() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line().model_copy(update={"language": "de-de"}), llm=True)
        made.engines.broken = {"llm"}
        await made.until_quiet()
        made.speaks(0.8, "guten tag")
        await made.until(lambda: any(text.startswith("Es tut mir leid") for text in made.engines.said))
        made.hangs_up()
        await made.over()

    run_virtual(call())
