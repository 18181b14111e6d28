"""Key tones inside the audio (ITU-T Q.23, Q.24), heard on all calls at once, and not heard in voices.

Every 10 ms the last 20 ms of a call are looked at. The power at the eight key frequencies comes from Goertzel's sums as
one matrix product over all calls. Where two of them hold much of the power, the frame is looked at closely: the phase
that each tone gains from the first half to the second tells its frequency to a few hertz, and a fit of two sines of
just these frequencies tells how much of the power they explain. A key tone has two steady frequencies within 2.5 % of
their places and nothing else; a voice that passes for 20 ms does not pass again 10 ms later with the same two levels.
A tone of 40 ms or more is heard wherever it begins; one of less than 25 ms never is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio.tones import COLUMNS_HZ, PAD, RATE_HZ, ROWS_HZ

FRAME_SAMPLES: Final = 160
MIN_LEVEL_DBFS: Final = -46.0
"""Of each of the two sines: about -40 dBm0."""

_HALF: Final = FRAME_SAMPLES // 2
_CENTRES: Final = np.array(ROWS_HZ + COLUMNS_HZ, np.float64)
_ROWS: Final = len(ROWS_HZ)
_SUMS: Final = np.exp(-2j * np.pi * np.arange(_HALF)[:, None] * _CENTRES / RATE_HZ)
_MATRIX: Final = np.hstack((_SUMS.real, _SUMS.imag)).astype(np.float32)
_TURN: Final = np.exp(-2j * np.pi * _HALF * _CENTRES / RATE_HZ).astype(np.complex64)
_TIMES: Final = np.arange(FRAME_SAMPLES) / RATE_HZ

_MIN_POWER: Final = 10.0 ** (MIN_LEVEL_DBFS / 10.0) * 32768.0**2
_ROUGH_SHARE: Final = 0.3
_MIN_SHARE: Final = 0.85
"""Of the power, how much the two sines must explain."""
_MAX_DEVIATION: Final = 0.025
_MAX_TWIST: Final = 10.0 ** (9.0 / 10.0)
_MAX_CHANGE: Final = 10.0 ** (3.0 / 10.0)
"""By how much the power of either tone may differ between the two looks that make a key."""
_LOOKS: Final = 2
_GAP_LOOKS: Final = 4
"""Looks without the tone after which the same key is a new press: a break of 10 ms is none, a pause of 40 ms is."""
_NO_KEY: Final = -1


class ToneKeys:
    """Listens for key tones on every slot; a state of its own for each.

    Args:
        capacity: slots of the box.
    """

    def __init__(self, capacity: int) -> None:
        self._samples = np.zeros((capacity, _HALF), np.float32)
        self._sums = np.zeros((capacity, len(_CENTRES)), np.complex64)
        self._power = np.zeros(capacity, np.float32)
        self._key: list[int] = [_NO_KEY] * capacity
        self._levels: list[tuple[float, float]] = [(0.0, 0.0)] * capacity
        self._looks = [0] * capacity
        self._missed = [0] * capacity
        self._active: set[int] = set()

    def reset(self, slot: int) -> None:
        """The slot has a new call."""
        self._samples[slot] = 0.0
        self._sums[slot] = 0.0
        self._power[slot] = 0.0
        self._key[slot] = _NO_KEY
        self._looks[slot] = self._missed[slot] = 0
        self._active.discard(slot)

    def tick(self, rows: NDArray[np.int64], frames: NDArray[np.int16]) -> list[tuple[int, str]]:
        """Listen to the next frame of some slots.

        Args:
            rows: the slots, each at most once.
            frames: int16 [len(rows), 160] at 8 kHz.

        Returns:
            (slot, key) for every key whose press has been recognised in this frame, 30 to 50 ms after it began.
        """
        if not len(rows):
            return []
        halves = frames.astype(np.float32).reshape(-1, 2, _HALF)
        flat = halves.reshape(-1, _HALF) @ _MATRIX
        sums = (flat[:, : len(_CENTRES)] + 1j * flat[:, len(_CENTRES) :]).reshape(-1, 2, len(_CENTRES))
        power = np.einsum("ijk,ijk->ij", halves, halves)
        found: list[tuple[int, str]] = []
        for half in (0, 1):
            before = (self._samples[rows], self._sums[rows], self._power[rows])
            now = (halves[:, half], sums[:, half], power[:, half])
            self._look(rows, before, now, found)
            self._samples[rows], self._sums[rows], self._power[rows] = now
        return found

    def _look(
        self,
        rows: NDArray[np.int64],
        before: tuple[NDArray[np.float32], NDArray[np.complex64], NDArray[np.float32]],
        now: tuple[NDArray[np.float32], NDArray[np.complex64], NDArray[np.float32]],
        found: list[tuple[int, str]],
    ) -> None:
        """One look at the last 20 ms of every row."""
        total = (before[2] + now[2]) * np.float32(1.0 / FRAME_SAMPLES)
        tones = np.abs(before[1] + _TURN * now[1]) ** 2 * (2.0 / FRAME_SAMPLES**2)
        row = np.argmax(tones[:, :_ROWS], axis=1)
        column = np.argmax(tones[:, _ROWS:], axis=1) + _ROWS
        each = np.arange(len(rows))
        likely = (tones[each, row] + tones[each, column] > _ROUGH_SHARE * total) & (total > _MIN_POWER)
        heard: dict[int, tuple[int, float, float]] = {}
        picked = np.flatnonzero(likely)
        if len(picked):
            pairs = np.stack((row[picked], column[picked]), axis=1)
            samples = np.hstack((before[0][picked], now[0][picked]))
            levels = _fit(samples, pairs, before[1][picked], now[1][picked], total[picked])
            for index, pair, (low, high) in zip(picked.tolist(), pairs.tolist(), levels.tolist(), strict=True):
                if low > 0.0:
                    heard[int(rows[index])] = (pair[0] * _ROWS + pair[1] - _ROWS, low, high)
        for slot in self._active.union(heard).intersection(rows.tolist()) if self._active else heard:
            key = self._follow(slot, heard.get(slot))
            if key is not None:
                found.append((slot, key))

    def _follow(self, slot: int, heard: tuple[int, float, float] | None) -> str | None:
        """What one look means for a slot: the key, when it is recognised."""
        if heard is None or (heard[0] != self._key[slot] and self._looks[slot] >= _LOOKS and not self._missed[slot]):
            # The look that straddles two keys may show either.
            self._missed[slot] += 1
            if self._looks[slot] < _LOOKS or self._missed[slot] >= _GAP_LOOKS:
                self._key[slot] = _NO_KEY
                self._looks[slot] = self._missed[slot] = 0
                self._active.discard(slot)
            return None
        number, low, high = heard
        steady = number == self._key[slot] and all(
            old / _MAX_CHANGE < new < old * _MAX_CHANGE
            for old, new in zip(self._levels[slot], (low, high), strict=True)
        )
        self._levels[slot] = (low, high)
        if number == self._key[slot] and self._looks[slot] >= _LOOKS:
            self._missed[slot] = 0
            return None
        self._looks[slot] = self._looks[slot] + 1 if steady else 1
        self._key[slot] = number
        self._missed[slot] = 0
        self._active.add(slot)
        return PAD[number // _ROWS][number % _ROWS] if self._looks[slot] == _LOOKS else None


def _fit(
    samples: NDArray[np.float32],
    pairs: NDArray[np.int64],
    first: NDArray[np.complex64],
    second: NDArray[np.complex64],
    total: NDArray[np.float32],
) -> NDArray[np.float64]:
    """The power [n, 2] of the row and the column tone of each frame; zeros where it holds no key tone."""
    each = np.arange(len(samples))[:, None]
    gained = np.angle(second[each, pairs] * np.conj(first[each, pairs]) * _TURN[pairs])
    deviation_hz = gained * (RATE_HZ / (2.0 * np.pi * _HALF))
    centre_hz = _CENTRES[pairs]
    in_place = np.all(np.abs(deviation_hz) <= _MAX_DEVIATION * centre_hz, axis=1)
    angles = 2.0 * np.pi * (centre_hz + deviation_hz)[:, :, None] * _TIMES
    basis = np.concatenate((np.cos(angles), np.sin(angles)), axis=1)  # [n, (cos, cos, sin, sin), 160]
    target = np.einsum("nbt,nt->nb", basis, samples.astype(np.float64))
    weights = np.linalg.solve(basis @ basis.transpose(0, 2, 1), target[:, :, None])[:, :, 0]
    explained = np.sum(weights * target, axis=1) / FRAME_SAMPLES
    levels: NDArray[np.float64] = (weights[:, :2] ** 2 + weights[:, 2:] ** 2) / 2.0
    weaker, stronger = np.min(levels, axis=1), np.max(levels, axis=1)
    good = in_place & (explained >= _MIN_SHARE * total) & (weaker >= _MIN_POWER) & (stronger <= _MAX_TWIST * weaker)
    levels[~good] = 0.0
    return levels
