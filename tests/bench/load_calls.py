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
from pathlib import Path

import numpy as np
import uvloop

from appliance.cli.rtp_stream import RATE_HZ, Pcm, Ticker
from appliance.cli.softphone import Softphone, read_wav
from appliance.errors import ApplianceError
from tests.bench.uac import BareUac

PAUSE_S = 4.0
RATE_OF_SET_UP = 15.0


async def talk(phone: Softphone, speech: list[Pcm], first: int) -> None:
    """Speak, pause for the answer, speak... until the call ends."""
    index = first
    while not phone.ended:
        await phone.play(speech[index % len(speech)])
        await phone.play(np.zeros(int(PAUSE_S * RATE_HZ), np.int16))
        index += 1


def unwrapped(sequences: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """16-bit sequence numbers as a count that goes on."""
    raw = np.asarray(sequences, np.int64)
    steps = (np.diff(raw) + 32768) % 65536 - 32768
    return np.concatenate([raw[:1], raw[0] + np.cumsum(steps)])


async def run(args: argparse.Namespace) -> int:
    speech = [read_wav(path) for path in args.speech]
    ticker = Ticker(phases=10)
    clock = [(time.time(), time.monotonic())]
    async with BareUac((args.box, args.port), host=args.host) as uac:
        phones = [Softphone(uac, args.host, ticker=ticker, keep_audio=False) for _ in range(args.calls)]
        for phone in phones:
            await phone.dial(args.uri)
            await asyncio.sleep(1 / RATE_OF_SET_UP)
        talking = [asyncio.create_task(talk(phone, speech, i)) for i, phone in enumerate(phones)]
        await asyncio.sleep(args.settle)
        begun = time.time()
        print("measuring", flush=True)
        while time.time() < begun + args.seconds:
            await asyncio.sleep(1.0)
            clock.append((time.time(), time.monotonic()))
        over = time.time()
        print("measured", flush=True)
        early = sum(phone.ended for phone in phones)
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        await asyncio.gather(*(phone.hangup() for phone in phones))
    save(args.out, phones, begun, over, clock)
    if early:
        print(f"{early} calls ended before the measurement did", file=sys.stderr)
    return 1 if early else 0


def save(path: Path, phones: list[Softphone], begun: float, over: float, clock: list[tuple[float, float]]) -> None:
    wall, steady = np.asarray(clock).T
    at, call, sequence = [], [], []
    for index, phone in enumerate(phones):
        within = [a for a in phone.rtp.arrivals if begun <= a.at < over]
        if not within:
            continue
        at.append(np.asarray([a.at for a in within]) + np.interp([a.at for a in within], wall, steady - wall))
        sequence.append(unwrapped([a.sequence for a in within]))
        call.append(np.full(len(within), index))
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
