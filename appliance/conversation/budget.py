"""How many turn verdicts the whole box may ask for. PURE.

A verdict costs some 30 ms of a core. Asked for every pause of every caller they would take the box over, so there is a
budget: a bucket that fills at a steady rate. Under load the second verdicts are given up first, then the first ones;
silence alone decides then, which is slower but never wrong about the audio.
"""

from __future__ import annotations

from typing import Final

PER_SECOND: Final = 15.0
"""About half a core at 32 ms a verdict."""
_BURST_S: Final = 2.0
_RESERVED_FOR_FIRST: Final = 0.5


class VerdictBudget:
    """The box's bucket of verdicts.

    Args:
        per_second: verdicts that may be asked for in a second, over time.

    Attributes:
        refused: verdicts that were not asked for.
    """

    def __init__(self, per_second: float = PER_SECOND) -> None:
        self._per_second = per_second
        self._capacity = max(1.0, per_second * _BURST_S)
        self._left = self._capacity
        self._at: float | None = None
        self.refused = 0

    @property
    def strained(self) -> bool:
        """Whether second verdicts were refused when last asked: the box is busy."""
        return self._left < self._capacity * _RESERVED_FOR_FIRST

    def take(self, now: float, *, second: bool = False) -> bool:
        """Whether a verdict may be asked for at ``now`` (seconds); a second one only while the bucket is half full."""
        if self._at is not None:
            self._left = min(self._capacity, self._left + (now - self._at) * self._per_second)
        self._at = now
        least = self._capacity * _RESERVED_FOR_FIRST if second else 1.0
        if self._left < max(1.0, least):
            self.refused += 1
            return False
        self._left -= 1.0
        return True
