"""Deadlines kept in order, for state machines that are told the time."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TimerQueue(Generic[K]):
    """At most one deadline per key. Times are seconds on the caller's monotonic clock.

    Cancelled deadlines stay in the heap until they come to the top or outnumber the live ones, so that setting and
    cancelling both cost O(log n).
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._live: dict[K, tuple[float, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._live)

    def set(self, key: K, when: float) -> None:
        """Let ``key`` fall due at ``when``, in place of any earlier deadline it had."""
        self._count += 1
        self._live[key] = (when, self._count)
        heapq.heappush(self._heap, (when, self._count, key))
        if len(self._heap) > 64 + 4 * len(self._live):
            self._heap = [(at, number, key) for key, (at, number) in self._live.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Forget the deadline of ``key``, if it has one."""
        self._live.pop(key, None)

    def next(self) -> float | None:
        """When the earliest deadline falls due, None where there is none."""
        heap, live = self._heap, self._live
        while heap:
            when, number, key = heap[0]
            if live.get(key) == (when, number):
                return when
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> K | None:
        """Take out the earliest deadline that is not after ``now``; None where there is none."""
        when = self.next()
        if when is None or when > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._live[key]
        return key
