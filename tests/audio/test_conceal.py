from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio.conceal import HISTORY_SAMPLES, conceal, merge
from appliance.audio.level import rms_dbfs_one
from appliance.audio.tones import goertzel_dbfs, sine


def voice(samples: int, pitch_hz: float = 118.0) -> NDArray[np.int16]:
    """A buzz with the spectrum of a vowel."""
    parts = [sine(pitch_hz * n, samples, -20.0 - 3.0 * n) for n in range(1, 12)]
    mixed: NDArray[np.int16] = np.sum(parts, axis=0, dtype=np.int16)
    return mixed


def run(signal: NDArray[np.int16], lost: int) -> NDArray[np.int16]:
    """The signal up to 480 and then ``lost`` concealed frames, each from the history the media process has."""
    line = signal[:480]
    for n in range(1, lost + 1):
        line = np.concatenate((line, conceal(line[-480:], n)))
    return line


@pytest.mark.parametrize("pitch_hz", [80.0, 118.0, 205.0, 330.0])
def test_a_voice_goes_on_at_its_pitch(pitch_hz: float) -> None:
    signal = voice(640, pitch_hz)
    frame = conceal(signal[:480], 1).astype(np.float64)
    expected = signal[480:].astype(np.float64) * np.linspace(1.0, 2 / 3, 160)
    error = np.sum((frame - expected) ** 2) / np.sum(expected**2)
    assert error < 0.05


def test_it_fades_to_silence_within_60_ms() -> None:
    line = run(voice(480), 6)
    levels = [rms_dbfs_one(line[480 + 160 * n : 640 + 160 * n]) for n in range(6)]
    assert levels[0] > levels[1] > levels[2] > -60.0
    assert levels[3:] == [-96.0] * 3
    assert levels[0] - rms_dbfs_one(line[320:480]) > -3.5


@pytest.mark.parametrize("lost", [1, 2, 3, 5])
def test_there_is_no_step_into_within_or_out_of_it(lost: int) -> None:
    signal = voice(480 + 160 * 7)
    usual = int(np.max(np.abs(np.diff(signal.astype(np.int32)))))
    line = run(signal, lost)
    first = merge(line[-480:], lost, signal[480 + 160 * lost : 640 + 160 * lost])
    joined = np.concatenate((line[400:], first)).astype(np.int32)
    assert int(np.max(np.abs(np.diff(joined)))) <= 1.5 * usual
    np.testing.assert_array_equal(first[40:], signal[520 + 160 * lost : 640 + 160 * lost])


def test_noise_does_not_start_to_buzz() -> None:
    noise = np.random.default_rng(3).normal(0.0, 1500.0, 480).astype(np.int16)
    frame = conceal(noise, 1)
    assert rms_dbfs_one(frame) > rms_dbfs_one(noise) - 4.0
    strongest = max(goertzel_dbfs(frame, hz) for hz in range(100, 3900, 50))
    assert strongest < rms_dbfs_one(frame) - 5.0


@pytest.mark.parametrize("fill", [0, 1, -32768, 32767])
def test_constant_history_is_no_trouble(fill: int) -> None:
    for lost in (1, 2, 3, 4):
        assert conceal(np.full(480, fill, np.int16), lost).shape == (160,)


def test_short_history_is_refused() -> None:
    with pytest.raises(ValueError, match="320 samples"):
        conceal(np.zeros(HISTORY_SAMPLES - 1, np.int16), 1)
