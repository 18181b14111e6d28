"""What a simulation draws from: written by an operator, or measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import fmean
from typing import Any

import pytest
from pydantic import ValidationError

from appliance.campaigns.mix import ASSUMED, QUANTILES, Draws, Mix, measured
from appliance.campaigns.outcome import Disposition

BEGIN = datetime(2026, 11, 23, 15, tzinfo=UTC)


def mix(**keys: Any) -> Mix:
    return Mix.model_validate({"outcomes": {"completed": {"share": 1}}, **keys})


@dataclass(frozen=True)
class Attempt:
    lead_id: int
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    disposition: str


def attempt(lead: int, at_s: float, disposition: str, ring_s: float, talk_s: float | None = None) -> Attempt:
    started = BEGIN + timedelta(seconds=at_s)
    answered = started + timedelta(seconds=ring_s)
    if talk_s is None:
        return Attempt(lead, started, None, answered, disposition)
    return Attempt(lead, started, answered, answered + timedelta(seconds=talk_s), disposition)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"outcomes": {"complete": {"share": 1}}}, "did you mean 'completed'?"),
        ({"outcomes": {"not_allowed": {"share": 1}}}, "nothing that a call may come to"),
        ({"outcomes": {"busy": {"share": 0}}}, "every share is 0"),
        ({"outcomes": {"busy": {"share": -1}}}, "greater than or equal to 0"),
        ({"outcomes": {"busy": {"share": 1, "ring_s": [3, 2]}}}, "do not rise"),
        ({"outcomes": {"busy": {"share": 1, "ring_s": {"median": 5, "p90": 2}}}}, "less than the median"),
        ({"outcomes": {"busy": {"share": 1, "ring_s": {}}}}, "either quantiles or median"),
        ({"after": {"busy": {"machine": 1}}}, "which outcomes has not"),
    ],
)
def test_a_mix_that_cannot_be_is_refused_with_what_would_be_right(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        mix(**keys)
    told = str(refused.value) + str([error.get("ctx") for error in refused.value.errors()])
    assert said in told


def test_lengths_are_a_number_a_list_or_a_median() -> None:
    random = Random(1)
    outcome = mix(
        outcomes={"completed": {"share": 1, "ring_s": [2, 4, 6], "talk_s": {"median": 40, "p90": 90}}}
    ).outcomes["completed"]
    assert outcome.ring_s is not None and outcome.talk_s is not None
    rings = [outcome.ring_s.draw(random) for _ in range(4000)]
    assert min(rings) >= 2 and max(rings) <= 6 and fmean(rings) == pytest.approx(4, abs=0.1)
    talks = sorted(outcome.talk_s.draw(random) for _ in range(4000))
    assert talks[2000] == pytest.approx(40, rel=0.1) and talks[3600] == pytest.approx(90, rel=0.1)
    exact = mix(outcomes={"busy": {"share": 1, "ring_s": 3}}).outcomes["busy"]
    assert exact.ring_s is not None and exact.ring_s.draw(random) == 3


def test_calls_come_to_what_the_shares_say() -> None:
    draws = Draws(ASSUMED, Random(1), 30.0)
    drawn = [draws.draw("", 12) for _ in range(20_000)]
    found = Counter(disposition for disposition, _, _ in drawn)
    assert found[Disposition.MACHINE] / 20_000 == pytest.approx(0.40, abs=0.03)
    assert found[Disposition.INVALID] / 20_000 == pytest.approx(0.03, abs=0.01)
    for disposition, ring_s, talk_s in drawn:
        assert ring_s <= 30.0
        assert talk_s == 0.0 or disposition in (
            Disposition.COMPLETED,
            Disposition.ANSWERED,
            Disposition.OPTED_OUT,
            Disposition.MACHINE,
        )


def test_who_would_answer_after_the_ring_time_out_does_not() -> None:
    draws = Draws(mix(outcomes={"completed": {"share": 1, "ring_s": 31}}), Random(1), 30.0)
    assert draws.draw("", 12) == (Disposition.NO_ANSWER, 30.0, 0.0)


def test_second_calls_depend_on_the_first_where_that_is_known() -> None:
    outcomes = {"completed": {"share": 1}, "busy": {"share": 1, "ring_s": 1}}
    draws = Draws(mix(outcomes=outcomes, after={"busy": {"busy": 1}}), Random(1), 30.0)
    assert {draws.draw("busy", 12)[0] for _ in range(100)} == {Disposition.BUSY}
    assert len({draws.draw("completed", 12)[0] for _ in range(100)}) == 2


def test_more_people_answer_in_their_hours_and_fewer_let_it_ring() -> None:
    outcomes = {"completed": {"share": 0.2}, "busy": {"share": 0.2}, "no_answer": {"share": 0.6}}
    draws = Draws(mix(outcomes=outcomes, answered_by_hour={18: 2.0}), Random(1), 30.0)
    for hour, share in ((12, 0.2), (18, 0.4)):
        found = Counter(draws.draw("", hour)[0] for _ in range(10_000))
        assert found[Disposition.COMPLETED] / 10_000 == pytest.approx(share, abs=0.02)
        assert found[Disposition.BUSY] / 10_000 == pytest.approx(0.2, abs=0.02)


def test_a_mix_is_measured_from_calls() -> None:
    calls = [attempt(lead, lead, "completed", 2 + lead % 5, 10 + lead % 7) for lead in range(700)]
    calls += [attempt(lead, lead, "busy", 1) for lead in range(700, 1000)]
    calls += [attempt(lead, 5000 + lead, "busy", 1) for lead in range(700, 800)]
    calls += [attempt(lead, 5000 + lead, "completed", 3, 12) for lead in range(800, 1000)]
    found = measured(reversed(calls))
    assert found.outcomes["completed"].share == 700 and found.outcomes["busy"].share == 300
    assert found.after == {"busy": {"busy": 100.3, "completed": 200.7}}
    talk_s = found.outcomes["completed"].talk_s
    assert talk_s is not None and len(talk_s.quantiles) == QUANTILES
    random = Random(1)
    assert fmean(talk_s.draw(random) for _ in range(5000)) == pytest.approx(12.8, abs=0.3)
    assert Mix.model_validate_json(found.model_dump_json()) == found


def test_calls_that_go_on_or_were_cut_off_tell_nothing() -> None:
    calls = [
        attempt(1, 0, "interrupted", 5),
        Attempt(2, BEGIN, None, None, ""),
        attempt(3, 0, "busy", 1),
    ]
    assert set(measured(calls).outcomes) == {"busy"}
    with pytest.raises(ValueError, match="no finished calls"):
        measured(calls[:2])


def test_what_the_box_takes_between_calls_is_measured_where_all_places_were_taken() -> None:
    places = dict.fromkeys(range(4), 0.0)
    calls, free = [], 0.0
    for lead in range(200):
        place = min(places, key=lambda one: places[one])
        begins = max(free, places[place])
        length_s = 3.0 + lead % 7
        calls.append(attempt(lead, begins, "completed", 1, length_s - 1))
        places[place], free = begins + length_s + 0.25, begins + 0.13
    found = measured(calls, distance_s=0.1)
    assert found.turnaround_s == pytest.approx(0.25)
    assert measured(calls[:5]).turnaround_s == mix().turnaround_s  # too few to tell
    quick = [attempt(lead, lead * 0.13, "busy", 60) for lead in range(100)]
    assert measured(quick, distance_s=0.1).leaving_s == pytest.approx(0.03)
    assert measured(quick).leaving_s == mix().leaving_s
