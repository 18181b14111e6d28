"""Which of the expected phrases a free transcript means. PURE.

A recogniser with an open vocabulary writes what it heard: "Uh, Tuesday, please." or "402-77". A dialplan that lists its
answers wants one of them, or to be told that it was none. Words are compared by an edit distance in which similar words
are nearer than others; words around the phrase count less than words in it, and polite noise counts hardly at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from appliance.engines.lexicon import DIGITS, normalise, spell_number

REJECTED_BELOW: Final = 0.6
"""Similarity under which something else was said."""
GUESSED_BELOW: Final = 0.4
"""The same where the best guess is wanted."""

_OUTSIDE: Final = 0.35
_NOISE_OUTSIDE: Final = 0.08
_MISSING: Final = 1.0
_NOISE: Final = frozenset(
    ["a", "ah", "an", "and", "er", "hello", "hi", "hm", "i", "i'd", "i'll", "is", "it's", "just", "like", "mm", "oh"]
)
_POLITE: Final = frozenset(["please", "so", "thank", "thanks", "that", "the", "to", "uh", "um", "well", "would", "you"])
_DIGIT_STRING: Final = re.compile(r"<digits(?: (\d+) (\d+))?>")
_ANY_DIGITS: Final = (1, 32)
_DIGIT: Final = {word: str(value) for value, word in enumerate(DIGITS)} | {"oh": "0", "o": "0", "nought": "0"}
_TEEN: Final = {spell_number(str(value)): str(value) for value in range(10, 20)}
_TENS: Final = {spell_number(str(value * 10)): str(value) for value in range(2, 10)}
_TIMES: Final = {"double": 2, "triple": 3}
_SILENT: Final = frozenset({"and", "er", "hm", "is", "it's", "mm", "my", "number", "please", "the", "uh", "um"})


@dataclass(frozen=True)
class Meant:
    """What a transcript means.

    Attributes:
        text: the phrase as it was listed, digits as digit words; where nothing fits, and of a phrase that was broken
            off, the transcript as ``normalise`` writes it.
        similarity: 0 to 1.
        accepted: it is one of the phrases.
    """

    text: str
    similarity: float
    accepted: bool


def meaning(text: str, phrases: Sequence[str], *, reject: bool) -> Meant:
    """Which of ``phrases`` (as ``normalise`` writes them, and ``<digits MIN MAX>``) the transcript ``text`` means."""
    heard = normalise(text)
    if not heard:
        return Meant("", 0.0, False)
    words = heard.split()
    best = Meant(heard, 0.0, False)
    too_few = ""
    for phrase in phrases:
        string = _DIGIT_STRING.fullmatch(phrase)
        if string is None:
            score = similarity(words, phrase.split())
            if score > best.similarity:
                best = Meant(phrase, score, False)
            continue
        fewest, most = (int(string[1]), int(string[2])) if string[1] else _ANY_DIGITS
        digits = said_digits(text)
        if digits and fewest <= len(digits) <= most:
            return Meant(_in_words(digits), 1.0, True)
        if digits and len(digits) < fewest:
            too_few = _in_words(digits)
    begun = heard not in phrases and any(phrase.startswith(heard + " ") for phrase in phrases)
    if best.similarity >= (REJECTED_BELOW if reject else GUESSED_BELOW) and not (reject and begun):
        return Meant(best.text, best.similarity, True)
    return Meant(too_few or heard, best.similarity, False)


def similarity(heard: Sequence[str], phrase: Sequence[str]) -> float:
    """How well ``phrase`` fits into what was heard, 0 to 1; 1 where it is all of it."""
    if not phrase:
        return 0.0
    # costs[j]: of the best way to have said the first j words of the phrase with what was heard so far.
    costs = [float(at) * _MISSING for at in range(len(phrase) + 1)]
    for word in heard:
        outside = _NOISE_OUTSIDE if word in _NOISE or word in _POLITE else _OUTSIDE
        before = costs
        costs = [before[0] + outside]
        for at, wanted in enumerate(phrase, 1):
            inside = outside if at == len(phrase) else max(outside, _OUTSIDE)
            costs.append(min(before[at - 1] + _unlike(word, wanted), before[at] + inside, costs[at - 1] + _MISSING))
    return max(0.0, 1.0 - costs[-1] / len(phrase))


def said_digits(text: str) -> str:
    """The digits that ``text`` says one by one or in pairs, "" where it says anything else besides."""
    apart = re.sub(r"\d", lambda match: f" {DIGITS[int(match[0])]} ", text)
    words = [word for word in normalise(apart).split() if word not in _SILENT]
    digits, at = "", 0
    while at < len(words):
        word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
        at += 1
        if word in _TIMES and following in _DIGIT:
            digits += _DIGIT[following] * _TIMES[word]
            at += 1
        elif word in _TENS:
            unit = _DIGIT.get(following, "0")
            digits += _TENS[word] + unit
            at += unit != "0"
        elif word in _DIGIT or word in _TEEN:
            digits += _DIGIT.get(word) or _TEEN[word]
        else:
            return ""
    return digits


def _in_words(digits: str) -> str:
    return " ".join(DIGITS[int(digit)] for digit in digits)


@lru_cache(maxsize=65536)
def _unlike(heard: str, wanted: str) -> float:
    """0 for the same word, 1 for one that has little in common with it."""
    if heard == wanted:
        return 0.0
    row = list(range(len(wanted) + 1))
    for at, letter in enumerate(heard, 1):
        diagonal, row[0] = row[0], at
        for column, other in enumerate(wanted, 1):
            diagonal, row[column] = (
                row[column],
                min(diagonal + (letter != other), row[column] + 1, row[column - 1] + 1),
            )
    share = row[-1] / max(len(heard), len(wanted))
    return min(1.0, 2.0 * share)
