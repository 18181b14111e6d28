"""Part 6, bar 3: two boxes on one PostgreSQL share a campaign. No lead is called by both; one is killed, and the other
takes its leads once their lease is over.

    python -m tests.bench.campaign_two_boxes
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter

from appliance.cli.box import Box
from tests.bench import campaign_world as world
from tests.bench.callees import FarmProcess
from tests.bench.report import Bar

GAP_S = 20.0


async def share_until(url: str, share: float) -> Counter[str]:
    """Wait until so many of the leads are done; how many calls each box has begun by then."""
    async with world.CampaignStore(url, box="operator") as store:
        while (counts := await store.counts(world.NAME)).done < share * counts.total:
            await asyncio.sleep(0.3)
        return Counter([attempt.box async for attempt in store.attempts(world.NAME)])


async def run(arguments: argparse.Namespace) -> int:
    bar = Bar("6.3", "two boxes on one PostgreSQL, one of which dies")
    wanted = world.numbers(arguments.leads, "001")
    with (
        contextlib.ExitStack() as stack,
        world.workplace() as folder,
        world.database("postgresql", folder) as url,
        FarmProcess(folder / "farm.jsonl", keys=True) as farm,
    ):
        names = ("north", "south")
        boxes = {
            name: Box(folder / name, world.settings(folder, farm, **{"store.url": url, "store.box": name}))
            for name in names
        }
        for box in boxes.values():
            stack.callback(box.stop)
            box.start()
        pacing = {"max_calls": arguments.calls, "calls_per_s": 10, "ring_timeout_s": 10, "max_abandoned_percent": 100}
        await world.begin(url, wanted, world.definition(gap_s=GAP_S, times=50, pacing=pacing))
        before = await share_until(url, 0.4)
        bar.require(all(before[name] for name in names), f"one box alone has called: {dict(before)}")
        seen = world.invites(farm.entries())
        twice = [number for number, times in seen.items() if len(times) > 1]
        bar.require(not twice, f"{len(twice)} leads were called by both boxes, or twice ({twice[:3]})")
        killed_at = time.time()
        for pid in boxes["north"].processes().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        took_s = await world.until_finished(url, arguments.limit, bar)
        end, entries = await world.found(url), farm.entries()
        world.judge(bar, "two boxes", wanted, end, entries, GAP_S, exact=False, also=("abandoned",))
        cut_off = {one.number for one in end.attempts if one.disposition == "interrupted" and one.box == "north"}
        again = {number for number, times in world.invites(entries).items() if len(times) > 1}
        failed = {one.number for one in end.attempts if one.disposition == "failed"}
        bar.require(again <= cut_off | failed, f"{len(again - cut_off - failed)} leads were called twice for no reason")
        after = {number: [at - killed_at for at in times] for number, times in world.invites(entries).items()}
        taken = [min(at for at in after[number] if at > 0) for number in again & cut_off]
        bar.figure(f"calls before the kill {dict(before)}; {len(cut_off)} leads cut off")
        bar.figure(f"taken over after {min(taken, default=0):.0f} to {max(taken, default=0):.0f} s")
        bar.note(f"done {took_s:.0f} s after the kill")
        if bar.failures:
            bar.note(boxes["south"].log_tail(30))
    return bar.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=200)
    parser.add_argument("--calls", type=int, default=20, help="at a time, on both boxes together")
    parser.add_argument("--limit", type=float, default=400.0, help="seconds after the kill")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
