"""Bar 4.4: who interrupts is heard at once, who only agrees is not, nor is the agent by itself.

Recorded people of several languages and loudnesses talk over a long reply; backchannels and bangs come into others;
and callers whose telephone sends back what it plays listen to a hundred replies. All of it is judged by what the
caller was played, by SIP and by Twilio's protocol at once, and held against the record. Voice activity and end of
turn are judged by Silero and Smart Turn; the words by PocketSphinx with a line's phrases (or ``--asr fake``); the
reply is the standard fake voice's tone, or espeak-ng's speech for half of the echoes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.box import Box
from appliance.cli.carrier_caller import FRAME_S, CarrierCaller
from appliance.errors import ApplianceError, CarrierError
from tests.bench import lines, processes, records, voices, wire
from tests.bench.report import Bar, percentiles
from tests.bench.turn_callers import fell_silent, pauses
from tests.bench.voices import Clip
from tests.bench.wire import Echo, Exchange, Over, sounds, stood_still

LATENCY_S = {"p50": 0.25, "p95": 0.35}
STOPPED = 0.97
WENT_ON = 0.90
STOP_S = 1.0
"""An agent that goes on for longer beside the caller, or still speaks when the caller has finished, did not stop."""
PAUSE_S = 0.6
"""A silence up to so long is no stop."""
LEVELS_DBFS = (-29.0, -26.0, -23.0, -20.0, -17.0)
BURSTS_DB = (-6.0, 0.0, 6.0)
ECHOES = tuple(Echo(gain, delay) for gain in (-20.0, -30.0) for delay in (0.05, 0.12, 0.2, 0.3))
STORY_NUMBER = "1007"
STORY = (
    "We are open from Monday to Friday between nine in the morning and half past five in the afternoon, and on "
    "Saturdays until noon. If you come by car, you will find a place to park behind the house, next to the bakery; by "
    "bus, the stop is just across the street. Please bring the letter that we have sent you and your insurance card, "
    "and be here ten minutes before your appointment, so that there is time for the paperwork."
)
"""24 s of the fake voice's tone."""
_TONE_S = 0.06
"""Of a character."""
_REPLY_TIMEOUT_S = 12.0
_REPLY_ENDS_S = 20.0
_TRIES = 3
_BETWEEN_S = 3.4
"""From one sound over the agent to the next, and what a reply has to last after one."""
_JOIN_S = {"fake": wire.JOIN_S, "espeak": 0.4}
_GREETING_TURNS = 1


@dataclass(frozen=True)
class Sound:
    """Something that was heard beside the agent.

    Attributes:
        onset: when the packet with its beginning left.
        stopped: when the agent fell silent after it; None where it went on.
        longest_s: the longest silence of the agent before the next sound.
        doubtful: the caller itself stood still.
    """

    name: str
    over: Over
    onset: float
    stopped: float | None
    longest_s: float
    doubtful: bool = False


@dataclass(frozen=True)
class Part:
    """Which callers do what: ``count`` in all, over ``ways`` in turn, ``calls`` of them at a time."""

    ways: tuple[Over, ...]
    calls: int
    count: int
    seed: int

    def shares(self) -> list[tuple[Over, int, int]]:
        """(way, number of the call, how many it does)."""
        each = [self.count // self.calls + (number < self.count % self.calls) for number in range(self.calls)]
        return [(self.ways[number % len(self.ways)], number, many) for number, many in enumerate(each) if many]


def story_line(expected: Sequence[str], text: str) -> dict[str, object]:
    """Says the same whatever is said to it."""
    choices = {f"p{number}": [phrase] for number, phrase in enumerate(expected)}
    return {
        "name": "story",
        "match": {"called": STORY_NUMBER},
        "greeting": "Good morning.",
        "record": False,
        "no_input": {"after_s": 600},
        "no_match": {"prompts": [text], "retries": 1, "then": "listen"},
        "flow": {
            "first": {"ask": "How can I help you?", "expect": choices, "next": "listen"},
            "listen": {"ask": text, "expect": choices, "next": "listen"},
        },
    }


def phrases() -> list[str]:
    """What the line expects: some of what the interrupting people say, and short answers."""
    path = lines.NOISE.parent / "transcripts.tsv"
    said = [row.split("\t")[1] for row in path.read_text().splitlines()] if path.exists() else []
    return [lines.ANSWER, "no thank you", "i would like to speak to somebody", *said[::2]]


def settings(folder: Path, asr: str, tts: str, calls: int, text: str) -> dict[str, object]:
    chosen = lines.settings(folder, asr=asr, tts=tts)
    return {
        **chosen, **lines.dialplan(folder, [story_line(phrases(), text)]), "limits.max_calls": calls + 10,
        "limits.max_cps": 100, "limits.streams_per_address": calls + 10, "log.level": "warning",
        "media.core": processes.cores()[0],
    }  # fmt: skip


# --- what callers do --------------------------------------------------------------------------------------------------


class Listener:
    """One caller, who has the story told."""

    def __init__(self, caller: CarrierCaller, over: Over, question: Clip, seed: str, join_s: float) -> None:
        self.caller = caller
        self.over: Over = over
        self.question = question
        self.chance = random.Random(seed)
        self.join_s = join_s
        self.found: list[Sound] = []
        self.asked = 0

    async def hear_out(self) -> None:
        """The greeting, to its end."""
        await self.caller.wait_heard(after=0.0)
        await self.caller.wait_quiet(0.9)

    async def told(self) -> float:
        """Ask, until the story begins; gives when it did.

        Raises:
            CarrierError: it never does.
        """
        for _ in range(_TRIES):
            self.asked += 1
            ended = await self.caller.say(self.question.speech(self.caller.codec))
            with contextlib.suppress(CarrierError):
                return await self.caller.wait_heard(after=ended, timeout_s=_REPLY_TIMEOUT_S)
        raise CarrierError(f"no answer to {_TRIES} questions")

    async def make(self, clip: Clip) -> float:
        """Say something, to its end; gives when its beginning left."""
        before = len(self.caller.said)
        await self.caller.say(clip.speech(self.caller.codec))
        return self.caller.said[before][0] + clip.start_frame * FRAME_S

    async def interrupt(self, clips: Sequence[Clip], count: int) -> None:
        """Talk over the story at random times; what is said is answered with the story again."""
        await self.hear_out()
        began = await self.told()
        for _ in range(count):
            await asyncio.sleep(self.chance.uniform(0.8, 4.0))
            level_dbfs = self.chance.choice(LEVELS_DBFS)
            clip = self.chance.choice(clips).at_level(level_dbfs)
            onset = await self.make(clip)
            ended = self.caller.said[-1][1]
            over = self.caller.speech_ends[-1]
            runs = sounds(self.caller.playout, onset, join_s=self.join_s)
            stopped = fell_silent(runs, onset)
            spoke_on = any(run.start < over < run.end for run in runs)
            held = stopped is not None and stopped - onset <= STOP_S and not spoke_on
            quiet = max(pauses(runs, onset, over), default=0.0)
            doubtful = stopped is None or stood_still(onset, stopped)
            name = f"{clip.name} at {level_dbfs:.0f} dBFS"
            self.found.append(Sound(name, self.over, onset, stopped if held else None, quiet, doubtful))
            try:
                began = await self.caller.wait_heard(after=max(ended, began), timeout_s=_REPLY_TIMEOUT_S)
            except ApplianceError:
                began = await self.told()

    async def agree(self, clips: Sequence[Clip], count: int) -> None:
        """Short sounds into the story, several in each telling."""
        await self.hear_out()
        left = count
        length_s = len(STORY) * _TONE_S
        while left:
            await self.caller.wait_quiet(0.9, timeout_s=2 * length_s)
            began = await self.told()
            end = began + length_s
            await asyncio.sleep(1.5)
            while left and asyncio.get_running_loop().time() + 2 * _BETWEEN_S < end:
                clip = self.chance.choice(clips)
                if clip.name.startswith("burst"):
                    clip = clip.louder(self.chance.choice(BURSTS_DB))
                else:
                    clip = clip.at_level(self.chance.choice(LEVELS_DBFS))
                onset = await self.make(clip)
                until = onset + _BETWEEN_S + self.chance.uniform(0.0, 0.3)
                await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
                runs = sounds(self.caller.playout, onset, until, self.join_s)
                longest = max(pauses(runs, onset, until), default=0.0)
                stopped = fell_silent(runs, onset) if longest > PAUSE_S else None
                self.found.append(Sound(clip.name, self.over, onset, stopped, longest, stood_still(onset, until)))
                left -= 1
                if longest > PAUSE_S:
                    break

    async def listen(self, count: int) -> None:
        """Have it told so often, without a word."""
        await self.hear_out()
        for _ in range(count):
            began = await self.told()
            self.found.append(Sound("echo", self.over, began, None, 0.0))
            try:
                await self.caller.wait_quiet(1.2, timeout_s=_REPLY_ENDS_S)
            except CarrierError:
                return  # it goes on answering itself, and the record has it


async def run(box: Box, part: Part, folder: Path, what: str, clips: Sequence[Clip], tts: str) -> list[Listener]:
    """All the calls of one part."""
    question = next(one for one in voices.people(folder) if one.name in ("weather_question", "sentence0"))
    done: list[Listener] = []

    async def one(exchange: Exchange, over: Over, number: int, count: int) -> None:
        await asyncio.sleep(0.37 * number)
        echo = ECHOES[number % len(ECHOES)] if what == "listen" else None
        async with exchange.call(over, STORY_NUMBER, echo) as caller:
            listener = Listener(caller, over, question, f"{part.seed} {what} {number}", _JOIN_S[tts])
            done.append(listener)
            try:
                match what:
                    case "interrupt":
                        await listener.interrupt(clips, count)
                    case "agree":
                        await listener.agree(clips, count)
                    case _:
                        await listener.listen(count)
            except ApplianceError as error:
                print(f"  {over}, call {number}: {error}", flush=True)

    async with Exchange(box) as exchange, asyncio.TaskGroup() as group:
        for over, number, count in part.shares():
            group.create_task(one(exchange, over, number, count))
    return done


# --- the bar ----------------------------------------------------------------------------------------------------------


def measure(bar: Bar, part: Part, what: str, clips: Sequence[Clip], asr: str, tts: str) -> None:
    """One part against a box of its own."""
    text = lines.REPLY if what == "listen" else STORY
    with tempfile.TemporaryDirectory(prefix="barge-in-") as name:
        folder = Path(name)
        with wire.callable_by_both(Box(folder / "box", settings(folder, asr, tts, part.calls, text))) as box:
            with processes.measuring():
                done = asyncio.run(run(box, part, folder, what, clips, tts))
            calls = records.wait_settled(box.database, part.calls)
            bar.require(box.stop() == 0, f"{what}: the box did not leave with exit code 0")
    made = sum(len(listener.found) for listener in done)
    bar.require(made >= 0.95 * part.count, f"{what}: only {made} of {part.count}")
    {"interrupt": tell_interruptions, "agree": tell_agreement}.get(what, tell_echoes)(bar, done, calls, f"{asr}, {tts}")


def _by_way(done: Sequence[Listener]) -> dict[str, list[Sound]]:
    found: dict[str, list[Sound]] = {}
    for listener in done:
        found.setdefault(listener.over, []).extend(listener.found)
    return found


def _interrupted(calls: Sequence[records.Row]) -> int:
    return sum(bool(turn["interrupted"]) for call in calls for turn in call["turns"])


def tell_interruptions(bar: Bar, done: Sequence[Listener], calls: Sequence[records.Row], engines: str) -> None:
    for over, made in _by_way(done).items():
        good = [one for one in made if not one.doubtful]
        latencies = [one.stopped - one.onset for one in good if one.stopped is not None]
        bar.figure(f"{over}: barge-in to silence {percentiles(latencies)}, {len(latencies)} of {len(good)} stopped")
        for one in sorted(good, key=lambda one: (one.stopped or one.onset + 9.0) - one.onset)[-5:]:
            took = f"{(one.stopped - one.onset) * 1e3:.0f} ms" if one.stopped else "went on"
            bar.note(f"  {over}: {one.name}: {took}")
    every = [one for listener in done for one in listener.found if not one.doubtful]
    latencies = [one.stopped - one.onset for one in every if one.stopped is not None]
    for share, limit in LATENCY_S.items():
        found = percentiles_of(latencies, share)
        bar.require(found <= limit, f"barge-in to silence {share} {found * 1e3:.0f} ms; held to {limit * 1e3:.0f}")
    tried = sum(len(listener.found) for listener in done)
    on_record = _interrupted(calls)
    bar.note(f"{on_record} of {tried} interruptions on record ({engines}), {tried - len(every)} doubtful")
    stopped = min(len(latencies), on_record) / max(1, len(every))
    bar.require(stopped >= STOPPED, f"{stopped:.1%} of the interruptions stopped the agent; held to {STOPPED:.0%}")


def tell_agreement(bar: Bar, done: Sequence[Listener], calls: Sequence[records.Row], engines: str) -> None:
    total = ended = 0
    for over, made in _by_way(done).items():
        for kind in ("backchannels", "bursts"):
            some = [one for one in made if one.name.startswith("burst") == (kind == "bursts")]
            stopped = [one for one in some if one.longest_s > PAUSE_S]
            paused = [one.longest_s for one in some if wire.JOIN_S < one.longest_s <= PAUSE_S]
            total, ended = total + len(some), ended + len(stopped)
            bar.figure(f"{over}: went on after {len(some) - len(stopped)} of {len(some)} {kind}")
            if paused:
                bar.note(f"  {over}: paused for {len(paused)} of them, {percentiles(paused)}")
            for one in stopped:
                bar.note(
                    f"  {over}: stopped by {one.name} after {((one.stopped or one.onset) - one.onset) * 1e3:.0f} ms"
                )
    on_record = _interrupted(calls)
    bar.note(f"{on_record} interruptions on record ({engines})")
    share = 1 - max(ended, on_record) / max(1, total)
    bar.require(share >= WENT_ON, f"the agent went on after {share:.1%} of {total}; held to {WENT_ON:.0%}")


def tell_echoes(bar: Bar, done: Sequence[Listener], calls: Sequence[records.Row], engines: str) -> None:
    asked = sum(listener.asked for listener in done)
    replies = sum(len(listener.found) for listener in done)
    turns = sum(len(call["turns"]) - _GREETING_TURNS for call in calls)
    on_record = _interrupted(calls)
    bar.figure(f"{replies} replies with echo ({engines}): {on_record} interrupted, {turns - asked} turns too many")
    bar.require(on_record == 0, f"echo ({engines}): the agent interrupted itself {on_record} times")
    bar.require(turns == asked, f"echo ({engines}): {turns} turns on record, {asked} were asked for")


def percentiles_of(values: Sequence[float], share: str) -> float:
    """``p95`` of the values; infinite where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * int(share[1:]) / 100))] if ordered else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--over", choices=[*wire.OVER, "both"], default="both")
    parser.add_argument("--asr", choices=["pocketsphinx", "fake"], default="pocketsphinx")
    parser.add_argument("--calls", type=int, default=8, help="at a time")
    parser.add_argument("--interruptions", type=int, default=100)
    parser.add_argument("--backchannels", type=int, default=100, help="bangs among them")
    parser.add_argument("--echoes", type=int, default=100, help="replies; half of them with a tone, half with speech")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    bar = Bar("4.4", "interrupting the agent")
    ways: tuple[Over, ...] = wire.OVER if args.over == "both" else (args.over,)
    with tempfile.TemporaryDirectory(prefix="barge-in-") as name:
        people = [*voices.people(Path(name)), *voices.prompt_speakers(6, args.seed)]
    if args.interruptions:
        measure(bar, Part(ways, args.calls, args.interruptions, args.seed), "interrupt", people, args.asr, "fake")
    short = [*voices.backchannels(), *voices.bursts()]
    bar.require(bool(short), "the recorded backchannels and bangs are not beside the clone")
    if args.backchannels and short:
        measure(bar, Part(ways, args.calls, args.backchannels, args.seed), "agree", short, args.asr, "fake")
    for tts in ("fake", "espeak"):
        if count := args.echoes // 2:
            measure(bar, Part(ways, args.calls, count, args.seed), "listen", (), args.asr, tts)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
