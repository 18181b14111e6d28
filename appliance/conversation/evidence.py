"""What is known about a silence while it lasts: is it the end of the turn, and how long must it be? PURE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from appliance.conversation.cues import NO_CUES, Cues
from appliance.conversation.endpointing import TurnConfig, frames, required_silence
from appliance.conversation.pauses import Pauses

_BIAS: Final = -3.5
_MODEL: Final = 0.19
_PITCH: Final = -0.235
_LOUDNESS: Final = -0.30
_FALL: Final = -0.12
_LEAST_PROBABILITY: Final = 0.005


def likelihood(probability: float, ending: Sequence[float]) -> float:
    """How likely it is that the caller has finished, 0 to 1.

    A logistic regression, fitted to recordings of six speakers in four languages (``tests/bench/endpointing.py``).

    Args:
        probability: the turn model's.
        ending: how the speech sounds at its end (:class:`appliance.audio.prosody.Ending`); empty where it was too
            short to say.
    """
    if not ending:
        return probability
    clipped = min(max(probability, _LEAST_PROBABILITY), 1.0 - _LEAST_PROBABILITY)
    pitch, loudness, fall = ending
    evidence = _BIAS + _MODEL * math.log(clipped / (1.0 - clipped))
    evidence += _PITCH * pitch + _LOUDNESS * loudness + _FALL * fall
    return 1.0 / (1.0 + math.exp(-evidence))


class Evidence:
    """Of the pause under way, and how much silence it takes.

    Attributes:
        probability: how likely it is that the caller has finished; None before the first verdict.
        text_due: the words are still to come.
        required: frames of silence that commit the turn.
    """

    def __init__(self, config: TurnConfig, pauses: Pauses) -> None:
        self._config = config
        self._pauses = pauses
        self._early = NO_CUES
        self._cues = NO_CUES
        self.probability: float | None = None
        self.text_due = False
        self.required = 0

    def begin(self, *, text_due: bool) -> None:
        """A pause begins; what partial results have shown already holds for it."""
        self.probability = None
        self.text_due = text_due
        self._cues = self._early
        self._renew()

    def speaking(self) -> None:
        """The caller goes on, and nothing is known any more."""
        self._early = NO_CUES

    def judged(self, probability: float, ending: Sequence[float]) -> None:
        """The turn model has answered."""
        self.probability = likelihood(probability, ending)
        self._renew()

    def words(self, cues: Cues, *, final: bool) -> None:
        """The recogniser has answered; not ``final`` while the caller still speaks."""
        if final:
            self.text_due = False
        self._early = self._cues = cues
        self._renew()

    def _renew(self) -> None:
        cues = self._cues
        seconds = required_silence(
            self._config,
            self.probability,
            completes=cues.completes,
            unfinished=cues.trailing_filler or cues.unfinished,
            counting=cues.counting,
            stretch=self._pauses.stretch,
        )
        self.required = frames(seconds)
