"""Fit the scorers of answering-machine detection to the tuning half of the clips, and print their weights.

``python -m tests.bench.answering_train`` prints the two tables of ``appliance/conversation/answering_score.py``. Every
0.1 s of every clip up to its beep is one row; the rows of a clip share a weight of one, and both classes weigh the
same.
Logistic regression with a ridge, by Newton's method.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from appliance.conversation import answering_score
from appliance.conversation.answering_cadence import FRAME_S, Cadence
from tests.bench.answering_clips import Answered, SpeechMissing, answered
from tests.bench.answering_heard import Heard, hear

Rows = npt.NDArray[np.float64]

EVERY_FRAMES = 5
RIDGE = 0.5
_FROM_SILENCE_S = 0.2
_TO_SILENCE_S = 2.0


def rows_of(heard: Heard) -> tuple[list[list[float]], list[list[float]]]:
    """The features of one clip while it talks, and while it pauses."""
    cadence, talking, paused = Cadence(), [], []
    stop = heard.clip.beep_s if heard.clip.beep_s is not None else 1e9
    for frame, (level, speech) in enumerate(heard.frames):
        t = (frame + 1) * FRAME_S
        cadence.tick(t, level, speech)
        if cadence.starts_s is None or frame % EVERY_FRAMES or t >= stop - 0.2:
            continue
        silence = cadence.silence_s(t)
        if silence <= 0.1:
            talking.append(answering_score.talking(cadence, t))
        elif _FROM_SILENCE_S <= silence <= _TO_SILENCE_S:
            paused.append(answering_score.paused(cadence, t))
    return talking, paused


def fit(clips: Sequence[tuple[bool, list[list[float]]]]) -> list[float]:
    """Weights for (machine, rows) of every clip; those of the length are not negative."""
    every = np.array([row for _, rows in clips for row in rows])
    label = np.array([float(machine) for machine, rows in clips for _ in rows])
    weight = np.array([1.0 / len(rows) for _, rows in clips for _ in rows])
    for value in (0.0, 1.0):
        weight[label == value] *= len(clips) / 2 / weight[label == value].sum()
    rising = len(answering_score.TALK_KNOTS_S) - 1
    used = list(range(every.shape[1]))
    while True:
        found = _newton(every[:, used], label, weight)
        falls = [index for index, value in zip(used, found, strict=True) if index < rising and value < 0]
        if not falls:
            break
        used = [index for index in used if index not in falls]
    weights = dict(zip(used, found.tolist(), strict=True))
    return [round(weights.get(index, 0.0), 2) for index in range(every.shape[1])]


def _newton(rows: Rows, label: Rows, weight: Rows) -> Rows:
    found = np.zeros(rows.shape[1])
    ridge = RIDGE * np.eye(len(found))
    ridge[-1, -1] = 1e-3
    for _ in range(50):
        probability = 1 / (1 + np.exp(-rows @ found))
        slope = rows.T @ (weight * (probability - label)) + ridge @ found
        curve = (rows * (weight * probability * (1 - probability))[:, None]).T @ rows + ridge
        found = found - np.linalg.solve(curve, slope)
    return found


def trained(heard: Sequence[Heard]) -> tuple[list[float], list[float]]:
    """The weights of TALKING and PAUSED."""
    rows = [(not one.clip.human, rows_of(one)) for one in heard if one.clip.kind != "screening"]
    talking = fit([(machine, both[0]) for machine, both in rows if both[0]])
    paused = fit([(machine, both[1]) for machine, both in rows if both[1]])
    return talking, paused


def main() -> int:
    try:
        clips: list[Answered] = answered("tune")
    except SpeechMissing as error:
        print(f"skipped: {error}")
        return 77
    talking, paused = trained(hear(clips))
    print(f"TALKING: Final[tuple[float, ...]] = {tuple(talking)}")
    print(f"PAUSED: Final[tuple[float, ...]] = {tuple(paused)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
