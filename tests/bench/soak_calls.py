"""Bar 9: after 1,000 short calls every process is as big as after 100: memory, files, shared memory, tasks."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from appliance.cli.box import Box
from appliance.cli.rtp_stream import Ticker
from appliance.cli.softphone import Softphone
from appliance.errors import ApplianceError
from tests.bench import lines, processes, records
from tests.bench.report import Bar
from tests.bench.uac import BareUac

AT_ONCE = 15
GROWTH = 1.05
SLACK = {"resident_kib": 1024, "files": 1, "segments": 0, "threads": 0}
"""What a single page fault, log rotation or timer may move without being growth."""

HELD = re.compile(r"^appliance_((?:asyncio_tasks|sip_held|queue_depth|calls_active|recordings_active)\S*) (\S+)$", re.M)
"""What control itself holds, by its metrics: tasks, SIP calls, transactions and timers, queues."""

Snapshot = dict[str, dict[str, float]]


async def short_calls(box: Box, count: int) -> list[str]:
    """Place ``count`` calls, ``AT_ONCE`` at a time; what went wrong."""
    ticker = Ticker(phases=5)
    room = asyncio.Semaphore(AT_ONCE)
    faults: list[str] = []

    async def one(uac: BareUac, number: int) -> None:
        async with room:
            phone = Softphone(uac, ticker=ticker, keep_audio=False)
            try:
                await phone.dial(box.uri(lines.LISTENER))
                await phone.wait_agent_speech(10.0)
                phone.send_digits(str(number % 10))
                await asyncio.sleep(0.5)
            except ApplianceError as error:
                faults.append(str(error))
            finally:
                await phone.hangup()

    async with BareUac(("127.0.0.1", box.sip_port)) as uac:
        await asyncio.gather(*(one(uac, number) for number in range(count)))
    return faults


def snapshot(box: Box) -> Snapshot:
    """Every process, measured when no call is up."""
    found: Snapshot = {}
    for name, pid in box.processes().items():
        found[name] = {key: float(value) for key, value in asdict(processes.usage(pid)).items()}
    for name, value in HELD.findall(box.get("/metrics")[1]):
        found["control"][name] = float(value)
    return found


def wait_idle(box: Box) -> None:
    """Until the SIP transactions of the last calls have lived out their 32 s (RFC 3261, timer J), or nearly 40 s."""
    deadline = time.monotonic() + 38.0
    while time.monotonic() < deadline:
        held = dict(HELD.findall(box.get("/metrics")[1]))
        if float(held.get('sip_held{kind="transactions"}', 0)) == 0:
            return
        time.sleep(1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--baseline", type=int, default=100)
    args = parser.parse_args()
    bar = Bar(9, f"{args.calls} short calls")
    with tempfile.TemporaryDirectory(prefix="bar9-") as name:
        folder = Path(name)
        with Box(folder / "box", lines.settings(folder)) as box:
            done, faults = 0, list[str]()
            first: Snapshot = {}
            now: Snapshot = {}
            began = time.monotonic()
            while done < args.calls:
                step = min(args.baseline, args.calls - done)
                faults += asyncio.run(short_calls(box, step))
                done += step
                records.wait_settled(box.database, done)
                if done >= args.calls or not first:
                    wait_idle(box)
                now = snapshot(box)
                first = first or now
                sizes = ", ".join(f"{process} {row['resident_kib'] / 1024:.0f}" for process, row in now.items())
                bar.note(f"after {done} calls, MiB resident: {sizes}")
            bar.note(f"{done / (time.monotonic() - began):.1f} calls a second")
            worst = 0.0
            for process, row in now.items():
                for what, value in row.items():
                    was = first.get(process, {}).get(what, value)
                    worst = max(worst, (value - was) / was if was and what == "resident_kib" else 0.0)
                    limit = max(was * GROWTH, was + SLACK.get(what, 0))
                    bar.require(value <= limit, f"{process} {what} {was:.0f} -> {value:.0f}")
            bar.figure(f"largest growth of memory {worst:.1%}")
            bar.figure(f"{len(faults)} calls failed")
            bar.require(not faults, f"{len(faults)} calls failed: {faults[:3]}")
            bar.require(len(records.calls(box.database)) == done, "not every call is on record")
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
