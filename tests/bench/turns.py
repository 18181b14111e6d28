"""Turn latency, false cut-offs and barge-in of one call, and of many, with Pipecat's beside them in the same run.

Recorded people ask, some of them with a pause in the middle, and now and then interrupt what they are told. On one
call, appliance and Pipecat are asked the same in turns, so that both see the same machine (bar 4.1). Then Pipecat is
given more and more calls until what it says breaks up, and the appliance four times as many (bar 4.2). Engines are
the standard fakes, voice activity and end of turn are judged by Silero and Smart Turn on either side.

``--pipecat PYTHON`` is an interpreter with Pipecat 1.14.0 in an environment of its own
(``pip install "pipecat-ai[websocket,runner,silero]==1.14.0"``). Without it the bars that compare are not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appliance.cli.bench import trunk_of
from appliance.cli.box import HOST, Box
from appliance.cli.stream_caller import sid
from tests.bench import carrier_load, lines, processes, voices, wire
from tests.bench.report import Bar, percentiles
from tests.bench.turn_callers import Asked, Conversation
from tests.bench.voices import Clip
from tests.bench.wire import Exchange, Over

HELD_TO = 0.85
GOAL = 0.75
TIMES = 4
LIMIT_PER_MIN = 1.0
OURS, PEER = "appliance", "Pipecat"


# --- one call ---------------------------------------------------------------------------------------------------------


async def take_turns(
    sides: dict[str, tuple[Exchange, Over]], clips: Sequence[Clip], args: argparse.Namespace
) -> dict[str, list[Asked]]:
    """The same things said to each side, one after the other; a new call to each every so many turns."""
    found: dict[str, list[Asked]] = {name: [] for name in sides}
    chance = random.Random(args.seed)
    for first in range(0, args.turns, args.turns_per_call):
        async with contextlib.AsyncExitStack() as stack:
            talks = {}
            for name, (exchange, over) in sides.items():
                caller = await stack.enter_async_context(exchange.call(over, lines.ASSISTANT))
                talks[name] = Conversation(caller, random.Random(args.seed + first))
                await talks[name].greeted()
            for number in range(first, min(first + args.turns_per_call, args.turns)):
                interrupts = number % args.interrupt_every == args.interrupt_every - 1
                with_ = clips[chance.randrange(len(clips))]
                for talk in talks.values():
                    await talk.ask(clips[number % len(clips)])
                    if interrupts:
                        await talk.ask(with_, interrupting=True)
            for name, talk in talks.items():
                found[name] += talk.asked
    return found


def tell(bar: Bar, name: str, asked: Sequence[Asked]) -> dict[str, float]:
    """What was found on one side; gives the percentiles of the latency in ms."""
    good = [one for one in asked if not one.doubtful]
    plain = [one for one in good if not one.interrupting]
    latencies = [one.latency_s for one in plain if one.latency_s is not None]
    paused = [one for one in plain if "+" in one.clip]
    stops = [one.barge_in_s for one in good if one.barge_in_s is not None]
    bar.figure(f"{name}: turn {percentiles(latencies)} of {len(latencies)}")
    bar.figure(f"{name}: {sum(one.cut_off for one in plain)} of {len(plain)} turns cut off")
    bar.note(
        f"{name}: cut off {sum(one.cut_off for one in paused)} of {len(paused)} with a pause; "
        f"{sum(one.replied is None for one in plain)} not answered, {len(asked) - len(good)} doubtful"
    )
    if stops:
        tried = sum(one.interrupting for one in good)
        bar.figure(f"{name}: barge-in to silence {percentiles(stops)}, {len(stops)} of {tried} stopped")
    for clip in sorted({one.clip for one in plain}):
        times = [f"{one.latency_s * 1e3:.0f}" if one.latency_s else "-" for one in plain if one.clip == clip]
        bar.note(f"  {name} {clip}: {' '.join(times)}")
    return (
        {share: float(np.percentile(latencies, int(share[1:]))) * 1e3 for share in ("p50", "p95")} if latencies else {}
    )


def one_call(
    bar: Bar, box: Box, peer: tuple[str, int] | None, clips: Sequence[Clip], args: argparse.Namespace
) -> float:
    """Bar 4.1; gives the peer's p95 in ms, 0 without one."""
    pids = {**box.processes(), **({PEER.lower(): peer[1]} if peer else {})}

    async def both() -> dict[str, list[Asked]]:
        async with Exchange(box) as ours, Exchange(url=peer[0] if peer else "ws://nobody") as theirs:
            sides: dict[str, tuple[Exchange, Over]] = {OURS: (ours, args.over)}
            if peer is not None:
                sides[PEER] = (theirs, "twilio")
            return await take_turns(sides, clips, args)

    before, began = processes.all_processor_s(pids), time.monotonic()
    with processes.measuring():
        found = asyncio.run(both())
    after = processes.all_processor_s(pids)
    shares = {name: tell(bar, name, asked) for name, asked in found.items()}
    bar.note(f"cores: {processes.processor_shares(before, after, time.monotonic() - began)}")
    bar.note(f"MiB: {processes.all_resident_mib(pids)}")
    for name, asked in found.items():
        counted = sum(not one.interrupting and not one.doubtful for one in asked)
        bar.require(counted >= 0.9 * args.turns, f"{name}: only {counted} turns of {args.turns} are to be trusted")
    if peer is None or not all(shares.values()):
        return 0.0
    for share in ("p50", "p95"):
        ratio = shares[OURS][share] / shares[PEER][share]
        bar.figure(f"{share} is {ratio:.2f} of {PEER}'s (goal {GOAL})")
        bar.require(ratio <= HELD_TO, f"{share} {ratio:.2f} x {PEER}'s; held to {HELD_TO}")
    return shares[PEER]["p95"]


# --- many calls -------------------------------------------------------------------------------------------------------


def breaks_up_at(bar: Bar, peer: tuple[str, int], speech: list[Path], args: argparse.Namespace) -> int:
    """The calls at which what the peer says first breaks up; 0 if it never does."""
    for calls in args.peer_calls:
        words = ["--url", peer[0], "--settle", "8"]
        found, used = carrier_load.call(words, calls, args.seconds, speech, lambda: {"pipecat": peer[1]})
        carrier_load.told(bar, f"{PEER}, {calls} calls", found, used)
        if found["underruns_per_min"] >= LIMIT_PER_MIN:
            return calls
    return 0


def many_calls(bar: Bar, calls: int, peer_p95_ms: float, speech: list[Path], args: argparse.Namespace) -> None:
    """Bar 4.2."""
    with tempfile.TemporaryDirectory(prefix="turns-") as name:
        folder = Path(name)
        box, token, account = new_box(folder, calls)
        with box:
            words = ["--webhook", f"http://{HOST}:{box.http_port}/twilio/voice", "--account-sid", account]
            words += ["--to", lines.ASSISTANT]
            found, used = carrier_load.call(words, calls, args.seconds, speech, box.processes, token)
            carrier_load.told(bar, f"{OURS}, {calls} calls", found, used)
            bar.require(not found["failures"] and not found["lost"], f"{calls} calls: not all of them held")
            per_min, p95_ms = found["underruns_per_min"], found["latency_p95_ms"]
            bar.require(per_min < LIMIT_PER_MIN, f"{calls} calls: {per_min:.2f} underruns a minute")
            if peer_p95_ms:
                bar.figure(f"p95 at {calls} calls is {p95_ms / peer_p95_ms:.2f} of {PEER}'s at one")
                bar.require(
                    p95_ms <= peer_p95_ms, f"{calls} calls: p95 {p95_ms:.0f} ms, {PEER}'s at one {peer_p95_ms:.0f}"
                )


def new_box(folder: Path, calls: int) -> tuple[Box, str, str]:
    """A box with the standard fakes and its audio on one core, and the token and account of its Twilio trunk."""
    token, account = sid(""), sid("AC")
    settings: dict[str, object] = {
        **lines.settings(folder), "limits.max_calls": calls + 10, "limits.max_cps": 300,
        "limits.streams_per_address": calls + 10, "log.level": "warning", "media.core": processes.cores()[0],
    }  # fmt: skip
    box = Box(folder / "box", settings)
    local: dict[str, Any] = {"local": {"kind": "sip", "allow": ["127.0.0.0/8"]}}
    box.settings["trunks"] = {**local, **trunk_of(account, token, box.http_port)}
    return box, token, account


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=60, help="on one call, of each side")
    parser.add_argument("--turns-per-call", type=int, default=20)
    parser.add_argument("--interrupt-every", type=int, default=4, help="replies, one of which is talked over")
    parser.add_argument("--paused", type=float, default=0.25, help="share of what is said that has a pause in it")
    parser.add_argument("--over", choices=wire.OVER, default="twilio", help="how the appliance is called")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--pipecat", type=Path, metavar="PYTHON", default=os.environ.get("PIPECAT") or None,
        help="measure Pipecat too, with this interpreter (default: the environment's PIPECAT)",
    )  # fmt: skip
    parser.add_argument("--peer-calls", type=int, nargs="*", default=[8, 12, 16, 20, 24, 32])
    parser.add_argument(
        "--calls", type=int, nargs="*", default=[], help="calls of the appliance (default: 4 x the above)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of calls")
    args = parser.parse_args()
    bar = Bar("4.1, 4.2", "turns, one call and many")
    with tempfile.TemporaryDirectory(prefix="turns-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        clips = voices.questions(folder, args.paused, args.seed)
        speech = voices.write([one for one in clips if not one.pauses], folder / "speech")
        peer = stack.enter_context(carrier_load.pipecat_server(args.pipecat)) if args.pipecat else None
        peer_p95_ms = 0.0
        if args.turns:
            box, _, _ = new_box(folder, 1)
            with box:
                peer_p95_ms = one_call(bar, box, peer, clips, args)
                bar.require(box.stop(60.0) == 0, "the box did not leave with exit code 0")
        calls = args.calls
        if peer is not None and args.peer_calls:
            broken = breaks_up_at(bar, peer, speech, args)
            bar.require(broken > 0, f"{PEER} held {max(args.peer_calls)} calls: give it more")
            calls = calls or [TIMES * broken] * bool(broken)
        stack.close()
        for count in calls:
            many_calls(bar, count, peer_p95_ms, speech, args)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
