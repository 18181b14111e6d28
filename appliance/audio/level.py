"""How loud: RMS relative to 16-bit full scale (a full-scale sine is -3.01 dBFS)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FLOOR_DBFS: Final = -96.0
"""Digital silence; one unit of a 16-bit sample is -90.3."""

_FULL_SCALE_SQUARED: Final = np.float32(32768.0**2)
_FLOOR_RATIO: Final = np.float32(10.0 ** (FLOOR_DBFS / 10.0))


def rms_dbfs(frames: NDArray[np.int16]) -> NDArray[np.float32]:
    """Level of each row.

    Args:
        frames: int16 [calls, samples].

    Returns:
        float32 [calls], dBFS, never below ``FLOOR_DBFS``.
    """
    if frames.shape[1] == 0:
        return np.full(frames.shape[0], FLOOR_DBFS, np.float32)
    wide = frames.astype(np.float32)
    power = np.einsum("ij,ij->i", wide, wide) / (_FULL_SCALE_SQUARED * np.float32(frames.shape[1]))
    level: NDArray[np.float32] = np.float32(10.0) * np.log10(np.maximum(power, _FLOOR_RATIO))
    return level


def rms_dbfs_one(samples: NDArray[np.int16]) -> float:
    """Level of one call's samples [samples], dBFS."""
    return float(rms_dbfs(samples.reshape(1, -1))[0])
