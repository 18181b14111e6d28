"""Pieces of speech that were synthesised apart stand next to each other without a click or a jump in level."""

from __future__ import annotations

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.engines.espeak_tts import EspeakSynthesiser
from appliance.engines.speech_level import (
    FADE_S,
    LEAD_S,
    LEVEL,
    RATE_HZ,
    TAIL_S,
    Shaper,
    VoiceLevels,
    active_rms,
    whole_piece,
)

CLAUSES = (
    "Sure, I can help you with that.",
    "Your appointment is confirmed for Tuesday at three.",
    "Is there anything else?",
    "Yes.",
    "No, we are closed on Sundays, I am afraid.",
    "She sells sea shells.",
)
LOUDNESS = (0.5, 0.38, 0.6, 0.4, 0.65, 0.42)
"""4.7 dB between the loudest and the quietest clause."""


def _spoken(texts: tuple[str, ...]) -> list[NDArray[np.int16]]:
    espeak = EspeakSynthesiser()
    return [np.concatenate(list(espeak.synthesise(text))) for text in texts]


@pytest.fixture(scope="module")
def clauses() -> list[NDArray[np.int16]]:
    """What a synthesiser says that has another level for every clause, an offset, and silence at both ends."""
    # A process of its own: espeak-ng's noises are random, and go on from whatever this one has had it say before.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
        spoken = another.submit(_spoken, CLAUSES).result()
    chance = np.random.default_rng(5)
    made = []
    for speech_of_one, loudness in zip(spoken, LOUDNESS, strict=True):
        speech = speech_of_one * loudness
        around = [np.zeros(int(seconds * RATE_HZ)) for seconds in chance.uniform(0.05, 0.6, 2)]
        noisy = np.concatenate([around[0], speech, around[1]])
        made.append((noisy + chance.normal(0, 3, len(noisy)) + 400).astype(np.int16))
    return made


def shaped(pcm: NDArray[np.int16], levels: VoiceLevels, chunk: int) -> NDArray[np.int16]:
    shaper = Shaper(levels, "ann")
    chunks = [shaper.push(pcm[start : start + chunk]) for start in range(0, len(pcm), chunk)]
    return np.concatenate([*chunks, shaper.finish()])


def dbfs(pcm: NDArray[np.int16]) -> float:
    return float(20 * np.log10(active_rms(pcm / np.float32(32768))))


@pytest.mark.parametrize("chunk", [800, 1600, 1 << 20], ids=["streamed", "in fifths of a second", "whole"])
class TestPieces:
    def test_levels_differ_by_less_than_2_db(self, clauses, chunk):
        levels = VoiceLevels()
        shaped(clauses[0], levels, chunk)
        after = [dbfs(shaped(pcm, levels, chunk)) for pcm in clauses]
        assert max(after) - min(after) < 2.0, after
        assert np.mean(after) == pytest.approx(-20, abs=1)

    def test_no_join_is_a_click(self, clauses, chunk):
        """Neither where pieces meet, nor where they meet the silence of a pause."""
        pieces = [shaped(pcm, VoiceLevels(), chunk) for pcm in clauses]
        speech_jumps = np.abs(np.diff(np.concatenate(pieces).astype(np.int32)))
        for one, other in itertools.pairwise(pieces):
            assert abs(int(one[-1]) - int(other[0])) < np.percentile(speech_jumps, 50)
            assert max(abs(int(one[-1])), abs(int(other[0]))) < 0.002 * 32768

    def test_begins_and_ends_with_little_silence(self, clauses, chunk):
        for pcm in clauses:
            piece = shaped(pcm, VoiceLevels(), chunk)
            loud = np.flatnonzero(np.abs(piece.astype(np.int32)) > 0.006 * 32768)
            assert loud[0] <= (LEAD_S + 0.001) * RATE_HZ
            assert len(piece) - loud[-1] <= (TAIL_S + 0.001) * RATE_HZ

    def test_has_no_offset(self, clauses, chunk):
        for pcm in clauses:
            assert abs(shaped(pcm, VoiceLevels(), chunk).mean()) < 0.001 * 32768

    def test_is_the_same_every_time(self, clauses, chunk):
        assert (shaped(clauses[1], VoiceLevels(), chunk) == shaped(clauses[1], VoiceLevels(), chunk)).all()

    def test_is_never_louder_than_telephones_carry(self, clauses, chunk):
        shouted = np.clip(clauses[0] * 30.0, -32768, 32767).astype(np.int16)
        assert np.abs(shaped(shouted, VoiceLevels(), chunk).astype(np.int32)).max() <= 0.9 * 32768


def test_what_is_known_of_a_voice_sets_the_level_of_its_first_tenth_of_a_second(clauses):
    quiet = clauses[3]
    levels = VoiceLevels()
    for _ in range(5):
        shaped(quiet, levels, 1 << 20)
    shaper = Shaper(levels, "ann")
    first = np.concatenate([shaper.push(quiet[start : start + 400]) for start in range(0, len(quiet) // 2, 400)])
    assert dbfs(first) == pytest.approx(dbfs(shaped(quiet, levels, 1 << 20)[: len(first)]), abs=2.0)


def test_a_voice_is_known_after_ten_seconds_and_does_not_change_then(clauses):
    levels = VoiceLevels()
    for _ in range(10):
        for pcm in clauses:
            shaped(pcm, levels, 1600)
    known = levels.power("ann")
    shaped(np.clip(clauses[0] * 5.0, -32768, 32767).astype(np.int16), levels, 1600)
    assert levels.power("ann") == known


@pytest.mark.parametrize("pcm", [np.zeros(0, np.int16), np.zeros(4000, np.int16), np.full(4000, 900, np.int16)])
def test_nothing_comes_of_silence(pcm):
    assert not len(shaped(pcm, VoiceLevels(), 800))
    assert not len(whole_piece(np.zeros(len(pcm), np.float32)))


def test_pauses_inside_a_piece_stay_as_long_as_they_were():
    tone = (8000 * np.sin(np.arange(2000) * 0.5)).astype(np.int16)
    pcm = np.concatenate([tone, np.zeros(3000, np.int16), tone])
    piece = shaped(pcm, VoiceLevels(), 800)
    assert len(piece) == pytest.approx(7000, abs=(LEAD_S + TAIL_S) * RATE_HZ)


def test_single_samples_are_taken_too():
    tone = (8000 * np.sin(np.arange(400) * 0.5)).astype(np.int16)
    assert len(shaped(tone, VoiceLevels(), 1)) > 300


def test_a_piece_as_a_whole_has_the_level_and_fades():
    tone = (0.3 * np.sin(np.arange(8000) * 0.5)).astype(np.float32)
    piece = whole_piece(tone)
    assert dbfs(piece) == pytest.approx(20 * np.log10(LEVEL), abs=0.2)
    fade = round(FADE_S * RATE_HZ)
    assert abs(int(piece[0])) < 0.01 * 32768
    assert np.abs(piece[:fade]).max() < np.abs(piece[fade : 3 * fade]).max()
