"""The E-model of ITU-T G.107: what a caller would say of a line, from loss and delay alone.

Only what the box can know is put in; echo, room noise and loudness keep the standard's default values, which leave a
basic rating of 93.2. The result is an estimate of a conversation's quality on the narrow-band scale of 1 to 4.5.
"""

from __future__ import annotations

import math
from typing import Final

_BASIC_RATING: Final = 93.2
"""R of a line without loss or delay, every other parameter at its default (G.107 table 2)."""
_DELAY_FREE_MS: Final = 100.0

_LOSS_ROBUSTNESS: Final = {"pcmu": 25.1, "pcma": 25.1, "g722": 20.0, "opus": 20.0}
"""Packet-loss robustness Bpl. G.711 with concealment: G.113 appendix I. Nothing is published on the narrow-band scale
for the other two; theirs is set a little below. The equipment impairment Ie of all four is taken as 0."""


def rating(one_way_delay_ms: float, loss_percent: float, codec: str = "pcmu", burst_ratio: float = 1.0) -> float:
    """The transmission rating R, 0 to 93.2.

    Args:
        one_way_delay_ms: from mouth to ear, buffers included.
        loss_percent: packets not heard, 0 to 100, whether lost or too late.
        codec: name in the box; one that is not known counts as G.711.
        burst_ratio: mean length of the gaps, over that of random loss of the same rate.
    """
    loss = min(max(loss_percent, 0.0), 100.0)
    robustness = _LOSS_ROBUSTNESS.get(codec, 25.1)
    impairment = 95.0 * loss / (loss / max(burst_ratio, 1.0) + robustness)
    return min(max(_BASIC_RATING - _delay_impairment(one_way_delay_ms) - impairment, 0.0), _BASIC_RATING)


def mos(one_way_delay_ms: float, loss_percent: float, codec: str = "pcmu", burst_ratio: float = 1.0) -> float:
    """The mean opinion score that goes with :func:`rating` (G.107 annex B), 1.0 to 4.5; arguments as there."""
    return mos_of(rating(one_way_delay_ms, loss_percent, codec, burst_ratio))


def mos_of(r: float) -> float:
    """Mean opinion score of a rating."""
    if r <= 0.0:
        return 1.0
    if r >= 100.0:
        return 4.5
    return max(1.0, 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6)


def _delay_impairment(delay_ms: float) -> float:
    """Idd: what delay alone costs, nothing up to 100 ms."""
    if delay_ms <= _DELAY_FREE_MS:
        return 0.0
    x = math.log2(delay_ms / _DELAY_FREE_MS)
    return 25.0 * (math.pow(1.0 + x**6, 1 / 6) - 3.0 * math.pow(1.0 + (x / 3.0) ** 6, 1 / 6) + 2.0)
