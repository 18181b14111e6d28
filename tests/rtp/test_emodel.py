"""The E-model against the points that G.107 gives."""

from __future__ import annotations

import pytest

from appliance.rtp.emodel import mos, mos_of, rating


@pytest.mark.parametrize(
    ("r", "expected"), [(93.2, 4.41), (90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)]
)
def test_a_rating_becomes_the_score_of_g107_annex_b(r: float, expected: float) -> None:
    assert mos_of(r) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("r", "expected"), [(-5.0, 1.0), (0.0, 1.0), (3.0, 1.0), (100.0, 4.5), (120.0, 4.5)])
def test_the_score_stays_within_its_scale(r: float, expected: float) -> None:
    assert mos_of(r) == pytest.approx(expected)


@pytest.mark.parametrize(("delay_ms", "lost"), [(100.0, 0.0), (150.0, 0.44), (200.0, 2.95), (400.0, 24.1)])
def test_delay_costs_what_g107_says(delay_ms: float, lost: float) -> None:
    assert rating(0.0, 0.0) - rating(delay_ms, 0.0) == pytest.approx(lost, abs=0.3)


def test_loss_costs_more_the_more_there_is_and_burstiness_makes_it_worse() -> None:
    scores = [mos(80.0, loss) for loss in (0.0, 0.5, 1.0, 3.0, 5.0, 10.0, 30.0, 100.0)]
    assert scores == sorted(scores, reverse=True)
    assert 4.3 < scores[0] < 4.5
    assert 3.5 < scores[4] < 4.0
    assert mos(80.0, 5.0, burst_ratio=2.0) < scores[4]
    assert mos(80.0, 5.0, "opus") < scores[4]
