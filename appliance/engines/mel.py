"""Slaney's mel scale: the bands that the Whisper family of models hears in."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 16000
FFT_SAMPLES: Final = 400
HOP_SAMPLES: Final = 160

_LINEAR_HZ_PER_MEL: Final = 200.0 / 3.0
_KNEE_HZ: Final = 1000.0
_KNEE_MEL: Final = 15.0
_LOG_STEP: Final = float(np.log(6.4)) / 27.0


def mel_filters(bands: int) -> NDArray[np.float32]:
    """[201, bands] triangles of equal area from 0 to 8 kHz, evenly spaced on Slaney's mel scale."""
    top_hz = RATE_HZ / 2
    bins_hz = np.linspace(0.0, top_hz, FFT_SAMPLES // 2 + 1)
    corners_hz = _slaney_to_hz(np.linspace(0.0, _hz_to_slaney(top_hz), bands + 2))
    low, centre, high = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (bins_hz[:, np.newaxis] - low) / (centre - low)
    falling = (high - bins_hz[:, np.newaxis]) / (high - centre)
    triangles = np.clip(np.minimum(rising, falling), 0.0, None)
    return np.ascontiguousarray(triangles * (2.0 / (high - low)), np.float32)


def taper() -> NDArray[np.float32]:
    """[400] the periodic Hann window of every transform."""
    window: NDArray[np.float32] = np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32)
    return window


def _hz_to_slaney(hz: float) -> float:
    """Linear to 1 kHz, 27 mels for each factor of 6.4 above."""
    return hz / _LINEAR_HZ_PER_MEL if hz < _KNEE_HZ else _KNEE_MEL + float(np.log(hz / _KNEE_HZ)) / _LOG_STEP


def _slaney_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < _KNEE_MEL, mels * _LINEAR_HZ_PER_MEL, _KNEE_HZ * np.exp((mels - _KNEE_MEL) * _LOG_STEP))
