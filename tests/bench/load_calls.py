"""A load generator in a process of its own: many calls that speak and listen, every arrival stamped by the kernel.

Writes one ``.npz``: ``at`` (monotonic seconds), ``call`` (index) and ``sequence`` of every audio packet that came.
Run by the pacing bar; pinned by it to the cores that the audio clock is not on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import uvloop

from appliance.cli.rtp_stream import RATE_HZ, Pcm, Ticker
from appliance.cli.softphone import Softphone, read_wav
from appliance.errors import ApplianceError
from tests.bench.uac import BareUac

Array: TypeAlias = npt.NDArray[Any]

PAUSE_S = 4.0
RATE_OF_SET_UP = 15.0


async def talk(phone: Softphone, speech: list[Pcm], first: int) -> None:
    """Speak, pause for the answer, speak... until the call ends."""
    index = first
    while not phone.ended:
        await phone.play(speech[index % len(speech)])
        await phone.play(np.zeros(int(PAUSE_S * RATE_HZ), np.int16))
        index += 1


def unwrapped(sequences: Array) -> npt.NDArray[np.int64]:
    """16-bit sequence numbers as a count that goes on."""
    raw = np.asarray(sequences, np.int64)
    steps = (np.diff(raw) + 32768) % 65536 - 32768
    return np.concatenate([raw[:1], raw[0] + np.cumsum(steps)])


async def run(args: argparse.Namespace) -> int:
    speech = [read_wav(path) for path in args.speech]
    ticker = Ticker(phases=10)
    async with BareUac((args.box, args.port), host=args.host) as uac:
        phones = [Softphone(uac, args.host, ticker=ticker, keep_audio=False) for _ in range(args.calls)]
        for phone in phones:
            await phone.dial(args.uri)
            await asyncio.sleep(1 / RATE_OF_SET_UP)
        talking = [asyncio.create_task(talk(phone, speech, i)) for i, phone in enumerate(phones)]
        await asyncio.sleep(args.settle)
        span = await measured(args.seconds)
        early = sum(phone.ended for phone in phones)
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        await asyncio.gather(*(phone.hangup() for phone in phones))
    came = [np.array([(a.at, a.sequence) for a in phone.rtp.arrivals]).reshape(-1, 2).T for phone in phones]
    save(args.out, came, span)
    if early:
        print(f"{early} calls ended before the measurement did", file=sys.stderr)
    return 1 if early else 0


@dataclass(frozen=True)
class Span:
    """When was measured. Stamps are in the kernel's wall time; ``steady_at`` gives the same in monotonic time."""

    clock: list[tuple[float, float]]

    def covers(self, wall: Array) -> npt.NDArray[np.bool_]:
        return (wall >= self.clock[0][0]) & (wall < self.clock[-1][0])

    def steady_at(self, wall: Array) -> Array:
        known, steady = np.asarray(self.clock).T
        return wall + np.interp(wall, known, steady - known)


async def measured(seconds: float) -> Span:
    """Let time pass, telling the bar when it begins and when it is over."""
    clock = [(time.time(), time.monotonic())]
    print("measuring", flush=True)
    while time.time() < clock[0][0] + seconds:
        await asyncio.sleep(1.0)
        clock.append((time.time(), time.monotonic()))
    print("measured", flush=True)
    return Span(clock)


def save(path: Path, calls: Sequence[tuple[Array, Array]], span: Span) -> None:
    """Write what came within ``span``: the wall time and the sequence number of every packet, call by call."""
    at, call, sequence = [], [], []
    for index, (came, numbers) in enumerate(calls):
        within = span.covers(came)
        if not within.any():
            continue
        at.append(span.steady_at(came[within]))
        sequence.append(unwrapped(numbers[within]))
        call.append(np.full(int(within.sum()), index))
    np.savez(path, at=np.concatenate(at), call=np.concatenate(call), sequence=np.concatenate(sequence))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="SIP port of the box")
    parser.add_argument("--box", default="127.0.0.1", help="address of the box")
    parser.add_argument("--host", default="127.0.0.1", help="address to call from")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between the last answer and measuring")
    parser.add_argument("--speech", type=Path, nargs="+", required=True, help="WAV files that the callers speak")
    parser.add_argument("--cores", default="", help="cores to run on, for example 0,2")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    try:
        return uvloop.run(run(args))
    except ApplianceError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
