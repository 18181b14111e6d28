"""Appointments in an iCalendar file: which times are free, and booking one of them.

Pages: docs/plugins/calendar_ics.md. It needs the packages of the extra `calendar`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import icalendar
import recurring_ical_events
from pydantic import Field, model_validator

from appliance.api import Arguments, Call, OngoingCall, PluginValues, Tool, ToolError, hookimpl
from appliance.api.hours import Days, Holiday, Opening, Spans, TimeZone

API = 1
SUMMARY = "Tells which appointments are free in an iCalendar file, and books them."

_MOST_TIMES = 12
_MAX_FILE_BYTES = 10_000_000


class Values(PluginValues):
    """What an operator may write below `calendar_ics`.

    Attributes:
        file: the calendar, `*.ics`; made when the first appointment is booked. What repeats in it is understood.
        timezone: where the appointments are, such as `Europe/Berlin`.
        hours: when there are appointments: days to spans of hours, `{mon-fri: "09:00-12:30, 13:30-17:00"}`;
            `22:00-02:00` goes on the next day. `holidays` has hours of its own.
        holidays: days without appointments, or with those hours: `DE`, `DE-BE`, `2026-12-24`, `12-24`.
        minutes: how long an appointment takes.
        days_ahead: how far ahead appointments can be made.
        notice_minutes: how soon at the earliest.
        confirm: what the caller is asked before an appointment is booked; `{start}` stands for the time.
        title: of an appointment in the calendar; `{name}`, `{caller}` and `{about}` stand for these.
    """

    file: Path
    timezone: TimeZone
    hours: dict[Days, Spans] = Field(default={"mon-fri": "09:00-17:00"}, min_length=1)
    holidays: tuple[Holiday, ...] = ()
    minutes: int = Field(default=30, ge=5, le=480)
    days_ahead: int = Field(default=30, ge=1, le=365)
    notice_minutes: int = Field(default=60, ge=0, le=10080)
    confirm: str = "Shall I book {start} for you?"
    title: str = "{name}: {about}"

    @property
    def opening(self) -> Opening:
        """The hours, ready to be asked."""
        return Opening.of({days: [spans] for days, spans in self.hours.items()}, self.holidays)

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
        self._opening = values.opening

    def free(self, day: date) -> list[datetime]:
        """When appointments of that day can begin, in the calendar's time zone."""
        if day > now().astimezone(self._zone).date() + timedelta(days=self._values.days_ahead):
            return []
        length = timedelta(minutes=self._values.minutes)
        earliest = now() + timedelta(minutes=self._values.notice_minutes)
        found = []
        hours = (*self._opening.times(day - timedelta(days=1), self._zone), *self._opening.times(day, self._zone))
        for begin, end in hours:
            if begin.date() != day and end.date() != day:
                continue
            taken = self._taken(begin, end)
            for number in range((end - begin) // length):
                at = begin + number * length
                if (
                    at.date() == day
                    and at >= earliest
                    and not any(first < at + length and at < last for first, last in taken)
                ):
                    found.append(at)
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
