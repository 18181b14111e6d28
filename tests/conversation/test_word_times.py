"""Where words are in speech, by sound and text."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.conversation.spoken import spoken_form
from appliance.conversation.utterance import Clause
from appliance.conversation.word_times import BLOCK, text_shares

RATE_HZ = 8000


def speech(seconds: float, seed: int = 1) -> np.ndarray:
    """Something whose level goes up and down as speech does."""
    chance = np.random.default_rng(seed)
    level = 500 + 5000 * np.abs(np.sin(np.arange(int(seconds * RATE_HZ)) * 2 * np.pi * 3 / RATE_HZ))
    return (level * chance.standard_normal(len(level)) / 3).astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE_HZ), np.int16)


def test_a_tone_is_spread_evenly() -> None:
    tone = (6500 * np.sin(np.arange(16000) * 2 * np.pi * 220 / RATE_HZ)).astype(np.int16)
    shares = text_shares(tone, "one, two three, four five.")
    assert shares == pytest.approx(np.linspace(0.0, 1.0, 201), abs=0.01)


def test_a_pause_is_where_the_comma_is() -> None:
    text = "first of all then, after a while, the rest of it"
    pcm = np.concatenate([speech(1.3), silence(0.2), speech(1.4, 2)])
    shares = text_shares(pcm, text)
    before = text.index("after") - 1
    assert shares[145] == pytest.approx(before / len(text), abs=0.01)
    assert (np.diff(shares) >= 0).all() and shares[0] == 0.0 and shares[-1] == 1.0


def test_a_silence_far_from_any_comma_only_takes_time() -> None:
    pcm = np.concatenate([speech(1.0), silence(0.5), speech(1.0, 2)])
    shares = text_shares(pcm, "there is no comma in here at all")
    assert shares[102] == pytest.approx(shares[148], abs=1e-9)
    assert shares[125] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("samples", [0, 50, 80, 200, 8000])
def test_hardly_any_sound_is_no_trouble(samples: int) -> None:
    shares = text_shares(silence(1.0)[:samples], "some words")
    assert len(shares) == samples // BLOCK + 1
    assert shares[-1] == (1.0 if samples >= BLOCK else 0.0)


def test_a_word_begins_again_where_it_began() -> None:
    form = spoken_form("please bring the letter, and the card")
    pcm = np.concatenate([speech(1.5), silence(0.2), speech(0.8, 2)])
    clause = Clause(form.written, form, 0.1, 1000, 1000 + 800 + len(pcm), text_shares(pcm, form.text))
    for position in range(clause.speech, clause.end, 400):
        begins = clause.position_of(form.word_start(clause.share_at(position)))
        assert begins <= position + BLOCK
    again = clause.position_of(form.word_start(clause.share_at(clause.speech + 14800)))
    assert again == pytest.approx(clause.speech + 1.7 * RATE_HZ, abs=0.1 * RATE_HZ)
