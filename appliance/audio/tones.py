"""Tones: sines and the key tones of ITU-T Q.23, made and recognised (Goertzel's algorithm as a dot product)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8000
ROWS_HZ: Final = (697, 770, 852, 941)
COLUMNS_HZ: Final = (1209, 1336, 1477, 1633)
PAD: Final = ("123A", "456B", "789C", "*0#D")

_BLOCK: Final = 160
_MIN_KEY_DBFS: Final = -40.0
_MAX_TWIST_DB: Final = 8.0
_MIN_SHARE: Final = 0.7
"""Of a key tone's power, how much must lie in its two frequencies."""


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


def goertzel_dbfs(samples: NDArray[np.int16], frequency_hz: float, rate_hz: int = RATE_HZ) -> float:
    """RMS level of one frequency in the samples, dBFS; a pure sine reads its own RMS level. Floor -96."""
    return float(10.0 * np.log10(max(_power(samples, frequency_hz, rate_hz), 10.0**-9.6)))


def key_in(samples: NDArray[np.int16]) -> str | None:
    """The key whose tone fills the samples (8 kHz, 20 ms or more), or None."""
    if len(samples) < _BLOCK:
        return None
    total = float(np.mean(np.square(samples.astype(np.float64)))) / 32768.0**2
    rows = [_power(samples, hz, RATE_HZ) for hz in ROWS_HZ]
    columns = [_power(samples, hz, RATE_HZ) for hz in COLUMNS_HZ]
    row, column = int(np.argmax(rows)), int(np.argmax(columns))
    low, high = rows[row], columns[column]
    if min(low, high) < 10.0 ** (_MIN_KEY_DBFS / 10.0) or (low + high) < _MIN_SHARE * total:
        return None
    if abs(10.0 * np.log10(low / high)) > _MAX_TWIST_DB:
        return None
    return PAD[row][column]


def keys_in(samples: NDArray[np.int16]) -> list[tuple[str, int, int]]:
    """Every key tone of at least 40 ms in the samples: (key, start, end), positions in samples to within 20 ms."""
    found: list[tuple[str, int, int]] = []
    current: str | None = None
    began = 0
    blocks = len(samples) // _BLOCK
    for block in range(blocks + 1):
        key = key_in(samples[block * _BLOCK : (block + 1) * _BLOCK]) if block < blocks else None
        if key == current:
            continue
        if current is not None and (block - began) >= 2:
            found.append((current, began * _BLOCK, block * _BLOCK))
        current, began = key, block
    return found


def _clip(samples: NDArray[np.floating] | NDArray[np.int32]) -> NDArray[np.int16]:
    clipped: NDArray[np.int16] = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    return clipped


def _power(samples: NDArray[np.int16], frequency_hz: float, rate_hz: int) -> float:
    """Power of one frequency relative to full scale squared."""
    turns = np.exp(-2j * np.pi * frequency_hz / rate_hz * np.arange(len(samples)))
    amplitude = 2.0 * abs(complex(turns @ samples)) / max(len(samples), 1) / 32768.0
    return amplitude * amplitude / 2.0
