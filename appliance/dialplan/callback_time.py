"""When to call somebody again: times as dialplans and language models write them, agreed on in the call. PURE."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

FURTHEST: Final = timedelta(days=30)
WAYS: Final = "+2h, +1h30m, 14:00, tomorrow 09:30, monday 10:00 or 2026-11-23T10:00"
"""How a time is written, for messages."""

_SPAN: Final = re.compile(r"\+\s*(?:(\d{1,3})\s*d)?\s*(?:(\d{1,3})\s*h)?\s*(?:(\d{1,4})\s*m)?")
_CLOCK: Final = re.compile(r"(?:(\w+)\s+)?(\d{1,2}):(\d{2})")
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def callback_time(text: str, now: datetime, zone: tzinfo) -> datetime:
    """When ``text`` is, in UTC.

    Args:
        text: one of :data:`WAYS`; a time of day is the next one, a date without an offset is local time.
        now: aware.
        zone: of the one to be called.

    Raises:
        ValueError: it is no time, past, or further away than 30 days; the message says so and what would be right.
    """
    here = now.astimezone(zone)
    written = " ".join(text.lower().split())
    found = _after(written, here) or _at_clock(written, here) or _date(text.strip(), zone)
    if found is None:
        raise ValueError(f"{text[:60]!r} is no time to call again; write it as {WAYS}")
    when = found.astimezone(UTC)
    if when <= now:
        raise ValueError(f"{text[:60]!r} is past: it is {here:%Y-%m-%d %H:%M} there; choose a later time")
    if when - now > FURTHEST:
        raise ValueError(f"{text[:60]!r} is more than {FURTHEST.days} days away; choose an earlier time")
    return when


def is_callback_time(text: str) -> bool:
    """Whether :func:`callback_time` can read ``text``, be it past or not."""
    try:
        callback_time(text, datetime(2026, 1, 1, tzinfo=UTC), UTC)
    except ValueError as error:
        return "is no time" not in str(error)
    return True


def _after(text: str, here: datetime) -> datetime | None:
    span = _SPAN.fullmatch(text)
    if span is None or not any(span.groups()):
        return None
    days, hours, minutes = (int(part or 0) for part in span.groups())
    later = here + timedelta(days=days)  # as many days later it is as late by the clock there
    return later.astimezone(UTC) + timedelta(hours=hours, minutes=minutes)


def _at_clock(text: str, here: datetime) -> datetime | None:
    clock = _CLOCK.fullmatch(text)
    if clock is None or int(clock[2]) > 23 or int(clock[3]) > 59:
        return None
    at = here.replace(hour=int(clock[2]), minute=int(clock[3]), second=0, microsecond=0)
    match clock[1]:
        case None:
            return at if at > here else at + timedelta(days=1)
        case "today":
            return at
        case "tomorrow":
            return at + timedelta(days=1)
        case day if day in _DAYS:
            ahead = (_DAYS.index(day) - here.weekday()) % 7
            return at + timedelta(days=ahead if ahead or at > here else 7)
    return None


def _date(text: str, zone: tzinfo) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) <= len("2026-11-23"):
        return None  # a day without a time
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)
