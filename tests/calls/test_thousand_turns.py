"""A thousand scripted turns in virtual time: whole sessions, every kind of turn, and a record that tells each of them.

The callers of a hundred calls answer, answer wrongly, press keys, say nothing, murmur over the agent, interrupt it and
pause in the middle. What they do is drawn from a seed.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from appliance.conversation.barge_in import Agent
from appliance.conversation.dialogue import Dialogue
from appliance.events import InputBy, TurnFinished
from tests.calls.virtual_call import LOUD, QUIET, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

CALLS, TURNS = 100, 10
FLOW: dict[str, Any] = {
    "greeting": "Hi.",
    "no_input": {"after_s": 2, "prompts": ["Hello?"], "retries": 10},
    "no_match": {"prompts": ["What?"], "retries": 10},
    "flow": {
        "drink": {
            "ask": "Tea or coffee?",
            "expect": {"tea": ["tea please"], "coffee": ["coffee please"]},
            "keys": {"1": "tea", "2": "coffee"},
            "slot": "drink",
            "next": {"default": "drink"},
        },
    },
}
KINDS = ("answers", "pauses", "murmurs", "interrupts", "keys", "errs", "silent")


class Caller:
    """One call, and what the caller did in it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.made = VirtualCall(flow_line(**FLOW))
        self.expected: list[tuple[InputBy, str]] = []
        self.kinds: Counter[str] = Counter()

    async def converse(self) -> list[TurnFinished]:
        await self.made.until_quiet()
        for _ in range(TURNS):
            kind = self.random.choice(KINDS)
            self.kinds[kind] += 1
            await getattr(self, kind)()
            await self._over()
        self.made.hangs_up()
        await self.made.over()
        return self.made.log.turns

    async def answers(self) -> None:
        await self._says(self.random.uniform(0.4, 0.9), self._drink())

    async def pauses(self) -> None:
        """With 0.3 s of silence in the middle."""
        self._expects(InputBy.VOICE, text := self._drink())
        self.made.speaks(0.5, text)
        self.made.media.caller.extend([QUIET] * 15 + [LOUD] * 25)
        await self._answered()

    async def murmurs(self) -> None:
        """A backchannel over the agent's question, and then an answer."""
        await self.silent()
        self.made.speaks(0.2, "", accepted=False)
        await self._over()
        await self.answers()

    async def interrupts(self) -> None:
        """Over the prompt that follows a silence."""
        await self.silent()
        await self._says(0.9, self._drink())

    async def keys(self) -> None:
        digit = self.random.choice("12")
        self._expects(InputBy.KEY, digit)
        self.made.session.on_digit(digit, self.made.media.frame)
        await self._answered()

    async def errs(self) -> None:
        self._expects(InputBy.VOICE, "banana")
        self.made.speaks(0.5, "banana", accepted=False)
        await self._answered()

    async def silent(self) -> None:
        self._expects(InputBy.NONE, "")
        await self._answered()

    def _drink(self) -> str:
        return self.random.choice(("tea please", "coffee please"))

    def _expects(self, by: InputBy, text: str) -> None:
        self.expected.append((by, text))

    async def _says(self, seconds: float, text: str) -> None:
        self._expects(InputBy.VOICE, text)
        self.made.speaks(seconds, text)
        await self._answered()

    async def _answered(self) -> None:
        """The agent speaks in a turn of its own number."""
        await self.made.until(lambda: self._turn >= len(self.expected) and bool(self.made.media.playout), 10.0)

    async def _over(self) -> None:
        """The agent has said what it had to say, however often it paused."""
        listening = self._dialogue._listening
        assert listening is not None
        await self.made.until(lambda: listening.machine.floor.agent is Agent.SILENT)
        await self.made.until_quiet()

    @property
    def _dialogue(self) -> Dialogue:
        dialogue = self.made.session._dialogue
        assert dialogue is not None
        return dialogue

    @property
    def _turn(self) -> int:
        return self._dialogue._turn.number


@pytest.mark.parametrize("seed", range(0, CALLS, 10))
def test_a_thousand_turns_are_all_on_record(seed: int) -> None:
    async def calls() -> Counter[str]:
        kinds: Counter[str] = Counter()
        for number in range(seed, seed + 10):
            caller = Caller(number)
            turns = await caller.converse()
            assert turns[0].by is InputBy.NONE
            spoken = [(turn.by, turn.caller_text) for turn in turns[1:]]
            assert spoken == caller.expected, f"call {number}"
            assert all(turn.agent_text for turn in turns)
            assert sum(turn.interrupted for turn in turns) == caller.kinds["interrupts"], f"call {number}"
            assert sum(turn.pauses for turn in turns) == caller.kinds["murmurs"], f"call {number}"
            kinds += caller.kinds
        return kinds

    assert set(run_virtual(calls())) == set(KINDS)
