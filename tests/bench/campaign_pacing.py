"""Part 6, bar 7: with room for 40 calls and 10 calls per second, callees never see more of either, and in steady state
at least 95 % of the room is used.

    python -m tests.bench.campaign_pacing
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.cli.box import Box
from tests.bench import campaign_world as world
from tests.bench.callees import FarmProcess, most_in_any_second, most_up
from tests.bench.lines import dialplan
from tests.bench.report import Bar

GAP_S = 60.0
GOODBYE = (
    "The fake voice takes 60 ms for each character of this, so that a call takes as long as a short one does. " * 2
)


def used(entries: Sequence[Mapping[str, Any]], room: int) -> tuple[float, float]:
    """Which share of the room was used from the time that it was first full to the last call's beginning; for how many
    seconds that was."""
    changes = [entry for entry in entries if entry["event"] in ("invite", "ended")]
    full = next((index for index, entry in enumerate(changes) if entry["up"] >= room), None)
    if full is None:
        return 0.0, 0.0
    last = max(index for index, entry in enumerate(changes) if entry["event"] == "invite")
    steady = changes[full : last + 1]
    area = sum(one["up"] * (after["at"] - one["at"]) for one, after in itertools.pairwise(steady))
    lasted = steady[-1]["at"] - steady[0]["at"]
    return (area / (room * lasted) if lasted > 0 else 0.0), lasted


async def run(arguments: argparse.Namespace) -> int:
    room, per_s = arguments.calls, arguments.per_second
    bar = Bar("6.7", f"room for {room} calls, {per_s} calls per second")
    wanted = world.numbers(arguments.leads, "01")
    with world.workplace() as folder, FarmProcess(folder / "farm.jsonl", keys=True) as farm:
        line = {**world.LINE, "flow": {**world.LINE["flow"], "bye": {"hang_up": GOODBYE}}}
        settings = world.settings(folder, farm, **{"limits.max_calls": room})
        box = Box(folder / "box", {**settings, **dialplan(folder, [line])})
        url = f"sqlite+aiosqlite:///{box.database}"
        box.start()
        try:
            pacing = {
                "max_calls": 1000, "calls_per_s": per_s, "ring_timeout_s": 20, "max_abandoned_percent": 100
            }  # fmt: skip
            await world.begin(url, wanted, world.definition(gap_s=GAP_S, times=3, pacing=pacing))
            took_s = await world.until_finished(url, arguments.limit, bar)
            end, entries = await world.found(url), farm.entries()
            world.judge(bar, "pacing", wanted, end, entries, GAP_S)
            fastest, peak = most_in_any_second(entries), most_up(entries)
            share, lasted_s = used(entries, room)
            bar.require(fastest <= per_s, f"{fastest} calls came within one second")
            bar.require(peak <= room, f"{peak} calls were up at once")
            bar.require(share >= 0.95, f"{100 * share:.1f} % of the room was used")
            bar.require(lasted_s >= 20, f"steady for {lasted_s:.0f} s only: take more --leads")
            bar.figure(f"most in a second {fastest}, at once {peak}, {100 * share:.1f} % used over {lasted_s:.0f} s")
            bar.note(f"finished in {took_s:.0f} s")
        finally:
            box.stop()
            if bar.failures:
                bar.note(box.log_tail(30))
    return bar.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=400)
    parser.add_argument("--calls", type=int, default=40, help="at a time")
    parser.add_argument("--per-second", type=int, default=10)
    parser.add_argument("--limit", type=float, default=400.0, help="seconds")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
