"""One reply as it is spoken: its clauses, where they stand in the synthesis ring, and how much of them was heard. PURE.

Positions are samples of the leg's synthesis ring, 8 kHz; an utterance takes one stretch of it without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.conversation.spoken import SpokenForm
from appliance.conversation.word_times import BLOCK

_RATE_HZ: Final = 8000
_SEARCH_BACK: Final = 1600
_SEARCH_AHEAD: Final = 400


@dataclass
class Clause:
    """A piece of text. ``form`` is said in the samples [``speech``, ``end``); it is silent from ``start`` to there.

    ``shares`` tells how much of it has been said after each 10 ms of ``speech``; evenly spread where it is None.
    """

    text: str
    form: SpokenForm
    pause_s: float
    start: int
    end: int
    shares: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    @property
    def speech(self) -> int:
        return self.start + round(self.pause_s * _RATE_HZ)

    def share_at(self, position: int) -> float:
        """How much of it has been said at ``position``, 0 to 1."""
        if self.shares is None:
            return (position - self.speech) / max(1, self.end - self.speech)
        return float(np.interp((position - self.speech) / BLOCK, np.arange(len(self.shares)), self.shares))

    def position_of(self, share: float) -> int:
        """The first position at which so much has been said."""
        if self.shares is None:
            return self.speech + round(share * (self.end - self.speech))
        block = int(np.searchsorted(self.shares, share, side="right")) - 1
        if block + 1 >= len(self.shares):
            return self.end
        step = self.shares[block + 1] - self.shares[block]
        return self.speech + round((block + float((share - self.shares[block]) / step)) * BLOCK)


@dataclass
class Utterance:
    """One reply. Times are CLOCK_MONOTONIC seconds, None until it happened.

    Attributes:
        held: it is synthesised in advance, and nothing of it is played yet.
        filler: it only bridges a wait.
        end: position up to which it has been synthesised.
        synthesised: nothing follows ``end``.
        base: samples that were heard before it was last begun or resumed.
        played: samples of it that were heard, known when playout ends or stops.
        pauses: how often it fell silent for a sound and went on.
    """

    number: int
    interruptible: bool = True
    filler: bool = False
    held: bool = False
    clauses: list[Clause] = field(default_factory=list)
    complete: bool = False
    end: int = 0
    synthesised: bool = False
    asked_at: float | None = None
    first_audio_at: float | None = None
    released_at: float | None = None
    started_at: float | None = None
    started_frame: int | None = None
    base: int = 0
    played: int = 0
    pauses: int = 0
    over: bool = False
    failed: str = ""
    pause_s: float = 0.0
    """Silence that is due before the next clause."""

    @property
    def start(self) -> int:
        """Position of its first sample."""
        return self.clauses[0].start if self.clauses else self.end

    @property
    def text(self) -> str:
        return " ".join(clause.text for clause in self.clauses)

    @property
    def heard(self) -> str:
        """The words that left before playout stopped: whole clauses, and of the last one its share of the words."""
        words: list[str] = []
        for clause in self.clauses:
            length = clause.end - clause.speech
            spoken = min(max(self.played - (clause.speech - self.start), 0), length)
            if length > 0 and spoken > 0:
                words.append(clause.form.heard(clause.share_at(clause.speech + spoken) if spoken < length else 1.0))
        return " ".join(word for word in words if word)

    def word_at(self, position: int) -> int:
        """About where the word that ``position`` lies in begins."""
        for clause in self.clauses:
            if clause.speech <= position < clause.end:
                return min(position, clause.position_of(clause.form.word_start(clause.share_at(position))))
        return position


def quietest(ring: NDArray[np.int16], low: int, guess: int, high: int) -> int:
    """Where between ``low`` and ``high`` speech can begin again with the least of a click, close to ``guess``.

    Args:
        ring: one leg's synthesis ring, int16 [samples].
        low, high: positions that must not be left.
        guess: where the word is thought to begin.

    Returns:
        The middle of the quietest 10 ms within 0.2 s before and 0.05 s after ``guess``.
    """
    low, high = max(low, guess - _SEARCH_BACK), min(high, guess + _SEARCH_AHEAD)
    blocks = (high - low) // BLOCK
    if blocks <= 0:
        return max(low, min(guess, high))
    samples = ring[np.arange(low, low + blocks * BLOCK) % len(ring)].astype(np.float32).reshape(blocks, BLOCK)
    return low + int(np.argmin(np.square(samples).mean(axis=1))) * BLOCK + BLOCK // 2
