from __future__ import annotations

import numpy as np
import pytest

from appliance.engines.mel import mel_filters
from appliance.engines.whisper_features import LogMel, to_model_rate, window_frames


def slowly(samples: np.ndarray, bands: int, frames: int) -> np.ndarray:
    """The same by the definition: a frame at a time, in double precision, over the whole window."""
    window = np.zeros(frames * 160)
    window[: len(samples)] = samples[: len(window)]
    padded = np.pad(window, 200, mode="reflect")
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.array([np.abs(np.fft.rfft(padded[at * 160 : at * 160 + 400] * taper)) ** 2 for at in range(frames)])
    log = np.log10(np.maximum(power @ mel_filters(bands).astype(np.float64), 1e-10))
    return ((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).T


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("length", [0, 1, 150, 399, 16_000, 31_920, 32_000, 40_000])
def test_features_are_those_of_the_definition(bands, length):
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32) * 0.1
    ours = LogMel(bands)(samples, 200)
    assert ours.shape == (bands, 200)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, slowly(samples, bands, 200), atol=2e-4)


def test_bands_are_spaced_on_slaneys_scale():
    """Of 80: the first 26 or so linearly up to 1 kHz, and each triangle of unit area."""
    filters = mel_filters(80)
    centres = filters.argmax(axis=0) * 40.0
    assert centres[0] == pytest.approx(40, abs=20)
    assert np.searchsorted(centres, 1000) == pytest.approx(26, abs=1)
    assert centres[-1] > 7500
    wide = filters[:, 40:]
    np.testing.assert_allclose(wide.sum(axis=0) * 40.0, 1.0, atol=0.15)


@pytest.mark.parametrize(
    ("seconds", "window_s"),
    [(0.0, 2), (1.5, 2), (1.7, 3), (4.5, 5), (5.0, 6), (9.5, 10), (13, 15), (29.5, 30), (99, 30)],
)
def test_windows_are_as_long_as_they_must_be(seconds, window_s):
    assert window_frames(round(seconds * 8000)) == window_s * 100


def test_telephone_audio_is_resampled():
    tone = (np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000) * 16000).astype(np.int16)
    resampled = to_model_rate(tone)
    assert (len(resampled), resampled.dtype) == (16000, np.float32)
    spectrum = np.abs(np.fft.rfft(resampled))
    assert int(np.argmax(spectrum)) == 1000
    assert float(np.abs(resampled).max()) == pytest.approx(0.49, abs=0.02)
    assert len(to_model_rate(np.zeros(0, np.int16))) == 0
