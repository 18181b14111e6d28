"""Which of 10,000 lines answers: how long the decision takes, beside trying one line after the other.

The lines have prefixes of one to five digits behind a country code, the longer ones first; every third is open at some
hours only, every fifth takes some callers only, and the last one takes all that is left. Half of them extend a base,
the others have greeting and flow of their own. Half of the calls bring numbers without country code, and no two the
same ones. Lines are read from files and held as the control process holds them, each made when a call is first held
against it, which is part of its decision here. Both ways decide the same calls in the same run, and have to agree.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.dialplan.loader import Dialplan, load_dialplans
from appliance.dialplan.matcher import Arrival, Facts, Rule
from appliance.dialplan.planned import PlannedLines, packed
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from tests.bench.report import Bar, percentiles

P99_S = 0.001
_PREFIXES = ("+49", "+4930", "+1", "+1312", "+44", "+331")
_CALLERS = ("+49", "+44", "+1")
_FLOW = {
    "what": {
        "ask": "Is it about an order, or about an appointment?",
        "expect": {"order": ["an order", "my order"], "appointment": ["an appointment"]},
        "keys": {"1": "order", "2": "appointment"},
        "next": {"order": "number", "appointment": "hand"},
        "no_input": {"prompts": ["Are you still there?"], "then": "bye"},
    },
    "number": {"ask": "What is its number?", "digits": {"min": 5, "max": 8}, "slot": "order", "next": "bye"},
    "hand": {"say": "One moment.", "transfer": {"to": "sip:desk@example.com", "kind": "attended"}, "failed": "bye"},
    "bye": {"hang_up": "Thank you. Goodbye."},
}


def plan(count: int, chance: random.Random) -> tuple[Dialplan, Routing]:
    """``count`` lines with prefixes, the longer ones first and one for the rest, and the choice among them."""
    prefixes: dict[str, None] = {}
    while len(prefixes) < count - 1:
        digits = chance.choices((1, 2, 3, 4, 5), (1, 3, 9, 60, 400))[0]
        prefixes[chance.choice(_PREFIXES) + "".join(chance.choices("0123456789", k=digits))] = None
    found: list[dict[str, Any]] = []
    for number, prefix in enumerate(sorted(prefixes, key=len, reverse=True)):
        wanted: dict[str, Any] = {"called": f"{prefix}*"}
        if number % 3 == 0:
            wanted["hours"] = {"mon-fri": "08:00-18:00"}
        if number % 5 == 0:
            wanted["calling"] = f"{chance.choice(_CALLERS)}*"
        said = {"extends": "desk"} if number % 2 else {"greeting": f"This is office {number}.", "flow": _FLOW}
        found.append({"name": f"line{number}", "match": wanted, "timezone": "Europe/Berlin", **said})
    found.append({"name": "rest", "extends": "desk"})
    base = {"bases": {"desk": {"greeting": "This is the desk.", "flow": _FLOW}}}
    with tempfile.TemporaryDirectory() as folder:
        for number, first in enumerate(range(0, count, 1000)):
            content = {**({} if number else base), "lines": found[first : first + 1000]}
            Path(folder, f"{number:03}.yaml").write_text(json.dumps(content))
        dialplan = load_dialplans([Path(folder)])
    blobs, contents = packed(dialplan.lines, dialplan.written, lists=dialplan.numbers.found)
    lines = PlannedLines(b"".join(blobs), contents)
    return dialplan, Routing(lines, region="DE", index=contents.index)


def arrivals(count: int, chance: random.Random) -> list[Arrival]:
    """Calls within two weeks, no two with the same numbers."""
    begin = datetime(2026, 3, 2, tzinfo=UTC)
    found = []
    for _ in range(count):
        number = chance.choice(("030", "089", "0221")) if chance.random() < 0.5 else chance.choice(_PREFIXES)
        called = number + str(chance.randrange(10**6, 10**7))
        calling = chance.choice(_CALLERS) + str(chance.randrange(10**8, 10**9))
        found.append(Arrival("carrier", called, calling, begin + timedelta(minutes=chance.randrange(14 * 24 * 60))))
    return found


def timed(decide: Any, calls: list[Arrival]) -> tuple[list[float], list[float], list[str]]:
    """(seconds of each decision, seconds of processor that it took, the line it chose)."""
    took, used, chosen = [], [], []
    for call in calls:
        used_before, began_at = time.thread_time(), time.perf_counter()
        line = decide(call)
        took.append(time.perf_counter() - began_at)
        used.append(time.thread_time() - used_before)
        chosen.append(line.name if line is not None else "")
    return took, used, chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--scanned", type=int, default=500, help="calls that every line is tried for")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    bar = Bar("5.8", f"which of {args.lines} lines answers")
    began_at = time.perf_counter()
    dialplan, routing = plan(args.lines, chance)
    bar.note(f"the lines were read and filed in {time.perf_counter() - began_at:.2f} s")
    calls = arrivals(args.calls, chance)
    rules = [Rule.of(line, {}) for line in dialplan.lines]

    def in_order(call: Arrival) -> Line:
        facts = Facts(call, "DE", "")
        return next(rule.line for rule in rules if rule.fits(facts))

    gc.collect()
    gc.freeze()
    routing.decide(calls.pop())
    scanned = calls[-args.scanned :]
    scan_s, _, by_scan = timed(in_order, scanned)
    took_s, used_s, chosen = timed(routing.decide, calls[: -args.scanned])
    both_s, _, by_index = timed(routing.decide, scanned)
    bar.figure(f"decision {percentiles(took_s, 'µs', 1e6)}")
    bar.note(f"of the processor, whatever else the machine does: {percentiles(used_s, 'µs', 1e6)}")
    bar.note(f"of the calls that were scanned for, too: {percentiles(both_s, 'µs', 1e6)}")
    bar.figure(f"one line after the other {percentiles(scan_s, 'µs', 1e6)}")
    looked_at = [routing.candidates(call) for call in scanned]
    bar.note(f"lines looked at: {sum(looked_at) / len(looked_at):.1f} on average, {max(looked_at)} at most")
    bar.note(
        f"calls that a line but the last takes: {100 * sum(name != 'rest' for name in chosen) / len(chosen):.0f} %"
    )
    bar.require(by_index == by_scan, "both ways choose the same lines")
    bar.require(sorted(took_s)[int(0.99 * len(took_s))] <= P99_S, f"p99 of {P99_S * 1e3:g} ms")
    return bar.finish()


if __name__ == "__main__":
    raise SystemExit(main())
