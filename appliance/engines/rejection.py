"""Was it one of the expected phrases at all? PURE.

The grammar always finds some phrase. A phone loop (any phone after any other) over the same audio says how well the
best phones without any grammar fit, frame by frame. Five figures of the two are weighed by a logistic function, fitted
to prompts, digits and words of several speakers, clean and with noise, against others that were not in the grammar:

- ``fit``: how much worse the words fit than the phone loop, per frame of words;
- ``gap_fit``: the same for the frames that the grammar calls silence, per frame of speech;
- ``unexplained``: the share of the phone loop's speech that the grammar calls silence (a word said besides);
- ``overreach``: the share of the grammar's words that the phone loop calls silence (a phrase stretched over noise);
- ``shortness``: a few short frames say little, so less is asked of them.

The bias takes what was expected to be about twice as likely as anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_BIAS: Final = 3.36
_FIT: Final = 1.25
_GAP_FIT: Final = 0.39
_UNEXPLAINED: Final = -6.98
_OVERREACH: Final = -1.65
_SHORTNESS: Final = 5.51
_SHORT_FRAMES: Final = 30


@dataclass(frozen=True)
class Stretch:
    """A word or phone of the best path.

    Attributes:
        name: the word or phone.
        first, last: its frames (10 ms), both included.
        score: its log likelihood, in nats, relative to the best state of the model at each frame.
        speech: false for silence and noise.
    """

    name: str
    first: int
    last: int
    score: float
    speech: bool


@dataclass(frozen=True)
class Evidence:
    """The figures above, and the frames that the words cover."""

    fit: float
    gap_fit: float
    unexplained: float
    overreach: float
    word_frames: int

    @property
    def confidence(self) -> float:
        """Between 0 and 1: how sure it is that the phrase, and nothing else, was said."""
        if not self.word_frames:
            return 0.0
        logit = (
            _BIAS
            + _FIT * min(max(self.fit, -8.0), 1.0)
            + _GAP_FIT * min(max(self.gap_fit, -20.0), 5.0)
            + _UNEXPLAINED * self.unexplained
            + _OVERREACH * self.overreach
            + _SHORTNESS * _SHORT_FRAMES / (self.word_frames + _SHORT_FRAMES)
        )
        return 1.0 / (1.0 + math.exp(-logit))


def weigh(words: Sequence[Stretch], phones: Sequence[Stretch], frames: int) -> Evidence:
    """What the grammar's path and the phone loop's say of each other.

    Args:
        words: the grammar's best path.
        phones: the phone loop's.
        frames: length of the utterance.
    """
    loop, loop_speech = np.zeros(frames), np.zeros(frames, dtype=bool)
    for phone in phones:
        where = slice(phone.first, phone.last + 1)
        loop[where] = phone.score / (phone.last - phone.first + 1)
        loop_speech[where] = phone.speech
    in_words = np.zeros(frames, dtype=bool)
    fit = gap_fit = 0.0
    for word in words:
        where = slice(word.first, word.last + 1)
        worse = word.score - float(loop[where].sum())
        if word.speech:
            in_words[where] = True
            fit += worse
        else:
            gap_fit += worse
    covered, spoken = int(in_words.sum()), int(loop_speech.sum())
    return Evidence(
        fit=fit / max(covered, 1),
        gap_fit=gap_fit / max(spoken, 1),
        unexplained=float((loop_speech & ~in_words).sum()) / max(spoken, 1),
        overreach=float((in_words & ~loop_speech).sum()) / max(covered, 1),
        word_frames=covered,
    )
