"""Appointments in an iCalendar file: which times are free, and booking one of them.

Pages: docs/plugins/calendar_ics.md. It needs the packages of the extra `calendar`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import icalendar
import recurring_ical_events
from pydantic import Field, field_validator, model_validator

from appliance.api import Arguments, Call, OngoingCall, PluginValues, Tool, ToolError, hookimpl

API = 1
SUMMARY = "Tells which appointments are free in an iCalendar file, and books them."

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAMES = dict(zip(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), _DAYS, strict=True))
_MOST_TIMES = 12
_MAX_FILE_BYTES = 10_000_000


class Values(PluginValues):
    """What an operator may write below `calendar_ics`.

    Attributes:
        file: the calendar, `*.ics`; made when the first appointment is booked. What repeats in it is understood.
        timezone: where the appointments are, such as `Europe/Berlin`.
        hours: when there are appointments: days to one span each, `{mon-fri: "09:00-17:00"}`.
        minutes: how long an appointment takes.
        days_ahead: how far ahead appointments can be made.
        notice_minutes: how soon at the earliest.
        confirm: what the caller is asked before an appointment is booked; `{start}` stands for the time.
        title: of an appointment in the calendar; `{name}`, `{caller}` and `{about}` stand for these.
    """

    file: Path
    timezone: str
    hours: dict[str, str] = Field(default={"mon-fri": "09:00-17:00"}, min_length=1)
    minutes: int = Field(default=30, ge=5, le=480)
    days_ahead: int = Field(default=30, ge=1, le=365)
    notice_minutes: int = Field(default=60, ge=0, le=10080)
    confirm: str = "Shall I book {start} for you?"
    title: str = "{name}: {about}"

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
        for days, span in hours.items():
            _days(days)
            _span(span)
        return hours

    @model_validator(mode="after")
    def _has_a_folder(self) -> Values:
        if not self.file.absolute().parent.is_dir():
            raise ValueError(f"the folder of {str(self.file)!r} does not exist; make it, or name another file")
        return self


def now() -> datetime:
    """The time. Tests put another in its place."""
    return datetime.now(UTC)


class Diary:
    """The appointments in a file."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._zone = ZoneInfo(values.timezone)

    def free(self, day: date) -> list[datetime]:
        """When appointments of that day can begin, in the calendar's time zone."""
        span = next((_span(text) for days, text in self._values.hours.items() if day.weekday() in _days(days)), None)
        if span is None or day > now().astimezone(self._zone).date() + timedelta(days=self._values.days_ahead):
            return []
        length = timedelta(minutes=self._values.minutes)
        earliest = now() + timedelta(minutes=self._values.notice_minutes)
        begin, end = (datetime.combine(day, at, self._zone) for at in span)
        taken = self._taken(begin, end)
        found = []
        while begin + length <= end:
            if begin >= earliest and not any(first < begin + length and begin < last for first, last in taken):
                found.append(begin)
            begin += length
        return found

    def book(self, start: datetime, title: str, text: str, key: str) -> str:
        """Book an appointment; the same key books it once.

        Returns:
            Its UID.

        Raises:
            ToolError: the time is not free.
        """
        uid = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}@appliance"
        with self._locked():
            calendar = self._read()
            if any(str(event.get("UID")) == uid for event in calendar.walk("VEVENT")):
                return uid
            if start not in self.free(start.date()):
                raise ToolError("that time is not free any more; look for free times again")
            event = icalendar.Event()
            event.add("UID", uid)
            event.add("DTSTAMP", now().astimezone(UTC))
            event.add("DTSTART", start)
            event.add("DTEND", start + timedelta(minutes=self._values.minutes))
            event.add("SUMMARY", title)
            event.add("DESCRIPTION", text)
            calendar.add_component(event)
            self._write(calendar)
        return uid

    def cancel(self, start: datetime, caller: str) -> bool:
        """Take the caller's appointment of that time out; False where there is none."""
        with self._locked():
            calendar = self._read()
            for event in calendar.walk("VEVENT"):
                begins = event.get("DTSTART")
                if (
                    begins is not None
                    and begins.dt == start
                    and str(event.get("UID")).endswith("@appliance")
                    and caller in str(event.get("DESCRIPTION", "")).split()
                ):
                    calendar.subcomponents.remove(event)
                    self._write(calendar)
                    return True
        return False

    def _taken(self, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        found = []
        for event in recurring_ical_events.of(self._read()).between(begin, end):
            if str(event.get("TRANSP", "")) == "TRANSPARENT" or str(event.get("STATUS", "")) == "CANCELLED":
                continue
            first = event["DTSTART"].dt
            last = event["DTEND"].dt if "DTEND" in event else first + timedelta(minutes=self._values.minutes)
            found.append((self._moment(first), self._moment(last)))
        return found

    def _moment(self, value: date | datetime) -> datetime:
        """Whole days and times without a zone are the calendar's."""
        if not isinstance(value, datetime):
            return datetime.combine(value, time(), self._zone)
        return value if value.tzinfo is not None else value.replace(tzinfo=self._zone)

    def _read(self) -> icalendar.Calendar:
        try:
            with self._values.file.open("rb") as file:
                return icalendar.Calendar.from_ical(file.read(_MAX_FILE_BYTES))
        except FileNotFoundError:
            calendar = icalendar.Calendar()
            calendar.add("PRODID", "-//appliance//calendar_ics//EN")
            calendar.add("VERSION", "2.0")
            return calendar
        except ValueError as error:
            raise ToolError("the calendar cannot be read now") from error

    def _write(self, calendar: icalendar.Calendar) -> None:
        draft = self._values.file.with_suffix(".part")
        with draft.open("wb") as file:
            file.write(calendar.to_ical())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._values.file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time, other processes included."""
        with self._values.file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@hookimpl
def appliance_tools(call: Call) -> Sequence[Tool]:
    values: Values = call.values
    diary = Diary(values)
    zone = ZoneInfo(values.timezone)

    def free_appointments(arguments: Arguments, ongoing: OngoingCall) -> object:
        day = _date_of(arguments["date"])
        times = diary.free(day)
        shown = times[:: max(1, -(-len(times) // _MOST_TIMES))]
        return {"date": f"{day:%A %d %B %Y}", "free": [f"{one:%Y-%m-%dT%H:%M}" for one in shown] or "nothing"}

    def book_appointment(arguments: Arguments, ongoing: OngoingCall) -> object:
        start = _start_of(arguments["start"], zone)
        known = {"name": arguments["name"], "caller": ongoing.caller, "about": arguments.get("about", "appointment")}
        title = values.title
        for key, value in known.items():
            title = title.replace("{" + key + "}", " ".join(value.split()))
        text = f"Booked by telephone.\nCaller: {ongoing.caller}\nCall: {ongoing.call_id}"
        diary.book(start, title[:200], text, ongoing.idempotency_key)
        ongoing.note("appointment", f"{start:%Y-%m-%d %H:%M}")
        return {"booked": f"{start:%A %d %B %Y at %H:%M}"}

    def cancel_appointment(arguments: Arguments, ongoing: OngoingCall) -> object:
        start = _start_of(arguments["start"], zone)
        if not ongoing.caller or not diary.cancel(start, ongoing.caller):
            raise ToolError("the caller's number has no appointment at that time")
        ongoing.note("appointment", f"cancelled {start:%Y-%m-%d %H:%M}")
        return {"cancelled": f"{start:%A %d %B %Y at %H:%M}"}

    moment = {"type": "string", "description": "A free time, as 2026-12-24T14:30."}
    return [
        Tool(
            name="free_appointments",
            description="Which appointments are free on a day.",
            parameters=_schema(["date"], date={"type": "string", "description": "The day, as 2026-12-24."}),
            run=free_appointments,  # type: ignore[arg-type]
            side_effects=False,
        ),
        Tool(
            name="book_appointment",
            description="Books an appointment. Look for free ones first, and ask for the caller's name.",
            parameters=_schema(
                ["start", "name"],
                start=moment,
                name={"type": "string", "minLength": 1, "maxLength": 80},
                about={"type": "string", "maxLength": 120, "description": "What it is about, in a few words."},
            ),
            run=book_appointment,  # type: ignore[arg-type]
            confirm=values.confirm,
        ),
        Tool(
            name="cancel_appointment",
            description="Cancels an appointment that was booked from the number the caller is calling from.",
            parameters=_schema(["start"], start=moment),
            run=cancel_appointment,  # type: ignore[arg-type]
            confirm="Shall I cancel the appointment of {start}?" if values.confirm else "",
        ),
    ]


def _schema(required: Sequence[str], **properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _date_of(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ToolError(f"{text!r} is not a date; write it as 2026-12-24") from None


def _start_of(text: str, zone: ZoneInfo) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone)
    except ValueError:
        raise ToolError(f"{text!r} is not a time; write it as 2026-12-24T14:30") from None


def _days(text: str) -> tuple[int, ...]:
    """Numbers of the days of ``mon-fri`` or ``sat, sun``; Monday is 0."""
    found: list[int] = []
    for part in text.lower().split(","):
        first, _, last = (_NAMES.get(name.strip(), name.strip()) for name in part.partition("-"))
        for name in (first, last or first):
            if name not in _DAYS:
                raise ValueError(f"{text!r} does not name days; write them as mon-fri, or sat, sun")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        found += range(begin, end + 1) if end >= begin else (*range(begin, 7), *range(end + 1))
    return tuple(found)


def _span(text: str) -> tuple[time, time]:
    match = re.fullmatch(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})", text.strip())
    try:
        if match is None:
            raise ValueError
        hours = [int(number) for number in match.groups()]
        begin, end = time(hours[0], hours[1]), time(hours[2], hours[3])
        if begin >= end:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is not a span of hours; write it as 09:00-17:30") from None
    return begin, end
