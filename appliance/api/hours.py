"""When somebody is there: hours of the week, holidays, single days, as dialplans write them. PURE.

What an operator writes is checked by the types :data:`Days`, :data:`Spans`, :data:`Holiday` and :data:`TimeZone` of a
pydantic model; :class:`Opening` is made of what they let through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Final, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from appliance.config.validation import fault, nearest

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NAMES: Final = dict(zip(_LONG, DAYS, strict=True))
ON_HOLIDAYS: Final = "holidays"
"""The key of the hours that hold on holidays."""

Span: TypeAlias = tuple[int, int]
"""Minutes from the midnight a day begins with; up to 48 hours where a span goes past the next midnight."""

_DAY_MIN: Final = 24 * 60
_HOLIDAY: Final = len(DAYS)
_TIME = re.compile(r"(\d{1,2})(?::([0-5]\d))?")
_DATE = re.compile(r"(?:(\d{4})-)?(\d{2})-(\d{2})")


def day_key(value: str) -> str:
    """``mon-fri``, ``sat``, ``sat, sun`` or ``holidays``, in lower case without spaces.

    Raises:
        PydanticCustomError: it is none of these.
    """
    text = "".join(value.lower().split())
    _days(text)
    return text


def _days(text: str) -> list[int]:
    if text == ON_HOLIDAYS:
        return [_HOLIDAY]
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        first, last = _NAMES.get(first, first), _NAMES.get(last, last)
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                known = (*DAYS, ON_HOLIDAYS)
                raise fault(f"{name!r} is not a day of the week", f"write mon-fri or sat; {nearest(name, known)}")
        begin = DAYS.index(first)
        count = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found += [(begin + step) % 7 for step in range(count)]
    return found


def time_spans(value: str) -> str:
    """``09:00-17:00``, or several with commas between; the end may be of the next day (``22:00-06:00``).

    Raises:
        PydanticCustomError: it is something else.
    """
    _spans(value)
    return value


def _spans(text: str) -> list[Span]:
    spans = []
    for part in text.replace("\u2013", "-").split(","):
        first, dash, last = part.partition("-")
        begin, end = _minutes(first), _minutes(last)
        if not dash or begin is None or end is None or begin == _DAY_MIN:
            raise fault(f"{part.strip()!r} is not a span of time", "write it as 09:00-17:00")
        if begin == end:
            raise fault(f"{part.strip()!r} begins when it ends", "write 00:00-24:00 for the whole day")
        spans.append((begin, end if end > begin else end + _DAY_MIN))
    return spans


def _minutes(text: str) -> int | None:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    minutes = int(found[1]) * 60 + int(found[2] or 0)
    return minutes if minutes <= _DAY_MIN else None


def holiday(value: str) -> str:
    """A calendar (``DE``, ``DE-BE``), a day (``2026-12-24``), a day of every year (``12-24``) or ``FIRST..LAST``.

    Raises:
        PydanticCustomError: there is no such calendar or day.
    """
    text = value.strip()
    if text[:1].isdecimal():
        first, dots, last = text.partition("..")
        begin, end = _day(first), _day(last) if dots else _day(first)
        if (begin[0] is None) != (end[0] is None):
            raise fault(f"{text!r} has a year on one side only", "write it as 2026-12-24..2027-01-02 or 12-24..01-02")
        if begin[0] is not None and end < begin:
            raise fault(f"{text!r} ends before it begins", "swap the days")
        return text
    country, _, part = text.upper().partition("-")
    calendars = _calendars()
    if country not in calendars:
        hint = "write a country (DE), a part of one (DE-BE), or a day (2026-12-24)"
        raise fault(f"there is no calendar of holidays {text!r}", hint)
    known = {name.upper(): name for name in calendars[country]}
    if part and part not in known:
        raise fault(f"{country} has no part {part!r}", nearest(part, known) or f"write {country}")
    return f"{country}-{part}" if part else country


def _day(text: str) -> tuple[int | None, int, int]:
    found = _DATE.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        year = int(found[1]) if found[1] else None
        date(year or 2000, int(found[2]), int(found[3]))
    except ValueError:
        raise fault(f"{text.strip()!r} is not a day", "write it as 2026-12-24, or 12-24 for every year") from None
    return year, int(found[2]), int(found[3])


def time_zone(value: str) -> str:
    """A name such as ``Europe/Berlin``.

    Raises:
        PydanticCustomError: there is no such zone.
    """
    try:
        ZoneInfo(value)
    except (OSError, KeyError, ValueError):
        raise fault(f"{value!r} is not a time zone", "write one such as Europe/Berlin") from None
    return value


Days: TypeAlias = Annotated[str, AfterValidator(day_key)]
"""``mon-fri``, ``sat``, ``sat, sun`` or ``holidays``."""
Spans: TypeAlias = Annotated[str, AfterValidator(time_spans)]
"""``09:00-17:00``, or several with commas between."""
Holiday: TypeAlias = Annotated[str, AfterValidator(holiday)]
"""``DE``, ``DE-BE``, ``2026-12-24``, ``12-24`` or ``FIRST..LAST``."""
TimeZone: TypeAlias = Annotated[str, AfterValidator(time_zone)]
"""``Europe/Berlin``."""


@lru_cache(maxsize=1)
def _calendars() -> dict[str, list[str]]:
    import holidays  # takes 0.1 s, and few dialplans need it

    return holidays.list_supported_countries(include_aliases=True)


@lru_cache(maxsize=4096)
def calendar(code: str, year: int) -> Mapping[date, str]:
    """The public holidays of ``DE`` or ``DE-BE`` in a year, each with its name in English where there is one."""
    import holidays

    country, _, part = code.partition("-")
    names = {name.upper(): name for name in _calendars().get(country, [])}
    days = holidays.country_holidays(country, subdiv=names.get(part), years=year, language="en_US")
    return dict(days.items())


@dataclass(frozen=True)
class Opening:
    """Hours of the week and days off, by the clock on the line's wall.

    Attributes:
        week: the spans of Monday to Sunday, then those of holidays; None without hours, which is the whole week.
        days_off: as :func:`holiday` lets through.
    """

    week: tuple[tuple[Span, ...], ...] | None
    days_off: tuple[str, ...] = ()

    @classmethod
    def of(cls, hours: Mapping[str, Sequence[str]] | None, days_off: Sequence[str]) -> Opening:
        """Of hours (:data:`Days` to :data:`Spans`) and :data:`Holiday` as a model has let them through."""
        if hours is None:
            return cls(None, tuple(days_off))
        week: list[list[Span]] = [[] for _ in range(len(DAYS) + 1)]
        for days, texts in hours.items():
            for day in _days(days):
                week[day] += [span for text in texts for span in _spans(text)]
        return cls(tuple(tuple(sorted(spans)) for spans in week), tuple(days_off))

    def times(self, day: date, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
        """The hours that begin on ``day``, from and to, by the clock in ``zone``; earliest first."""
        midnight = datetime.combine(day, time(), zone)
        return [
            (midnight + timedelta(minutes=begin), midnight + timedelta(minutes=end)) for begin, end in self.spans(day)
        ]

    def is_open(self, local: datetime) -> bool:
        """Whether it is open then. A span belongs to the day it begins on: Friday's is open on Saturday at 01:00."""
        today, minute = local.date(), local.hour * 60 + local.minute
        return any(begin <= minute < end for begin, end in self.spans(today)) or any(
            begin <= minute + _DAY_MIN < end for begin, end in self.spans(today - timedelta(days=1)) if end > _DAY_MIN
        )

    def day_off(self, day: date) -> str:
        """Why ``day`` is a holiday: its name, or how it was written; "" where it is none."""
        return _day_off(self.days_off, day)

    def spans(self, day: date) -> tuple[Span, ...]:
        """The hours that begin on ``day``, which may be a holiday; earliest first."""
        if self.days_off and self.day_off(day):
            return self.week[_HOLIDAY] if self.week is not None else ()
        return self.week[day.weekday()] if self.week is not None else ((0, _DAY_MIN),)


@lru_cache(maxsize=1024)
def _day_off(entries: tuple[str, ...], day: date) -> str:
    for entry in entries:
        if entry[:1].isdecimal():
            if _within(day, entry):
                return entry
        elif name := calendar(entry, day.year).get(day):
            return f"{name}, {entry}"
    return ""


def _within(day: date, entry: str) -> bool:
    first, dots, last = entry.partition("..")
    begin = _day(first)
    end = _day(last) if dots else begin
    if begin[0] is not None:
        return begin <= (day.year, day.month, day.day) <= end
    given, low, high = (day.month, day.day), begin[1:], end[1:]
    return low <= given <= high if low <= high else given >= low or given <= high
