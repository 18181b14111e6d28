"""How likely a machine speaks, by the rhythm of what was said so far. PURE.

Two scorers give the logarithm of the odds: one for the moments in which the greeting goes on, one for those in which
it has paused. Both are linear in a handful of features of
:class:`~appliance.conversation.answering_cadence.Cadence`. ``python -m tests.bench.answering_train`` writes their
weights, from the tuning half of ``tests/bench/answering_clips.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from appliance.conversation.answering_cadence import Cadence

TALK_KNOTS_S: Final = (0.3, 0.8, 1.4, 2.2, 3.2, 4.2, 5.2, 6.5)
"""Between two of these the odds rise evenly with the length of the greeting. They never fall."""
LONGEST_SILENCE_S: Final = 2.0

# Weights of TALKING and PAUSED: one for each stretch between knots, then for the further features, then the constant.
TALKING: Final[tuple[float, ...]] = (1.07, 0.33, 0.0, 0.28, 1.85, 1.21, 0.67, -0.43, -1.56, -1.17)
PAUSED: Final[tuple[float, ...]] = (2.23, 0.96, 0.0, 0.0, 0.53, 2.55, 1.33, -1.54, -0.73, -1.16, -1.9)


def talking(cadence: Cadence, t: float) -> list[float]:
    """The features while the greeting goes on."""
    longest = max(cadence.pauses, default=0.0)
    return [*_ramps(cadence.talk_s), min(longest, 1.0), float(cadence.utterances > 1), 1.0]


def paused(cadence: Cadence, t: float) -> list[float]:
    """The features while it has paused at ``t``."""
    silence = min(cadence.silence_s(t), LONGEST_SILENCE_S)
    longest = max(cadence.pauses, default=0.0)
    return [*_ramps(cadence.talk_s), silence, min(longest, 1.0), float(cadence.utterances > 1), 1.0]


def log_odds(weights: Sequence[float], features: Sequence[float]) -> float:
    """Of a machine."""
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))


def _ramps(length_s: float) -> list[float]:
    """Of each stretch between two knots, how much of it lies below a length: 0 to 1."""
    return [min(max((length_s - low) / (high - low), 0.0), 1.0) for low, high in pairwise(TALK_KNOTS_S)]
