"""Which of 10,000 lines answers: how long the decision takes, beside trying one line after the other.

The lines have prefixes of one to five digits behind a country code, the longer ones first; every third is open at some
hours only, every fifth takes some callers only, and the last one takes all that is left. Half of the calls bring
numbers without country code. Both ways decide the same calls in the same run, and have to agree; every call has numbers
that none before it had, so nothing is remembered. Garbage is kept as the control process keeps it.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from appliance.dialplan.matcher import Arrival
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from tests.bench.report import Bar, percentiles

P99_S = 0.001
_PREFIXES = ("+49", "+4930", "+1", "+1312", "+44", "+331")
_CALLERS = ("+49", "+44", "+1")
_FLOW = {"bye": {"hang_up": "Goodbye."}}


def lines(count: int, chance: random.Random) -> list[Line]:
    """``count`` lines with prefixes, the longer ones first, and one for the rest."""
    prefixes: dict[str, None] = {}
    while len(prefixes) < count - 1:
        digits = chance.choices((1, 2, 3, 4, 5), (1, 3, 9, 60, 400))[0]
        prefixes[chance.choice(_PREFIXES) + "".join(chance.choices("0123456789", k=digits))] = None
    found = []
    for number, prefix in enumerate(sorted(prefixes, key=len, reverse=True)):
        wanted: dict[str, Any] = {"called": f"{prefix}*"}
        if number % 3 == 0:
            wanted["hours"] = {"mon-fri": "08:00-18:00"}
        if number % 5 == 0:
            wanted["calling"] = f"{chance.choice(_CALLERS)}*"
        found.append({"name": f"line{number}", "match": wanted, "timezone": "Europe/Berlin", "flow": _FLOW})
    return [Line.model_validate(one) for one in (*found, {"name": "rest", "flow": _FLOW})]


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


def timed(decide: Any, calls: list[Arrival]) -> tuple[list[float], list[str]]:
    """(seconds of each decision, the line it chose)."""
    took, chosen = [], []
    for call in calls:
        began_at = time.perf_counter()
        line = decide(call)
        took.append(time.perf_counter() - began_at)
        chosen.append(line.name if line is not None else "")
    return took, chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--scanned", type=int, default=500, help="calls that every line is tried for")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    bar = Bar("5.8", f"which of {args.lines} lines answers")
    plan, calls = lines(args.lines, chance), arrivals(args.calls, chance)
    began_at = time.perf_counter()
    routing = Routing(plan, region="DE")
    bar.note(f"the index was made in {time.perf_counter() - began_at:.2f} s")
    gc.collect()
    gc.freeze()
    routing.decide(calls.pop())
    scanned = calls[-args.scanned :]
    scan_s, by_scan = timed(routing.decide_in_order, scanned)
    took_s, chosen = timed(routing.decide, calls[: -args.scanned])
    both_s, by_index = timed(routing.decide, scanned)
    bar.figure(f"decision {percentiles(took_s, 'µs', 1e6)}")
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
