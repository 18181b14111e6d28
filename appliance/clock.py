"""Where time comes from.

PURE code takes ``now`` as a parameter. Everything else that needs a clock takes one of these, so that a whole
call can run in virtual time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two readings of time: one that never jumps and one that people read."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; the same in every process of the box (CLOCK_MONOTONIC)."""
        ...

    def utc(self) -> datetime:
        """The wall clock, timezone-aware UTC."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> datetime:
        return datetime.now(UTC)
