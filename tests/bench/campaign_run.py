"""Part 6, bar 1: 500 leads over SIP and RTP against people, machines and networks: each ends with the right
disposition, the counts add up, and the export says the same.

    python -m tests.bench.campaign_run --write-mix run.json

All engines are the ones that come with the box, and callees speak. ``--fakes`` takes fake engines and callees who press
keys, without machines and screening, for a quick run.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from appliance.cli.box import Box
from tests.bench import campaign_world as world
from tests.bench.callees import FarmProcess
from tests.bench.report import Bar, percentiles

FAKE_DIGITS = "01234569"


def exported(url: str, folder: Path, form: str) -> Path:
    """The campaign's results as the command line exports them."""
    path = folder / f"results.{form}"
    words = [sys.executable, "-m", "appliance.cli.main", "campaign", "export", world.NAME, "--format", form]
    words += ["--set", f"store.url={url}", "--output", str(path)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return path


def same(bar: Bar, url: str, folder: Path, end: world.Found) -> None:
    """Hold both forms of the export against the database."""
    wanted = {lead.number: (lead.disposition, lead.attempts) for lead in end.leads}
    with exported(url, folder, "csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    told = {row["number"].lstrip("'"): (row["disposition"], int(row["attempts"])) for row in rows}
    bar.require(told == wanted, f"the CSV says otherwise of {len(set(told.items()) ^ set(wanted.items()))} leads")
    lines = [json.loads(line) for line in exported(url, folder, "jsonl").read_text().splitlines()]
    told = {line["number"]: (line["disposition"], line["attempts"]) for line in lines}
    bar.require(told == wanted, f"the JSONL says otherwise of {len(set(told.items()) ^ set(wanted.items()))} leads")
    slots = {line["number"] for line in lines if line.get("slots", {}).get("wanted") == "yes"}
    said = {lead.number for lead in end.leads if lead.number[-1] in "01"}
    bar.require(said <= slots, f"{len(said - slots)} people said yes, and the export does not have it")


async def run(arguments: argparse.Namespace) -> int:
    bar = Bar("6.1", f"{arguments.leads} leads over SIP")
    digits = FAKE_DIGITS if arguments.fakes else "0123456789"
    wanted = world.numbers(arguments.leads, digits)
    with world.workplace() as folder, FarmProcess(folder / "farm.jsonl", keys=arguments.fakes) as farm:
        box = Box(folder / "box", world.settings(folder, farm, fakes=arguments.fakes))
        url = f"sqlite+aiosqlite:///{box.database}"
        box.start()
        try:
            pacing = {"max_calls": arguments.calls, "calls_per_s": 10, "ring_timeout_s": 5, "max_abandoned_percent": 20}
            await world.begin(url, wanted, world.definition(gap_s=15.0, pacing=pacing))
            took_s = await world.until_finished(url, arguments.limit, bar)
            end, entries = await world.found(url), farm.entries()
            world.judge(bar, "run", wanted, end, entries, 15.0)
            same(bar, url, folder, end)
            heard = [one["first_sound_after_s"] for one in entries if one["event"] == "heard"]
            heard = [value for value in heard if value is not None]
            bar.note(f"the agent was heard after the answer: {percentiles(heard)}")
            bar.note(f"dispositions: {dict(Counter(lead.disposition for lead in end.leads))}")
            connects = sum(attempt.answered_at is not None for attempt in end.attempts)
            bar.figure(f"finished in {took_s:.0f} s, {connects} calls answered, {end.counts.abandoned} abandoned")
            if arguments.write_mix:
                write_mix(arguments.write_mix, end, took_s)
        finally:
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
            if bar.failures:
                bar.note(box.log_tail(40))
    return bar.finish()


def write_mix(path: Path, end: world.Found, took_s: float) -> None:
    """What a simulation is held against: every attempt, how long it rang and talked, and when all was done."""
    rows = [
        {
            "number": one.number,
            "disposition": one.disposition,
            "started_at": one.started_at.isoformat(),
            "ring_s": ((one.answered_at or one.ended_at or one.started_at) - one.started_at).total_seconds(),
            "talk_s": one.talk_s,
            "answered": one.answered_at is not None,
            "verdict": one.verdict,
        }
        for one in sorted(end.attempts, key=lambda attempt: attempt.started_at)
    ]
    path.write_text(json.dumps({"took_s": took_s, "leads": len(end.leads), "attempts": rows}, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=500)
    parser.add_argument("--calls", type=int, default=20, help="at a time")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds")
    parser.add_argument("--fakes", action="store_true", help="fake engines; callees press keys")
    parser.add_argument("--write-mix", type=Path, help="write what was measured to this file")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
