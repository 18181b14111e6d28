"""One caller who asks, listens, and now and then interrupts: what :mod:`tests.bench.turns` measures with.

Times are of ``time.monotonic`` at the caller: a packet that has left its socket, a sound that it plays.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.cli.carrier_caller import FRAME_S, CarrierCaller
from appliance.cli.playout import Run
from appliance.errors import CarrierError
from tests.bench.voices import Clip
from tests.bench.wire import silences, sounds, stood_still

REPLY_S = 0.8
"""A sound that lasts at least so long is a reply; a shorter one only bridges a wait."""
NO_REPLY_S = 10.0
QUIET_S = 0.8
"""After so much silence it is the caller's turn."""
GREETING_S = 4.0
STOPPED_S = 2.0
"""An agent that goes on for so long beside the caller has not been stopped."""
_POLL_S = 0.02


@dataclass(frozen=True)
class Asked:
    """One thing that the caller said.

    Attributes:
        clip: its name.
        onset, end: when the packets with the beginning and the end of its speech left.
        replied: when the first sound of the reply was played; None where there was none in time.
        cut_off: the agent began to speak before the caller had finished.
        stopped: interrupting, when the agent had fallen silent; None where it had not.
        interrupting: the agent was speaking.
        doubtful: the caller itself stood still meanwhile.
    """

    clip: str
    onset: float
    end: float
    replied: float | None
    cut_off: bool = False
    interrupting: bool = False
    stopped: float | None = None
    doubtful: bool = False

    @property
    def latency_s(self) -> float | None:
        """From the end of speech to the reply; None where it was not to be had."""
        return self.replied - self.end if self.replied is not None and not self.cut_off else None

    @property
    def barge_in_s(self) -> float | None:
        """From the beginning of speech to silence."""
        return self.stopped - self.onset if self.stopped is not None else None


@dataclass
class Conversation:
    """One call, and what was asked in it."""

    caller: CarrierCaller
    chance: random.Random
    asked: list[Asked] = field(default_factory=list)

    async def greeted(self) -> None:
        """Let the agent speak first, where it does."""
        try:
            await self.caller.wait_heard(after=0.0, timeout_s=GREETING_S)
        except CarrierError:
            return

    async def ask(self, clip: Clip, *, interrupting: bool = False) -> Asked:
        """Say something and wait for the reply: to a silent agent, or over what it is saying.

        Returns once the reply has been heard for a while; it goes on.
        """
        caller = self.caller
        if interrupting:
            await asyncio.sleep(self.chance.uniform(0.4, 2.5))
        else:
            await caller.wait_quiet(QUIET_S, timeout_s=60.0)
        before = len(caller.said)
        await caller.say(clip.speech(caller.codec))
        began = caller.said[before][0]
        onset, end = began + clip.start_frame * FRAME_S, caller.speech_ends[-1]
        reply = await self._reply(end)
        runs = sounds(caller.playout, began)
        stopped = fell_silent(runs, onset)
        spoke = interrupting and stopped is not None
        cut_off = any((stopped if spoke and stopped else onset) <= run.start < end for run in runs)
        found = Asked(
            clip.name, onset, end, reply, cut_off, spoke,
            stopped if stopped is not None and stopped - onset < STOPPED_S else None,
            stood_still(onset if spoke else end, reply or time.monotonic()),
        )  # fmt: skip
        self.asked.append(found)
        return found

    async def _reply(self, end: float) -> float | None:
        """When the reply to what ended at ``end`` begins; waits until it has gone on long enough to be one."""
        deadline = end + NO_REPLY_S
        while time.monotonic() < deadline and not self.caller.ended.is_set():
            now = time.monotonic()
            for run in sounds(self.caller.playout, end, now):
                if run.start > end and min(run.end, now) - run.start >= REPLY_S:
                    return run.start
            await asyncio.sleep(_POLL_S)
        return None


def fell_silent(runs: Sequence[Run], onset: float) -> float | None:
    """When the sound that went on at ``onset`` ended; None where there was none."""
    return next((run.end for run in runs if run.start <= onset < run.end), None)


def pauses(runs: Sequence[Run], since: float, until: float) -> list[float]:
    """Seconds of each silence in [since, until)."""
    return [gap.end - gap.start for gap in silences(runs, since, until)]
