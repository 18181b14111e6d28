"""Watching with OPTIONS whether a peer can be reached (RFC 3261 §11), as a machine without sockets or clock."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

RETRY_S = 10.0
"""How soon a peer that cannot be reached is asked again, where the interval is not shorter."""


class Reachability(StrEnum):
    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


class Qualify:
    """Says when an OPTIONS is due, and what its answers mean.

    Any final answer shows that the peer is there, except 503, which says that it takes no calls, and 408, which a
    proxy gives for a peer that is silent.

    Args:
        interval_s: time between two probes of a peer that answers; spread by a tenth, so that trunks drift apart.
        chance: a number from 0 up to 1, new at each call.

    Attributes:
        state: what the last probe showed.
        round_trip_s: how long the last answer took; None before the first.
        last_status: the status of the last probe, 408 where nothing came, 0 before.
    """

    def __init__(self, interval_s: float, chance: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._chance = chance
        self.state = Reachability.UNKNOWN
        self.round_trip_s: float | None = None
        self.last_status = 0
        self._due: float | None = None
        self._sent_at: float | None = None

    def start(self, now: float) -> None:
        """Begin; the first probe is due within the first seconds, spread by chance."""
        self._due = now + self._chance() * min(2.0, self._interval_s)

    def stop(self) -> None:
        """No more probes. The answer to one that is out is not awaited."""
        self._due = self._sent_at = None

    def get_timer(self) -> float | None:
        """When :meth:`poll` must be called next; None while a probe is out, or nothing runs."""
        return self._due

    def poll(self, now: float) -> bool:
        """Whether an OPTIONS must be sent now. Report on it before the next one."""
        if self._due is None or now < self._due:
            return False
        self._due, self._sent_at = None, now
        return True

    def on_outcome(self, status: int, now: float) -> bool:
        """The probe was answered with ``status``, or came to nothing (408). True where :attr:`state` changed."""
        if self._sent_at is None:
            return False
        before = self.state
        self.last_status = status
        if status in (408, 503):
            self.state = Reachability.UNREACHABLE
            wait = min(self._interval_s, RETRY_S)
        else:
            self.state = Reachability.REACHABLE
            self.round_trip_s = now - self._sent_at
            wait = self._interval_s
        self._sent_at = None
        self._due = now + wait * (0.95 + 0.1 * self._chance())
        return self.state is not before
