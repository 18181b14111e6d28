"""Calls by Twilio over a bad network: each ends or goes on, is on record once and in full, and leaves nothing behind.

A relay in front of the media port stalls connections for 2 s, delays them by up to 300 ms a piece, goes deaf without a
word, and cuts them in the middle of a frame. A stream that breaks is opened again by the carrier; one that goes deaf
ends its call after ``media.rtp_timeout_s``, here 4 s.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from appliance.cli.box import Box
from appliance.cli.softphone import read_wav
from appliance.errors import CarrierError
from tests.bench import lines, processes, records
from tests.bench.report import Bar
from tests.bench.soak_calls import GROWTH, SLACK, Snapshot, snapshot
from tests.carriers.at_twilio import reach, trunk, twilio_account
from tests.carriers.tcp_relay import Fault, TcpRelay
from tests.carriers.twilio_sim import TwilioSim

AT_ONCE = 15
SILENT_S = 4.0
FAULTS = (
    Fault(),
    Fault(stall_at=1.0, stall_s=2.0),
    Fault(jitter_s=0.3),
    Fault(deaf_at=1.5),
    Fault(cut_at=1.5),
    Fault(cut_at=0.3),
    Fault(delay_s=0.1, stall_at=2.0, stall_s=2.0),
)
ENDS = ("completed", "failed")


def sizes_of(box: Box) -> Snapshot:
    """Every process by the memory that is its own.

    The audio that they share has its full size from the start; a slot's part of it counts as resident as far as its
    longest call has touched it, and these calls are of every length.
    """
    found = snapshot(box)
    for name, pid in box.processes().items():
        if name in found:
            del found[name]["resident_kib"]
            found[name]["private_kib"] = float(processes.private_kib(pid))
    return found


async def one_call(sim: TwilioSim, speech: object) -> str:
    """A caller who presses 1, speaks, presses 2, and is hung up on if all goes well; how it ended at the carrier."""
    call = await sim.call(lines.KEYS, "+491701234567")
    try:
        stream = await call.streaming(15.0)
        await stream.wait_heard(timeout_s=10.0)
        for key in "12":
            await asyncio.sleep(1.5)
            stream = call.stream or stream
            stream.press(key)
            if key == "1":
                stream.say(speech)  # type: ignore[arg-type]
        await call.wait_ended(12.0)
    except CarrierError:
        pass
    if not call.ended.is_set():
        await call.hang_up()
        return "hung up by the caller"
    return "hung up by the box"


async def calls(sim: TwilioSim, count: int, speech: object) -> Counter[str]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with room:
            return await one_call(sim, speech)

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


async def measure(bar: Bar, box: Box, sim: TwilioSim, count: int, baseline: int) -> None:
    speech = read_wav(lines.question(box.directory))
    first: Snapshot = {}
    now: Snapshot = {}
    done, ways = 0, Counter[str]()
    began = time.monotonic()
    while done < count:
        step = min(baseline, count - done)
        ways += await calls(sim, step, speech)
        done += step
        await asyncio.to_thread(records.wait_settled, box.database, done)
        await asyncio.sleep(10.0)  # time-outs of what was cut off
        now = await asyncio.to_thread(sizes_of, box)
        first = first or now
        sizes = ", ".join(f"{name} {row['private_kib'] / 1024:.1f}" for name, row in now.items())
        bar.note(f"after {done} calls, MiB of its own: {sizes}")
    bar.note(f"{done / (time.monotonic() - began):.1f} calls a second; {dict(ways)}")
    found = await asyncio.to_thread(records.calls, box.database)
    kinds = Counter(row["disposition"] for row in found)
    bar.figure(f"{len(found)} records of {done} calls: {dict(kinds)}")
    bar.require(len(found) == done, "not every call is on record once")
    bar.require(set(kinds) <= set(ENDS), f"calls that neither completed nor failed: {dict(kinds)}")
    bar.require(kinds["completed"] >= done * 0.6, "calls that a stall or a new stream should have saved were lost")
    incomplete = [row["id"] for row in found if row["ended_at"] is None or not row["turns"]]
    bar.require(not incomplete, f"{len(incomplete)} records without an end or a turn")
    worst = 0.0
    for process, row in now.items():
        for what, value in row.items():
            was = first.get(process, {}).get(what, value)
            worst = max(worst, (value - was) / was if was and what == "private_kib" else 0.0)
            limit = max(was * GROWTH, was + {**SLACK, "private_kib": SLACK["resident_kib"]}.get(what, 0))
            bar.require(value <= limit, f"{process} {what} {was:.0f} -> {value:.0f}")
    bar.figure(f"largest growth of memory {worst:.1%}")
    sim.check()


async def restarted(bar: Bar, box: Box, sim: TwilioSim, before: int) -> None:
    """The box stops with calls up and comes back: they are on record as cut off, and a new call is answered."""
    held = [await sim.call(lines.LISTENER, "+491701234567") for _ in range(5)]
    for call in held:
        await call.streaming()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(box.stop)
    for call in held:
        await call.wait_ended(20.0)
    await asyncio.to_thread(box.start)
    call = await sim.call(lines.KEYS, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.press("2")
    await call.wait_ended(20.0)
    found = await asyncio.to_thread(records.wait_settled, box.database, before + len(held) + 1)
    kinds = Counter(row["disposition"] for row in found[before:])
    bar.figure(f"restarted with {len(held)} calls up: {dict(kinds)}")
    bar.require(kinds == {"interrupted": len(held), "completed": 1}, "calls across a restart are not as they should be")


async def run(bar: Bar, count: int, baseline: int) -> None:
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        async with twilio_account() as sim:
            settings = {
                **lines.settings(Path(folder)),
                "trunks": {"twilio": trunk(sim.api_url)},
                "media.rtp_timeout_s": SILENT_S,
                "limits.drain_s": 1,
            }
            box = Box(Path(folder) / "box", settings)
            await asyncio.to_thread(box.start)
            try:
                port = int(str(box.settings["listen.media.port"]))
                async with TcpRelay(port, lambda number: FAULTS[number % len(FAULTS)]) as relay:
                    reach(sim, box, relay.port)
                    await measure(bar, box, sim, count, baseline)
                reach(sim, box)
                await restarted(bar, box, sim, count)
            finally:
                await asyncio.to_thread(box.stop)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--baseline", type=int, default=100)
    arguments = parser.parse_args()
    bar = Bar("carriers 6", f"{arguments.calls} calls over a bad network")
    asyncio.run(run(bar, arguments.calls, arguments.baseline))
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
