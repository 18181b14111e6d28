"""Change of sample rate without waiting, 16-bit mono, for live audio. PURE.

soxr holds 40 to 60 ms of a stream back at these rates (``audio/resample.py``), which a conversation would hear. This is
a polyphase filter of 48 taps at the lower of the two rates: linear phase, 3 ms late, every output as soon as its input
is there. It passes 3.4 kHz at 8 kHz within half a dB and stops what would fold over by 50 dB.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TAPS: Final = 48
_CUTOFF: Final = 0.465
"""Where the filter is at half, as a share of the lower rate."""
_BETA: Final = 5.0
_MAX_PHASES: Final = 480


class LiveResampler:
    """One stream from ``rate_in_hz`` to ``rate_out_hz``; the same rate passes through untouched.

    Raises:
        ValueError: rates that are not positive, or have too little in common (44,100 and 8,000 are fine).
    """

    __slots__ = ("_at", "_down", "_filters", "_held", "_up")

    def __init__(self, rate_in_hz: int, rate_out_hz: int) -> None:
        if rate_in_hz <= 0 or rate_out_hz <= 0:
            raise ValueError(f"sample rates must be positive, not {rate_in_hz} and {rate_out_hz}")
        common = gcd(rate_in_hz, rate_out_hz)
        self._up, self._down = rate_out_hz // common, rate_in_hz // common
        if self._up > _MAX_PHASES:
            raise ValueError(f"{rate_in_hz} and {rate_out_hz} Hz have too little in common")
        self._filters = _filters(self._up, self._down)
        self._held = np.zeros(self._filters.shape[1] - 1, np.float32)
        self._at = 0
        """Where the next output is, in steps of 1 / ``up`` of an input sample after the first one that is held."""

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """Take input, int16 of any length; return the output that it makes complete, int16, possibly none."""
        if self._up == self._down:
            return samples
        line = np.concatenate((self._held, samples.astype(np.float32)))
        taps = self._filters.shape[1]
        steps = max(len(line) - taps + 1, 0) * self._up
        count = max(-(-(steps - self._at) // self._down), 0)
        positions = self._at + np.arange(count) * self._down
        first, phase = positions // self._up, positions % self._up
        windows = np.lib.stride_tricks.sliding_window_view(line, taps) if count else np.zeros((0, taps), np.float32)
        if self._up == 1:
            output = windows[first] @ self._filters[0]
        else:
            output = np.einsum("ij,ij->i", windows[first], self._filters[phase])
        used = len(line) - taps + 1
        self._held = line[used:]
        self._at += count * self._down - used * self._up
        rounded: NDArray[np.int16] = np.clip(np.rint(output), -32768, 32767).astype(np.int16)
        return rounded


@lru_cache(maxsize=32)
def _filters(up: int, down: int) -> NDArray[np.float32]:
    """One filter per phase, float32 [up, taps], each of gain 1 at 0 Hz."""
    taps = -(-_TAPS * max(up, down) // up)
    length = taps * up
    at = (np.arange(length) - (length - 1) / 2) / max(up, down)
    impulse = np.sinc(2 * _CUTOFF * at) * np.kaiser(length, _BETA)
    # The input under a window is in order of time, the impulse response is not: turned round.
    phases = impulse.reshape(taps, up).T[:, ::-1]
    return np.ascontiguousarray(phases / phases.sum(axis=1, keepdims=True), np.float32)
