"""Comfort noise (RFC 3389): the payload, and noise of the level it names.

Only the level is used. The spectrum that may follow it is optional in the standard, and at such levels a telephone's
band leaves little of it to hear.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.errors import RtpError

PAYLOAD_TYPE: Final = 13
"""The static payload type of comfort noise at 8 kHz."""

FRAME_SAMPLES: Final = 160
_TABLE: Final = np.random.Generator(np.random.PCG64(3389)).standard_normal(8192).astype(np.float32)
_STRIDE: Final = 1093
"""Between the starts of successive frames in the table: odd, so that all starts come before one comes again."""


class ComfortNoise:
    """White noise for one call, at the level of the newest payload.

    Raises:
        RtpError: the payload is empty.
    """

    __slots__ = ("_at", "_gain", "_wanted")

    def __init__(self, payload: bytes, seed: int = 0) -> None:
        self._at = seed % len(_TABLE)
        self._wanted = 0.0
        self.update(payload)
        self._gain = self._wanted

    def update(self, payload: bytes) -> None:
        """Go over to the level of another payload within a few frames; errors as above."""
        self._wanted = 32768.0 * 10.0 ** (-level_in(payload) / 20.0)

    def frame(self) -> NDArray[np.int16]:
        """The next 20 ms, int16 [160] at 8 kHz."""
        self._gain += (self._wanted - self._gain) * 0.25
        self._at = (self._at + _STRIDE) % len(_TABLE)
        picked = np.take(_TABLE, np.arange(self._at, self._at + FRAME_SAMPLES), mode="wrap")
        noise: NDArray[np.int16] = np.clip(picked * self._gain, -32768, 32767).astype(np.int16)
        return noise


def level_in(payload: bytes) -> int:
    """The noise level in a payload, in decibels below overload, 0 to 127.

    Raises:
        RtpError: the payload is empty.
    """
    if not payload:
        raise RtpError("comfort noise without a level")
    return payload[0] & 0x7F


def payload_of(level_db: int) -> bytes:
    """A payload that names a level, in decibels below overload, and no spectrum."""
    return bytes((min(max(level_db, 0), 127),))
