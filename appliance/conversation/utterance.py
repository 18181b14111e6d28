"""One reply as it is spoken: its clauses, where they stand in the synthesis ring, and how much of them was heard. PURE.

Positions are samples of the leg's synthesis ring, 8 kHz; an utterance takes one stretch of it without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_SEARCH_BACK = 1600
_SEARCH_AHEAD = 400
_BLOCK = 80


@dataclass
class Clause:
    """A piece of text and its samples [start, end)."""

    text: str
    start: int
    end: int


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
            length = clause.end - clause.start
            spoken = min(max(self.played - (clause.start - self.start), 0), length)
            if length > 0 and spoken > 0:
                words.append(_first_words(clause.text, spoken / length))
        return " ".join(word for word in words if word)

    def word_at(self, position: int) -> int:
        """About where the word that ``position`` lies in begins, supposing that every character takes as long."""
        for clause in self.clauses:
            length = clause.end - clause.start
            if not clause.start <= position < clause.end:
                continue
            share = (position - clause.start) / length
            starts = [0, *(at + 1 for at, letter in enumerate(clause.text) if letter == " "), len(clause.text)]
            for at, following in pairwise(starts):
                if share * len(clause.text) < following:
                    return clause.start + length * at // max(len(clause.text), 1)
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
    blocks = (high - low) // _BLOCK
    if blocks <= 0:
        return max(low, min(guess, high))
    samples = ring[np.arange(low, low + blocks * _BLOCK) % len(ring)].astype(np.float32).reshape(blocks, _BLOCK)
    return low + int(np.argmin(np.square(samples).mean(axis=1))) * _BLOCK + _BLOCK // 2


def _first_words(text: str, share: float) -> str:
    """The words of ``text`` that begin within the first ``share`` of its characters and are at least half over."""
    if share >= 1.0:
        return text
    heard = share * len(text)
    words: list[str] = []
    at = 0
    for word in text.split():
        if at + len(word) / 2 > heard:
            break
        words.append(word)
        at += len(word) + 1
    return " ".join(words)
