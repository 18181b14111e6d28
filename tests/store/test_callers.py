"""What is kept of callers by their number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from appliance.errors import StoreError
from appliance.store.callers import CallerStore, plain_number
from appliance.store.calls import CallStore
from appliance.store.retention import forget_callers


class Calendar:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)

    def utc(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"


@pytest.fixture
async def callers(url: str, calendar: Calendar) -> AsyncIterator[CallerStore]:
    async with CallStore(url, clock=calendar) as store:
        yield store.callers


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("+49 30 1234", "+49301234"),
        ("0049 (30) 12-34", "+49301234"),
        ("030/1234", "0301234"),
        ("200", "200"),
        ("anonymous", ""),
        ("", ""),
        ("+", ""),
        ("1" * 40, ""),
    ],
)
def test_numbers_are_kept_in_one_form(written: str, kept: str) -> None:
    assert plain_number(written) == kept


async def test_notes_are_per_caller_and_line_and_the_newest_counts(callers: CallerStore) -> None:
    assert await callers.recall("+49301234", "desk") == ""
    await callers.keep("+49 30 1234", "desk", "Ann.", days=30)
    await callers.keep("0049301234", "desk", "Ann, window \x00 seat.", days=30)
    await callers.keep("+49301234", "sales", "Buys tea.", days=30)
    assert await callers.recall("+49301234", "desk") == "Ann, window \ufffd seat."
    assert await callers.recall("+49301235", "desk") == ""
    assert await callers.forget("+49 30 1234") == 2
    assert await callers.recall("+49301234", "sales") == ""
    assert await callers.forget("+49301234") == 0


async def test_nothing_is_kept_of_a_caller_without_a_number_and_empty_notes_are_none(callers: CallerStore) -> None:
    await callers.keep("anonymous", "desk", "Somebody.", days=30)
    assert await callers.recall("anonymous", "desk") == ""
    await callers.keep("200", "desk", "Ann.", days=30)
    await callers.keep("200", "desk", "", days=30)
    assert await callers.forget("200") == 0


async def test_notes_are_forgotten_when_the_caller_has_not_called_for_so_many_days(
    callers: CallerStore, calendar: Calendar, url: str
) -> None:
    await callers.keep("200", "desk", "Ann.", days=2)
    await callers.keep("201", "desk", "Ben.", days=30)
    calendar.now += timedelta(days=1)
    await callers.keep("200", "desk", "Ann again.", days=2)
    calendar.now += timedelta(days=1.5)
    assert await callers.recall("200", "desk") == "Ann again."
    calendar.now += timedelta(days=1)
    assert await callers.recall("200", "desk") == ""
    assert await forget_callers(url, calendar) == 1
    assert await callers.recall("201", "desk") == "Ben."


async def test_who_is_not_to_be_called_again(callers: CallerStore) -> None:
    assert not await callers.refuses_calls("+49301234")
    await callers.refuse_calls("+49 30 1234", reason="enough", call_id="c1", line="desk")
    await callers.refuse_calls("+49301234", reason="again", call_id="c2", line="desk")
    assert await callers.refuses_calls("0049 30 1234")
    assert await callers.forget("+49301234") == 0
    assert await callers.refuses_calls("+49301234")
    with pytest.raises(StoreError, match="is no number"):
        await callers.refuse_calls("anonymous", reason="", call_id="c3", line="desk")


async def test_a_database_that_is_locked_for_a_moment_loses_nothing(
    callers: CallerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, failures = callers._attempts._engine.begin, [OperationalError("x", {}, Exception("locked"))] * 2

    def sometimes() -> object:
        if failures:
            raise failures.pop()
        return begin()

    class Engine:
        begin = staticmethod(sometimes)

    monkeypatch.setattr(callers._attempts, "_engine", Engine())
    await callers.keep("200", "desk", "Ann.", days=2)
    assert await callers.recall("200", "desk") == "Ann."
    failures[:] = [OperationalError("x", {}, Exception("disk I/O error"))] * 3
    with pytest.raises(StoreError, match="disk I/O error; check store"):
        await callers.recall("200", "desk")
