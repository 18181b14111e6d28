"""The grammar's path against the phone loop's: what raises doubt, and how far."""

from __future__ import annotations

from appliance.engines.rejection import Evidence, Stretch, weigh

GOOD = Evidence(fit=-0.5, gap_fit=0.0, unexplained=0.0, overreach=0.0, word_frames=200)


def test_words_that_fit_are_believed() -> None:
    assert GOOD.confidence > 0.85


def test_each_figure_raises_doubt() -> None:
    doubts = [
        Evidence(-4.0, 0.0, 0.0, 0.0, 200),
        Evidence(-0.5, -5.0, 0.0, 0.0, 200),
        Evidence(-0.5, 0.0, 0.5, 0.0, 200),
        Evidence(-0.5, 0.0, 0.0, 0.8, 200),
    ]
    assert all(doubt.confidence < GOOD.confidence for doubt in doubts)


def test_no_words_no_confidence() -> None:
    assert Evidence(0.0, 0.0, 0.0, 0.0, 0).confidence == 0.0


def test_confidence_stays_between_0_and_1_whatever_the_scores() -> None:
    for fit in (-1e9, -1.0, 1e9):
        assert 0.0 <= Evidence(fit, fit, 1.0, 1.0, 1).confidence <= 1.0


def test_weighing() -> None:
    words = [
        Stretch("<sil>", 0, 9, -10.0, False),
        Stretch("yes", 10, 29, -40.0, True),
        Stretch("<sil>", 30, 39, -30.0, False),
    ]
    phones = [
        Stretch("SIL", 0, 9, -5.0, False),
        Stretch("Y", 10, 14, -5.0, True),
        Stretch("EH", 15, 24, -10.0, True),
        Stretch("SIL", 25, 29, -5.0, False),
        Stretch("S", 30, 39, -10.0, True),
    ]
    evidence = weigh(words, phones, 40)
    assert evidence == Evidence(fit=-1.0, gap_fit=-1.0, unexplained=10 / 25, overreach=5 / 20, word_frames=20)
