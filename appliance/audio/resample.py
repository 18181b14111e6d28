"""Change of sample rate by soxr, 16-bit mono.

The filters are linear-phase and the output is aligned with the input: sample n of the output is at time n / rate_out
of the input, with no shift to correct for. What costs time is that soxr holds input back until its filter and its
block are full. Held back by a stream fed 20 ms pieces (soxr 1.x; ``finish`` gives it out at once):

    =======  ==================  ==================  =======================================
    quality  22050 or 24000 → 8  8 ↔ 16 kHz          use
    =======  ==================  ==================  =======================================
    "LQ"     43 ms               61 ms               live audio
    "HQ"     81 ms               115 ms              synthesis that runs ahead of its playout
    =======  ==================  ==================  =======================================

``"QQ"`` holds nothing back but does not filter what folds over: never for going down to 8 kHz.
A clip that is complete goes through :func:`resample` and waits for nothing.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, cast

import numpy as np
import soxr
from numpy.typing import NDArray

Quality: TypeAlias = Literal["QQ", "LQ", "MQ", "HQ", "VHQ"]
_NOTHING: Final = np.zeros(0, np.int16)


class Resampler:
    """One stream from ``rate_in_hz`` to ``rate_out_hz``; the same rate passes through untouched."""

    def __init__(self, rate_in_hz: int, rate_out_hz: int, quality: Quality = "HQ") -> None:
        if rate_in_hz <= 0 or rate_out_hz <= 0:
            raise ValueError(f"sample rates must be positive, not {rate_in_hz} and {rate_out_hz}")
        self.rate_in_hz = rate_in_hz
        self.rate_out_hz = rate_out_hz
        self._quality = quality
        self._stream = self._open()
        self._taken = 0
        self._given = 0

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """Take input, int16 of any length; return what output is complete, possibly none."""
        return self._run(samples, last=False)

    def finish(self) -> NDArray[np.int16]:
        """The output still held back. The next ``push`` begins a new stream."""
        rest = self._run(_NOTHING, last=True)
        self._stream = self._open()
        self._taken = self._given = 0
        return rest

    @property
    def held_s(self) -> float:
        """Seconds of input whose output has not been given out yet."""
        return max(0.0, self._taken / self.rate_in_hz - self._given / self.rate_out_hz)

    def _open(self) -> soxr.ResampleStream | None:
        if self.rate_in_hz == self.rate_out_hz:
            return None
        return soxr.ResampleStream(self.rate_in_hz, self.rate_out_hz, 1, dtype="int16", quality=self._quality)

    def _run(self, samples: NDArray[np.int16], *, last: bool) -> NDArray[np.int16]:
        self._taken += len(samples)
        if self._stream is None:
            output = samples
        else:
            chunk = np.ascontiguousarray(samples, np.int16)
            output = cast(NDArray[np.int16], self._stream.resample_chunk(chunk, last=last))
        self._given += len(output)
        return output


def resample(
    samples: NDArray[np.int16], rate_in_hz: int, rate_out_hz: int, quality: Quality = "HQ"
) -> NDArray[np.int16]:
    """A complete clip at another rate; its length is that of the input in time, to the sample."""
    resampler = Resampler(rate_in_hz, rate_out_hz, quality)
    return np.concatenate((resampler.push(samples), resampler.finish()))
