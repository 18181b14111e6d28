from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engines.batcher import Batch, Batcher, BatchPolicy, Request


def ids(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [request.id for request in batch.requests]


def test_a_lone_request_waits_for_company_and_no_longer():
    batcher = Batcher(BatchPolicy(max_batch=4, max_wait_s=0.05))
    assert batcher.add(Request(1, arrival=10.0), 10.0)
    assert batcher.next_batch(10.0) is None
    assert batcher.get_timer() == pytest.approx(10.05)
    assert ids(batcher.next_batch(10.05)) == [1]


def test_a_full_batch_leaves_at_once():
    batcher = Batcher(BatchPolicy(max_batch=2, max_wait_s=1.0))
    batcher.add(Request(1, 0.0), 0.0)
    batcher.add(Request(2, 0.0), 0.0)
    assert batcher.get_timer() == -math.inf
    assert ids(batcher.next_batch(0.0)) == [1, 2]


def test_waiting_for_company_uses_at_most_half_of_the_time_left():
    batcher = Batcher(BatchPolicy(max_batch=8, max_wait_s=1.0))
    batcher.add(Request(1, 0.0, deadline=0.4), 0.0)
    assert batcher.get_timer() == pytest.approx(0.2)
    assert ids(batcher.next_batch(0.2)) == [1]


def test_only_equal_shapes_share_a_batch():
    batcher = Batcher(BatchPolicy(max_batch=8, max_running=2))
    for request_id, shape in enumerate(["en", "fr", "en", "fr"]):
        batcher.add(Request(request_id, 0.0, shape=shape), 0.0)
    assert ids(batcher.next_batch(0.0)) == [0, 2]
    assert ids(batcher.next_batch(0.0)) == [1, 3]


def test_priority_first_then_the_earliest_deadline():
    batcher = Batcher(BatchPolicy())
    batcher.add(Request(1, 0.0, deadline=1.0, priority=1), 0.0)
    batcher.add(Request(2, 0.0, deadline=9.0), 0.0)
    batcher.add(Request(3, 0.0, deadline=5.0), 0.0)
    order = []
    while (batch := batcher.next_batch(0.1)) is not None:
        order += ids(batch)
        batcher.finished(batch)
    assert order == [3, 2, 1]


def test_a_starving_request_goes_before_every_priority():
    batcher = Batcher(BatchPolicy(starvation_s=2.0))
    batcher.add(Request(1, 0.0, priority=9), 0.0)
    batcher.add(Request(2, 1.9, priority=0), 1.9)
    assert ids(batcher.next_batch(2.0)) == [1]


def test_a_full_queue_refuses():
    batcher = Batcher(BatchPolicy(max_queue=2))
    assert batcher.add(Request(1, 0.0), 0.0)
    assert batcher.add(Request(2, 0.0), 0.0)
    assert not batcher.add(Request(3, 0.0), 0.0)
    assert batcher.stats.refused == 1


def test_dead_requests_do_not_take_up_the_queue():
    batcher = Batcher(BatchPolicy(max_queue=1))
    assert batcher.add(Request(1, 0.0, deadline=1.0), 0.0)
    assert batcher.add(Request(2, 1.0), 1.0)
    assert [request.id for request in batcher.take_dropped()] == [1]


def test_past_its_deadline_a_request_is_dropped_and_reported_once():
    batcher = Batcher(BatchPolicy())
    batcher.add(Request(1, 0.0, deadline=1.0), 0.0)
    assert batcher.next_batch(1.0) is None
    assert [request.id for request in batcher.take_dropped()] == [1]
    assert batcher.take_dropped() == []
    assert batcher.stats.dropped == 1


def test_the_timer_tells_of_deadlines_while_the_engine_is_busy():
    batcher = Batcher(BatchPolicy())
    batcher.add(Request(1, 0.0), 0.0)
    running = batcher.next_batch(0.0)
    batcher.add(Request(2, 0.0), 0.0)
    assert batcher.get_timer() is None
    batcher.add(Request(3, 0.0, deadline=3.0), 0.0)
    assert batcher.get_timer() == 3.0
    batcher.handle_timer(3.0)
    assert [request.id for request in batcher.take_dropped()] == [3]
    assert running is not None
    batcher.finished(running)
    assert ids(batcher.next_batch(3.0)) == [2]


def test_no_more_batches_run_than_allowed():
    batcher = Batcher(BatchPolicy(max_running=2))
    for request_id in range(3):
        batcher.add(Request(request_id, 0.0), 0.0)
    first, second = batcher.next_batch(0.0), batcher.next_batch(0.0)
    assert batcher.next_batch(0.0) is None
    assert batcher.running == 2
    assert first is not None and second is not None
    batcher.finished(second)
    assert ids(batcher.next_batch(0.0)) == [2]
    with pytest.raises(ValueError, match="not under way"):
        batcher.finished(second)


def test_cost_bounds_a_batch_but_a_dear_request_still_runs_alone():
    batcher = Batcher(BatchPolicy(max_batch=8, max_cost=10.0, max_running=9))
    batcher.add(Request(1, 0.0, cost=25.0), 0.0)
    batcher.add(Request(2, 0.0, cost=6.0), 0.0)
    batcher.add(Request(3, 0.0, cost=6.0), 0.0)
    batcher.add(Request(4, 0.0, cost=4.0), 0.0)
    assert ids(batcher.next_batch(0.0)) == [1]
    assert ids(batcher.next_batch(0.0)) == [2, 4]
    assert ids(batcher.next_batch(0.0)) == [3]


def test_cancelling_takes_a_waiting_request_out():
    batcher = Batcher(BatchPolicy())
    batcher.add(Request(1, 0.0), 0.0)
    assert batcher.cancel(1)
    assert not batcher.cancel(1)
    assert batcher.next_batch(0.0) is None
    assert batcher.get_timer() is None


def test_the_same_id_twice_is_a_bug_of_the_caller():
    batcher = Batcher(BatchPolicy())
    batcher.add(Request(1, 0.0), 0.0)
    with pytest.raises(ValueError, match="queued already"):
        batcher.add(Request(1, 0.0), 0.0)


def test_queue_time_is_counted():
    batcher = Batcher(BatchPolicy(max_batch=2))
    batcher.add(Request(1, 0.0), 0.0)
    batcher.add(Request(2, 0.3), 0.3)
    batcher.next_batch(0.5)
    assert batcher.stats.queue_s_total == pytest.approx(0.7)
    assert batcher.stats.queue_s_max == pytest.approx(0.5)


policies = st.builds(
    BatchPolicy,
    max_batch=st.integers(1, 4),
    max_wait_s=st.sampled_from([0.0, 0.01, 0.2]),
    max_running=st.integers(1, 3),
    max_queue=st.integers(1, 8),
    max_cost=st.sampled_from([math.inf, 3.0]),
    starvation_s=st.sampled_from([0.5, 2.0]),
)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.sampled_from(["en", "fr"]),
            st.sampled_from([math.inf, 0.05, 0.5, 5.0]),
            st.integers(0, 2),
            st.sampled_from([1.0, 2.0, 5.0]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.005, 0.1, 1.0])),
        st.tuples(st.just("run")),
        st.tuples(st.just("finish"), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(policy=policies, script=steps)
def test_no_request_is_lost_run_twice_or_run_after_its_deadline(policy, script):
    batcher = Batcher(policy)
    now, next_id = 100.0, 0
    requests: dict[int, Request] = {}
    fate: dict[int, str] = {}
    running: list[Batch] = []

    def settle(request_id: int, what: str) -> None:
        assert request_id not in fate, f"{request_id} was {fate[request_id]} and then {what}"
        fate[request_id] = what

    def collect() -> None:
        for request in batcher.take_dropped():
            assert request.deadline <= now
            settle(request.id, "dropped")

    def run() -> Batch | None:
        batch = batcher.next_batch(now)
        collect()
        if batch is not None:
            assert len({request.shape for request in batch.requests}) == 1
            assert 1 <= len(batch.requests) <= policy.max_batch
            assert len(batch.requests) == 1 or sum(r.cost for r in batch.requests) <= policy.max_cost
            assert len(running) < policy.max_running
            for request in batch.requests:
                assert now < request.deadline
                settle(request.id, "run")
            running.append(batch)
        return batch

    for step in script:
        match step:
            case ("add", shape, slack, priority, cost):
                request = Request(next_id, now, now + slack, shape, priority, cost)
                next_id += 1
                if batcher.add(request, now):
                    requests[request.id] = request
                collect()
            case ("cancel", request_id):
                if batcher.cancel(request_id):
                    settle(request_id, "cancelled")
            case ("wait", seconds):
                now += seconds
            case ("run",):
                run()
            case ("finish", index):
                if index < len(running):
                    batcher.finished(running.pop(index))
        assert batcher.queued == len(requests) - len(fate) <= policy.max_queue

    # With a free engine everything left leaves by its timer, each within the wait for company.
    while batcher.queued or running:
        while running:
            batcher.finished(running.pop())
        timer = batcher.get_timer()
        if timer is None:
            break
        now = max(now, timer)
        for request_id, request in requests.items():
            if request_id not in fate and now < request.deadline:
                assert timer <= max(now, request.arrival + policy.max_wait_s)
        batcher.handle_timer(now)
        collect()
        run()
    assert fate.keys() == requests.keys()
    stats = batcher.stats
    assert stats.added == len(requests) == stats.cancelled + stats.dropped + stats.dispatched


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 10.0)), min_size=2, max_size=12))
def test_single_requests_leave_ordered_by_priority_and_deadline(rows):
    batcher = Batcher(BatchPolicy(max_queue=12, starvation_s=100.0))
    for request_id, (priority, slack) in enumerate(rows):
        batcher.add(Request(request_id, 0.0, 1.0 + slack, None, priority), 0.0)
    left = []
    while (batch := batcher.next_batch(0.5)) is not None:
        left += batch.requests
        batcher.finished(batch)
    assert len(left) == len(rows)
    assert all((a.priority, a.deadline) <= (b.priority, b.deadline) for a, b in pairwise(left))
