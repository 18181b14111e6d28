"""The recording is aligned to the wire, whatever the peer's clock does: an hour, ticked as fast as it goes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from appliance.ipc.rings import FRAME_SAMPLES
from tests.media.test_tick import GENERATION, Bench

FRAME_MS = 20
LIMIT_MS = 40
MARK_EVERY_FRAMES = 50
HUM = np.full(FRAME_SAMPLES, 200, np.int16)
MARK = np.full(FRAME_SAMPLES, 12000, np.int16)


@pytest.mark.slow
@pytest.mark.parametrize(("drift_ppm", "jitter_frames"), [(200, 0.0), (-200, 0.4)])
def test_an_hour_of_a_peer_whose_clock_is_off(drift_ppm: int, jitter_frames: float) -> None:
    """Every second the caller makes a sound; in the recording it stands where it came, within 40 ms."""
    bench = Bench()
    chance = random.Random(drift_ppm)
    ticks = 3600 * 50
    came_at: list[int] = []
    recorded_at: list[int] = []
    next_packet = 0
    read = 0
    for tick in range(ticks):
        while True:
            sent_at = next_packet / (1 + drift_ppm * 1e-6) + 0.5
            if sent_at + jitter_frames * chance.random() > tick:
                break
            marked = next_packet % MARK_EVERY_FRAMES == 0 and next_packet > 0
            bench.say(MARK if marked else HUM)
            bench.sequence &= 0xFFFFFFF
            if marked:
                came_at.append(tick)
            next_packet += 1
        bench.tick()
        if tick % 500 == 499:
            end = bench.rings.frame_count(2, GENERATION)
            caller, _ = bench.rings.read_frames(2, GENERATION, read, end)
            loud = np.abs(caller.reshape(-1, FRAME_SAMPLES)).max(axis=1) > 6000
            recorded_at.extend((np.flatnonzero(loud) + read).tolist())
            read = end
            bench.messages.clear()
            bench.heard_by_peer()
    bench.close()
    starts = [at for before, at in zip([-9, *recorded_at], recorded_at, strict=False) if at - before > 2]
    found = 0
    for came in came_at[1:]:
        near = min(starts, key=lambda at: abs(at - came))
        if abs(near - came) < MARK_EVERY_FRAMES // 2:
            found += 1
            assert abs(near - came) * FRAME_MS <= LIMIT_MS, (
                f"a sound of {came / 50:.1f} s stands {near - came} frames off"
            )
    assert found > 0.98 * len(came_at)
