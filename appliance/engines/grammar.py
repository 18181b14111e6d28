"""What may be said, as a network of words for PocketSphinx.

Phrases share their beginnings (a prefix tree): the recogniser follows each once. ``<digits 4 8>`` among the phrases
stands for four to eight digits spoken one by one, ``<digits>`` for any number of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from appliance.engines.lexicon import DIGITS, PHONES, Lexicon, normalise
from appliance.errors import EngineError

MAX_DIGITS: Final = 32

_DIGIT_STRING: Final = re.compile(r"<digits(?: (\d+) (\d+))?>")
_DIGIT_WORDS: Final = (*DIGITS, "oh")
_FURTHER_DIGIT: Final = 1e-15
"""Weight of every digit beyond the fewest, so that the noise between digits does not become one."""

_BROKEN_OFF: Final = 1e-8
"""Weight of ending inside a phrase: a caller who pauses there has not said it, and is heard so far."""

Arc: TypeAlias = tuple[int, int, float] | tuple[int, int, float, str]
"""(from, to, probability) or (from, to, probability, dictionary entry)."""


@dataclass(frozen=True)
class Grammar:
    """A compiled list of phrases.

    Attributes:
        arcs: the network; state 0 begins, ``final`` ends.
        final: the end state.
        phrases: the phrases as ``normalise`` writes them.
        digit_strings: (fewest, most) digits of each digit string.
        entries: dictionary entries to add before use, with their phones.
        words: what each of those entries is called.
    """

    arcs: tuple[Arc, ...]
    final: int
    phrases: frozenset[str]
    digit_strings: tuple[tuple[int, int], ...]
    entries: Mapping[str, str]
    words: Mapping[str, str]

    def complete(self, words: tuple[str, ...]) -> str | None:
        """The expected text that these recognised words are, or None if they are none (a phrase left half way)."""
        text = " ".join(words)
        if text in self.phrases:
            return text
        if words and all(word in _DIGIT_WORDS for word in words):
            for fewest, most in self.digit_strings:
                if fewest <= len(words) <= most:
                    return " ".join("zero" if word == "oh" else word for word in words)
        return None

    def nearest(self, words: tuple[str, ...]) -> str:
        """The shortest phrase that begins with these words; the words themselves where there is none."""
        text = " ".join(words)
        begun = [phrase for phrase in self.phrases if phrase.startswith(text + " ")]
        return min(begun, key=lambda phrase: (len(phrase), phrase), default=text)


class _Network:
    def __init__(self) -> None:
        self.arcs: list[Arc] = []
        self._next: list[dict[str, int]] = [{}]

    def state(self) -> int:
        self._next.append({})
        return len(self._next) - 1

    def step(self, state: int, word: str, entries: Iterable[str]) -> int:
        """The state after ``word``; shared with other phrases that say the same so far."""
        known = self._next[state].get(word)
        if known is not None:
            return known
        after = self._next[state][word] = self.state()
        self.arcs += [(state, after, 1.0, entry) for entry in entries]
        return after

    def digit(self, state: int, after: int, weight: float) -> None:
        self.arcs += [(state, after, weight, word) for word in _DIGIT_WORDS]

    def join(self, state: int, final: int) -> None:
        self.arcs.append((state, final, 1.0))

    def break_off(self, final: int) -> None:
        """Let every state but the first be the last, reluctantly."""
        ends = {arc[0] for arc in self.arcs if arc[1] == final}
        self.arcs += [
            (state, final, _BROKEN_OFF)
            for state in sorted(set().union(*map(dict.values, self._next)))
            if state not in ends
        ]


def compile_grammar(phrases: Iterable[str], pronunciations: Iterable[tuple[str, str]], dictionary: Lexicon) -> Grammar:
    """The network of ``phrases``.

    Args:
        phrases: what may be said; normalised here.
        pronunciations: (word, ARPAbet phones) that add to, or go beside, what ``dictionary`` holds.
        dictionary: the words whose sound is known.

    Raises:
        EngineError: a word has no known sound, or a pronunciation is none; not retryable.
    """
    entries, spoken = _pronounced(pronunciations)
    words = {entry: word for word, named in spoken.items() for entry in named}
    network, texts, strings, unknown = _Network(), set(), [], []
    final = network.state()
    for phrase in phrases:
        digits = _DIGIT_STRING.fullmatch(phrase.strip())
        if digits:
            fewest, most = (int(group) for group in digits.groups(default="0"))
            strings.append(_bounded(phrase, fewest, most) if digits[1] else (1, MAX_DIGITS))
            continue
        text = normalise(phrase)
        if text in texts:
            continue
        texts.add(text)
        state = 0
        for word in text.split():
            ways = [word] * (word in dictionary) + spoken.get(word, [])
            if not ways:
                unknown.append(word)
            state = network.step(state, word, ways)
        network.join(state, final)
    if unknown:
        named = ", ".join(repr(word) for word in dict.fromkeys(unknown))
        raise EngineError(
            f"the recogniser does not know the word {named}: reword the phrase, or add the word with its phones under "
            "`pronunciations:`",
            retryable=False,
        )
    if "" in texts or not (texts or strings):
        raise EngineError(
            "nothing is expected that could be heard: a list of phrases with words in them is needed", retryable=False
        )
    network.break_off(final)
    for fewest, most in dict.fromkeys(strings):
        _add_digit_string(network, final, fewest, most)
    return Grammar(tuple(network.arcs), final, frozenset(texts), tuple(dict.fromkeys(strings)), entries, words)


def _bounded(phrase: str, fewest: int, most: int) -> tuple[int, int]:
    if not 1 <= fewest <= most <= MAX_DIGITS:
        raise EngineError(
            f"{phrase!r}: a digit string has from 1 to {MAX_DIGITS} digits, the fewest first", retryable=False
        )
    return fewest, most


def _add_digit_string(network: _Network, final: int, fewest: int, most: int) -> None:
    state = network.state()
    network.arcs.append((0, state, 1.0))
    for count in range(1, most + 1):
        after = network.state()
        network.digit(state, after, 1.0 if count <= fewest else _FURTHER_DIGIT)
        if count >= fewest:
            network.join(after, final)
        state = after


def _pronounced(pronunciations: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Dictionary entries to add (entry -> phones), and the entries of each word.

    An entry is named after its sound: two lines may want the same word said in two ways.
    """
    entries: dict[str, str] = {}
    spoken: dict[str, list[str]] = {}
    for word, given in pronunciations:
        phones = re.sub(r"(?<=[A-Z])[012]\b", "", given.upper()).split()
        wrong = [phone for phone in phones if phone not in PHONES]
        name = normalise(word)
        if wrong or not phones or not name or " " in name:
            what = f"{' '.join(wrong)} is no phone" if wrong else "one word and its phones are needed"
            raise EngineError(
                f"pronunciation of {word!r}, {given!r}: {what}; write ARPAbet such as `S IY SH AH N`", retryable=False
            )
        entry = f"{name}={'_'.join(phones)}"
        entries[entry] = " ".join(phones)
        if entry not in spoken.setdefault(name, []):
            spoken[name].append(entry)
    return entries, spoken
