"""After many interruptions the model's history holds the words that were heard, and no others."""

from __future__ import annotations

import asyncio
import random

import pytest

from appliance.conversation.history import INTERRUPTED
from appliance.dialplan.schema import Line
from appliance.events import InputBy
from tests.calls.virtual_call import VirtualCall
from tests.engines.virtual_time import run_virtual
from tests.plugins.spoken_hooks import SpokenHooks

INTERRUPTIONS = 60
REPLY = (
    "Of course, I can tell you about that. We open at nine in the morning, and close at five. "
    "On Fridays we are here until seven. Would you like me to book a table for you?"
)
REWORDED = (
    "Well, dear caller, Of course, I can tell you about that. We are open today. "
    "Would you like me to book a table for you?"
)


def reworded(text: str) -> str | None:
    """What a plugin says instead of some of the pieces: more words, fewer, none, others."""
    if text.startswith("Of course"):
        return f"Well, dear caller, {text}"
    if text.startswith("On Fridays"):
        return ""
    return "We are open today." if text.startswith("We open") else None


@pytest.mark.parametrize("hooks", [SpokenHooks(), SpokenHooks(0.01, reply_text=reworded)], ids=["own", "plugin"])
def test_the_history_equals_what_was_heard_after_many_interruptions(hooks: SpokenHooks) -> None:
    whole_reply = REPLY if not hooks.wanted("reply_text") else REWORDED

    async def call() -> None:
        chance = random.Random(5)
        line = Line.model_validate(
            {"name": "x", "agent": "llm", "prompt": "y", "greeting": "Hello.", "max_duration_s": 86400,
             "context_tokens": 40_000}
        )  # fmt: skip
        made = VirtualCall(line, llm=True, hooks=hooks)
        made.engines.tokens = [word + " " for word in REPLY.split()]
        await made.until_quiet()
        made.speaks(0.8, "tell me")
        for number in range(INTERRUPTIONS):
            await made.until(lambda: bool(made.media.playout))
            await asyncio.sleep(chance.uniform(0.0, 12.0))
            made.speaks(1.2, f"wait a moment please {number}")
            await asyncio.sleep(1.5)
        await made.until(lambda: bool(made.media.playout))
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        # The newest reply is not in the history yet when the model is asked for it; the greeting is turn 0.
        spoken = [turn.heard_text for turn in made.log.turns[1:-1] if turn.heard_text]
        shown = [message.content for message in made.engines.prompts[-1].messages if message.role == "assistant"][1:]
        assert [text.removesuffix(INTERRUPTED).strip() for text in shown] == spoken
        whole = [text for text in shown if not text.endswith(INTERRUPTED)]
        assert set(whole) <= {whole_reply}
        assert sum(turn.interrupted for turn in made.log.turns) > INTERRUPTIONS // 2
        assert sum(turn.by is InputBy.VOICE for turn in made.log.turns) >= INTERRUPTIONS

    run_virtual(call())
