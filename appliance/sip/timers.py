"""Deadlines kept in order, for state machines that are told the time."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TimerQueue(Generic[K]):
    """At most one deadline per key. Times are seconds on the caller's monotonic clock.

    A cancelled deadline lets go of its key at once: a key is often a call, and a no-answer deadline of minutes must
    not keep a finished call that long. Only its number stays in the heap, until it comes to the top or such numbers
    outnumber the live ones, so that setting and cancelling both cost O(log n).
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._keys: dict[int, K] = {}
        self._deadlines: dict[K, tuple[float, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(self, key: K, when: float) -> None:
        """Let ``key`` fall due at ``when``, in place of any earlier deadline it had."""
        self.cancel(key)
        self._count += 1
        entry = (when, self._count)
        self._deadlines[key] = entry
        self._keys[self._count] = key
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 64 + 2 * len(self._deadlines):
            self._heap = list(self._deadlines.values())
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Forget the deadline of ``key``, if it has one."""
        entry = self._deadlines.pop(key, None)
        if entry is not None:
            del self._keys[entry[1]]

    def next(self) -> float | None:
        """When the earliest deadline falls due, None where there is none."""
        heap, keys = self._heap, self._keys
        while heap:
            when, number = heap[0]
            if number in keys:
                return when
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> K | None:
        """Take out the earliest deadline that is not after ``now``; None where there is none."""
        when = self.next()
        if when is None or when > now:
            return None
        key = self._keys.pop(heapq.heappop(self._heap)[1])
        del self._deadlines[key]
        return key
