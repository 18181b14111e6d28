"""The plugin ``calendar_ics`` with real iCalendar files."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import icalendar
import pytest

from appliance.errors import PluginError
from appliance.testing import run_virtual, uses
from appliance.testing import scripted_call as place

NOW = datetime(2026, 11, 18, 8, 0, tzinfo=UTC)
WEEKLY = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//someone//else//EN
BEGIN:VEVENT
UID:weekly
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Berlin:20260107T090000
DTEND;TZID=Europe/Berlin:20260107T100000
RRULE:FREQ=WEEKLY;BYDAY=WE
SUMMARY:Team
END:VEVENT
BEGIN:VEVENT
UID:free
DTSTAMP:20260101T000000Z
DTSTART;VALUE=DATE:20261118
TRANSP:TRANSPARENT
SUMMARY:Ann's birthday
END:VEVENT
END:VCALENDAR
"""


def values(folder: Path) -> dict[str, Any]:
    return {
        "file": str(folder / "practice.ics"),
        "timezone": "Europe/Berlin",
        "hours": {"mon-fri": "09:00-11:00"},
        "notice_minutes": 0,
    }


async def test_a_free_time_is_found_and_booked_once_the_caller_agrees(scripted_call: Any, tmp_path: Path) -> None:
    (tmp_path / "practice.ics").write_text(WEEKLY)
    call = await scripted_call(
        plugins={"calendar_ics": values(tmp_path)},
        caller="+4915112345678",
        model={
            "wednesday": [uses("free_appointments", date="2026-11-18"), "Ten or half past."],
            "ten": [uses("book_appointment", start="2026-11-18T10:00", name="Ann", about="a cough"), "Done."],
            "half": [uses("book_appointment", start="2026-11-18T10:00", name="Bob"), "Taken."],
            "cancel": [uses("cancel_appointment", start="2026-11-18T10:00"), "Cancelled."],
        },
    )
    call.plugin("calendar_ics").now = lambda: NOW
    await call.says("something on wednesday")
    assert call.tool("free_appointments").result == {
        "date": "Wednesday 18 November 2026",
        "free": ["2026-11-18T10:00", "2026-11-18T10:30"],
    }
    await call.says("at ten")
    assert call.heard("Shall I book 2026-11-18T10:00 for you?")
    await call.says("yes")
    assert call.tool("book_appointment").result == {"booked": "Wednesday 18 November 2026 at 10:00"}
    events = icalendar.Calendar.from_ical((tmp_path / "practice.ics").read_bytes()).walk("VEVENT")
    assert [str(event["SUMMARY"]) for event in events] == ["Team", "Ann's birthday", "Ann: a cough"]
    assert events[-1]["DTSTART"].dt == datetime(2026, 11, 18, 9, 0, tzinfo=UTC)
    await call.says("or half past")
    await call.says("yes")
    assert "not free any more" in call.tool("book_appointment").problem
    await call.says("please cancel it")
    await call.says("yes")
    assert call.tool("cancel_appointment").problem == ""
    await call.hangs_up()
    assert call.slots["appointment"] == "cancelled 2026-11-18 10:00"
    assert b"cough" not in (tmp_path / "practice.ics").read_bytes()


def test_a_repetition_books_once_and_a_new_file_is_made(tmp_path: Path) -> None:
    async def book() -> None:
        async with await place(plugins={"calendar_ics": values(tmp_path)}) as call:
            plugin = call.plugin("calendar_ics")
            plugin.now = lambda: NOW
            diary = plugin.Diary(plugin.Values(**values(tmp_path)))
            start = diary.free(NOW.date())[-1]
            assert diary.book(start, "Ann", "", "key") == diary.book(start, "Ann", "", "key")
            assert (tmp_path / "practice.ics").read_bytes().count(b"BEGIN:VEVENT") == 1
            assert start not in diary.free(NOW.date())
            assert diary.free(date(2026, 11, 21)) == []
            assert diary.free(date(2027, 11, 18)) == []
            spans = {"hours": {"monday-fri": "09:00-09:45, 10-11"}, "holidays": ["2026-11-19"]}
            diary = plugin.Diary(plugin.Values(**{**values(tmp_path), **spans}))
            assert [f"{one:%H:%M}" for one in diary.free(date(2026, 11, 20))] == ["09:00", "10:00", "10:30"]
            assert diary.free(date(2026, 11, 19)) == []

    run_virtual(book())


def test_hours_that_go_past_midnight_are_of_both_days(tmp_path: Path) -> None:
    async def book() -> None:
        late = {**values(tmp_path), "hours": {"fri": "22:30-00:45"}}
        async with await place(plugins={"calendar_ics": late}) as call:
            plugin = call.plugin("calendar_ics")
            plugin.now = lambda: NOW
            diary = plugin.Diary(plugin.Values(**late))
            friday, saturday = diary.free(date(2026, 11, 20)), diary.free(date(2026, 11, 21))
            assert [f"{one:%d %H:%M}" for one in friday] == ["20 22:30", "20 23:00", "20 23:30"]
            assert [f"{one:%d %H:%M}" for one in saturday] == ["21 00:00"]
            diary.book(saturday[0], "Ann", "", "key")
            assert diary.free(date(2026, 11, 21)) == []
            assert diary.free(date(2026, 11, 22)) == []

    run_virtual(book())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timezone": "Mars"}, "not a time zone"),
        ({"hours": {"mon": "17:00-17:00"}}, "begins when it ends"),
        ({"file": "/nowhere/at/all.ics"}, "does not exist"),
    ],
)
def test_wrong_values_are_refused_in_words(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    async def wrong() -> None:
        await place(plugins={"calendar_ics": {**values(tmp_path), **change}})

    with pytest.raises(PluginError, match=message):
        run_virtual(wrong())
