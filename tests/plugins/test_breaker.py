"""When a hook that fails is left alone, by arithmetic."""

from __future__ import annotations

from appliance.plugins.breaker import FAILURES, OPEN_S, WITHIN_S, Breaker, Key


def fail(breaker: Breaker, times: int, at: float = 0.0, line: str = "a") -> list[bool]:
    return [breaker.failed("crm", "key", line, at) for _ in range(times)]


def test_five_failures_within_a_minute_switch_the_hook_off_on_its_line() -> None:
    breaker = Breaker()
    assert fail(breaker, FAILURES) == [False] * (FAILURES - 1) + [True]
    assert not breaker.closed("crm", "key", "a", 1.0)
    assert breaker.closed("crm", "key", "b", 1.0)
    assert breaker.closed("crm", "silence", "a", 1.0)
    assert list(breaker.off(1.0)) == [(Key("crm", "key", "a"), OPEN_S - 1.0)]


def test_failures_that_are_far_apart_do_not() -> None:
    breaker = Breaker()
    assert [breaker.failed("crm", "key", "a", number * WITHIN_S / 4 * 1.01) for number in range(20)] == [False] * 20


def test_after_a_minute_it_is_tried_again_and_one_more_failure_is_enough() -> None:
    breaker = Breaker()
    fail(breaker, FAILURES)
    assert breaker.closed("crm", "key", "a", OPEN_S + 1)
    assert fail(breaker, 1, OPEN_S + 1) == [True]
    assert not breaker.closed("crm", "key", "a", OPEN_S + 2)


def test_a_success_makes_all_well() -> None:
    breaker = Breaker()
    fail(breaker, FAILURES)
    breaker.worked("crm", "key", "a", OPEN_S + 1)
    assert breaker.quiet
    assert fail(breaker, FAILURES - 1, OPEN_S + 2) == [False] * (FAILURES - 1)


def test_what_hung_is_switched_off_at_once_and_on_every_line() -> None:
    breaker = Breaker()
    breaker.hung("crm", "key", 0.0)
    assert not breaker.closed("crm", "key", "a", 1.0)
    assert not breaker.closed("crm", "key", "b", 1.0)
    assert breaker.closed("crm", "key", "b", OPEN_S + 1)
