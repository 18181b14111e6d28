"""Audio that nobody has to be asked about: silence, a steady noise, a tone. PURE.

A recogniser with a closed grammar finds a word in these too: a long hiss fits one sound of a word better than any
sequence of phones does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_QUIET_RMS: Final = 30.0
"""-61 dBFS: no 20 ms of what a caller says are this quiet throughout."""
_STEADY: Final = 1.0
"""Nats (4.3 dB) between the loudest and the quietest frames; speech 15 dB above the noise has more than 3."""
_TONE_SHARE: Final = 0.96
"""Of the energy that lies in the strongest bins: keys and beeps have 0.97 and more, spoken words less than 0.94."""
_TONE_BINS: Final = 12
_WINDOW, _SHIFT, _FFT = 205, 80, 512


def says_nothing(pcm: npt.NDArray[np.int16], bands: npt.NDArray[np.float64]) -> bool:
    """Whether there is certainly no speech.

    Args:
        pcm: int16 mono at 8 kHz.
        bands: the log band energies of the same audio, (frames, bands).
    """
    frame = 160
    frames = pcm[: len(pcm) // frame * frame].astype(np.float64).reshape(-1, frame)
    if not len(bands) or (frames**2).mean(1).max(initial=0.0) < _QUIET_RMS**2:
        return True
    level = bands.mean(1)
    loud = float(np.percentile(level, 95))
    return loud - float(np.percentile(level, 10)) < _STEADY or _is_tone(pcm)


def _is_tone(pcm: npt.NDArray[np.int16]) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(pcm.astype(np.float64), _WINDOW)[::_SHIFT]
    power = np.abs(np.fft.rfft(windows * np.hamming(_WINDOW), _FFT)) ** 2
    energy = power.sum(1)
    spectrum = power[energy > 0.1 * np.percentile(energy, 95)].sum(0)
    strongest = float(np.sort(spectrum)[-_TONE_BINS:].sum())
    return strongest > _TONE_SHARE * max(float(spectrum.sum()), 1.0)
