"""How an utterance sounds at its end: pitch and loudness against what they were before. PURE.

Whoever has finished lets the voice fall: the last syllables are lower and softer than the utterance was, and lower and
softer than they are before a pause in the middle. That holds across languages, and costs a twentieth of a turn model.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

RATE_HZ: Final = 8000
HEARD_S: Final = 6.0
"""What is older than this before the end says nothing about it."""

_HOP: Final = 80
_WINDOW: Final = 320
_FFT: Final = 512
_LAGS: Final = (20, 115)  # 400 to 70 Hz
_VOICED: Final = 0.5
_NEARLY: Final = 0.88
_FALL_DB: Final = 30.0
_VOICED_FALL_DB: Final = 25.0
_MIN_VOICED: Final = 15
_MIN_LENGTH: Final = 35
_TAIL: Final = 20
_TAIL_REACH: Final = 60
_LAST: Final = 6
_FALLING: Final = 25
_SILENT: Final = 1e-5

_TAPER: Final = np.hanning(_WINDOW).astype(np.float32)
_TAPER_POWER: Final = np.abs(np.fft.rfft(_TAPER, _FFT)) ** 2
_TAPER_SELF: Final = np.fft.irfft(_TAPER_POWER)[: _LAGS[1]]
_UNBIAS: Final = (_TAPER_SELF[0] / _TAPER_SELF).astype(np.float32)


class Ending(NamedTuple):
    """The end of an utterance relative to the rest of it.

    Attributes:
        pitch: of the last voiced 60 ms, semitones above the median.
        loudness: the loudest of the last voiced 200 ms, dB above the loud parts (negative).
        fall: the mean level of the last 250 ms, likewise.
    """

    pitch: float
    loudness: float
    fall: float


def ending(pcm: NDArray[np.int16]) -> Ending | None:
    """The end of the utterance in ``pcm``, int16 at 8 kHz from its beginning to the silence after it, or later.

    Returns:
        None where there is too little voice in it to say.
    """
    samples = pcm.astype(np.float32) * np.float32(1 / 32768)
    if len(samples) < _WINDOW + _FALLING * _HOP:
        return None
    frames = sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.square(frames).mean(axis=1)
    level = 10.0 * np.log10(np.maximum(power, _SILENT**2))
    loud = np.flatnonzero(level >= level.max() - _FALL_DB)
    end = int(loud[-1]) + 1
    begin = max(0, end - int(HEARD_S * RATE_HZ) // _HOP)
    frames, level = frames[begin:end], level[begin:end]
    pitch = _pitch(frames)
    high = float(np.percentile(level, 95))
    voiced = np.flatnonzero((pitch > 0) & (level > high - _VOICED_FALL_DB))
    if len(voiced) < _MIN_VOICED or len(level) < _MIN_LENGTH:
        return None
    semitones = np.zeros(len(pitch))
    semitones[voiced] = 12.0 * np.log2(pitch[voiced] / np.median(pitch[voiced]))
    tail = voiced[-_TAIL:]
    tail = tail[tail >= len(pitch) - _TAIL_REACH]
    if len(tail) < _LAST:
        tail = voiced[-_LAST:]
    return Ending(
        pitch=float(np.median(semitones[tail[-_LAST:]])),
        loudness=float(level[tail].max()) - high,
        fall=float(level[-_FALLING:].mean()) - high,
    )


def _pitch(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """The pitch of each frame in Hz, 0 where it has none: the first strong peak of the autocorrelation."""
    spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * _TAPER, _FFT, axis=1)
    self_similar = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, axis=1)[:, : _LAGS[1]]
    similar = self_similar * _UNBIAS / np.maximum(self_similar[:, :1], 1e-12)
    near = similar[:, _LAGS[0] :]
    best = near.max(axis=1)
    inner = near[:, 1:-1]
    peaks = (inner >= near[:, :-2]) & (inner >= near[:, 2:]) & (inner >= _NEARLY * best[:, None])
    lag = np.argmax(peaks, axis=1) + 1 + _LAGS[0]
    found: NDArray[np.float64] = np.where((best >= _VOICED) & peaks.any(axis=1), RATE_HZ / lag, 0.0)
    return found
