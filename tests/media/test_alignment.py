"""The recording is aligned to the wire, whatever the peer's clock and the network do, ticked as fast as it goes."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable

import numpy as np
import pytest

from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.rtp.jitter import JitterBuffer
from tests.media.test_tick import GENERATION, Bench

FRAME_MS = 20
LIMIT_MS = 40
MARK_EVERY_FRAMES = 50
HUM = np.full(FRAME_SAMPLES, 200, np.int16)
MARK = np.full(FRAME_SAMPLES, 12000, np.int16)


@pytest.mark.slow  # hours of it: python -m tests.bench.drift
@pytest.mark.parametrize(("drift_ppm", "jitter_frames"), [(200, 0.0), (-200, 0.4)])
def test_ten_minutes_of_a_peer_whose_clock_is_off(drift_ppm: int, jitter_frames: float) -> None:
    """Every second the caller makes a sound; in the recording it stands where it came, within 40 ms.

    Nobody making up for it, it would be 120 ms off in the end.
    """
    bench = Bench()
    chance = random.Random(drift_ppm)
    ticks = 600 * 50
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


POLL_TICKS = 10


def recorded(ticks: int, late: Callable[[int], float], speaks: Callable[[int], bool]) -> tuple[list[int], list[int]]:
    """The numbers of the frames that were heard, and of those in the recording; 0 is a frame of nothing.

    ``late``: by how many ticks packet n comes later than it was sent. ``speaks``: whether the caller does in packet n.
    """
    rings = AudioRings.create(1)
    rings.open(0, 1)
    buffer = JitterBuffer()
    heard: list[int] = []
    found: list[int] = []
    coming = sorted((max(n + late(n) + 0.5, 0.0), n) for n in range(1, ticks))
    quiet = True
    for tick in range(ticks):
        while coming and coming[0][0] <= tick:
            at, n = coming.pop(0)
            buffer.push(n & 0xFFFF, n * 160, n.to_bytes(4, "big") * 40, at * 0.02, False)
        payload = buffer.pop(quiet)
        number = int.from_bytes(payload[:4], "big") if payload is not None else 0
        quiet = not speaks(number)
        if number:
            heard.append(number)
        caller = np.full((1, FRAME_SAMPLES), number, np.int16)
        rings.record(np.array([0]), caller, caller, np.array([buffer.held_frames]), np.array([quiet]))
        if tick % POLL_TICKS == 0:
            caller, _ = rings.read_frames(0, 1, len(found), rings.settled_count(0, 1))
            found += caller[::FRAME_SAMPLES].tolist()
    os.close(rings.fd)
    return heard[:-POLL_TICKS], found


def steps(n: int) -> float:
    return 5.0 if 500 <= n < 5000 else 0.0


def falls(n: int) -> float:
    return 5.0 if n < 500 else 0.0


def spikes(n: int) -> float:
    return max(0.0, 4.0 - n % 1500) if n > 1400 else 0.0


@functools.cache
def wavers(n: int) -> float:
    return random.Random(n).random() * (4.0 if n // 1000 % 2 else 0.5)


@pytest.mark.parametrize("late", [steps, falls, spikes, wavers])
@pytest.mark.parametrize("pauses", [True, False])
def test_every_frame_that_was_heard_is_recorded_once(late: Callable[[int], float], pauses: bool) -> None:
    heard, found = recorded(8000, late, lambda n: not pauses or n % 250 < 175)
    assert len(heard) > 7800
    numbers = [number for number in found if number]
    assert numbers[: len(heard)] == heard[: len(numbers)]
    assert len(numbers) > len(heard) - 2 * POLL_TICKS


@pytest.mark.parametrize("late", [steps, falls, spikes, wavers])
def test_the_recording_is_aligned_again_after_a_change(late: Callable[[int], float]) -> None:
    """Half a minute after it, at most, a frame stands where it came in time: within 40 ms."""
    _, found = recorded(8000, late, lambda n: n % 250 < 175)
    settled = [(place, n) for place, n in enumerate(found) if n and (2000 < n < 4900 or n > 6500)]
    assert max(abs(place - n - min(late(other) for other in range(n - 500, n))) for place, n in settled) <= 2
