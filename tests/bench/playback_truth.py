"""Bar 4.5: what the record says a caller heard, against what the caller's telephone really played, word for word.

Callers by SIP, and by Twilio's protocol behind a network of 40 ms each way with 30 ms of jitter, interrupt replies of
espeak-ng at random times. Where the words are in a reply is found in one that was heard to its end
(:mod:`tests.bench.spoken_words`); how far an interrupted one went, by looking for its last half second in that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from appliance.cli.carrier_caller import CarrierCaller
from appliance.cli.playout import Pcm
from appliance.conversation.clauses import ClauseCutter
from appliance.errors import ApplianceError
from tests.bench import lines, processes, records, voices, wire
from tests.bench.report import Bar
from tests.bench.spoken_words import Espeak, NotFound, Reply
from tests.bench.voices import Clip
from tests.bench.wire import Exchange, Over, sounds
from tests.carriers.tcp_relay import Fault, TcpRelay

REPLY = (
    "We are open from Monday to Friday between nine in the morning and half past five in the afternoon, and on "
    "Saturdays until noon. Please bring the letter that we have sent you and your insurance card, and be here ten "
    "minutes before your appointment, so that there is time for the paperwork."
)
FROM_S, TO_S = 0.3, 12.0
"""When a reply is interrupted, after its beginning."""
_WITHIN_S = 0.5
"""Silences of a voice within a reply."""
_QUIET_S = 1.2
_REPLY_TIMEOUT_S = 15.0
_TRIES = 3
"""To hear a reply out without a break in it."""
_SPARE = 1
"""Replies more than are to be compared, of each call: one that broke up where it was interrupted cannot be."""
_RATE_HZ = 8000


@dataclass
class Heard:
    """One call: what was played of each reply, the first one to its end."""

    over: Over
    call_id: str
    whole: Pcm = field(default_factory=lambda: np.zeros(0, np.int16))
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """An interrupted reply; ``at_s`` is when it began, after the call did."""

    at_s: float
    pcm: Pcm


async def one_call(caller: CarrierCaller, heard: Heard, clip: Clip, chance: random.Random, replies: int) -> None:
    """Hear one reply out, and interrupt so many."""
    speech = clip.speech(caller.codec)
    await caller.wait_heard(after=0.0)
    await caller.wait_quiet(_QUIET_S)
    for _ in range(_TRIES):
        breaks = len(caller.playout.gaps)
        ended = await caller.say(speech)
        began = await caller.wait_heard(after=ended, timeout_s=_REPLY_TIMEOUT_S)
        over = await caller.wait_quiet(_QUIET_S, timeout_s=60.0)
        heard.whole = caller.heard(began, over)
        if len(caller.playout.gaps) == breaks:
            break
    ended = await caller.say(speech)
    began = await caller.wait_heard(after=ended, timeout_s=_REPLY_TIMEOUT_S)
    for _ in range(replies):
        await asyncio.sleep(chance.uniform(FROM_S, TO_S))
        ended = await caller.say(speech)
        again = await caller.wait_heard(after=ended, timeout_s=_REPLY_TIMEOUT_S)
        runs = sounds(caller.playout, began, again, _WITHIN_S)
        stopped = max(run.end for run in runs if run.start < again - _WITHIN_S)
        heard.parts.append(Part(began - caller.opened_at, caller.heard(began, stopped)))
        began = again


async def talk(exchange: Exchange, over: Over, args: argparse.Namespace, clip: Clip) -> list[Heard]:
    """All calls of one kind."""
    found: list[Heard] = []

    async def one(number: int, count: int) -> None:
        await asyncio.sleep(0.41 * number)
        async with exchange.call(over, lines.ASSISTANT) as caller:
            found.append(Heard(over, wire.call_id(caller)))
            try:
                await one_call(caller, found[-1], clip, random.Random(f"{args.seed} {over} {number}"), count)
            except ApplianceError as error:
                print(f"  {over}, call {number}: {error}", flush=True)

    replies = args.replies // len(args.over)
    each = [replies // args.calls + (number < replies % args.calls) for number in range(args.calls)]
    async with asyncio.TaskGroup() as group:
        for number, count in enumerate(each):
            group.create_task(one(number, count + _SPARE))
    return found


async def converse(box: Box, args: argparse.Namespace) -> list[Heard]:
    """Every call, to a box that is started between the network's beginning and its own."""
    (question,) = (one for one in voices.people(box.directory) if one.name in ("weather_question", "sentence0"))
    port = int(str(box.settings["listen.media.port"]))
    async with TcpRelay(port, lambda number: Fault(0.04, 0.03), seed=args.seed) as relay:
        wire.callable_by_both(box, f"ws://127.0.0.1:{relay.port}")
        await asyncio.to_thread(box.start)
        with processes.measuring():
            async with Exchange(box) as exchange, asyncio.TaskGroup() as group:
                talks = [group.create_task(talk(exchange, over, args, question)) for over in args.over]
    return [heard for one in talks for heard in one.result()]


# --- the bar ----------------------------------------------------------------------------------------------------------


@dataclass
class Compared:
    """Words on record less words played, of each reply."""

    differences: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def turn_of(turns: Sequence[records.Row], at_s: float) -> records.Row | None:
    """The interrupted turn whose reply began at that time of the call, to a second."""
    begun = [
        (turn["speech_end_s"] + turn["latency_ms"] / 1e3, turn) for turn in turns if turn["latency_ms"] is not None
    ]
    near = [(abs(began - at_s), turn) for began, turn in begun if turn["interrupted"] and abs(began - at_s) < 1.0]
    return min(near, key=lambda one: one[0])[1] if near else None


def compare(bar: Bar, heard: Sequence[Heard], calls: Sequence[records.Row]) -> dict[Over, Compared]:
    espeak, cutter = Espeak(), ClauseCutter()
    clauses = [espeak.say(clause) for clause in (*cutter.push(REPLY), *cutter.finish())]
    by_id = {call["protocol_call_id"]: call["turns"] for call in calls}
    found: dict[Over, Compared] = {}
    for call in heard:
        one = found.setdefault(call.over, Compared())
        try:
            reply = Reply.of(call.whole, clauses)
        except NotFound as error:
            bar.require(False, f"{call.over}: a reply that was heard out is not the whole one: {error}")
            continue
        for part in call.parts:
            turn = turn_of(by_id.get(call.call_id, ()), part.at_s)
            try:
                really = reply.heard(part.pcm)
            except NotFound as error:
                bar.note(f"{call.over}: not compared: {error}")
                continue
            if turn is None:
                bar.require(False, f"{call.over}: a reply interrupted after {' '.join(really[-3:])!r} is not on record")
                continue
            recorded = turn["heard_text"].split()
            if REPLY.split()[: len(recorded)] != recorded:
                bar.require(False, f"{call.over}: {turn['heard_text']!r} is not how the reply begins")
            one.differences.append(len(recorded) - len(really))
            one.seconds.append(len(part.pcm) / _RATE_HZ)
            if abs(one.differences[-1]) > 1:
                bar.note(f"{call.over}: ...{' '.join(recorded[-4:])!r} on record, ...{' '.join(really[-4:])!r} played")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=200, help="that are interrupted, in all")
    parser.add_argument("--over", choices=wire.OVER, nargs="+", default=list(wire.OVER))
    parser.add_argument("--calls", type=int, default=5, help="of each kind at a time")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    bar = Bar("4.5", "what is on record as heard is what was played")
    with tempfile.TemporaryDirectory(prefix="truth-") as name:
        folder = Path(name)
        settings = lines.settings(folder, tts="espeak")
        settings["engines.llm"] = {"provider": "fake", "first_token_ms": 150, "token_ms": 15, "text": REPLY}
        box = Box(folder / "box", settings)
        try:
            heard = asyncio.run(converse(box, args))
            calls = records.wait_settled(box.database, len(heard))
        finally:
            box.stop()
        found = compare(bar, heard, calls)
    for over, one in found.items():
        counts = Counter(one.differences)
        spread = ", ".join(f"{count} x {off:+d}" for off, count in sorted(counts.items()))
        if one.seconds:
            after = f"{min(one.seconds):.1f} to {max(one.seconds):.1f} s"
            bar.figure(f"{over}: {len(one.differences)} replies interrupted after {after}; words off by {spread}")
    every = [off for one in found.values() for off in one.differences]
    bar.require(len(every) >= args.replies, f"{len(every)} of {args.replies} compared")
    bar.require(max(map(abs, every), default=0) <= 1, f"off by {max(map(abs, every), default=0)} words at worst")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
