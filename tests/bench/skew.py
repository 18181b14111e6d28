"""Bar 2.10 in real time: ten minutes of callers whose clocks are 200 ppm fast and slow.

Every second a caller makes a short sound. How much later than it left it stands in the recording, against the first
of them, is what play-out delay and recording have drifted together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import uvloop

from appliance.audio import g711
from appliance.cli.box import Box
from tests.bench import lines, records
from tests.bench.dense_callers import FRAME_S, FRAME_SAMPLES, Stream
from tests.bench.report import Bar
from tests.bench.uac import BareCall, BareUac

PPM = (200.0, -200.0)
LIMIT_MS = 40.0
MARK_EVERY = 50
LOUD = 6000
PUNCTUAL_S = 0.005
_MARK = g711.encode(np.full((1, FRAME_SAMPLES), 12000, np.int16), np.array([False]))[0].tobytes()
_HUM = g711.encode(np.full((1, FRAME_SAMPLES), 60, np.int16), np.array([False]))[0].tobytes()


class SkewedCaller:
    """One call whose packets leave every 20 ms of a clock that is ``ppm`` off."""

    def __init__(self, uac: BareUac, uri: str, ppm: float) -> None:
        self.ppm = ppm
        self.stream = Stream([_MARK, *[_HUM] * (MARK_EVERY - 1)], 0, 8000, 0)
        self.call = BareCall(uac, uri, self.stream.rtp.getsockname())
        uac.calls[self.call.call_id] = self.call
        self.left_at: list[float] = []
        """When each sound left that was sent in time: one that this process sent late says nothing about the box."""
        self.not_punctual = 0

    async def talk(self, seconds: float) -> None:
        await self.call.invite(10.0)
        self.stream.connect(self.call.answer.remote, b"")
        loop = asyncio.get_running_loop()
        loop.add_reader(self.stream.rtp.fileno(), self.stream.receive)
        begun = loop.time()
        number = 0
        while (due := begun + number * FRAME_S / (1 + self.ppm * 1e-6)) < begun + seconds:
            await asyncio.sleep(due - loop.time())
            late_s = loop.time() - due
            if number % MARK_EVERY == 0 and late_s <= PUNCTUAL_S:
                self.left_at.append(time.time())
            self.not_punctual += late_s > PUNCTUAL_S
            self.stream.send()
            number += 1
        loop.remove_reader(self.stream.rtp.fileno())
        await self.call.hangup()


def drift_ms(left_at: list[float], recording: Path) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], int]:
    """For every sound found in the recording, how much later than the first it stands there, ms; and how many."""
    with wave.open(str(recording)) as file:
        rate = file.getframerate()
        caller = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())[:, 0]
    loud = np.flatnonzero(np.abs(caller.astype(np.int32)) > LOUD)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-rate) > rate // 10)] / rate
    sent = np.asarray(left_at) - left_at[0]
    offset = starts[0] - sent[0]
    nearest = starts[np.abs(starts[:, None] - offset - sent[None, :]).argmin(axis=0)] - offset - sent
    there = np.abs(nearest) < 0.4
    return nearest[there] * 1e3, int(there.sum())


def take_priority() -> None:
    """Send in time whatever else the machine does, where that is permitted: a caller's telephone has its own clock."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


async def run(box: Box, seconds: float) -> list[SkewedCaller]:
    take_priority()
    async with BareUac(("127.0.0.1", box.sip_port)) as uac:
        callers = [SkewedCaller(uac, box.uri(lines.LISTENER), ppm) for ppm in PPM]
        await asyncio.gather(*(caller.talk(seconds) for caller in callers))
        return callers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    args = parser.parse_args()
    bar = Bar("2.10", f"{args.seconds:.0f} s of callers whose clocks are 200 ppm off")
    with tempfile.TemporaryDirectory(prefix="skew-") as name:
        folder = Path(name)
        with Box(folder / "box", lines.settings(folder)) as box:
            callers = uvloop.run(run(box, args.seconds))
            calls = {call["protocol_call_id"]: call for call in records.wait_settled(box.database, len(callers))}
            for caller in callers:
                path = box.recordings / calls[caller.call.call_id]["recording_path"]
                found, count = drift_ms(caller.left_at, path)
                bar.figure(
                    f"{caller.ppm:+.0f} ppm: within {found.min():.1f} to {found.max():.1f} ms of the first sound"
                )
                bar.note(f"{count} of {len(caller.left_at)} sounds found in the recording")
                bar.note(f"{caller.not_punctual} packets left more than {PUNCTUAL_S * 1e3:.0f} ms after their time")
                spread = float(found.max() - found.min())
                bar.require(spread <= LIMIT_MS, f"{caller.ppm:+.0f} ppm: sounds stand {spread:.0f} ms apart")
                bar.require(count > 0.97 * len(caller.left_at), f"{caller.ppm:+.0f} ppm: only {count} sounds found")
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
