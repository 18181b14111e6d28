"""The plugin ``business_hours`` in scripted calls."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from appliance.errors import PluginError
from appliance.testing import run_virtual, scripted_call, uses

HOURS = {
    "timezone": "Europe/Berlin",
    "hours": {"mon-fri": "09:00-12:30, 13:30-17:00", "sat": "22:00-02:00"},
    "holidays": ["DE", "12-24"],
}
OPEN = datetime(2026, 11, 18, 9, 0, tzinfo=UTC)  # a Wednesday, 10:00 in Berlin
CLOSED = datetime(2026, 11, 18, 19, 0, tzinfo=UTC)


async def call_at(now: datetime, place: Any, **more: Any) -> Any:
    call = await place(
        {"transfers": {"office": "+49301234"}},
        plugins={"business_hours": HOURS},
        model={
            "open": [uses("opening_hours", date="2026-11-18"), "We are."],
            "office": [uses("transfer", to="office"), "Nobody is there."],
            **more,
        },
    )
    call.plugin("business_hours").now = lambda: now
    return call


async def test_the_model_is_told_and_can_look_up_a_day(scripted_call: Any) -> None:
    call = await call_at(OPEN, scripted_call)
    await call.says("are you open")
    assert "The business is open, until 12:30." in call.prompts[0]
    assert call.tool("opening_hours").result == {
        "date": "Wednesday 18 November 2026",
        "open": ["09:00 to 12:30", "13:30 to 17:00"],
        "now": "open, until 12:30",
    }


async def test_nobody_is_put_through_while_it_is_closed(scripted_call: Any) -> None:
    call = await call_at(CLOSED, scripted_call)
    await call.says("the office please")
    assert call.transfers == []
    assert "closed, opens Thursday 19 November at 09:00" in call.prompts[-1]
    assert call.heard("Nobody is there.")


async def test_callers_are_put_through_while_it_is_open(scripted_call: Any) -> None:
    call = await call_at(OPEN, scripted_call)
    await call.says("the office please")
    await call.ends()
    assert [transfer.to for transfer in call.transfers] == ["+49301234"]


async def test_another_line_answers_while_it_is_closed(scripted_call: Any) -> None:
    values = {**HOURS, "hours": {"mon": "00:00-00:01"}, "closed_line": "night"}
    call = await scripted_call(plugins={"business_hours": values})
    assert call.routed in ("night", None)  # on a Monday, for a minute
    values["hours"] = {"mon-sun": "00:00-24:00"}
    values["holidays"] = []
    assert (await scripted_call(plugins={"business_hours": values})).routed is None


def test_the_hours_of_a_week() -> None:
    async def look() -> None:
        async with await scripted_call(plugins={"business_hours": HOURS}) as call:
            week = call.plugin("business_hours").Values(**HOURS).week
            at = lambda *when: week.state(datetime(2026, *when, tzinfo=week.zone))  # noqa: E731
            assert at(11, 18, 12, 29) == "open, until 12:30"
            assert at(11, 18, 12, 30) == "closed, opens Wednesday 18 November at 13:30"
            assert at(11, 22, 1, 59) == "open, until 02:00"
            assert at(12, 24, 10, 0) == "closed, opens Monday 28 December at 09:00"
            assert week.of(date(2026, 12, 25)) == []

    run_virtual(look())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timezone": "Berlin"}, "not a time zone"),
        ({"hours": {"monday to friday": "9-5"}}, "is not a day of the week"),
        ({"hours": {"mon": "9 to 5"}}, "is not a span of time"),
        ({"hours": {"mon": "09:00-25:00"}}, "is not a span of time"),
        ({"holidays": ["XX"]}, "no calendar of holidays"),
    ],
)
def test_wrong_values_are_refused_in_words(change: dict[str, Any], message: str) -> None:
    async def place() -> None:
        await scripted_call(plugins={"business_hours": {**HOURS, **change}})

    with pytest.raises(PluginError, match=message):
        run_virtual(place())
