"""Bar 4.9: what replies begun before the turn was certain cost, and what they are worth.

First it is counted in the time of the audio (``tests/bench/drafts.py``), which says the same on every machine: with
replies begun as soon as there are words, and with those begun as late as they can be, at two speeds of the model, and
for sentences that have a pause of 0.4 to 1.5 s put into them.

Then recorded people ask two lines of one box at the same time: one begins its replies in advance, the other does not.
What was thrown away is taken from the record, what was gained from what the callers heard.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from appliance.errors import ApplianceError
from tests.bench import drafts, lines, processes, records, voices, wire
from tests.bench.report import Bar, percentiles
from tests.bench.turn_callers import Asked, Conversation
from tests.bench.voices import Clip
from tests.bench.wire import Exchange

HELD_TO = 0.35
TOOK_S, SLOW_S = 0.35, 0.8
"""From the beginning of a reply to its first sound: with the standard fakes, and with a slower model."""
NUMBERS = {"in advance": "1008", "when certain": "1009"}


def dialplan_lines() -> list[dict[str, object]]:
    """Two lines that differ in one setting."""
    return [
        {
            "name": f"line-{number}",
            "match": {"called": number},
            "greeting": "Good morning.",
            "record": False,
            "no_input": {"after_s": 600},
            "agent": "llm",
            "prompt": "You are a helpful receptionist.",
            **({} if number == NUMBERS["in advance"] else {"turn": {"speculate": 0}}),
        }
        for number in NUMBERS.values()
    ]


async def ask(box: Box, clips: Sequence[Clip], args: argparse.Namespace) -> dict[str, list[Asked]]:
    """All calls at once; each says every so many-th of the clips."""
    found: dict[str, list[Asked]] = {name: [] for name in NUMBERS}

    async def one(exchange: Exchange, name: str, number: int) -> None:
        await asyncio.sleep(0.7 * number)
        async with exchange.call("twilio", NUMBERS[name]) as caller:
            talk = Conversation(caller, random.Random(args.seed + number))
            await talk.greeted()
            try:
                for turn in range(number, args.turns, args.calls):
                    await talk.ask(clips[turn % len(clips)])
            except ApplianceError as error:
                print(f"  {name}, call {number}: {error}", flush=True)
            found[name] += talk.asked

    async with Exchange(box) as exchange, asyncio.TaskGroup() as group:
        for number in range(args.calls):
            for name in NUMBERS:
                group.create_task(one(exchange, name, number))
    return found


def tell_count(bar: Bar, folder: Path, seed: int) -> None:
    """What is thrown away whatever the machine."""
    plain = drafts.hear(voices.people(folder))
    paused = drafts.hear([clip for clip in voices.questions(folder, 1.0, seed) if clip.pauses])
    for what, heard, took_s in (("clips", plain, TOOK_S), ("clips", plain, SLOW_S), ("with pauses", paused, TOOK_S)):
        at_once = drafts.count(heard, took_s, at_once=True)
        in_time = drafts.count(heard, took_s, at_once=False)
        bar.note(f"counted, {what}, replies of {took_s * 1e3:.0f} ms, begun at once: {at_once}")
        bar.note(f"counted, {what}, replies of {took_s * 1e3:.0f} ms, begun in time: {in_time}")
        if what == "clips":
            share = in_time.thrown / max(in_time.turns, 1)
            bar.require(share <= HELD_TO, f"counted: thrown away in {share:.0%} of the turns; held to {HELD_TO:.0%}")
        if heard is plain and took_s == TOOK_S:
            bar.figure(f"counted: {in_time}")


def tell_waste(bar: Bar, calls: Sequence[records.Row]) -> None:
    """What the record says of the line that begins in advance."""
    turns = [turn for call in calls if call["called"] == NUMBERS["in advance"] for turn in call["turns"]]
    spoken = [turn["speculation"] for turn in turns if turn["by"] == "voice"]
    if not spoken:
        bar.require(False, "no turn is on record")
        return
    begun = [one for one in spoken if one.get("begun")]
    used = [one for one in begun if one["used"]]
    thrown = [one for one in begun if one["begun"] > one["used"]]
    share = len(thrown) / len(spoken)
    bar.figure(f"something thrown away in {len(thrown)} of {len(spoken)} turns ({share:.0%}), used in {len(used)}")
    tokens = sum(one["wasted_tokens"] for one in begun) / len(spoken)
    seconds = sum(one["wasted_speech_s"] for one in begun) / len(spoken)
    bar.figure(f"{tokens:.1f} tokens and {seconds:.2f} s of speech thrown away a turn")
    bar.note(f"replies begun: {sum(one['begun'] for one in begun)} in {len(begun)} turns")
    if used:
        bar.note(f"first audio there before it was certain by {percentiles([one['gained_s'] for one in used])}")
    bar.require(share <= HELD_TO, f"thrown away in {share:.0%} of the turns; held to {HELD_TO:.0%}")


def tell_gain(bar: Bar, found: dict[str, list[Asked]]) -> None:
    """What the callers heard."""
    medians = {}
    for name, asked in found.items():
        latencies = [one.latency_s for one in asked if one.latency_s is not None and not one.doubtful]
        bar.figure(f"{name}: turn {percentiles(latencies)} of {len(latencies)}")
        cut = sum(one.cut_off for one in asked)
        silent = [one.clip for one in asked if one.replied is None]
        bar.note(f"{name}: {cut} of {len(asked)} cut off, {len(silent)} not answered {' '.join(silent)}")
        medians[name] = float(np.median(latencies)) if latencies else float("nan")
    gain_s = medians["when certain"] - medians["in advance"]
    bar.figure(f"bought: {gain_s * 1e3:.0f} ms in the median")
    bar.require(gain_s > 0, "nothing was gained by beginning in advance")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=60, help="on each line")
    parser.add_argument("--calls", type=int, default=4, help="on each line at a time")
    parser.add_argument("--paused", type=float, default=0.0, help="share of what is said that has a pause put into it")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    bar = Bar("4.9", "replies begun in advance")
    with tempfile.TemporaryDirectory(prefix="waste-") as name:
        folder = Path(name)
        tell_count(bar, folder, args.seed)
        clips = voices.questions(folder, args.paused, args.seed)
        settings = {**lines.settings(folder), **lines.dialplan(folder, dialplan_lines())}
        settings |= {"limits.max_cps": 100, "log.level": "warning", "media.core": processes.cores()[0]}
        with wire.callable_by_both(Box(folder / "box", settings)) as box:
            with processes.measuring():
                found = asyncio.run(ask(box, clips, args))
            calls = records.wait_settled(box.database, 2 * args.calls)
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
    tell_waste(bar, calls)
    tell_gain(bar, found)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
