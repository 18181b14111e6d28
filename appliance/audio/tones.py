"""Tones: sines and the key tones of ITU-T Q.23."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8000
ROWS_HZ: Final = (697, 770, 852, 941)
COLUMNS_HZ: Final = (1209, 1336, 1477, 1633)
PAD: Final = ("123A", "456B", "789C", "*0#D")


def sine(
    frequency_hz: float, samples: int, level_dbfs: float = -13.0, *, rate_hz: int = RATE_HZ, start: int = 0
) -> NDArray[np.int16]:
    """A sine of RMS ``level_dbfs`` (at most -3.01), int16 [samples].

    ``start`` is the position of its first sample: pieces made one after the other join without a click.
    """
    amplitude = 32768.0 * np.sqrt(2.0) * 10.0 ** (level_dbfs / 20.0)
    phase = 2.0 * np.pi * frequency_hz / rate_hz * (np.arange(samples) + start)
    return _clip(amplitude * np.sin(phase))


def key_tone(key: str, samples: int, level_dbfs: float = -13.0) -> NDArray[np.int16]:
    """The tone of a key (0-9, *, #, A-D) at 8 kHz, each of its two frequencies at ``level_dbfs``.

    Raises:
        ValueError: if there is no such key.
    """
    for row_hz, keys in zip(ROWS_HZ, PAD, strict=True):
        if len(key) == 1 and key in keys:
            column_hz = COLUMNS_HZ[keys.index(key)]
            return _clip(sine(row_hz, samples, level_dbfs).astype(np.int32) + sine(column_hz, samples, level_dbfs))
    raise ValueError(f"{key!r} is not a key; use one of {''.join(PAD)}")


def _clip(samples: NDArray[np.floating] | NDArray[np.int32]) -> NDArray[np.int16]:
    clipped: NDArray[np.int16] = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    return clipped
