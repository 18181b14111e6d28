"""Packet loss concealment for one call: carry the voice over a gap, towards what follows it where that has come.

A jitter buffer that waits for late packets usually holds the frame behind a lost one already. The gap is then bridged
from both sides: the last pitch cycle before it is repeated, its length changed a little (up to 15 %) so that it arrives
in phase with what follows, and is blended into the first cycle behind the gap repeated backwards. Where nothing has
come yet the last cycle goes on alone and fades to silence within 80 ms, and the first frame that comes is blended in.

The pitch is the lag with the best normalised correlation; audio without a pitch is repeated at the longest lag, so
that noise does not start to buzz. Each repetition begins with a short ramp from where the cycle before it ended, so
there is no step.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FRAME_SAMPLES: Final = 160
HISTORY_SAMPLES: Final = 320
"""How much of the past is looked at: 40 ms at 8 kHz."""
FADE_FRAMES: Final = 4
"""After so many missing frames in a row there is silence."""

_MIN_LAG: Final = 20
_MAX_LAG: Final = 160
_TEMPLATE: Final = HISTORY_SAMPLES - _MAX_LAG
_SHORT_TEMPLATE: Final = 80
_GLIDE: Final = 1.15
"""By how much the length of a pitch cycle may change over a gap."""
_LONGEST_IN_FRAME: Final = 130
_VOICED: Final = 0.5
_RAMP: Final = np.linspace(1.0, 0.0, 18, dtype=np.float32)[1:-1]
_MERGE_SAMPLES: Final = 40
_FADE_IN: Final = np.linspace(0.0, 1.0, _MERGE_SAMPLES + 2, dtype=np.float32)[1:-1]
_FADE_OUT: Final = np.linspace(1.0, 0.0, FRAME_SAMPLES + 2, dtype=np.float32)[1:-1]
_FADE_BACK: Final = 1.0 - _FADE_OUT
_FALL: Final = np.linspace(0.0, 1.0 / FADE_FRAMES, FRAME_SAMPLES, endpoint=False, dtype=np.float32)

_MATCHED: Final = 80
"""Samples behind the gap with which the voice carried over it has to be in phase."""
_STRETCHES: Final = np.linspace(2.0 - _GLIDE, _GLIDE, 31)
_STRETCH_PENALTY: Final = (0.3 * np.abs(_STRETCHES - 1.0)).astype(np.float32)
# Where each sample of a stretched continuation lies on the plain one, whose first sample has index 1 here: index 0 is
# the last sample before the gap.
_POSITIONS: Final = _STRETCHES[:, None] * np.arange(1, FRAME_SAMPLES + _MATCHED + 1)
_BELOW: Final = _POSITIONS.astype(np.int64)
_SHARE: Final = (_POSITIONS - _BELOW).astype(np.float32)
_BELOW_BEHIND: Final = np.ascontiguousarray(_BELOW[:, FRAME_SAMPLES:])
_SHARE_BEHIND: Final = np.ascontiguousarray(_SHARE[:, FRAME_SAMPLES:])
_REST_BEHIND: Final = 1.0 - _SHARE_BEHIND
_CONTINUED: Final = int(_BELOW.max()) + 1

_Floats = NDArray[np.float32]


class Concealment:
    """The gaps of one call. Tell it of every missing frame, and of the first frame that comes after some.

    Attributes:
        lost_run: frames missing in a row so far; 0 while audio comes. A call starts with one missing.
    """

    __slots__ = ("_following", "_gain", "_past", "lost_run")

    def __init__(self) -> None:
        self.lost_run = 1
        self._gain = 0.0
        self._past: _Floats | None = None
        self._following: NDArray[np.int16] | None = None

    def silent(self) -> None:
        """A frame is missing and silence is played: nothing was heard yet, or the call is on hold."""
        self.lost_run += 1
        self._past = None

    def lost(self, history: NDArray[np.int16], following: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """The frame to play instead of a missing one.

        Args:
            history: int16 [at least 320], what was played before it, 8 kHz, newest last.
            following: int16 [160], the frame right behind the missing one, if it has come.

        Returns:
            int16 [160]; silence after ``FADE_FRAMES`` missing frames in a row.

        Raises:
            ValueError: if the history is too short.
        """
        if len(history) < HISTORY_SAMPLES:
            raise ValueError(f"concealment needs {HISTORY_SAMPLES} samples of history, not {len(history)}")
        if not self.lost_run:
            self._past = history[-HISTORY_SAMPLES:].astype(np.float32)
            self._gain = 1.0
        self.lost_run += 1
        self._following = None
        past = self._past
        if past is None or self.lost_run > FADE_FRAMES:
            self._past = None
            return np.zeros(FRAME_SAMPLES, np.int16)
        if following is not None:
            self._following = following
            frame = _bridge(past, self._gain, following.astype(np.float32))
            self._gain = 1.0
            self._past = np.concatenate((past[FRAME_SAMPLES:], frame))
            return _clip(frame)
        frame = _continue(past)
        self._past = np.concatenate((past[FRAME_SAMPLES:], frame))
        faded = frame * np.maximum(self._gain - _FALL, 0.0)
        self._gain = max(self._gain - 1.0 / FADE_FRAMES, 0.0)
        return _clip(faded)

    def came(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        """The first frame after a gap, int16 [160], joined to the gap within 5 ms."""
        past, following = self._past, self._following
        self.lost_run = 0
        self._past = self._following = None
        if following is not None and np.array_equal(frame, following):
            return frame
        merged = frame.astype(np.float32)
        merged[:_MERGE_SAMPLES] *= _FADE_IN
        if past is not None and self._gain > 0.0:
            faded = _continue(past)[:_MERGE_SAMPLES] * (self._gain - _FALL[:_MERGE_SAMPLES])
            merged[:_MERGE_SAMPLES] += faded * (1.0 - _FADE_IN)
        return _clip(merged)


def _continue(past: _Floats) -> _Floats:
    """160 samples that go on from the past, as loud as it was."""
    return _repeat(past, _pitch_lag(past)[0], FRAME_SAMPLES)


def _bridge(past: _Floats, gain: float, following: _Floats) -> _Floats:
    """160 samples that lead from the past, at ``gain`` of its level, to what follows."""
    lag, voiced = _pitch_lag(past)
    forward = _repeat(past, lag, _CONTINUED)
    if voiced:
        forward = _in_phase(past[-1], forward, following)
    forward = forward[:FRAME_SAMPLES]
    reverse = following[::-1]
    backward = _repeat(reverse, _lag_of_frame(reverse, lag, voiced), FRAME_SAMPLES)[::-1]
    energies = float(forward @ forward) * float(backward @ backward)
    alike = min(max(float(forward @ backward) / max(energies, 1.0) ** 0.5, 0.0), 1.0)
    # Of two unlike sounds the powers add up, of two alike the amplitudes: either way the level stays.
    level = np.sqrt(_FADE_OUT**2 + _FADE_BACK**2 + 2.0 * alike * _FADE_OUT * _FADE_BACK)
    blended: _Floats = (gain * forward * _FADE_OUT + backward * _FADE_BACK) / level
    return blended


def _in_phase(last: np.float32, forward: _Floats, following: _Floats) -> _Floats:
    """The continuation, stretched or squeezed so that behind the gap it is in phase with what follows."""
    line = np.concatenate((np.array([last], np.float32), forward))
    behind = line[_BELOW_BEHIND] * _REST_BEHIND + line[_BELOW_BEHIND + 1] * _SHARE_BEHIND
    target = following[:_MATCHED]
    energies = np.einsum("ij,ij->i", behind, behind) * float(target @ target)
    scores = behind @ target / np.sqrt(np.maximum(energies, 1.0)) - _STRETCH_PENALTY
    best = int(np.argmax(scores))
    stretched: _Floats = line[_BELOW[best]] * (1.0 - _SHARE[best]) + line[_BELOW[best] + 1] * _SHARE[best]
    return stretched


def _repeat(past: _Floats, lag: int, count: int) -> _Floats:
    """``count`` samples: the last ``lag`` again and again."""
    cycle = past[-lag:].copy()
    ramp = _RAMP[: min(len(_RAMP), lag)]
    before = past[-lag - 1] if lag < len(past) else past[-lag]
    cycle[: len(ramp)] += (past[-1] - before) * ramp
    return np.resize(cycle, count)


def _pitch_lag(past: _Floats) -> tuple[int, bool]:
    """Samples per pitch cycle, 20 to 160 (400 to 50 Hz), and True; or 160 and False where there is no pitch."""
    lag, score = _best_lag(past, _TEMPLATE, _MIN_LAG, _MAX_LAG)
    return (lag, True) if score >= _VOICED else (_MAX_LAG, False)


def _lag_of_frame(frame: _Floats, expected: int, voiced: bool) -> int:
    """The same from one frame alone. A ``voiced`` past expects a lag near its own; else 20 to 80 samples are tried."""
    if voiced:
        longest = min(int(expected * _GLIDE) + 1, _LONGEST_IN_FRAME)
        lag, score = _best_lag(frame, FRAME_SAMPLES - longest, min(int(expected / _GLIDE), longest), longest)
        if score >= _VOICED:
            return lag
    lag, score = _best_lag(frame, _SHORT_TEMPLATE, _MIN_LAG, FRAME_SAMPLES - _SHORT_TEMPLATE)
    return lag if score >= _VOICED else FRAME_SAMPLES - 1


def _best_lag(past: _Floats, template_samples: int, min_lag: int, max_lag: int) -> tuple[int, float]:
    template = past[-template_samples:]
    searched = past[len(past) - template_samples - max_lag : len(past) - min_lag]
    energy = float(template @ template)
    if energy < 1.0:
        return max_lag, 0.0
    products = np.correlate(searched, template, "valid")
    squares = np.concatenate((np.zeros(1), np.cumsum(np.square(searched, dtype=np.float64))))
    energies = squares[template_samples:] - squares[:-template_samples]
    scores = products / np.sqrt(np.maximum(energies * energy, 1.0))
    best = int(np.argmax(scores))
    return max_lag - best, float(scores[best])


def _clip(samples: _Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
