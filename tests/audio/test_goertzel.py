from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.goertzel import ToneKeys
from appliance.audio.tones import COLUMNS_HZ, PAD, ROWS_HZ, key_tone, sine
from tests.bench.prompts import SOUNDS, read_wav

KEYS = "".join(PAD)
VOICES = Path(__file__).parents[2].parent / "shared" / "audio"
DBM0_AT_FULL_SCALE = 6.15
"""dBm0 of a signal whose RMS is 0 dBFS (ITU-T G.711: a full-scale sine is 3.14 dBm0)."""


def heard(line: NDArray[np.int16]) -> list[tuple[str, int]]:
    """The keys of a line as the box hears it, through G.711, and the frame in which each was recognised."""
    line = g711.decode(g711.encode(line, False), False)
    keys = ToneKeys(3)
    rows = np.array([1])
    frames = line[: len(line) // 160 * 160].reshape(-1, 1, 160)
    return [(key, n) for n, frame in enumerate(frames) for _, key in keys.tick(rows, frame)]


def tone(
    key: str, ms: float, dbm0: float, *, off: tuple[float, float] = (0.0, 0.0), twist_db: float = 0.0
) -> NDArray[np.float64]:
    """A key tone whose stronger part has this level; ``off`` are the deviations of its two frequencies."""
    number = KEYS.index(key)
    times = np.arange(int(ms * 8)) / 8000
    amplitude = 32768 * np.sqrt(2) * 10 ** ((dbm0 - DBM0_AT_FULL_SCALE) / 20)
    low = np.sin(2 * np.pi * ROWS_HZ[number // 4] * (1 + off[0]) * times + 1.0)
    high = np.sin(2 * np.pi * COLUMNS_HZ[number % 4] * (1 + off[1]) * times + number)
    return amplitude * (low * 10 ** (-max(twist_db, 0) / 20) + high * 10 ** (min(twist_db, 0) / 20))


def line(*parts: NDArray[np.float64] | int) -> NDArray[np.int16]:
    """Tones, and pauses in samples, one after the other."""
    pieces = [np.zeros(part) if isinstance(part, int) else part for part in parts]
    return np.clip(np.rint(np.concatenate(pieces)), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("dbm0", [-10.0, -20.0, -30.0])
@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_heard_from_40_ms_wherever_it_begins(key: str, dbm0: float) -> None:
    for begin in range(800, 960, 7):
        assert [k for k, _ in heard(line(begin, tone(key, 40, dbm0), 800))] == [key]


@pytest.mark.parametrize("twist_db", [-8.0, 8.0])
@pytest.mark.parametrize("off", [(0.015, -0.015), (-0.015, 0.015), (0.015, 0.015)])
@pytest.mark.parametrize("key", "159D*")
def test_phones_that_are_a_little_off_are_heard(key: str, off: tuple[float, float], twist_db: float) -> None:
    assert [k for k, _ in heard(line(811, tone(key, 40, -15, off=off, twist_db=twist_db), 800))] == [key]


@pytest.mark.parametrize("key", "159D*")
def test_a_key_is_heard_in_noise(key: str) -> None:
    generator = np.random.default_rng(4)
    sound = tone(key, 50, -15.0)
    level = float(np.sqrt(np.mean(sound**2))) * 10 ** (-15 / 20)
    noisy = np.concatenate((np.zeros(850), sound, np.zeros(900)))
    noisy += generator.normal(0.0, level, len(noisy))
    assert [k for k, _ in heard(line(noisy))] == [key]


def test_a_key_is_recognised_within_three_frames() -> None:
    [(key, frame)] = heard(line(1600, tone("7", 200, -12), 800))
    assert key == "7"
    assert 11 <= frame <= 12


@pytest.mark.parametrize("pause_ms", [40, 50, 100])
def test_a_repeated_key_is_two_keys(pause_ms: int) -> None:
    for begin in range(800, 960, 31):
        made = line(begin, tone("5", 50, -12), 8 * pause_ms, tone("5", 50, -12), 800)
        assert [k for k, _ in heard(made)] == ["5", "5"]


def test_a_break_of_10_ms_is_not_a_new_press() -> None:
    for begin in range(800, 960, 31):
        assert [k for k, _ in heard(line(begin, tone("5", 60, -12), 80, tone("5", 60, -12), 800))] == ["5"]


def test_a_long_key_is_one_and_its_neighbour_is_heard_at_once() -> None:
    assert [k for k, _ in heard(line(813, tone("2", 3000, -12), tone("9", 80, -12), 800))] == ["2", "9"]


@pytest.mark.parametrize("key", "159D*")
def test_what_is_no_key_tone_is_not_heard(key: str) -> None:
    assert heard(line(813, tone(key, 23, -10), 800)) == []
    assert heard(line(813, tone(key, 100, -15, off=(0.035, 0.0)), 800)) == []
    assert heard(line(813, tone(key, 100, -15, off=(0.0, -0.035)), 800)) == []
    assert heard(line(813, tone(key, 100, -15, twist_db=15.0), 800)) == []
    assert heard(line(813, tone(key, 100, -55), 800)) == []
    assert heard(line(sine(ROWS_HZ[KEYS.index(key) // 4], 4000).astype(np.float64))) == []


def test_ringing_and_busy_tones_and_noise_are_no_keys() -> None:
    generator = np.random.default_rng(5)
    pairs = [(440, 480), (480, 620), (350, 440), (425, 425), (1100, 2100), (950, 1400)]
    for first, second in pairs:
        both = sine(first, 8000, -16.0).astype(np.float64) + sine(second, 8000, -16.0)
        assert heard(line(both)) == []
    assert heard(line(generator.normal(0.0, 4000.0, 80000))) == []


def test_slots_do_not_hear_one_another() -> None:
    keys = ToneKeys(4)
    rows = np.array([3, 0, 2])
    found = []
    for n in range(10):
        frames = np.stack(
            [
                part[n * 160 : n * 160 + 160]
                for part in (key_tone("1", 1600), np.zeros(1600, np.int16), key_tone("#", 1600))
            ]
        )
        found += keys.tick(rows, frames)
    assert sorted(found) == [(2, "#"), (3, "1")]
    keys.reset(3)
    again = [pair for n in range(4) for pair in keys.tick(np.array([3]), key_tone("1", 160)[None])]
    assert again[:1] == [(3, "1")]
    assert keys.tick(np.zeros(0, np.int64), np.zeros((0, 160), np.int16)) == []


@pytest.mark.skipif(not VOICES.is_dir(), reason=f"no recorded voices beside this clone; they go into {VOICES}")
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_no_key_is_heard_in_recorded_voices_noise_and_bangs(gain: float) -> None:
    wrong = {
        path.name: keys
        for path in sorted(VOICES.rglob("*.wav"))
        if (keys := heard((read_wav(path) * gain).astype(np.int16)))
    }
    assert wrong == {}


@pytest.mark.slow
def test_no_key_is_heard_in_an_hour_of_prompts() -> None:
    paths = sorted(path for path in SOUNDS.glob("en_US*/**/*.wav"))
    if not paths:
        pytest.skip("asterisk-core-sounds-en-wav is not installed (make peers)")
    assert {path.name: keys for path in paths if (keys := heard(read_wav(path)))} == {}
