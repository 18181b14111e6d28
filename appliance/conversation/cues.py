"""What the words of a caller show about whether there are more to come. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.conversation.fillers import ends_in_filler

_DIGIT_WORDS: Final = frozenset("zero oh one two three four five six seven eight nine double triple".split())  # noqa: SIM905
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_ANSWERS: Final = frozenset(
    {
        "bye",
        "correct",
        "good bye",
        "goodbye",
        "hello",
        "hi",
        "never mind",
        "no",
        "no thank you",
        "no thanks",
        "nope",
        "of course",
        "ok",
        "okay",
        "stop",
        "sure",
        "thank you",
        "thanks",
        "that is all",
        "that s all",
        "wait",
        "yeah",
        "yep",
        "yes",
        "yes please",
    }
)


_LEAST_S: Final = 0.25
_LETTER_S: Final = 0.07


@dataclass(frozen=True, slots=True)
class Cues:
    """What the words show.

    Attributes:
        completes: they complete an expected phrase or digit count, or are an answer that stands alone ("yes please").
        trailing_filler: they break off in a filler ("um", "and"); see :mod:`appliance.conversation.fillers`.
        unfinished: fewer digits than expected, or the beginning of an expected phrase.
        counting: they end in a digit, and nobody knows how many there will be.
    """

    completes: bool = False
    trailing_filler: bool = False
    unfinished: bool = False
    counting: bool = False


NO_CUES: Final = Cues()


def cues_of(
    text: str,
    *,
    accepted: bool = True,
    phrases: tuple[str, ...] = (),
    min_digits: int = 0,
    sound_s: float = 0.0,
) -> Cues:
    """The cues in ``text``.

    Args:
        text: the recogniser's.
        accepted: of a closed list: it is one of ``phrases``.
        phrases: what is expected; empty where anything may be said.
        min_digits: spoken digits needed; 0 where none are expected.
        sound_s: how long the caller has spoken; 0 where nobody knows. "Yes please" completes nothing where there was
            speech for longer than it takes to say that: the recogniser has missed the rest.
    """
    words = _WORD.findall(text.lower())
    digits = sum(len(word) if word.isdigit() else 1 for word in words if word.isdigit() or word in _DIGIT_WORDS)
    all_of_it = sound_s <= _LEAST_S + sum(map(len, words)) * _LETTER_S
    if phrases:
        unfinished = (min_digits > 0 and digits < min_digits) or (not accepted and begins_phrase(text, phrases))
        completes = accepted and bool(text) and not unfinished and (all_of_it or min_digits > 0)
        return Cues(completes, not completes and ends_in_filler(text), unfinished)
    if min_digits:
        return Cues(completes=digits >= min_digits, unfinished=digits < min_digits)
    counting = bool(words) and digits > 1 and (words[-1].isdigit() or words[-1] in _DIGIT_WORDS)
    return Cues(all_of_it and " ".join(words) in _ANSWERS, ends_in_filler(text), False, counting)


def begins_phrase(text: str, phrases: Iterable[str]) -> bool:
    """Whether ``text`` is the first words of one of ``phrases``, and not all of them."""
    words = f"{text} "
    return bool(text) and any(phrase.startswith(words) for phrase in phrases)
