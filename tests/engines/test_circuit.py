from __future__ import annotations

from appliance.engines.circuit import FIRST_PROBE_S, LAST_PROBE_S, Circuit, State


def test_it_opens_after_three_failures_in_a_row() -> None:
    circuit = Circuit(3)
    assert not circuit.failed(0.0, "one")
    assert not circuit.failed(0.0, "two")
    circuit.succeeded()
    assert [circuit.failed(1.0, "again") for _ in range(3)] == [False, False, True]
    assert not circuit.usable
    assert circuit.cause == "again"
    assert circuit.get_timer() == 1.0 + FIRST_PROBE_S


def test_a_probe_that_succeeds_closes_it() -> None:
    circuit = Circuit(1)
    circuit.failed(0.0, "x")
    circuit.begin_probe()
    assert circuit.state is State.PROBING
    assert not circuit.usable
    assert circuit.get_timer() is None
    assert circuit.succeeded()
    assert circuit.usable
    assert not circuit.succeeded()


def test_probes_become_rarer() -> None:
    circuit, now, waits = Circuit(1), 0.0, []
    circuit.failed(now, "x")
    for _ in range(8):
        when = circuit.get_timer()
        assert when is not None
        waits.append(when - now)
        now = when
        circuit.begin_probe()
        assert not circuit.failed(now, "x")
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    circuit.succeeded()
    circuit.failed(now, "x")
    assert circuit.get_timer() == now + FIRST_PROBE_S


def test_a_server_that_asks_for_time_gets_it_at_once() -> None:
    circuit = Circuit(3)
    assert circuit.failed(0.0, "429", wait_s=20.0)
    assert circuit.get_timer() == 20.0


def test_nobody_is_left_alone_for_ever() -> None:
    circuit = Circuit(3)
    circuit.failed(0.0, "429", wait_s=86400.0)
    assert circuit.get_timer() == LAST_PROBE_S


def test_failures_of_requests_under_way_put_no_probe_off() -> None:
    circuit = Circuit(1)
    circuit.failed(0.0, "x")
    assert not circuit.failed(1.5, "late")
    assert circuit.get_timer() == FIRST_PROBE_S
