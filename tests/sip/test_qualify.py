from __future__ import annotations

import pytest

from appliance.sip.qualify import Qualify, Reachability


def test_a_peer_is_asked_at_intervals_and_sooner_while_it_is_silent() -> None:
    watch = Qualify(60.0, lambda: 0.5)
    watch.start(0.0)
    assert watch.get_timer() == 1.0 and not watch.poll(0.9)
    assert watch.poll(1.0) and not watch.poll(1.0) and watch.get_timer() is None
    assert watch.on_outcome(200, 1.25)
    assert (watch.state, watch.round_trip_s, watch.get_timer()) == (Reachability.REACHABLE, 0.25, 61.25)
    assert watch.poll(61.25) and watch.on_outcome(408, 93.25)
    assert (watch.state, watch.last_status, watch.get_timer()) == (Reachability.UNREACHABLE, 408, 103.25)
    assert watch.poll(103.25) and watch.on_outcome(404, 103.5)
    assert watch.state is Reachability.REACHABLE


@pytest.mark.parametrize(("status", "state"), [(503, "unreachable"), (405, "reachable"), (401, "reachable")])
def test_what_an_answer_means(status: int, state: str) -> None:
    watch = Qualify(60.0, lambda: 0.0)
    watch.start(0.0)
    assert watch.poll(0.0) and watch.on_outcome(status, 0.1)
    assert watch.state == state


def test_after_the_end_nothing_is_sent_and_nothing_changes() -> None:
    watch = Qualify(5.0, lambda: 0.5)
    watch.start(0.0)
    assert watch.poll(1.0)
    watch.stop()
    assert not watch.on_outcome(200, 1.1) and watch.get_timer() is None and not watch.poll(99.0)
    assert watch.state is Reachability.UNKNOWN
