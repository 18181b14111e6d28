"""Part 6, bar 2: ``kill -9`` of control, media, or everything, thirty times at random while a campaign runs: no lead is
lost, and nobody is called twice within the gap. The callees say so, on SQLite and on PostgreSQL.

    python -m tests.bench.campaign_crash --databases sqlite postgresql

Engines are fakes, and callees press keys.
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
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from appliance.cli.box import Box, BoxError
from tests.bench import campaign_world as world
from tests.bench.callees import FarmProcess
from tests.bench.report import Bar

DIGITS: Final = "00119"
"""People, one of five of whom opts out: what a network refuses would differ by what was up when it was asked."""
GAP_S: Final = 20.0
READY_S: Final = 180.0
"""A machine with other work may take long to start a box."""
VICTIMS: Final = ("control", "media", "all")


def kill(box: Box, victim: str) -> None:
    """``kill -9``; of all processes at once where ``victim`` is "all"."""
    processes = box.processes()
    pids = processes.values() if victim == "all" else [processes[victim]] if victim in processes else []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def settle(box: Box, victim: str) -> None:
    """Until the box is ready again.

    Raises:
        BoxError: it is not.
    """
    if victim == "all":
        box.stop(5.0)
        time.sleep(1.0)  # until the kernel has closed what its processes had open
        box.start(READY_S)
        return
    until = time.monotonic() + READY_S
    time.sleep(0.5)  # until somebody notices
    while box.get("/readyz")[0] != 200:
        if time.monotonic() > until:
            raise BoxError(f"the box is not ready {READY_S:.0f} s after {victim} was killed:\n{box.log_tail(20)}")
        time.sleep(0.1)


async def torment(box: Box, url: str, kills: int, chance: Random, bar: Bar) -> Counter[str]:
    """Kill so often while the campaign runs; how often whom."""
    killed: Counter[str] = Counter()
    async with world.CampaignStore(url, box="operator") as store:
        while killed.total() < kills and (await store.campaign(world.NAME)).state == "running":
            await asyncio.sleep(chance.uniform(0.5, 10.0))
            victim = chance.choice(VICTIMS)
            await asyncio.to_thread(kill, box, victim)
            killed[victim] += 1
            await asyncio.to_thread(settle, box, victim)
            if killed.total() % 10 == 0:
                counts = await store.counts(world.NAME)
                bar.note(f"{killed.total()} kills: {counts.done} of {counts.total} leads done")
    return killed


@contextlib.contextmanager
def running(folder: Path, farm: FarmProcess, url: str) -> Iterator[Box]:
    box = Box(folder / "box", world.settings(folder, farm, **{"store.url": url}))
    box.start(READY_S)
    try:
        yield box
    finally:
        box.stop()


async def run(kind: str, arguments: argparse.Namespace, bar: Bar) -> None:
    wanted = world.numbers(arguments.leads, DIGITS)
    with (
        world.workplace() as folder,
        world.database(kind, folder) as url,
        FarmProcess(folder / "farm.jsonl", keys=True) as farm,
        running(folder, farm, url) as box,
    ):
        pacing = {"max_calls": arguments.calls, "calls_per_s": 10, "ring_timeout_s": 10, "max_abandoned_percent": 100}
        await world.begin(url, wanted, world.definition(gap_s=GAP_S, times=50, pacing=pacing))
        try:
            killed = await torment(box, url, arguments.kills, Random(arguments.seed), bar)
            bar.require(killed.total() >= arguments.kills, f"{kind}: finished after {killed.total()} kills")
            await world.until_finished(url, arguments.limit, bar)
        except BoxError as error:
            bar.require(False, f"{kind}: {error}")
            return
        end, entries = await world.found(url), farm.entries()
        world.judge(bar, kind, wanted, end, entries, GAP_S, exact=False, also=("abandoned",))
        cut_off = sum(attempt.disposition == "interrupted" for attempt in end.attempts)
        unseen = len(end.attempts) - sum(map(len, world.invites(entries).values()))
        abandoned = end.counts.by_disposition.get("abandoned", 0)
        bar.note(f"{kind}: {abandoned} people had answered and not heard the agent when media was killed")
        bar.figure(f"{kind}: killed {dict(killed)}, {cut_off} calls cut off, {unseen} died before their INVITE left")
        if bar.failures:
            bar.note(box.log_tail(40))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=500)
    parser.add_argument("--calls", type=int, default=15, help="at a time")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after the last kill")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    bar = Bar("6.2", f"{arguments.kills} times kill -9 during a campaign (seed {arguments.seed})")
    for kind in arguments.databases:
        asyncio.run(run(kind, arguments, bar))
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
