"""When a line is open, by the clock on its wall."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from appliance.dialplan.routing import Routing
from tests.dialplan.test_matcher import arrival, line

BERLIN = "Europe/Berlin"


def is_open(at: str, timezone: str | None = BERLIN, **wanted: Any) -> bool:
    when = datetime.fromisoformat(at)
    call = arrival(at=when if when.tzinfo else when.replace(tzinfo=UTC))
    found = line("x", timezone=timezone, **wanted)
    assert (Routing([found]).decide(call) is not None) is (Routing([found]).why_not(found, call) == ())
    return Routing([found]).decide(call) is not None


OFFICE = {"mon-fri": ["09:00-12:30", "13:30-17:00"], "sat": "10-13"}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-04T08:59+01:00", False),
        ("2026-03-04T09:00+01:00", True),
        ("2026-03-04T12:29:59+01:00", True),
        ("2026-03-04T12:30+01:00", False),
        ("2026-03-04T13:30+01:00", True),
        ("2026-03-04T17:00+01:00", False),
        ("2026-03-07T12:59+01:00", True),
        ("2026-03-08T11:00+01:00", False),
        ("2026-03-04T08:30", True),
        ("2026-07-01T07:30", True),
        ("2026-07-01T15:30", False),
    ],
)
def test_the_week(at: str, expected: bool) -> None:
    assert is_open(at, hours=OFFICE) is expected
    assert is_open(at, hours=OFFICE, closed=True) is not expected


@pytest.mark.parametrize(
    ("hours", "at", "expected"),
    [
        ({"fri": "22:00-06:00"}, "2026-03-07T05:59", True),
        ({"fri": "22:00-06:00"}, "2026-03-07T06:00", False),
        ({"fri": "22:00-06:00"}, "2026-03-06T05:00", False),
        ({"sun": "22:00-06:00"}, "2026-03-09T01:00", True),
        ({"mon-sun": "00:00-24:00"}, "2026-03-09T23:59", True),
        ({"sat-mon": "8:00-9:00"}, "2026-03-09T08:30", True),
        ({"sat-mon": "8:00-9:00"}, "2026-03-10T08:30", False),
        ({"Tue, Thu": "08:00\u201309:00, 10:00 - 11:00"}, "2026-03-10T10:30", True),
        ({"tue": "08:00-09:00", "mon-wed": "10:00-11:00"}, "2026-03-10T10:30", True),
    ],
)
def test_spans_past_midnight_and_days_in_many_ways(hours: dict[str, Any], at: str, expected: bool) -> None:
    assert is_open(at, "UTC", hours=hours) is expected


def test_without_a_time_zone_it_is_that_of_the_box() -> None:
    assert is_open("2026-03-04T09:30+05:00", None, hours=OFFICE)
    assert not is_open("2026-03-04T09:30+05:00", hours=OFFICE)


def test_when_the_clocks_change_the_wall_counts() -> None:
    for at in ("2026-03-29T00:59", "2026-03-29T01:00", "2026-10-25T00:30", "2026-10-25T01:30"):
        assert is_open(at, hours={"sun": "01:00-04:00"})
    assert not is_open("2026-10-25T01:30", hours={"sun": "00:00-02:00"})


@pytest.mark.parametrize(
    ("holidays", "day", "expected"),
    [
        (["DE"], "2026-12-25", False),
        (["DE"], "2026-12-24", True),
        (["DE", "12-24"], "2026-12-24", False),
        (["de-be"], "2026-03-08", False),
        (["DE"], "2026-03-08", True),
        (["US-CA"], "2026-03-31", False),
        (["2026-12-24"], "2027-12-24", True),
        (["2026-12-24..2027-01-02"], "2027-01-02", False),
        (["2026-12-24..2027-01-02"], "2027-01-03", True),
        (["12-24..01-02"], "2030-01-01", False),
        (["12-24..01-02"], "2030-01-03", True),
        (["02-29"], "2028-02-29", False),
    ],
)
def test_holidays(holidays: list[str], day: str, expected: bool) -> None:
    at = f"{day}T12:00"
    assert is_open(at, "UTC", holidays=holidays) is expected
    assert is_open(at, "UTC", holidays=holidays, closed=True) is not expected
    assert is_open(at, "UTC", hours={"mon-sun": "11-14"}, holidays=holidays) is expected
    with_hours = {"mon-sun": "11-14", "holidays": "12:30-14:00"}
    assert is_open(at, "UTC", hours=with_hours, holidays=holidays) is expected
    assert is_open(f"{day}T12:30", "UTC", hours=with_hours, holidays=holidays)


def test_a_night_that_began_before_a_holiday_goes_on_into_it() -> None:
    night = {"mon-sun": "22:00-06:00"}
    assert is_open("2026-12-25T03:00+01:00", hours=night, holidays=["DE"])
    assert not is_open("2026-12-27T03:00+01:00", hours=night, holidays=["DE"])


def test_why_it_is_closed() -> None:
    found = line("x", timezone=BERLIN, hours=OFFICE, holidays=["DE-BE"])

    def why(at: str) -> str:
        return "; ".join(Routing([found]).why_not(found, arrival(at=datetime.fromisoformat(at))))

    assert why("2026-03-08T12:00+01:00") == "Sun 2026-03-08 12:00 (Europe/Berlin) is a holiday (Women's Day, DE-BE)"
    assert why("2026-03-09T18:00+01:00") == (
        "Mon 2026-03-09 18:00 (Europe/Berlin) is not within mon-fri 09:00-12:30 and 13:30-17:00, sat 10-13"
    )
