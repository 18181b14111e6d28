from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio.conceal import FADE_FRAMES, HISTORY_SAMPLES, Concealment
from appliance.audio.level import rms_dbfs_one
from appliance.audio.tones import sine

from .heard import level_dbfs


def voice(samples: int, pitch_hz: float = 118.0) -> NDArray[np.int16]:
    """A buzz with the spectrum of a vowel."""
    parts = [sine(pitch_hz * n, samples, -20.0 - 3.0 * n) for n in range(1, 12)]
    mixed: NDArray[np.int16] = np.sum(parts, axis=0, dtype=np.int16)
    return mixed


def begun() -> Concealment:
    """Concealment of a call whose audio has come until now."""
    gap = Concealment()
    gap.came(np.zeros(160, np.int16))
    return gap


def run(signal: NDArray[np.int16], lost: int, gap: Concealment | None = None) -> NDArray[np.int16]:
    """The signal up to 480 and then ``lost`` concealed frames, each from the history the media process has."""
    gap = gap or begun()
    line = signal[:480]
    for _ in range(lost):
        line = np.concatenate((line, gap.lost(line[-480:])))
    return line


@pytest.mark.parametrize("pitch_hz", [80.0, 118.0, 205.0, 330.0])
def test_a_voice_goes_on_at_its_pitch(pitch_hz: float) -> None:
    signal = voice(640, pitch_hz)
    frame = begun().lost(signal[:480]).astype(np.float64)
    expected = signal[480:].astype(np.float64) * np.linspace(1.0, 0.75, 160)
    assert np.sum((frame - expected) ** 2) / np.sum(expected**2) < 0.05


@pytest.mark.parametrize("fall", [0.93, 1.0, 1.07])
@pytest.mark.parametrize("pitch_hz", [90.0, 118.0, 205.0, 330.0])
def test_a_gap_is_bridged_in_phase_though_the_pitch_has_moved(pitch_hz: float, fall: float) -> None:
    """The cycles over the gap and on both sides of it are one glide: nowhere does the level sink."""
    glide = pitch_hz * np.linspace(1.0, fall, 800)
    phase = 2 * np.pi * np.cumsum(glide) / 8000
    signal = sum(1500 / n * np.cos(n * phase) for n in range(1, 8)).astype(np.int16)
    gap = begun()
    frame = gap.lost(signal[:480], signal[640:800])
    expected = signal[480:640].astype(np.float64)
    assert np.sum((frame - expected) ** 2) / np.sum(expected**2) < 0.35
    assert abs(rms_dbfs_one(frame) - rms_dbfs_one(signal[480:640])) < 1.0
    np.testing.assert_array_equal(gap.came(signal[640:800]), signal[640:800])


@pytest.mark.parametrize("known", [True, False])
def test_another_frame_than_was_announced_is_blended_in(known: bool) -> None:
    signal = voice(1200)
    gap = begun()
    line = np.concatenate((signal[:480], gap.lost(signal[:480], signal[640:800] if known else None)))
    line = np.concatenate((line, gap.came(signal[830:990])))
    usual = int(np.max(np.abs(np.diff(signal.astype(np.int32)))))
    assert int(np.max(np.abs(np.diff(line[400:].astype(np.int32))))) <= 1.5 * usual


def test_it_fades_to_silence_within_80_ms() -> None:
    line = run(voice(480), 6)
    levels = [rms_dbfs_one(line[480 + 160 * n : 640 + 160 * n]) for n in range(6)]
    assert levels[0] > levels[1] > levels[2] > levels[3] > -60.0
    assert levels[4:] == [-96.0] * 2
    assert levels[0] - rms_dbfs_one(line[320:480]) > -3.5


@pytest.mark.parametrize("lost", [1, 2, 3, 5])
def test_there_is_no_step_into_within_or_out_of_it(lost: int) -> None:
    signal = voice(480 + 160 * 7)
    usual = int(np.max(np.abs(np.diff(signal.astype(np.int32)))))
    gap = begun()
    line = run(signal, lost, gap)
    first = gap.came(signal[480 + 160 * lost : 640 + 160 * lost])
    joined = np.concatenate((line[400:], first)).astype(np.int32)
    assert int(np.max(np.abs(np.diff(joined)))) <= 1.5 * usual
    np.testing.assert_array_equal(first[40:], signal[520 + 160 * lost : 640 + 160 * lost])


def test_the_end_of_a_long_gap_is_bridged_too() -> None:
    signal = voice(1000)
    gap = begun()
    line = run(signal, 2, gap)
    levels = [rms_dbfs_one(part) for part in (line[-160:], gap.lost(line[-480:], signal[840:1000]))]
    assert levels[1] > levels[0]
    np.testing.assert_array_equal(gap.came(signal[840:1000]), signal[840:1000])


def test_after_a_pause_the_next_word_is_not_heard_before_it_comes() -> None:
    gap = begun()
    line = run(voice(480), FADE_FRAMES, gap)
    assert not gap.lost(line[-480:], voice(160)).any()


def test_before_the_first_frame_there_is_silence() -> None:
    gap = Concealment()
    assert gap.lost_run == 1
    gap.silent()
    assert not gap.lost(voice(480)).any()
    first = gap.came(voice(160))
    np.testing.assert_array_equal(first[40:], voice(160)[40:])
    assert gap.lost_run == 0


def test_noise_does_not_start_to_buzz() -> None:
    noise = np.random.default_rng(3).normal(0.0, 1500.0, 640).astype(np.int16)
    for frame in (begun().lost(noise[:480]), begun().lost(noise[:320], noise[480:])):
        assert rms_dbfs_one(frame) > rms_dbfs_one(noise) - 4.0
        strongest = max(level_dbfs(frame, hz) for hz in range(100, 3900, 50))
        assert strongest < rms_dbfs_one(frame) - 5.0


@pytest.mark.parametrize("fill", [0, 1, -32768, 32767])
def test_constant_history_is_no_trouble(fill: int) -> None:
    gap = begun()
    flat = np.full(480, fill, np.int16)
    for following in (None, flat[:160], np.zeros(160, np.int16), None, None):
        assert gap.lost(flat, following).shape == (160,)


def test_short_history_is_refused() -> None:
    with pytest.raises(ValueError, match="320 samples"):
        begun().lost(np.zeros(HISTORY_SAMPLES - 1, np.int16))
