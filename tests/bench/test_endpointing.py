"""The measuring of pauses, on utterances whose answers are known."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.bench.endpointing import Heard, asked_once, fixed_silence, interval, judge, wilson
from tests.bench.paused_speech import FRAME, Paused, background, bounds, paused_speech, word_gaps


def utterance(*parts: tuple[bool, int], verdict: float = 0.0) -> Heard:
    """An utterance of (speech or not, frames) with one pause, of which the model always says the same."""
    frames = [(-20.0, 0.95) if speaks else (-70.0, 0.05) for speaks, length in parts for _ in range(length)]
    edges = np.cumsum([0, *(length for _, length in parts)]) * FRAME
    item = Paused("one", "sentences", "v", np.zeros(edges[-1], np.int16), ((edges[2], edges[3]),), edges[1], edges[4])
    return Heard(item, frames, asked=dict.fromkeys(range(len(frames)), verdict))


SHORT = ((False, 20), (True, 50), (False, 30), (True, 50), (False, 200))


def test_a_fixed_wait_cuts_the_pauses_that_are_longer():
    assert judge(utterance(*SHORT), fixed_silence(0.5)(utterance(*SHORT))).cut == (True,)
    outcome = judge(utterance(*SHORT), fixed_silence(0.8)(utterance(*SHORT)))
    assert outcome.cut == (False,)
    assert outcome.latency_s == pytest.approx(0.8)
    assert outcome.elsewhere == 0


def test_one_verdict_decides_or_three_seconds_do():
    complete, incomplete = utterance(*SHORT, verdict=0.9), utterance(*SHORT, verdict=0.1)
    assert judge(complete, asked_once()(complete)).cut == (True,)
    assert judge(complete, asked_once()(complete)).latency_s == pytest.approx(0.24)
    assert judge(incomplete, asked_once()(incomplete)).cut == (False,)
    assert judge(incomplete, asked_once()(incomplete)).latency_s == pytest.approx(3.0)


def test_intervals_hold_what_was_found_and_narrow_with_more():
    low, high = wilson(15, 100)
    assert low < 0.15 < high
    assert wilson(150, 1000)[0] > low
    assert wilson(0, 0) == (0.0, 1.0)
    values = list(np.random.default_rng(1).normal(0.4, 0.1, 200))
    low, high = interval(values, 50)
    assert 0.35 < low < 0.4 < high < 0.45


def test_pauses_are_put_between_words_and_sound_like_the_background():
    noise = np.random.default_rng(1)
    parts = [noise.normal(0, size, samples) for size, samples in ((10, 4000), (3000, 4000), (10, 800), (3000, 4000))]
    clip = np.concatenate([*parts, noise.normal(0, 10, 4000)]).astype(np.int16)
    ((start, end),) = word_gaps(clip)
    assert abs(start - 8000) <= 80
    assert abs(end - 8800) <= 80
    first, last = bounds(clip)
    assert (abs(first - 4000) <= 80, abs(last - 12800) <= 80) == (True, True)
    silence = background(clip, 8000, Random(1)).astype(float)
    assert len(silence) == 8000
    assert 6.0 < silence.std() < 14.0


def test_the_set_is_the_same_every_time(shared_audio: Path):
    if not Path("/usr/share/asterisk/sounds/es_MX_f_Allison").exists():
        pytest.skip("the recorded prompts are not installed: make peers")
    one, two = (paused_speech("tune", shared_audio) for _ in range(2))
    assert [item.name for item in one] == [item.name for item in two]
    recorded = [(a, b) for a, b in zip(one, two, strict=True) if a.kind != "fillers"]
    assert all((a.pcm == b.pcm).all() for a, b in recorded)  # espeak-ng speaks a little differently each time
    for item in one:
        assert item.begins < item.pauses[0][0] < item.pauses[-1][1] < item.ends < len(item.pcm)
        assert all(0.38 * 8000 <= end - start <= 1.6 * 8000 for start, end in item.pauses), item.name
