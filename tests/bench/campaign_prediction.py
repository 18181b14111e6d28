"""What a simulation says of a campaign, and what then happens over SIP: finish time, connects and dials.

A first campaign calls some people of a farm of callees. What its calls came to is measured, as ``appliance campaign
simulate --from`` does it; by that a second campaign, with other people, is simulated, and then called. The callees
answer, ring on, are busy, decline, are machines, opt out and so on, by the number; the box has fake engines, so that
what is measured is the campaign and not the machine's speech recognition.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.campaigns import simulate
from appliance.campaigns.definition import Definition
from appliance.campaigns.mix import ANSWERED
from appliance.campaigns.mix_files import mix_of_campaign
from appliance.cli.box import Box
from appliance.store.campaign_rows import AttemptRow, NewLead
from appliance.store.campaigns import CampaignStore
from tests.bench.callees import FarmProcess
from tests.bench.lines import STANDARD_FAKES, dialplan
from tests.bench.report import Bar

ERROR = 0.10
CALLER_ID = "+12025550100"
LINE: dict[str, Any] = {
    "name": "recall",
    "match": {"called": ["900"]},
    "greeting": "Hello ${lead.name}.",
    "no_input": {"after_s": 6},
    "flow": {
        "ask": {
            "ask": "Shall we come?",
            "expect": {"yes": ["yes", "yes please"], "no": ["no", "no thank you"]},
            "keys": {"1": "yes"},
            "slot": "wanted",
        },
        "bye": {"hang_up": "Thank you, goodbye."},
    },
}
KEYS: dict[str, Any] = {
    "line": "recall",
    "trunk": "carrier",
    "caller_ids": [CALLER_ID],
    "owner": "Acme",
    "region": "US",
    "windows": {"default": {"days": "mon-sun", "hours": "00:00-24:00"}},
    "attempts": {"per_lead": 3, "per_number_per_day": 9, "per_number_total": 9, "gap_s": 20},
    "retry": {
        "busy": {"after_s": 20, "times": 2},
        "no_answer": {"after_s": 30, "times": 1, "best_hour": False},
        "machine": {"after_s": 20, "times": 0, "best_hour": False},
        "rejected": {"after_s": 20, "times": 0},
        "failed": {"after_s": 20, "times": 1, "backoff": 1.0},
        "interrupted": {"after_s": 20, "times": 1},
    },
    "consent": {"required": False},
}


def people(first: int, count: int, chance: random.Random) -> list[NewLead]:
    """Numbers of the farm in any order; who answers is told by the last digit."""
    found = [
        NewLead(row=row, number=f"+1202555{first + row:04}", zones=("America/New_York",), variables={"name": "Ann"})
        for row in range(count)
    ]
    chance.shuffle(found)
    return found


@contextlib.asynccontextmanager
async def store_of(box: Box) -> AsyncIterator[CampaignStore]:
    async with CampaignStore(f"sqlite+aiosqlite:///{box.database}", box="bench") as store:
        yield store


async def called(store: CampaignStore, name: str, limit_s: float) -> list[AttemptRow]:
    """Start a campaign, wait for its end, and give its calls."""
    await store.set_state(name, "running")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while (await store.campaign(name)).state not in ("finished", "paused", "stopped"):
        if loop.time() > deadline:
            raise RuntimeError(f"campaign {name} is not finished after {limit_s:.0f} s: {await store.counts(name)}")
        await asyncio.sleep(1.0)
    row = await store.campaign(name)
    if row.state != "finished":
        raise RuntimeError(f"campaign {name} is {row.state}: {row.state_reason}")
    return [attempt async for attempt in store.attempts(name)]


async def measure(bar: Bar, box: Box, arguments: argparse.Namespace) -> None:
    pacing = {
        "max_calls": arguments.calls,
        "calls_per_s": arguments.cps,
        "ring_timeout_s": 10,
        "max_abandoned_percent": 100,  # a busy machine is not to end the measurement
    }
    chance = random.Random(arguments.seed)
    async with store_of(box) as store:
        pilot = Definition.of({"name": "pilot", **KEYS, "pacing": pacing})
        main = Definition.of({"name": "main", **KEYS, "pacing": pacing})
        pilot_id = await store.create("pilot", pilot.as_json())
        main_id = await store.create("main", main.as_json())
        await store.insert_leads(pilot_id, people(0, arguments.pilot, chance))
        await store.insert_leads(main_id, people(5000, arguments.leads, chance))
        first = await called(store, "pilot", 600)
        bar.note(f"{arguments.pilot} people called first: {_told(first)}")
        mix = await mix_of_campaign(store, "pilot")
        bar.note(f"between calls: turnaround {mix.turnaround_s:g} s, leaving {mix.leaving_s:g} s")
        if arguments.keep is not None:
            arguments.keep.write_text(json.dumps(mix.model_dump(mode="json"), indent=1))
        leads = [lead async for lead in store.leads("main")]
        begin = await store.now()
        predicted = simulate.run(main, leads, mix, begin, arguments.seed, runs=25)
        found = await called(store, "main", 1800)
        bar.note(f"then {arguments.leads}: {_told(found)}")
    _judge(bar, predicted, found)


def _judge(bar: Bar, predicted: simulate.Simulation, found: list[AttemptRow]) -> None:
    began = min(attempt.started_at for attempt in found)
    ended = max(attempt.ended_at for attempt in found if attempt.ended_at is not None)
    starts = sorted(attempt.started_at for attempt in found)
    gaps = sorted((later - one).total_seconds() for one, later in itertools.pairwise(starts))
    bar.note(
        f"from one call to the next p50 {gaps[len(gaps) // 2]:.2f}, p90 {gaps[len(gaps) * 9 // 10]:.2f},"
        f" longest {gaps[-1]:.1f} s; everybody called once after {_once_s(found):.0f} s"
    )
    line_s = sum((attempt.ended_at - attempt.started_at).total_seconds() for attempt in found if attempt.ended_at)
    quantities: list[tuple[str, float, Callable[[simulate.Run], float], bool]] = [
        ("finish time, s", (ended - began) / timedelta(seconds=1), lambda run: run.duration_s, True),
        ("connects", sum(attempt.disposition in ANSWERED for attempt in found), lambda run: run.connects, True),
        ("dials", len(found), lambda run: run.dials, False),
        ("talk time, s", sum(attempt.talk_s for attempt in found), lambda run: run.talk_s, False),
        ("time on the lines, s", line_s, lambda run: run.line_s, False),
    ]
    for name, real, of, judged in quantities:
        low, middle, high = (predicted.quantile(of, share) for share in (0.1, 0.5, 0.9))
        error = abs(middle - real) / real if real else 0.0
        text = f"{name} {real:.0f}, predicted {middle:.0f} ({low:.0f} to {high:.0f}): off by {100 * error:.1f} %"
        (bar.figure if judged else bar.note)(text)
        if judged:
            bar.require(error <= ERROR, f"{name} within {100 * ERROR:.0f} %")


def _once_s(attempts: list[AttemptRow]) -> float:
    """When the last lead got its first call."""
    first: dict[int, datetime] = {}
    for attempt in attempts:
        first[attempt.lead_id] = min(attempt.started_at, first.get(attempt.lead_id, attempt.started_at))
    return (max(first.values()) - min(first.values())).total_seconds()


def _told(attempts: list[AttemptRow]) -> str:
    counts = Counter(attempt.disposition for attempt in attempts)
    return f"{len(attempts)} calls, " + ", ".join(f"{count} {name}" for name, count in counts.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=500)
    parser.add_argument("--pilot", type=int, default=150, help="people who are called first, to measure by")
    parser.add_argument("--calls", type=int, default=12, help="at a time")
    parser.add_argument("--cps", type=float, default=5.0, help="calls per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file for the measured mix")
    arguments = parser.parse_args()
    bar = Bar("6.8", "what a simulation says of a campaign")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FarmProcess(folder / "farm.jsonl", keys=True) as farm:
            carrier = {
                "kind": "sip",
                "proxy": f"sip:127.0.0.1:{farm.port}",
                "allow_prefixes": ["+1202"],
                "caller_id": CALLER_ID,
                "caller_ids": [CALLER_ID],
            }
            settings = {"trunks": {"carrier": carrier}, **STANDARD_FAKES, **dialplan(folder, [LINE])}
            with Box(folder / "box", settings) as box:
                asyncio.run(measure(bar, box, arguments))
    return bar.finish()


if __name__ == "__main__":
    raise SystemExit(main())
