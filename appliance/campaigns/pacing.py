"""How fast: calls per second, the share of abandoned calls, and trunks that fail. PURE.

Times are seconds on a clock that never steps.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import Final

from appliance.campaigns.definition import Breaker as BreakerSettings

SLACK_S: Final = 0.05
"""By how much one call may be delayed on its way against another, without a second that sees too many."""

ABANDONED_AFTER_S: Final = 2.0
"""A human who answers and does not hear the agent for this long has been abandoned."""

JUDGED_CALLS: Final = 100
"""The share of abandoned calls is that of so many calls answered by humans, the last ones."""
_FEWEST_JUDGED: Final = 50
"""Fewer are judged as if they were so many: the first call alone says little."""


class Gate:
    """Lets calls leave one by one, so far apart that the called network never sees more than its rate in a second.

    A bucket of one token: a burst, however short, would add itself to what the second around it may hold. The distance
    leaves room for :data:`SLACK_S` of delay. Whoever lets a call leave asks :meth:`wait_s` at that very moment and
    then says so by :meth:`left`; a call that leaves late therefore delays the next one as well.

    Args:
        per_s: most calls in any second; above 0. None lets everything through.
    """

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._last: float | None = None

    @property
    def distance_s(self) -> float:
        """Between two calls."""
        if self._per_s is None:
            return 0.0
        # In a second there may be floor(rate) of them, or one in 1 / rate seconds.
        whole = max(1, math.floor(self._per_s))
        return max(1.0 / self._per_s, (1.0 + SLACK_S) / whole) if self._per_s >= 1 else 1.0 / self._per_s + SLACK_S

    def set_rate(self, per_s: float | None) -> None:
        """Hold calls to another rate from the next one on."""
        self._per_s = per_s

    def wait_s(self, now: float) -> float:
        """How long until a call may leave; 0 means at once."""
        return 0.0 if self._last is None else max(0.0, self._last + self.distance_s - now)

    def left(self, now: float) -> None:
        """A call leaves now."""
        self._last = now


class Abandonment:
    """The share of abandoned calls among those that humans answered; the more of them, the slower.

    Above the campaign's cap nothing is called any more until the operator says so (:meth:`forgive`): without calls
    the share cannot fall by itself.
    """

    def __init__(self, max_percent: float) -> None:
        self.max_percent = max_percent
        self._calls: deque[bool] = deque()
        self._abandoned = 0

    def answered(self, *, abandoned: bool) -> None:
        """A human has answered; whether the agent was not heard within :data:`ABANDONED_AFTER_S`."""
        self._calls.append(abandoned)
        self._abandoned += abandoned
        if len(self._calls) > JUDGED_CALLS:
            self._abandoned -= self._calls.popleft()

    @property
    def percent(self) -> float:
        """Of the last :data:`JUDGED_CALLS`."""
        return 100.0 * self._abandoned / max(len(self._calls), _FEWEST_JUDGED)

    @property
    def speed(self) -> float:
        """What pace is left: 1 up to half the cap, then less, 0 above the cap."""
        if self.percent > self.max_percent:
            return 0.0
        if self.max_percent <= 0 or self.percent <= self.max_percent / 2:
            return 1.0
        return 1.5 - self.percent / self.max_percent  # 1 at half the cap, 0.5 at the cap

    @property
    def reason(self) -> str:
        """Why it is slower or stopped; "" at full speed."""
        if self.speed == 1.0:
            return ""
        told = f"{self._abandoned} of the last {len(self._calls)} calls that were answered were abandoned"
        cap = f"pacing.max_abandoned_percent is {self.max_percent:g}"
        if self.speed == 0.0:
            return f"{told}, and {cap}; find out why the agent is late, then resume"
        return f"{told}; {cap}, so that fewer are placed"

    def forgive(self) -> None:
        """Begin anew: the operator has resumed the campaign."""
        self._calls.clear()
        self._abandoned = 0


class BreakerState(enum.Enum):
    """``CLOSED``: calls go out. ``OPEN``: none does. ``PROBING``: one has, and its fate decides."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """Leaves a trunk alone that fails. After a pause one call is tried; if it fails as well, the pause is longer."""

    LONGEST_PAUSE_S: Final = 900.0

    def __init__(self, limits: BreakerSettings) -> None:
        self.state = BreakerState.CLOSED
        self._limits = limits
        self._calls: deque[bool] = deque(maxlen=limits.of_last)
        self._pause_s = limits.pause_s
        self._again_at = 0.0
        self._probe_until = 0.0

    def room(self, now: float) -> int | None:
        """How many calls may be placed now: None is any number, 1 a probe."""
        if self.state is BreakerState.CLOSED:
            return None
        if self.state is BreakerState.PROBING and now >= self._probe_until:
            self.state = BreakerState.OPEN  # the probe's end was never told
        return 1 if self.state is BreakerState.OPEN and now >= self._again_at else 0

    def get_timer(self) -> float | None:
        """When to ask :meth:`room` again; None where only a call's end changes it."""
        match self.state:
            case BreakerState.OPEN:
                return self._again_at
            case BreakerState.PROBING:
                return self._probe_until
            case BreakerState.CLOSED:
                return None

    def placed(self, now: float, longest_s: float = 120.0) -> None:
        """A call is placed, which tells its fate within ``longest_s``."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.PROBING
            self._probe_until = now + longest_s

    def ended(self, now: float, *, failed: bool) -> None:
        """A call has got its final answer; whether that speaks against the trunk."""
        if self.state is BreakerState.CLOSED:
            self._calls.append(failed)
            if sum(self._calls) >= self._limits.failures:
                self._open(now)
        elif not failed:
            self.state = BreakerState.CLOSED
            self._calls.clear()
            self._pause_s = self._limits.pause_s
        elif self.state is BreakerState.PROBING:
            self._pause_s = min(2 * self._pause_s, max(self.LONGEST_PAUSE_S, self._limits.pause_s))
            self._open(now)

    @property
    def reason(self) -> str:
        """Why no calls are placed; "" where they are."""
        if self.state is BreakerState.CLOSED:
            return ""
        limits = self._limits
        return (
            f"{limits.failures} of the last {limits.of_last} calls failed; the trunk is tried again"
            f" after {self._pause_s:g} s"
        )

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._again_at = now + self._pause_s
