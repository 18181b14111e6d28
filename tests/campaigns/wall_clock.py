"""What the clock on the wall shows, by the C library: a second opinion on the box's own reading of time zones."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeAlias

MINUTE_S = 60
DAY_S = 86_400
FROM = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
UNTIL = int(datetime(2036, 1, 1, tzinfo=UTC).timestamp())


Allows: TypeAlias = Callable[[time.struct_time], bool]
"""Whether a time on the clock is within some hours."""


def reading(hours: str, days: frozenset[int] = frozenset(range(7))) -> Allows:
    """What ``hours`` on ``days`` (0 is Monday) allow, worked out from the digits of the clock alone."""
    spans = []
    for span in hours.split(","):
        begin, end = (int(part.strip()[:2]) * 60 + int(part.strip()[3:]) for part in span.split("-"))
        spans.append((begin, end))

    def allows(local: time.struct_time) -> bool:
        minute = local.tm_hour * 60 + local.tm_min
        return local.tm_wday in days and any(begin <= minute < end for begin, end in spans)

    return allows


class WallClock:
    """Reads moments, in seconds of Unix time, on the clock of any zone."""

    def __init__(self) -> None:
        self._zone = ""

    def at(self, zone: str, moment: float) -> time.struct_time:
        """Local time in ``zone``."""
        if zone != self._zone:
            os.environ["TZ"] = f":{zone}"
            time.tzset()
            self._zone = zone
        return time.localtime(moment)

    def offset_s(self, zone: str, moment: int) -> int:
        """Local time less UTC."""
        return self.at(zone, moment).tm_gmtoff

    def changes(self, zone: str, begin: int = FROM, end: int = UNTIL) -> list[int]:
        """The moments at which clocks are changed: the first second of each new offset."""
        found = []
        step = 5 * DAY_S
        for moment in range(begin, end, step):
            low, high = moment, moment + step
            if self.offset_s(zone, low) == self.offset_s(zone, high):
                continue
            before = self.offset_s(zone, low)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self.offset_s(zone, middle) == before else (low, middle)
            found.append(high)
        return found


def zones() -> list[str]:
    """Every zone of the database that is a place's."""
    return sorted(name for name in zoneinfo.available_timezones() if name not in ("Factory", "localtime"))


def first_open(clock: WallClock, sides: Sequence[tuple[str, Allows]], moment: int, limit_s: int) -> int | None:
    """The first minute from ``moment`` on that every side, a zone and its hours, allows: by looking at each."""
    for candidate in range(moment, moment + limit_s, MINUTE_S):
        if all(allows(clock.at(zone, candidate)) for zone, allows in sides):
            return candidate
    return None


@contextlib.contextmanager
def wall_clock() -> Iterator[WallClock]:
    """A clock; the process has its own zone back afterwards."""
    kept = {name: os.environ.get(name) for name in ("TZ", "TZDIR")}
    os.environ["TZDIR"] = str(_database())
    try:
        yield WallClock()
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        time.tzset()


@cache
def _database() -> Path:
    """The folder that ``zoneinfo`` reads as well: that of the system, or of the package ``tzdata``."""
    for path in map(Path, zoneinfo.TZPATH):
        if (path / "Europe/Berlin").exists():
            return path
    package = importlib.util.find_spec("tzdata")
    assert package is not None and package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "zoneinfo"
