"""Feeds a target damaged messages for some seconds: it may raise its named errors, and it may not think for long."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from dataclasses import dataclass, field

from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import Target

HANG_S = 0.05
_FRESH_AFTER = 5000
"""Inputs to one object before the next is made: state is carried over, but does not decide everything."""


@dataclass
class Found:
    """What a run found. ``slowest_s`` is processor time of one input, what else the machine does not counted.

    An input that took too long is fed twice more, and its best time counts: among millions, one is hit by the machine
    (a page fault, a frozen virtual core), but what is slow by itself is slow every time.
    """

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    slowest: bytes = b""
    escapes: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        hangs = [f"{self.slowest_s * 1e3:.0f} ms for {len(self.slowest)} bytes: {self.slowest[:200]!r}"]
        return [f"{what} on {data[:500]!r}" for what, data in self.escapes] + hangs * (self.slowest_s > HANG_S)


def fuzz(target: Target, seconds: float, seed: int, escapes: int = 5) -> Found:
    """Run for ``seconds``, or until ``escapes`` inputs raised what they may not."""
    gc.collect()
    gc.freeze()  # a pass over what other tests have left would be taken for the target's time
    try:
        return _fuzz(target, seconds, seed, escapes)
    finally:
        gc.unfreeze()


def _fuzz(target: Target, seconds: float, seed: int, escapes: int) -> Found:
    mutator = Mutator(target.seeds, random.Random(seed))
    found = Found()
    until = time.monotonic() + seconds
    feed = target.make()
    for data in target.seeds:
        _one(target, feed, data, found)
    while time.monotonic() < until and len(found.escapes) < escapes:
        if found.inputs % _FRESH_AFTER == 0:
            feed = target.make()
        _one(target, feed, mutator.next(), found)
    return found


def _one(target: Target, feed: object, data: bytes, found: Found) -> None:
    found.inputs += 1
    begun = time.thread_time()
    try:
        feed(data)  # type: ignore[operator]
    except target.allowed:
        found.refused += 1
    except Exception as error:
        found.escapes.append((f"{type(error).__name__}: {error}", data))
    taken = time.thread_time() - begun
    if taken > HANG_S:
        taken = min(taken, *(_again(feed, data) for _ in range(2)))
    if taken > found.slowest_s:
        found.slowest_s, found.slowest = taken, data


def _again(feed: object, data: bytes) -> float:
    begun = time.thread_time()
    with contextlib.suppress(Exception):
        feed(data)  # type: ignore[operator]
    return time.thread_time() - begun
