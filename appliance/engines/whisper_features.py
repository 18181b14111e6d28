"""What Whisper hears: the log-mel spectrogram of 16 kHz audio, as long as the audio needs it to be.

The model was trained on windows of 30 s, but its encoder takes any shorter one, and what it costs grows with the
window. So the window is the audio and a little silence, rounded up to one of a few lengths: requests of many calls then
have the same shape and share a batch.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from appliance.engines.mel import FFT_SAMPLES, HOP_SAMPLES, RATE_HZ, mel_filters, taper

FRAMES_PER_S: Final = RATE_HZ // HOP_SAMPLES
TELEPHONE_HZ: Final = 8000
WINDOWS_S: Final = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)
"""Lengths of window; from one to the next never more than half again."""
LONGEST_S: Final = 29.5
"""Of the audio in one window."""

_TAIL_S: Final = 0.4
"""Silence after the audio: a model that was never shown speech cut off at the window's end makes words up there."""
_EDGE: Final = FFT_SAMPLES // 2
_POWER_FLOOR: Final = 1e-10
_DYNAMIC_RANGE_DECADES: Final = 8.0


def window_frames(samples: int) -> int:
    """How many feature frames (10 ms) the window for so many samples at 8 kHz has; at most those of 30 s."""
    needed_s = samples / TELEPHONE_HZ + _TAIL_S
    return next((window for window in WINDOWS_S if window >= needed_s), WINDOWS_S[-1]) * FRAMES_PER_S


def to_model_rate(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """8 kHz telephone audio at the model's 16 kHz, -1..1."""
    if not len(pcm):
        return np.zeros(0, np.float32)
    resampled: NDArray[np.float32] = soxr.resample(
        pcm * np.float32(1 / 32768), TELEPHONE_HZ, RATE_HZ, quality="HQ"
    ).astype(np.float32, copy=False)
    return resampled


class LogMel:
    """Features for a model with ``bands`` mel bands (80, or 128 from large-v3 on)."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self._filters = mel_filters(bands)
        self._taper = taper()

    def __call__(self, samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """[bands, frames] of ``samples`` (16 kHz, -1..1) and silence after them; more than fits is not heard."""
        heard = samples[: frames * HOP_SAMPLES]
        transformed = min(frames, math.ceil((len(heard) + _EDGE) / HOP_SAMPLES))
        padded = np.zeros(max((transformed - 1) * HOP_SAMPLES + FFT_SAMPLES, _EDGE + len(heard)), np.float32)
        padded[_EDGE : _EDGE + len(heard)] = heard
        # The transform is centred: what lies before the beginning is its mirror image.
        mirrored = padded[_EDGE + 1 : 2 * _EDGE + 1][::-1]
        padded[_EDGE - len(mirrored) : _EDGE] = mirrored
        if len(heard) == frames * HOP_SAMPLES:
            end = _EDGE + len(heard)
            padded = np.concatenate([padded[:end], padded[end - _EDGE - 1 : end - 1][::-1]])
        pieces = sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES][:transformed]
        spectrum = np.fft.rfft(pieces * self._taper, axis=-1)
        bands = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False) @ self._filters
        np.log10(np.maximum(bands, np.float32(_POWER_FLOOR)), out=bands)
        lowest = np.float32(max(float(bands.max(initial=-10.0)), -10.0) - _DYNAMIC_RANGE_DECADES)
        features = np.full((self.bands, frames), max(float(lowest), -10.0), np.float32)
        features[:, : len(bands)] = np.maximum(bands, lowest).T
        features += 4.0
        features *= 0.25
        return features
