"""The box's budget of turn verdicts, by arithmetic."""

from __future__ import annotations

from appliance.conversation.budget import VerdictBudget


def test_a_burst_is_served_and_then_the_rate_holds() -> None:
    budget = VerdictBudget(10.0)
    assert sum(budget.take(0.0) for _ in range(100)) == 20
    assert sum(budget.take(second / 8) for second in range(1, 9)) == 8
    assert sum(budget.take(2.0) for _ in range(100)) == 12
    assert budget.refused == 80 + 88


def test_second_verdicts_are_given_up_first() -> None:
    budget = VerdictBudget(10.0)
    assert sum(budget.take(0.0, second=True) for _ in range(100)) == 11
    assert budget.take(0.0)
    assert not budget.take(0.0, second=True)


def test_an_idle_bucket_does_not_overflow() -> None:
    budget = VerdictBudget(10.0)
    budget.take(0.0)
    assert sum(budget.take(1e6) for _ in range(100)) == 20
