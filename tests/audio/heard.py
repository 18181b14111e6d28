"""What is heard in audio: how loud one frequency is, and which keys were pressed, each block of 20 ms by itself.

Goertzel's algorithm as a dot product; shares nothing with what the appliance hears keys with.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio.level import rms_dbfs_one
from appliance.audio.tones import COLUMNS_HZ, PAD, RATE_HZ, ROWS_HZ

_BLOCK: Final = 160
_PIECE: Final = 400
_MIN_KEY_DBFS: Final = -40.0
_MAX_TWIST_DB: Final = 8.0
_MIN_SHARE: Final = 0.7
"""Of a key tone's power, how much must lie in its two frequencies."""


def level_dbfs(samples: NDArray[np.int16], frequency_hz: float, rate_hz: int = RATE_HZ) -> float:
    """RMS level of one frequency in the samples, dBFS; a pure sine reads its own RMS level. Floor -96."""
    return float(10.0 * np.log10(max(_power(samples, frequency_hz, rate_hz), 10.0**-9.6)))


def tone_s(samples: NDArray[np.int16], frequency_hz: float) -> float:
    """For how long a tone louder than -21 dBFS is heard and nothing else, in seconds (8 kHz)."""
    pieces = samples[: len(samples) // _PIECE * _PIECE].reshape(-1, _PIECE)
    found = 0
    for piece in pieces:
        level = level_dbfs(piece, frequency_hz)
        found += level > -21.0 and level > rms_dbfs_one(piece) - 1.0
    return found * _PIECE / RATE_HZ


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


def _power(samples: NDArray[np.int16], frequency_hz: float, rate_hz: int) -> float:
    """Power of one frequency relative to full scale squared."""
    turns = np.exp(-2j * np.pi * frequency_hz / rate_hz * np.arange(len(samples)))
    amplitude = 2.0 * abs(complex(turns @ samples)) / max(len(samples), 1) / 32768.0
    return amplitude * amplitude / 2.0
