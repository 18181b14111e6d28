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
_HELD_WINDOW: Final = 256
_HELD_MIN: Final = 3200
_AUDIBLE: Final = 1e-3
_HELD_ATTACK: Final = 5
_HELD_STILL_DB: Final = 3.0
_HELD_CHANGE_DB: Final = 4.5
_HELD_SWING_DB: Final = 11.5
_HELD_TAPER: Final = np.hanning(_HELD_WINDOW).astype(np.float32)
_HELD_EDGES_HZ: Final = (100, 250, 400, 550, 700, 900, 1100, 1400, 1700, 2100, 2600, 3200, 3900)
_HELD_BANDS: Final = np.asarray(_HELD_EDGES_HZ) * _HELD_WINDOW // RATE_HZ

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


def is_held(pcm: NDArray[np.int16]) -> bool:
    """Whether ``pcm``, int16 at 8 kHz, is one sound that is held or repeated ("mm hm"), and not articulated speech.

    Words change the shape of the spectrum all the time and rise and fall in level; a hum does neither.
    """
    samples = pcm.astype(np.float32) * np.float32(1 / 32768)
    if len(samples) < _HELD_MIN or float(np.abs(samples).max()) < _AUDIBLE:
        return False
    frames = sliding_window_view(samples, _HELD_WINDOW)[::_HOP] * _HELD_TAPER
    spectrum = np.fft.rfft(frames, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    bands = np.add.reduceat(power, _HELD_BANDS, axis=1)[:, :-1] / np.diff(_HELD_BANDS)
    level = 10.0 * np.log10(np.maximum(power.sum(axis=1), _SILENT))
    shape = 10.0 * np.log10(np.maximum(bands, bands.max() * _SILENT))
    shape -= shape.mean(axis=1, keepdims=True)
    loud = level >= level.max() - _VOICED_FALL_DB
    change = float(np.median(np.abs(shape[loud] - np.median(shape[loud], axis=0)).mean(axis=1)))
    swing = float(level.max() - np.percentile(level[_HELD_ATTACK:], 20))
    return change < _HELD_STILL_DB or (change < _HELD_CHANGE_DB and swing < _HELD_SWING_DB)


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
