"""How long this caller's own pauses are, so that they are waited out. PURE.

Some callers think in the middle of a sentence. A pause after which the caller went on says so, and one that was taken
for the end of the turn, although the caller went on at once, says so louder. The waits are then stretched for that
caller, and shrink back as turns come without such pauses.
"""

from __future__ import annotations

from typing import Final

_USUAL_S: Final = 0.5
"""Pauses up to this are everybody's."""
_MOST: Final = 1.4
_RISE: Final = 0.5
_CUT_OFF_RISE: Final = 1.0
_FORGET: Final = 0.85
CUT_OFF_S: Final = 1.5
"""Who begins to speak within this after a turn had not finished it."""


class Pauses:
    """The pauses of one call.

    Attributes:
        stretch: the factor on every wait, 1 to 1.4.
    """

    def __init__(self) -> None:
        self.stretch = 1.0

    def resumed(self, silence_s: float) -> None:
        """The caller went on after so much silence, and had been waited for."""
        self._towards(silence_s, _RISE)

    def cut_off(self, silence_s: float) -> None:
        """The caller went on after so much silence, which had been taken for the end."""
        self._towards(silence_s, _CUT_OFF_RISE)

    def finished(self) -> None:
        """A turn is over."""
        self.stretch = 1.0 + (self.stretch - 1.0) * _FORGET

    def _towards(self, silence_s: float, rise: float) -> None:
        wanted = min(silence_s / _USUAL_S, _MOST)
        if wanted > self.stretch:
            self.stretch += rise * (wanted - self.stretch)
