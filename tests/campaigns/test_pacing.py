"""How fast: no second sees too many calls, abandoned calls slow and stop, trunks that fail are left alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.campaigns.definition import Breaker as Limits
from appliance.campaigns.pacing import SLACK_S, Abandonment, Breaker, BreakerState, Gate
from appliance.campaigns.plan_next import LOOK_AHEAD_S, Plan, Room, plan_next

LIMITS = Limits(failures=3, of_last=5, pause_s=60)


def departures(gate: Gate, seconds: float, stalls: list[float]) -> list[float]:
    """When calls leave through ``gate``, always as soon as it lets them, by a process that stands still at times."""
    now, left = 0.0, []
    while now < seconds:
        wait_s = gate.wait_s(now)
        if wait_s:
            now += wait_s + (stalls[len(left) % len(stalls)] if stalls else 0.0)
            continue
        gate.left(now)
        left.append(now)
    return left


@given(
    st.one_of(st.integers(1, 60).map(float), st.floats(0.2, 50)),
    st.lists(st.floats(0, 2), max_size=5),
    st.lists(st.floats(0, SLACK_S * 0.99), min_size=1, max_size=7),
)
def test_no_second_sees_more_than_the_rate_however_calls_are_delayed(
    per_s: float, stalls: list[float], delays: list[float]
) -> None:
    left = departures(Gate(per_s), 20.0, stalls)
    seen = sorted(moment + delays[index % len(delays)] for index, moment in enumerate(left))
    most = max(1, int(per_s))
    for first, beyond in zip(seen, seen[most:], strict=False):
        assert beyond - first >= 1.0 - 1e-6
    if per_s < 1:
        assert all(b - a >= 1 / per_s - 1e-6 for a, b in itertools.pairwise(seen))


def test_a_gate_costs_little_of_its_rate() -> None:
    assert len(departures(Gate(10.0), 60.0, [])) >= 570


def test_a_gate_without_a_rate_lets_everything_through() -> None:
    gate = Gate(None)
    gate.left(1.0)
    assert gate.wait_s(1.0) == 0.0


def test_a_new_rate_holds_from_the_next_call_on() -> None:
    gate = Gate(10.0)
    gate.left(0.0)
    gate.set_rate(1.0)
    assert gate.wait_s(0.2) == pytest.approx(0.85)


def test_abandoned_calls_slow_then_stop() -> None:
    share = Abandonment(3.0)
    for _ in range(97):
        share.answered(abandoned=False)
    assert (share.speed, share.reason) == (1.0, "")
    share.answered(abandoned=True)
    share.answered(abandoned=True)
    assert 0.5 < share.speed < 1.0
    assert share.reason.startswith("2 of the last 99 calls that were answered were abandoned")
    share.answered(abandoned=True)
    assert share.speed == 0.5
    share.answered(abandoned=True)
    assert share.speed == 0.0
    assert "then resume" in share.reason
    share.forgive()
    assert share.speed == 1.0


def test_one_abandoned_call_at_the_beginning_stops_nothing() -> None:
    share = Abandonment(3.0)
    share.answered(abandoned=True)
    assert 0.5 <= share.speed < 1.0
    share.answered(abandoned=True)
    assert share.speed == 0.0


def test_a_cap_of_nothing_stops_at_the_first() -> None:
    share = Abandonment(0.0)
    share.answered(abandoned=False)
    assert share.speed == 1.0
    share.answered(abandoned=True)
    assert share.speed == 0.0


def test_old_calls_are_forgotten() -> None:
    share = Abandonment(3.0)
    share.answered(abandoned=True)
    for _ in range(100):
        share.answered(abandoned=False)
    assert share.percent == 0.0


def test_a_trunk_that_fails_is_left_alone_and_probed_by_one_call() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        assert breaker.room(0.0) is None
        breaker.placed(0.0)
        breaker.ended(1.0, failed=True)
    assert (breaker.state, breaker.room(1.0), breaker.get_timer()) == (BreakerState.OPEN, 0, 61.0)
    assert breaker.room(61.0) == 1
    breaker.placed(61.0)
    assert breaker.room(62.0) == 0
    breaker.ended(63.0, failed=False)
    assert (breaker.state, breaker.room(63.0), breaker.reason) == (BreakerState.CLOSED, None, "")


def test_a_probe_that_fails_doubles_the_pause_up_to_a_limit() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.ended(0.0, failed=True)
    pauses = []
    for _ in range(8):
        timer = breaker.get_timer()
        assert timer is not None
        breaker.placed(timer)
        breaker.ended(timer, failed=True)
        again = breaker.get_timer()
        assert again is not None
        pauses.append(again - timer)
    assert pauses[:3] == [120.0, 240.0, 480.0]
    assert max(pauses) == Breaker.LONGEST_PAUSE_S


def test_failures_among_successes_do_not_open_it() -> None:
    breaker = Breaker(LIMITS)
    for index in range(50):
        breaker.ended(float(index), failed=index % 3 == 0)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_whose_end_is_never_told_is_repeated() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.ended(0.0, failed=True)
    breaker.placed(60.0, longest_s=30.0)
    assert (breaker.room(89.0), breaker.get_timer()) == (0, 90.0)
    assert breaker.room(90.0) == 1


def test_calls_that_were_under_way_when_it_opened_close_it_only_by_success() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.ended(0.0, failed=True)
    breaker.ended(1.0, failed=True)
    assert breaker.get_timer() == 60.0
    breaker.ended(2.0, failed=False)
    assert breaker.state is BreakerState.CLOSED


def plan(room: Room, now: float = 100.0, gate: Gate | None = None, **more: object) -> Plan:
    breaker, share = more.get("breaker"), more.get("share")
    return plan_next(
        now,
        room,
        (gate or Gate(10.0),),
        breaker if isinstance(breaker, Breaker) else Breaker(LIMITS),
        share if isinstance(share, Abandonment) else Abandonment(3.0),
    )


@pytest.mark.parametrize(
    ("room", "start"),
    [
        (Room("running", 40, 0, 99), 10),
        (Room("running", 40, 37, 99), 3),
        (Room("running", 40, 10, 2), 2),
        (Room("running", 40, 10, 9, trunk=1), 1),
        (Room("running", 40, 40, 9), 0),
        (Room("running", 40, 41, 9), 0),
        (Room("running", 40, 0, 0), 0),
        (Room("paused", 40, 0, 9), 0),
        (Room("draining", 40, 0, 9), 0),
    ],
)
def test_no_more_are_started_than_agents_are_free(room: Room, start: int) -> None:
    assert plan(room).start == start


def test_a_plan_says_when_to_ask_again_and_what_holds_it_back() -> None:
    gate = Gate(0.1)
    gate.left(100.0)
    assert plan(Room("running", 4, 0, 9), gate=gate) == Plan(0, 110.05, why="calls_per_s is used up")
    assert plan(Room("paused", 4, 0, 9)) == Plan(0, None, why="the campaign is paused")
    assert plan(Room("running", 4, 4, 9)).why == "pacing.max_calls is used up"
    assert plan(Room("running", 4, 0, 0)).why == "the room on this box is used up"


def test_an_open_breaker_is_waited_for_and_lets_one_call_through() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.ended(90.0, failed=True)
    held = plan(Room("running", 4, 0, 9), breaker=breaker)
    assert (held.start, held.again_at) == (0, 150.0)
    assert held.why.startswith("3 of the last 5 calls failed")
    assert plan(Room("running", 4, 0, 9), now=150.0, breaker=breaker).start == 1


def test_a_full_box_is_not_asked_without_end_while_a_breaker_waits_for_a_probe() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.ended(90.0, failed=True)
    held = plan(Room("running", 4, 4, 9), now=151.0, breaker=breaker)
    assert held.start == 0
    assert held.again_at is not None and held.again_at > 151.0


def test_abandoned_calls_stop_the_campaign_with_a_reason() -> None:
    share = Abandonment(3.0)
    for _ in range(4):
        share.answered(abandoned=True)
    stopped = plan(Room("running", 40, 0, 99), share=share)
    assert (stopped.start, stopped.again_at) == (0, None)
    assert "abandoned" in stopped.stop


def test_a_slower_campaign_still_places_one_call_at_a_time() -> None:
    share = Abandonment(3.0)
    share.answered(abandoned=True)
    assert plan(Room("running", 1, 0, 9), share=share).start == 1
    assert 0 < plan(Room("running", 10, 0, 99), share=share).start < 10


def test_following_the_plans_uses_the_whole_capacity() -> None:
    gate, now, active, used = Gate(10.0), 0.0, list[float](), 0.0
    while now < 120.0:
        active = [ends for ends in active if ends > now]
        if now > 10.0:
            used += len(active) / 40 * 0.01
        if plan(Room("running", 40, len(active), 99), now, gate).start and gate.wait_s(now) == 0.0:
            gate.left(now)
            active.append(now + 8.0)
        assert len(active) <= 40
        now += 0.01
    assert used / 110.0 > 0.95
    assert LOOK_AHEAD_S > 0
