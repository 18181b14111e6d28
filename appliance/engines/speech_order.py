"""Whose speech is made first."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Final

from appliance.api import SynthesiseRequest

URGENT: Final = 0
CONTINUED: Final = 1
AHEAD: Final = 2


def priority_of(request: SynthesiseRequest) -> int:
    """First what a caller waits for in silence, then what continues, last what nobody waits for yet."""
    if request.urgent:
        return URGENT if request.slot >= 0 else CONTINUED
    return CONTINUED if request.slot >= 0 else AHEAD


class Turnstile:
    """Lets one through at a time, the most urgent of those that wait, else the first that came.

    Who works ahead is asked to give way when somebody comes for whom a caller waits.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._inside: tuple[int, Callable[[], None]] | None = None

    @contextlib.asynccontextmanager
    async def turn(self, priority: int, give_way: Callable[[], None]) -> AsyncIterator[None]:
        """Wait for one's turn, and have it. ``give_way`` asks to make it short; whoever does may come again."""
        if self._inside is not None:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (priority, next(self._numbers), mine))
            if priority < AHEAD <= self._inside[0]:
                self._inside[1]()
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._next()
                raise
        self._inside = (priority, give_way)
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        self._inside = None
        while self._waiting:
            priority, _, waiting = heapq.heappop(self._waiting)
            if not waiting.done():
                self._inside = (priority, lambda: None)
                waiting.set_result(None)
                return
