"""What the call record costs: processor time and the wait before an answer, at a steady rate of calls.

    python -m tests.bench.store_cost [--rate 20] [--seconds 10] [--url sqlite+aiosqlite:////tmp/x.db]

Every call is five writes: start (awaited, as the answer does), answer, two turns, end.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from appliance.events import (
    CallAnswered,
    CallEnded,
    CallStarted,
    Direction,
    Disposition,
    HangupBy,
    InputBy,
    Stage,
    StageTiming,
    TurnFinished,
)
from appliance.store.calls import CallStore


async def one_call(store: CallStore, call_id: str, hold_s: float) -> float:
    """A call of ``hold_s``; gives back how long the answer had to wait for the record, in seconds."""
    begun = time.monotonic()
    await store.call_started(
        CallStarted(
            call_id=call_id,
            started_at=begun,
            started_utc=datetime.now(UTC),
            direction=Direction.INBOUND,
            protocol="sip",
            protocol_call_id=f"{call_id}@127.0.0.1",
            trunk="local",
            line="reception",
            called="sip:100@127.0.0.1",
            calling="sip:sipp@127.0.0.1",
        )
    )
    answered_at = time.monotonic()
    store.call_answered(CallAnswered(call_id=call_id, answered_at=answered_at, answered_utc=datetime.now(UTC)))
    for number in (0, 1):
        await asyncio.sleep(hold_s / 2)
        now = time.monotonic()
        store.turn(
            TurnFinished(
                call_id=call_id,
                number=number,
                finished_utc=datetime.now(UTC),
                answered_at=answered_at,
                by=InputBy.VOICE,
                caller_text="what are your opening hours",
                confidence=0.93,
                agent_text="We are open from nine to five.",
                heard_text="We are open from nine to five.",
                speech_start_at=now - 2.0,
                speech_end_at=now - 1.0,
                reply_at=now - 0.4,
                stages=tuple(StageTiming(stage, now - 0.9, now - 0.5) for stage in Stage),
            )
        )
    store.call_ended(
        CallEnded(
            call_id=call_id,
            ended_at=time.monotonic(),
            ended_utc=datetime.now(UTC),
            disposition=Disposition.COMPLETED,
            hangup_by=HangupBy.CALLER,
            hangup_code=200,
        )
    )
    return answered_at - begun


async def run(url: str, rate: float, seconds: float) -> None:
    async with CallStore(url) as store:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(one_call(store, f"warm-{n}", 0.01) for n in range(5)))
        await store.flush()
        transactions, cpu, begun = store.stats.transactions, time.process_time(), loop.time()
        calls = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
            calls.append(loop.create_task(one_call(store, f"call-{number}", 1.0)))
        waits = await asyncio.gather(*calls)
        await store.flush()
        elapsed, cpu = loop.time() - begun, time.process_time() - cpu
        cuts = statistics.quantiles(waits, n=100)
        print(
            f"{len(waits)} calls at {rate:g}/s, 5 writes each: {100 * cpu / elapsed:.1f} % of a core, "
            f"{1000 * cpu / len(waits):.2f} ms per call, {store.stats.transactions - transactions} transactions; "
            f"the answer waited p50 {1000 * cuts[49]:.1f} p95 {1000 * cuts[94]:.1f} p99 {1000 * cuts[98]:.1f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=20.0, help="calls per second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--url", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = args.url or f"sqlite+aiosqlite:///{Path(folder) / 'calls.db'}"
        uvloop.run(run(url, args.rate, args.seconds))


if __name__ == "__main__":
    main()
