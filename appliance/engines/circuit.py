"""Whether a server is worth asking. PURE.

``closed``: yes. After some failures in a row it is ``open``: nobody waits for it, and a probe tries it after a
while, twice as long after each probe that failed. While a probe is under way it is ``probing``.
"""

from __future__ import annotations

import enum
from typing import Final

FIRST_PROBE_S: Final = 2.0
LAST_PROBE_S: Final = 60.0


class State(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Circuit:
    """One server's. Times are seconds on any clock that never steps."""

    def __init__(self, failures: int) -> None:
        self.state = State.CLOSED
        self.cause = ""
        """Of the last failure, in words."""
        self._limit = failures
        self._failures = 0
        self._wait_s = FIRST_PROBE_S
        self._probe_at = 0.0

    @property
    def usable(self) -> bool:
        return self.state is State.CLOSED

    def succeeded(self) -> bool:
        """It has answered; whether that is news."""
        news = self.state is not State.CLOSED
        self.state, self._failures, self._wait_s = State.CLOSED, 0, FIRST_PROBE_S
        return news

    def failed(self, now: float, cause: str, wait_s: float | None = None) -> bool:
        """It has failed, and wants to be left alone for ``wait_s``; whether it is out of use from now on."""
        self.cause = cause
        self._failures += 1
        if self.state is State.PROBING:
            self._wait_s = min(2 * self._wait_s, LAST_PROBE_S)
        elif self.state is State.OPEN or (self._failures < self._limit and wait_s is None):
            return False
        news = self.state is State.CLOSED
        self.state = State.OPEN
        self._probe_at = now + max(self._wait_s, min(wait_s or 0.0, LAST_PROBE_S))
        return news

    def get_timer(self) -> float | None:
        """When to probe it."""
        return self._probe_at if self.state is State.OPEN else None

    def begin_probe(self) -> None:
        self.state = State.PROBING
