"""Knows when the business is open: tells callers, keeps them from being put through to nobody, and chooses the line.

Pages: docs/plugins/business_hours.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import holidays as calendars
from pydantic import Field, field_validator

from appliance.api import Arguments, Call, Denied, ModelRequest, OngoingCall, PluginValues, Tool, ToolError, hookimpl

API = 1
SUMMARY = "Tells when the business is open, and hands nobody on while it is closed."

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAMES = dict(zip(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), _DAYS, strict=True))
_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_LOOK_AHEAD_DAYS = 60


class Values(PluginValues):
    """What an operator may write below `business_hours`.

    Attributes:
        timezone: where the business is, such as `Europe/Berlin`.
        hours: days to spans of hours, `{mon-fri: "09:00-12:30, 13:30-17:00", sat: "10:00-13:00"}`; a day that is not
            named is closed. A span that ends before it begins ends on the next day.
        holidays: days on which it is closed: public holidays of a country or a part of one (`DE`, `DE-BE`), days
            (`2026-12-24`), or days of every year (`12-24`).
        closed_line: the line that answers while it is closed, whatever the dialplan says. Only where the plugin is
            enabled for the whole box.
        refuse_transfers: whether nobody is put through while it is closed.
    """

    timezone: str
    hours: dict[str, str] = Field(min_length=1)
    holidays: tuple[str, ...] = ()
    closed_line: str = ""
    refuse_transfers: bool = True

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, KeyError, ValueError):
            raise ValueError(f"{name!r} is not a time zone; write one such as Europe/Berlin") from None
        return name

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, hours: dict[str, str]) -> dict[str, str]:
        for days, spans in hours.items():
            list(_days(days))
            _spans(spans)
        return hours

    @field_validator("holidays")
    @classmethod
    def _are_holidays(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _holiday(name)
        return names

    @cached_property
    def week(self) -> Week:
        """The hours, ready to be asked."""
        return Week(self)


class Week:
    """The hours of a business."""

    def __init__(self, values: Values) -> None:
        self.zone = ZoneInfo(values.timezone)
        self._spans: dict[int, list[tuple[time, time]]] = {}
        for days, spans in values.hours.items():
            for day in _days(days):
                self._spans.setdefault(day, []).extend(_spans(spans))
        self._holidays = [_holiday(name) for name in values.holidays]

    def of(self, day: date) -> list[tuple[datetime, datetime]]:
        """When it is open on ``day``, from and to, in order."""
        if any(day in holiday or f"{day:%m-%d}" in holiday for holiday in self._holidays):
            return []
        found = []
        for begin, end in sorted(self._spans.get(day.weekday(), [])):
            last = day if end > begin else day + timedelta(days=1)
            found.append((datetime.combine(day, begin, self.zone), datetime.combine(last, end, self.zone)))
        return found

    def open_until(self, now: datetime) -> datetime | None:
        """When it closes; None if it is closed."""
        today = now.astimezone(self.zone).date()
        spans = [*self.of(today - timedelta(days=1)), *self.of(today)]
        return next((end for begin, end in spans if begin <= now < end), None)

    def opens_at(self, now: datetime) -> datetime | None:
        """When it opens next; None where that is not within two months."""
        today = now.astimezone(self.zone).date()
        for ahead in range(_LOOK_AHEAD_DAYS):
            for begin, _ in self.of(today + timedelta(days=ahead)):
                if begin > now:
                    return begin
        return None

    def state(self, now: datetime) -> str:
        """Whether it is open, and how long, in words."""
        until = self.open_until(now)
        if until is not None:
            return f"open, until {until:%H:%M}"
        opens = self.opens_at(now)
        return "closed" if opens is None else f"closed, opens {opens:%A %d %B at %H:%M}"


def now() -> datetime:
    """The time. Tests put another in its place."""
    return datetime.now().astimezone()


@hookimpl
def appliance_route(call: Call) -> str | None:
    if not call.values.closed_line or call.values.week.open_until(now()) is not None:
        return None
    return call.values.closed_line


@hookimpl
def appliance_before_llm(call: Call, request: ModelRequest) -> list[str]:
    return [f"The business is {call.values.week.state(now())}."]


@hookimpl
def appliance_tools(call: Call) -> Sequence[Tool]:
    async def opening_hours(arguments: Arguments, ongoing: OngoingCall) -> dict[str, object]:
        week: Week = call.values.week
        try:
            day = date.fromisoformat(arguments["date"])
        except ValueError:
            raise ToolError(f"{arguments['date']!r} is not a date; write it as 2026-12-24") from None
        spans = [f"{begin:%H:%M} to {end:%H:%M}" for begin, end in week.of(day)]
        return {"date": f"{day:%A %d %B %Y}", "open": spans or "closed all day", "now": week.state(now())}

    return [
        Tool(
            name="opening_hours",
            description="When the business is open on a day. Use it for every question about opening hours.",
            parameters={
                "type": "object",
                "properties": {"date": {"type": "string", "description": "The day, as 2026-12-24."}},
                "required": ["date"],
                "additionalProperties": False,
            },
            run=opening_hours,
            side_effects=False,
        )
    ]


@hookimpl
def appliance_transfer_requested(call: Call, target: str) -> Denied | None:
    if not call.values.refuse_transfers or call.values.week.open_until(now()) is not None:
        return None
    return Denied(f"nobody is there now: {call.values.week.state(now())}")


def _days(text: str) -> Iterator[int]:
    """Numbers of the days of ``mon-fri`` or ``sat, sun``; Monday is 0."""
    for part in text.lower().split(","):
        first, _, last = (_NAMES.get(name.strip(), name.strip()) for name in part.partition("-"))
        for name in (first, last or first):
            if name not in _DAYS:
                raise ValueError(f"{text!r} does not name days; write them as mon-fri, or sat, sun")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        yield from range(begin, end + 1) if end >= begin else (*range(begin, 7), *range(end + 1))


def _spans(text: str) -> list[tuple[time, time]]:
    found = []
    for part in text.split(","):
        match = _SPAN.fullmatch(part.strip())
        try:
            if match is None:
                raise ValueError
            hours = [int(number) for number in match.groups()]
            begin = time(hours[0], hours[1])
            end = time(0, 0) if (hours[2], hours[3]) == (24, 0) else time(hours[2], hours[3])
        except ValueError:
            raise ValueError(f"{part.strip()!r} is not a span of hours; write it as 09:00-17:30") from None
        found.append((begin, end))
    return found


def _holiday(name: str) -> Sequence[str] | calendars.HolidayBase:
    """Something that a day is in, or its month and day as text."""
    if re.fullmatch(r"\d{2}-\d{2}", name):
        return (name,)
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", name):
        return (f"{date.fromisoformat(name):%Y-%m-%d}",)
    country, _, part = name.partition("-")
    try:
        return calendars.country_holidays(country, subdiv=part or None)
    except NotImplementedError:
        what = f"{name!r} is neither a country nor a day"
        raise ValueError(f"{what}; write DE or DE-BE, 2026-12-24, or 12-24 for every year") from None
