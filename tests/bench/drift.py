"""Bar 2.10 in virtual time: eight hours of callers whose clocks are 200 ppm off. Run: python -m tests.bench.drift

The jitter buffer and the rings, which lay a frame beside what was sent when it arrived, are run tick by tick, with no
clock of their own: 1.44 million ticks a caller. Every loud frame carries its number, so that both figures are of the
audio itself:

- delay: from when a packet was sent to the tick in which its frame was played;
- recording: how far from when it was sent a frame stands in the recording.

``tests.bench.skew`` does the same in real time, with a box and its files, for ten minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from appliance.ipc.rings import AudioRings
from appliance.rtp.jitter import FRAME, JitterBuffer
from tests.bench.report import Bar

HOURS = 8.0
PPM = (200.0, -200.0)
LIMIT_MS = 40.0
JITTER_S = 0.005
_TICK_S = 0.02
_LOUD = bytes((0x10, 0x90)) * (FRAME // 2)
_QUIET = b"\xff" * FRAME
_SENTENCE_S = 5.0
"""Of these, the last 30 % are a pause: the quiet in which a frame can be left out or repeated unheard."""


@dataclass
class Drift:
    """One caller: all in milliseconds, by hour."""

    ppm: float
    delays_ms: list[list[float]]
    recording_ms: list[list[float]]
    buffer: JitterBuffer


def run(ppm: float, hours: float, pauses: bool) -> Drift:
    """One call; ``pauses`` false is a caller who never is quiet."""
    buffer = JitterBuffer()
    rings = AudioRings.create(1)
    rings.open(0, 1)
    rows, silence = np.zeros(1, np.int64), np.zeros((1, FRAME), np.int16)
    chance = np.random.default_rng(round(1000 + ppm))
    step_s = _TICK_S / (1 + ppm * 1e-6)
    phase_s = 0.003
    ticks = round(hours * 3600 / _TICK_S)
    found = Drift(ppm, [], [], buffer)
    delays: list[float] = []
    apart: list[float] = []
    coming: deque[tuple[float, int]] = deque()
    jitter = iter(())
    number = 0
    latest = 0.0
    for tick in range(ticks):
        now = tick * _TICK_S
        while (sent := number * step_s + phase_s) <= now:
            if (late := next(jitter, None)) is None:
                jitter = iter((chance.random(4096) * JITTER_S).tolist())
                late = next(jitter)
            latest = max(latest, sent + late)
            coming.append((latest, number))
            number += 1
        while coming and coming[0][0] <= now:
            at, n = coming.popleft()
            quiet = pauses and n * _TICK_S % _SENTENCE_S > 0.7 * _SENTENCE_S
            payload = _QUIET if quiet else n.to_bytes(4, "big") + _LOUD[4:]
            buffer.push((60000 + n) & 0xFFFF, (4294900000 + n * FRAME) & 0xFFFFFFFF, payload, at, False)
        frame = buffer.pop()
        quiet = frame is None or frame == _QUIET
        rings.record(rows, silence, silence, np.array([buffer.held_frames]), np.array([quiet]))
        if frame is not None and frame[4:] == _LOUD[4:]:
            sent = int.from_bytes(frame[:4], "big") * step_s + phase_s
            delays.append((now - sent) * 1e3)
            apart.append(((rings.frame_count(0, 1) - 1) * _TICK_S - sent) * 1e3)
        if (tick + 1) % round(3600 / _TICK_S) == 0 or tick == ticks - 1:
            found.delays_ms.append([min(delays), max(delays)])
            found.recording_ms.append([min(apart), max(apart)])
            delays, apart = [], []
    os.close(rings.fd)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="a long call in virtual time, from a clock that is off")
    parser.add_argument("--hours", type=float, default=HOURS)
    arguments = parser.parse_args()
    bar = Bar("2.10", f"{arguments.hours:g} virtual hours of callers whose clocks are 200 ppm off")
    for ppm in PPM:
        for pauses in (True, False):
            begun = time.monotonic()
            found = run(ppm, arguments.hours, pauses)
            who = f"{ppm:+.0f} ppm{'' if pauses else ', never quiet'}"
            delay = min(low for low, _ in found.delays_ms), max(high for _, high in found.delays_ms)
            apart = min(low for low, _ in found.recording_ms), max(high for _, high in found.recording_ms)
            counts = found.buffer
            bar.figure(
                f"{who}: delay {delay[0]:.0f} to {delay[1]:.0f} ms, recording {apart[0]:.0f} to {apart[1]:.0f} ms off"
            )
            bar.note(
                f"{counts.skipped} frames left out, {counts.repeated} repeated, {counts.lost} lost, "
                f"{counts.late} late; took {time.monotonic() - begun:.0f} s"
            )
            bar.require(delay[1] - delay[0] <= LIMIT_MS, f"{who}: the delay moves by {delay[1] - delay[0]:.0f} ms")
            worst = max(-apart[0], apart[1])
            bar.require(worst <= LIMIT_MS, f"{who}: the recording is {worst:.0f} ms off")
            bar.require(counts.lost + counts.late + counts.discarded == 0, f"{who}: frames were lost")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
