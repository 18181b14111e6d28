"""When a lead is called again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from appliance.campaigns.outcome import Disposition
from appliance.campaigns.retries import Hours, Next, after_crash, next_call
from appliance.campaigns.rules import Rules
from tests.campaigns.leads import Lead, definition

NOON = datetime(2026, 11, 23, 17, tzinfo=UTC)
"""Monday, 12:00 in New York."""
CALLED = Lead(attempts=1, last_at=NOON)


def again(
    disposition: str, count: int = 1, lead: Lead = CALLED, now: datetime = NOON, *, gap_s: float = 60, **more: Any
) -> Next:
    callback_at, hours = more.pop("callback_at", None), more.pop("hours", None)
    rules = Rules(definition(attempts={"gap_s": gap_s, "per_lead": 9}, **more))
    counts = {disposition: count}
    return next_call(rules, lead, counts, Disposition(disposition), now, callback_at=callback_at, hours=hours)


@pytest.mark.parametrize(
    "final",
    ["answered", "completed", "voicemail_left", "transferred", "invalid", "opted_out", "abandoned", "not_allowed"],
)
def test_what_reached_somebody_or_never_will_is_final(final: str) -> None:
    assert again(final) == Next(None, f"{final} is final")


def test_the_wait_of_the_disposition_holds() -> None:
    assert again("busy").at == NOON + timedelta(minutes=15)


def test_the_gap_holds_where_it_is_longer() -> None:
    assert again("busy", gap_s=7200).at == NOON + timedelta(hours=2)


def test_the_times_of_a_disposition_are_counted_by_themselves() -> None:
    assert again("busy", 3).at is not None
    assert again("busy", 4) == Next(None, "ended as busy 4 times; retry.busy.times is 3")


def test_a_lead_has_one_budget_for_all_dispositions_and_callbacks() -> None:
    lead = replace(CALLED, attempts=9)
    assert again("busy", lead=lead).why == "called 9 times; attempts.per_lead is 9"
    assert again("completed", lead=lead, callback_at=NOON + timedelta(hours=2)).at is None


def test_each_further_failure_waits_longer() -> None:
    retry = {"failed": {"after_s": 600, "times": 5, "backoff": 2.0}}
    waits = [again("failed", count, retry=retry).at for count in (1, 2, 3)]
    assert waits == [NOON + timedelta(minutes=minutes) for minutes in (10, 20, 40)]


def test_the_back_off_is_bounded() -> None:
    retry = {"failed": {"after_s": 86400, "times": 50, "backoff": 10}}
    at = again("failed", 50, lead=replace(CALLED, attempts=5), retry=retry).at
    assert at is not None and at - NOON < timedelta(days=34)


def test_the_next_call_is_within_the_calling_hours() -> None:
    evening = NOON + timedelta(hours=7, minutes=50)  # 19:50
    lead = replace(CALLED, last_at=evening)
    assert again("busy", lead=lead, now=evening).at == datetime(2026, 11, 24, 14, tzinfo=UTC)


def test_a_callback_is_called_at_the_time_agreed_whatever_the_gap() -> None:
    asked = NOON + timedelta(minutes=20)
    found = again("completed", callback_at=asked, gap_s=14400)
    assert (found.at, found.callback_at) == (asked, asked)


def test_a_callback_outside_the_hours_waits_for_them() -> None:
    found = again("completed", callback_at=NOON + timedelta(hours=10))
    assert found.at == found.callback_at == datetime(2026, 11, 24, 14, tzinfo=UTC)


def test_a_callback_in_the_past_is_called_now_and_one_far_ahead_is_not() -> None:
    assert again("answered", callback_at=NOON - timedelta(days=2)).at == NOON
    assert "too far ahead" in again("answered", callback_at=NOON + timedelta(days=90)).why


def test_who_opts_out_is_not_called_back() -> None:
    assert again("opted_out", callback_at=NOON + timedelta(hours=1)).at is None


def test_the_hour_in_which_most_are_reached_is_chosen() -> None:
    placed, answered = [0] * 24, [0] * 24
    for hour in range(9, 20):
        placed[hour], answered[hour] = 200, 20
    answered[18] = 90
    hours = Hours(placed, answered)
    for attempts in range(1, 8):
        at = again("no_answer", lead=replace(CALLED, attempts=attempts), hours=hours).at
        assert at is not None
        assert datetime(2026, 11, 23, 23, tzinfo=UTC) <= at < datetime(2026, 11, 24, 0, tzinfo=UTC)  # 18:00 there


def test_a_few_lucky_answers_are_no_best_hour() -> None:
    placed, answered = [0] * 24, [0] * 24
    placed[10], answered[10] = 1, 1
    placed[18], answered[18] = 1000, 500
    hours = Hours(placed, answered)
    assert hours.rate(10) < hours.rate(18) + 0.05


def test_without_a_history_leads_are_spread_over_the_day() -> None:
    found = []
    for last in range(300):
        at = again("no_answer", lead=replace(CALLED, number=f"+1212555{last:04}")).at
        assert at is not None
        assert NOON + timedelta(hours=4) <= at < NOON + timedelta(hours=29)
        local = at - timedelta(hours=5)
        assert 9 <= local.hour < 20
        found.append(local.hour)
    assert len(set(found)) > 8
    assert max(found.count(hour) for hour in set(found)) < 90


def test_a_call_cut_off_by_a_crash_is_repeated_after_its_gap() -> None:
    rules = Rules(definition())
    assert after_crash(rules, CALLED, NOON).at == NOON + timedelta(hours=4)


def test_a_lead_whose_zone_is_not_known_is_not_called_again() -> None:
    assert again("busy", lead=replace(CALLED, zones=())).at is None
