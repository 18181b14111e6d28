"""What is said so far, out of transcripts that are made again and again of a growing piece of audio. PURE.

A recogniser of whole utterances changes its mind about the last words as more is heard. What two transcripts in a row
agree on from the beginning (LocalAgreement) is *stable*: it is reported as such, never taken back, and given to the
recogniser as the beginning of its next transcript. Once the audio is long, what is before a stable end of a sentence is
cut off, and goes on as text alone: the cost of a partial result does not grow with the utterance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

RATE_HZ: Final = 8000

_FRESH_S: Final = 0.15
"""A word that ends so close to the end of the audio may have been cut in two."""
_SENTENCE_ENDS: Final = (".", "?", "!", "。", "？", "！")
_LONGEST_CYCLE: Final = 6
_MOST_REPEATS: Final = 4


@dataclass(frozen=True)
class Word:
    """A word of a transcript: its tokens, and its samples [start, end) since the leg was connected."""

    text: str
    tokens: tuple[int, ...] = ()
    start: int = 0
    end: int = 0

    @property
    def key(self) -> str:
        """What is compared: case and punctuation come and go."""
        return "".join(character for character in self.text.casefold() if character.isalnum())


@dataclass
class Utterance:
    """What is known of one utterance.

    Attributes:
        start: first sample of the audio that is still listened to.
        before: words of what was cut off.
        stable: the first words in the audio that is left.
        asked_to: the sample up to which a recogniser was last asked.
        touched: when it was last asked for, seconds on any clock.
    """

    start: int
    before: list[Word] = field(default_factory=list)
    stable: list[Word] = field(default_factory=list)
    asked_to: int = 0
    touched: float = 0.0
    _tentative: list[Word] = field(default_factory=list)

    @property
    def known(self) -> list[Word]:
        """Every word of the latest transcript; what is stable comes first."""
        return [*self.before, *self.stable, *self._tentative]

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens that the next transcript begins with."""
        return tuple(token for word in self.stable for token in word.tokens)

    def take(self, words: Sequence[Word], end: int) -> None:
        """A new transcript of the audio up to the sample ``end``; it begins with the stable words."""
        fresh = list(words[len(self.stable) :])
        agreed = 0
        for now, earlier in zip(fresh, self._tentative, strict=False):
            if now.key != earlier.key or now.end > end - _FRESH_S * RATE_HZ:
                break
            agreed += 1
        self.stable += fresh[:agreed]
        self._tentative = fresh[agreed:]

    def cut(self, end: int, *, sentence_s: float, any_word_s: float) -> None:
        """Cut off what is stable: audio over ``sentence_s`` at the last end of a sentence, over ``any_word_s`` at the
        last word that is stable."""
        length_s = (end - self.start) / RATE_HZ
        if length_s <= sentence_s:
            return
        ends = [at for at, word in enumerate(self.stable, 1) if word.text.endswith(_SENTENCE_ENDS)]
        at = ends[-1] if ends else len(self.stable) if length_s > any_word_s else 0
        if at and self.stable[at - 1].end > self.start:
            self.start = self.stable[at - 1].end
            self.before += self.stable[:at]
            del self.stable[:at]


class Utterances:
    """The utterances under way, one for each slot; an older one of the same slot is forgotten.

    Args:
        forget_s: one that is not asked for any more is forgotten after so long.
    """

    def __init__(self, forget_s: float = 60.0) -> None:
        self._forget_s = forget_s
        self._of_slot: dict[int, tuple[tuple[int, int, int], Utterance]] = {}

    def __len__(self) -> int:
        return len(self._of_slot)

    def peek(self, slot: int, generation: int, utterance: int, start: int) -> Utterance | None:
        """The utterance, if it is known."""
        held = self._of_slot.get(slot)
        return held[1] if utterance and held is not None and held[0] == (generation, utterance, start) else None

    def find(self, slot: int, generation: int, utterance: int, start: int, now: float) -> Utterance:
        """The utterance, or a new one that begins at the sample ``start``; number 0 belongs to nothing."""
        stale = [one for one, (_, held) in self._of_slot.items() if now - held.touched > self._forget_s]
        for one in stale:
            del self._of_slot[one]
        found = self.peek(slot, generation, utterance, start)
        if found is None:
            found = Utterance(start)
            if utterance:
                self._of_slot[slot] = ((generation, utterance, start), found)
        found.touched = now
        return found


def without_repeats(words: Sequence[Word]) -> list[Word]:
    """The words up to where they begin to go round in circles, as a recogniser does that has lost the speech.

    Two to six words that are said five times in a row count once, and so does a single word said nine times; fewer may
    be a number.
    """
    keys = [word.key for word in words]
    for at in range(len(keys)):
        for cycle in range(1, _LONGEST_CYCLE + 1):
            times = 1
            while keys[at : at + cycle] == keys[at + times * cycle : at + (times + 1) * cycle]:
                times += 1
            if times > (_MOST_REPEATS if cycle > 1 else 2 * _MOST_REPEATS) and any(keys[at : at + cycle]):
                return list(words[: at + cycle])
    return list(words)
