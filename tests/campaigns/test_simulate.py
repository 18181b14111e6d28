"""Campaigns in virtual time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from appliance.campaigns.mix import ASSUMED, Mix
from appliance.campaigns.simulate import Box, Run, Simulation, run
from tests.campaigns.leads import Lead, definition

MORNING = datetime(2026, 11, 23, 14, tzinfo=UTC)
"""Monday, 09:00 in New York."""


def leads(count: int) -> list[Lead]:
    return [Lead(number=f"+1212{2_000_000 + index}") for index in range(count)]


def mix(turnaround_s: float = 0.0, **outcomes: dict[str, Any]) -> Mix:
    return Mix.model_validate({"outcomes": outcomes, "turnaround_s": turnaround_s, "leaving_s": 0.0})


def one_run(count: int, drawn: Mix, start: datetime = MORNING, box: Box | None = None, **keys: Any) -> Run:
    simulated = run(definition(**keys), leads(count), drawn, start, box=box, runs=1)
    assert simulated.leads == count
    return simulated.runs[0]


TALK = mix(completed={"share": 1, "ring_s": 5, "talk_s": 55})


def test_a_campaign_takes_as_long_as_its_calls_need_at_its_capacity() -> None:
    ran = one_run(100, TALK, pacing={"max_calls": 10, "calls_per_s": 50})
    assert (ran.dials, ran.connects, ran.peak_calls, ran.leads) == (100, 100, 10, {"completed": 100})
    assert ran.talk_s == 5500
    assert ran.line_s == 6000
    assert 600 <= ran.duration_s < 603


def test_calls_per_second_are_kept() -> None:
    ran = one_run(100, TALK, pacing={"max_calls": 100, "calls_per_s": 1})
    assert pytest.approx(ran.duration_s, abs=0.5) == 60 + 99 * 1.05


@pytest.mark.parametrize("box", [Box(max_calls=5), Box(trunk_calls=5)])
def test_the_box_and_the_trunk_hold_as_well(box: Box) -> None:
    ran = one_run(100, TALK, box=box, pacing={"max_calls": 10, "calls_per_s": 50})
    assert ran.peak_calls == 5
    assert 1200 <= ran.duration_s < 1210


def test_the_rate_of_the_trunk_holds() -> None:
    ran = one_run(50, TALK, box=Box(trunk_per_s=0.5), pacing={"max_calls": 100, "calls_per_s": 50})
    assert ran.duration_s == pytest.approx(60 + 49 * 2.05, abs=0.5)


def test_the_time_between_calls_counts() -> None:
    ran = one_run(100, TALK.model_copy(update={"turnaround_s": 5.0}), pacing={"max_calls": 10, "calls_per_s": 50})
    assert 645 <= ran.duration_s < 648


def test_the_time_that_a_call_takes_to_leave_counts() -> None:
    ran = one_run(100, TALK.model_copy(update={"leaving_s": 0.5}), pacing={"max_calls": 100, "calls_per_s": 1})
    assert pytest.approx(ran.duration_s, abs=1) == 60 + 99 * 1.55


def test_the_night_is_waited_for() -> None:
    late = MORNING + timedelta(hours=10, minutes=55)  # 19:55
    ran = one_run(100, TALK, late, pacing={"max_calls": 10, "calls_per_s": 50})
    assert ran.first_at == late
    assert ran.done_at is not None
    next_day = MORNING + timedelta(days=1)
    assert next_day + timedelta(minutes=5) <= ran.done_at < next_day + timedelta(minutes=7)


def test_busy_lines_are_tried_again_and_then_given_up() -> None:
    ran = one_run(
        10, mix(busy={"share": 1, "ring_s": 2}), attempts={"gap_s": 60, "per_lead": 9, "per_number_per_day": 9}
    )
    assert (ran.dials, ran.connects, ran.leads) == (40, 0, {"busy": 10})
    assert 2700 < ran.duration_s < 2780


def test_one_budget_holds_for_everything() -> None:
    ran = one_run(10, mix(busy={"share": 1, "ring_s": 2}), attempts={"gap_s": 60, "per_lead": 2})
    assert ran.dials == 20
    assert ran.duration_s > 20 * 3600  # once a day


def test_a_broken_trunk_is_left_alone_and_tried_again() -> None:
    ran = one_run(40, mix(failed={"share": 1, "ring_s": 1}), pacing={"max_calls": 5, "calls_per_s": 50})
    assert ran.leads == {"failed": 40}
    assert ran.duration_s > 3600


def test_too_many_abandoned_calls_stop_it() -> None:
    ran = one_run(200, mix(abandoned={"share": 1, "ring_s": 2, "talk_s": 2}))
    assert "abandoned" in ran.stopped
    assert ran.dials < 30
    assert sum(ran.leads.values()) == 200 and ran.leads["waiting"] > 150


def test_leads_that_no_rule_allows_are_counted_and_not_called() -> None:
    listed = [*leads(3), replace(Lead(), zones=()), replace(Lead(), consent=None)]
    simulated = run(definition(), listed, TALK, MORNING, runs=2)
    assert (simulated.leads, simulated.never) == (5, {"zone": 1, "consent": 1})
    assert simulated.runs[0].leads == {"completed": 3, "not_allowed": 2}


def test_leads_that_were_called_before_keep_their_attempts() -> None:
    before = MORNING - timedelta(days=2)
    called = [replace(lead, attempts=3, last_at=before) for lead in leads(5)]
    simulated = run(definition(), called, TALK, MORNING, runs=1)
    assert (simulated.runs[0].dials, simulated.runs[0].leads) == (0, {"not_allowed": 5})


def test_a_campaign_without_hours_is_not_done() -> None:
    simulated = run(definition(windows={"default": []}), leads(3), TALK, MORNING, runs=1)
    assert simulated.runs[0].leads == {"not_allowed": 3}


@pytest.fixture(scope="module")
def assumed() -> Simulation:
    return run(definition(), leads(60), ASSUMED, MORNING, 7, runs=6)


def test_leads_and_calls_add_up_in_every_run(assumed: Simulation) -> None:
    for ran in assumed.runs:
        assert sum(ran.leads.values()) == 60
        assert ran.connects + ran.machines <= ran.dials <= 3 * 60
        assert ran.peak_calls <= 10
        assert ran.talk_s <= ran.line_s <= ran.peak_calls * ran.duration_s
        assert ran.done_at is not None and not ran.stopped


def test_the_same_seed_gives_the_same_and_another_one_does_not(assumed: Simulation) -> None:
    assert run(definition(), leads(60), ASSUMED, MORNING, 7, runs=6) == assumed
    assert run(definition(), leads(60), ASSUMED, MORNING, 8, runs=6) != assumed


def test_the_table_shows_tenths_of_the_runs(assumed: Simulation) -> None:
    rows = {row.name: row for row in assumed.rows()}
    dials = sorted(ran.dials for ran in assumed.runs)
    assert (rows["dials"].p10, rows["dials"].p50, rows["dials"].p90) == (dials[0], dials[2], dials[5])
    assert isinstance(rows["finished"].p50, datetime)
    assert rows["leads: completed"].p50
    shown = json.loads(json.dumps(assumed.as_json()))
    assert shown["runs"] == 6 and shown["rows"][0]["name"] == "dials"


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    run(definition(), leads(2), TALK, MORNING, runs=3, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_no_leads_are_no_calls() -> None:
    simulated = run(definition(), [], TALK, MORNING, runs=1)
    assert simulated.runs[0].done_at is None
    assert simulated.rows()[0].p50 == 0
