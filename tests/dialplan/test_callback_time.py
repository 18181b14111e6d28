"""Times to call again: what they mean where the one called is, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from appliance.dialplan.callback_time import callback_time

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 20, 20, 15, tzinfo=UTC)
"""A Friday, 15:15 in New York."""


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("+2h", "2026-11-20T22:15"),
        ("+ 1h 30m", "2026-11-20T21:45"),
        ("+90m", "2026-11-20T21:45"),
        ("+1d", "2026-11-21T20:15"),
        ("16:00", "2026-11-20T21:00"),
        ("9:30", "2026-11-21T14:30"),
        ("today 18:00", "2026-11-20T23:00"),
        ("Tomorrow  09:30", "2026-11-21T14:30"),
        ("monday 10:00", "2026-11-23T15:00"),
        ("friday 10:00", "2026-11-27T15:00"),
        ("friday 16:00", "2026-11-20T21:00"),
        ("2026-11-23T10:00", "2026-11-23T15:00"),
        ("2026-11-23 10:00:00", "2026-11-23T15:00"),
        ("2026-11-23T10:00:00+01:00", "2026-11-23T09:00"),
    ],
)
def test_times(text: str, when: str) -> None:
    assert callback_time(text, NOW, NEW_YORK) == datetime.fromisoformat(when).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no time"),
        ("soon", "is no time"),
        ("+", "is no time"),
        ("25:00", "is no time"),
        ("someday 10:00", "is no time"),
        ("2026-11-23", "is no time"),
        ("today 09:00", "is past"),
        ("2026-11-20T15:00", "is past"),
        ("+0m", "is past"),
        ("+31d", "more than 30 days away"),
        ("2027-11-23T10:00", "more than 30 days away"),
    ],
)
def test_what_is_no_time_to_call(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        callback_time(text, NOW, NEW_YORK)


def test_days_are_days_of_the_clock_there_also_when_clocks_change() -> None:
    before = datetime(2026, 10, 31, 16, 0, tzinfo=UTC)  # 12:00 in New York; clocks go back in the night
    assert callback_time("+1d", before, NEW_YORK) == datetime(2026, 11, 1, 17, 0, tzinfo=UTC)
    assert callback_time("tomorrow 12:00", before, NEW_YORK) == datetime(2026, 11, 1, 17, 0, tzinfo=UTC)
    assert callback_time("+24h", before, NEW_YORK) == datetime(2026, 11, 1, 16, 0, tzinfo=UTC)
