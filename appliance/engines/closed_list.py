"""Which of the expected phrases a free transcript means. PURE.

A recogniser with an open vocabulary writes what it heard: "Uh, Tuesday, please." or "402-77". A dialplan that lists its
answers wants one of them, or to be told that it was none. Words are compared by an edit distance in which similar words
are nearer than others; words around the phrase count less than words in it, and polite noise counts hardly at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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


@lru_cache(maxsize=2048)
def meaning(text: str, phrases: tuple[str, ...], *, reject: bool) -> Meant:
    """Which of ``phrases`` (as ``normalise`` writes them, and ``<digits MIN MAX>``) the transcript ``text`` means."""
    heard = normalise(text)
    if not heard:
        return Meant("", 0.0, False)
    sentences, strings = _taken_apart(phrases)
    digits = said_digits(text) if strings else ""
    if any(fewest <= len(digits) <= most for fewest, most in strings):
        return Meant(_in_words(digits), 1.0, True)
    best = Meant(heard, 0.0, False)
    words = heard.split()
    distances = _distances(words, sentences)
    for possible, phrase in _most_promising(distances, sentences):
        if possible <= best.similarity:
            break
        score = _similarity(words, phrase, distances)
        if score > best.similarity:
            best = Meant(" ".join(phrase), score, False)
    begun = heard not in phrases and any(phrase.startswith(heard + " ") for phrase in phrases)
    if best.similarity >= (REJECTED_BELOW if reject else GUESSED_BELOW) and not (reject and begun):
        return Meant(best.text, best.similarity, True)
    too_few = digits and any(len(digits) < fewest for fewest, _ in strings)
    return Meant(_in_words(digits) if too_few else heard, best.similarity, False)


@lru_cache(maxsize=256)
def _taken_apart(phrases: tuple[str, ...]) -> tuple[list[tuple[str, ...]], list[tuple[int, int]]]:
    """The words of each sentence, and (fewest, most) of each digit string."""
    sentences, strings = [], []
    for phrase in phrases:
        string = _DIGIT_STRING.fullmatch(phrase)
        if string is None:
            sentences.append(tuple(phrase.split()))
        else:
            strings.append((int(string[1]), int(string[2])) if string[1] else _ANY_DIGITS)
    return sentences, strings


def _distances(heard: Sequence[str], sentences: Iterable[Sequence[str]]) -> list[dict[str, float]]:
    """For each word that was heard, how unlike it every word of the sentences is."""
    wanted = dict.fromkeys(word for sentence in sentences for word in sentence)
    return [{word: _unlike(one, word) for word in wanted} for one in heard]


def _most_promising(
    distances: Sequence[dict[str, float]], sentences: Sequence[tuple[str, ...]]
) -> list[tuple[float, tuple[str, ...]]]:
    """(the similarity it has at most, sentence), the highest first: what each of its words costs at least."""
    nearest = {word: min(row[word] for row in distances) for word in distances[0]}
    possible = [
        (1.0 - sum(nearest[word] for word in sentence) / len(sentence), sentence) for sentence in sentences if sentence
    ]
    return sorted(possible, key=lambda one: -one[0])


def similarity(heard: Sequence[str], phrase: Sequence[str]) -> float:
    """How well ``phrase`` fits into what was heard, 0 to 1; 1 where it is all of it."""
    return _similarity(heard, phrase, _distances(heard, [phrase])) if phrase else 0.0


def _similarity(heard: Sequence[str], phrase: Sequence[str], distances: Sequence[dict[str, float]]) -> float:
    # costs[j]: of the best way to have said the first j words of the phrase with what was heard so far.
    costs = [float(at) * _MISSING for at in range(len(phrase) + 1)]
    last = len(phrase)
    for word, unlike in zip(heard, distances, strict=True):
        outside = _NOISE_OUTSIDE if word in _NOISE or word in _POLITE else _OUTSIDE
        inside = max(outside, _OUTSIDE)
        before, left = costs, costs[0] + outside
        costs = [left]
        for at, wanted in enumerate(phrase, 1):
            cost = before[at - 1] + unlike[wanted]
            skipped = before[at] + (outside if at == last else inside)
            cost = min(cost, skipped)
            left = cost if cost < left + _MISSING else left + _MISSING
            costs.append(left)
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
