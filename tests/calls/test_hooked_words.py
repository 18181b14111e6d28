"""Whole calls in virtual time in which plugins have a say in what is heard and what is said."""

from __future__ import annotations

import asyncio

import pytest

from appliance.hook_types import Blocked
from tests.calls.hooked_call import hang_up
from tests.calls.test_tool_calls import Script
from tests.calls.test_tool_calls import line as llm_line
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual
from tests.plugins.spoken_hooks import SpokenHooks

# --- what is heard --------------------------------------------------------------------------------------------------


def test_a_flow_goes_on_with_what_plugins_make_of_the_callers_words() -> None:
    async def call() -> None:
        hooks = SpokenHooks(0.02, final_transcript=[lambda text: text.replace("tee", "tea"), lambda text: None])
        made = VirtualCall(flow_line(), hooks=hooks)
        await made.until_quiet()
        made.speaks(0.8, "tee please", accepted=False)
        await made.until_says("Please enter your four digit code.")
        await hang_up(made)
        turn = made.log.turns[1]
        assert (turn.caller_text, turn.accepted) == ("tea please", True)
        assert turn.speculation.used, "the reply was begun in advance, to the words that it is a reply to"
        assert made.log.ended.slots["drink"] == "tea"
        asked = hooks.calls["final_transcript"]
        assert asked is not None
        assert (asked.line, asked.caller, asked.called, asked.language) == ("desk", "200", "100", "en-us")

    run_virtual(call())


def test_partial_transcripts_are_rewritten_too() -> None:
    async def call() -> None:
        hooks = SpokenHooks(partial_transcript=lambda text: text.upper())
        made = VirtualCall(flow_line(), hooks=hooks)
        made.engines.partials = True
        await made.until_quiet()
        heard: list[str] = []
        made.session._dialogue.hearing = heard.append  # type: ignore[union-attr,method-assign]
        made.speaks(1.5, "tea please")
        await made.until_says("Please enter your four digit code.")
        await hang_up(made)
        assert len(heard) > 1
        assert set(heard) == {"TEA PLEASE"}
        assert len(hooks.told["partial_transcript"]) == 1, "plugins are told of the same guess once"

    run_virtual(call())


def test_words_that_are_kept_back_are_not_understood_by_a_flow() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(), hooks=SpokenHooks(final_transcript=lambda text: Blocked()))
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Sorry, what was that?")
        await hang_up(made)
        turn = made.log.turns[1]
        assert turn.caller_text == ""
        assert "kept back" in turn.problem
        assert "drink" not in made.log.ended.slots

    run_virtual(call())


@pytest.mark.parametrize("say", ["", "I may not listen to card numbers."])
def test_a_model_never_sees_words_that_are_kept_back(say: str) -> None:
    async def call() -> None:
        kept_back = lambda text: Blocked(say) if "four" in text else None  # noqa: E731
        made = VirtualCall(llm_line(), llm=True, hooks=SpokenHooks(final_transcript=kept_back))
        script = Script(made.engines, "Very well then.")
        await made.until_quiet()
        made.speaks(0.8, "my card is four four four")
        await made.until_says(say or "I am sorry, I did not understand that. Could you say it in other words?")
        await made.until_quiet()
        made.speaks(0.8, "when are you open")
        await made.until_says("Very well then.")
        await hang_up(made)
        assert len(script.prompts) == 1
        assert "my card" not in repr(script.prompts)
        assert [turn.caller_text for turn in made.log.turns] == ["", "", "when are you open"]

    run_virtual(call())


def test_a_caller_who_goes_on_during_a_hook_is_heard_to_the_end() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True, hooks=SpokenHooks(0.3, final_transcript=lambda text: f"{text}!"))
        made.engines.probability = 0.05
        script = Script(made.engines, "Very well then.")
        await made.until_quiet()
        made.speaks(0.5, "I would like")
        made.media.caller.extend([(-80.0, 0.02)] * 12)
        made.speaks(0.5, "I would like tea")
        await made.until_says("Very well then.")
        await hang_up(made)
        assert made.log.turns[1].caller_text == "I would like tea!"
        assert all("tea!" in prompt.messages[-1].content for prompt in script.prompts[-1:])

    run_virtual(call())


# --- what is said ---------------------------------------------------------------------------------------------------


def polite(text: str) -> str | None:
    if "secret" in text:
        return ""
    return text.replace("shop", "beautiful shop") if "shop" in text else None


def test_a_model_remembers_the_words_that_were_spoken_and_not_its_own() -> None:
    async def call() -> None:
        made = VirtualCall(llm_line(), llm=True, hooks=SpokenHooks(0.01, reply_text=polite))
        script = Script(
            made.engines, "The shop is open from nine to five. The secret is here. Good day to you.", "Yes indeed."
        )
        await made.until_quiet()
        made.speaks(0.8, "when are you open")
        await made.until(lambda: "Good day to you." in made.engines.said)
        await made.until_quiet()
        made.speaks(0.8, "really")
        await made.until_says("Yes indeed.")
        await hang_up(made)
        wanted = "The beautiful shop is open from nine to five. Good day to you."
        assert made.log.turns[1].heard_text == made.log.turns[1].agent_text == wanted
        assert made.log.turns[1].speculation.used
        assert ("assistant", wanted) in [(one.role, one.content) for one in script.prompts[-1].messages]
        assert "secret" not in " ".join(made.engines.said)

    run_virtual(call())


def test_of_other_words_too_a_model_remembers_only_what_was_heard() -> None:
    async def call() -> None:
        longer = lambda text: f"Well, dear caller, {text}" if "shop" in text else None  # noqa: E731
        made = VirtualCall(llm_line(), llm=True, hooks=SpokenHooks(reply_text=longer))
        script = Script(made.engines, "the shop is open from nine to five every day of the week.", "Yes indeed.")
        await made.until_quiet()
        made.speaks(0.8, "when are you open")
        await made.until(lambda: bool(made.media.playout))
        await asyncio.sleep(1.5)
        made.speaks(1.5, "stop that please now")
        await made.until_says("Yes indeed.")
        await hang_up(made)
        heard = made.log.turns[1].heard_text
        assert heard.startswith("Well, dear caller, the shop")
        assert "week" not in heard
        assert f"{heard} [interrupted]" in [one.content for one in script.prompts[-1].messages]

    run_virtual(call())


def test_what_is_said_again_is_said_in_the_plugins_words_once() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(), hooks=SpokenHooks(reply_text=lambda text: f"Ahem, {text}"))
        await made.until_quiet()
        made.speaks(0.8, "please repeat that")
        await made.until(lambda: made.engines.said.count("Ahem, Do you want tea or coffee?") == 2)
        await hang_up(made)
        assert all(text.count("Ahem") == 1 for text in made.engines.said)

    run_virtual(call())


def test_a_text_that_is_too_long_to_be_spoken_at_once_is_cut() -> None:
    async def call() -> None:
        story = "Once there was a box that answered calls. " * 12
        made = VirtualCall(flow_line(), hooks=SpokenHooks(reply_text=lambda text: story))
        await made.until(lambda: len(made.engines.said) > 3)
        made.hangs_up()
        await made.over()
        assert max(map(len, made.engines.said)) <= 200

    run_virtual(call())
