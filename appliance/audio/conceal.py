"""Packet loss concealment for one call: go on with the last pitch cycle and fade to silence within 60 ms.

Stateless: everything is derived from the last 40 ms that were played (concealed frames included) and from how many
frames have been missing in a row. The pitch is the lag with the best normalised correlation; audio without a pitch is
repeated at the longest lag, so that noise does not start to buzz. Each repetition begins with a short ramp from where
the cycle before it ended, so there is no step.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FRAME_SAMPLES: Final = 160
HISTORY_SAMPLES: Final = 320
"""How much of the past is looked at: 40 ms at 8 kHz."""
FADE_FRAMES: Final = 3
"""After so many missing frames in a row there is silence."""

_MIN_LAG: Final = 20
_MAX_LAG: Final = 160
_TEMPLATE: Final = HISTORY_SAMPLES - _MAX_LAG
_VOICED: Final = 0.5
_RAMP: Final = np.linspace(1.0, 0.0, 18, dtype=np.float32)[1:-1]
_MERGE_SAMPLES: Final = 40
_FADE_IN: Final = np.linspace(0.0, 1.0, _MERGE_SAMPLES + 2, dtype=np.float32)[1:-1]
_SILENCE: Final = np.zeros(FRAME_SAMPLES, np.int16)
_GAIN: Final = np.linspace(1.0, 0.0, FADE_FRAMES * FRAME_SAMPLES, endpoint=False, dtype=np.float32)


def conceal(history: NDArray[np.int16], lost_run: int) -> NDArray[np.int16]:
    """The frame to play instead of a missing one.

    Args:
        history: int16 [at least 320], what was played before it, 8 kHz, newest last.
        lost_run: 1 for the first missing frame in a row, 2 for the second...

    Returns:
        int16 [160]; silence once ``lost_run`` passes ``FADE_FRAMES``.

    Raises:
        ValueError: if the history is too short.
    """
    if len(history) < HISTORY_SAMPLES:
        raise ValueError(f"concealment needs {HISTORY_SAMPLES} samples of history, not {len(history)}")
    if lost_run > FADE_FRAMES:
        return _SILENCE.copy()
    return _clip(_continue(history, lost_run) * _gain(lost_run))


def merge(history: NDArray[np.int16], lost_run: int, frame: NDArray[np.int16]) -> NDArray[np.int16]:
    """The first frame after a loss, cross-faded over 5 ms from what concealment would have gone on with.

    Args:
        history: as for :func:`conceal`, up to the last concealed sample.
        lost_run: how many frames were missing.
        frame: int16 [160], the frame that came.
    """
    merged = frame.astype(np.float32)
    merged[:_MERGE_SAMPLES] *= _FADE_IN
    if lost_run < FADE_FRAMES:
        faded = _continue(history, lost_run + 1)[:_MERGE_SAMPLES] * _gain(lost_run + 1)[:_MERGE_SAMPLES]
        merged[:_MERGE_SAMPLES] += faded * (1.0 - _FADE_IN)
    return _clip(merged)


def _gain(lost_run: int) -> NDArray[np.float32]:
    start = (lost_run - 1) * FRAME_SAMPLES
    return _GAIN[start : start + FRAME_SAMPLES]


def _continue(history: NDArray[np.int16], lost_run: int) -> NDArray[np.float32]:
    """160 samples that go on from the history, as loud as it was before any of it was faded."""
    past = history[-HISTORY_SAMPLES:].astype(np.float32)
    if lost_run > 1:
        past[-FRAME_SAMPLES:] /= _gain(lost_run - 1)
    lag = _pitch_lag(past)
    cycle = past[-lag:].copy()
    ramp = _RAMP[: min(len(_RAMP), lag)]
    cycle[: len(ramp)] += (past[-1] - past[-lag - 1]) * ramp
    return np.resize(cycle, FRAME_SAMPLES)


def _pitch_lag(past: NDArray[np.float32]) -> int:
    """Samples per pitch cycle, 20 to 160 (400 to 50 Hz); 160 where there is no pitch."""
    template = past[-_TEMPLATE:]
    searched = past[:-_MIN_LAG]
    energy = float(template @ template)
    if energy < 1.0:
        return _MAX_LAG
    products = np.correlate(searched, template, "valid")
    squares = np.concatenate((np.zeros(1), np.cumsum(np.square(searched, dtype=np.float64))))
    energies = squares[_TEMPLATE:] - squares[:-_TEMPLATE]
    scores = products / np.sqrt(np.maximum(energies * energy, 1.0))
    best = int(np.argmax(scores))
    return _MAX_LAG - best if scores[best] >= _VOICED else _MAX_LAG


def _clip(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
