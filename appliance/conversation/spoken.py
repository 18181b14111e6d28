"""How a written text is said: dates, times, amounts, numbers, telephone numbers, addresses and abbreviations. PURE.

The record and a model's history keep the written form. :func:`spoken_form` gives the synthesiser what it is to say,
and can still tell which of the written words were said after a part of it. English is spelled out in full. In other
languages digits are left to the engine, which knows them, and only telephone numbers are taken apart.

A line's lexicon comes before everything else: a word in it is said as its respelling and not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

from appliance.conversation import english
from appliance.conversation.clauses import PARAGRAPH, speakable
from appliance.engines.speech_level import CLAUSE_PAUSE_S, SENTENCE_PAUSE_S

ELLIPSIS_PAUSE_S: Final = 0.5
PARAGRAPH_PAUSE_S: Final = 0.7

NO_LEXICON: Final[Mapping[str, str]] = MappingProxyType({})

_STOPS: Final = re.compile(r"(\b[ap]\.m\.)\.(?!\.)")
_CLOSING: Final = "\"'”’)]*_ \t\n"
_PHONE: Final = re.compile(
    r"(?<![\w.,/-])(?:\+\d[\d\s()./-]{5,}\d|\(0\d{1,4}\)\s?\d[\d .-]{3,}\d"
    r"|0\d{1,4}[ /-]\d[\d -]{3,}\d|0\d{6,13})(?![\w%])"
)
"""Elsewhere than in English only what begins with a plus sign or a zero: 123 456 789 may be an amount."""


@dataclass(frozen=True)
class _Part:
    """``written`` characters of the text, and what is said for them."""

    written: int
    spoken: str


@dataclass(frozen=True)
class SpokenForm:
    """A written text and how it is said.

    Attributes:
        written: for the record: one line, without Markdown or emoji.
        text: for the synthesiser.
    """

    written: str
    text: str
    _parts: tuple[_Part, ...]

    def heard(self, share: float) -> str:
        """The written words that were said within the first ``share`` (0 to 1) of what is said.

        A word counts when at least half of it was; what is said at an even pace, a letter like any other.
        """
        if share >= 1.0:
            return self.written
        lengths = self._lengths()
        heard = share * lengths[-1]
        words = []
        for match in re.finditer(r"\S+", self.written):
            if (lengths[match.start()] + lengths[match.end()]) / 2 > heard:
                break
            words.append(match.group())
        return " ".join(words)

    def word_start(self, share: float) -> float:
        """Where the word that is being said at ``share`` (0 to 1) begins, as such a share."""
        lengths = self._lengths()
        starts = [lengths[match.start()] for match in re.finditer(r"\S+", self.written)]
        return max((start for start in starts if start <= share * lengths[-1]), default=0.0) / (lengths[-1] or 1.0)

    def _lengths(self) -> list[float]:
        """For each place in the written text, how many characters have been said by then."""
        lengths = [0.0]
        for part in self._parts:
            each = len(part.spoken) / part.written
            start = lengths[-1]
            lengths += [start + each * count for count in range(1, part.written + 1)]
        return lengths


@lru_cache(maxsize=1024)
def _spoken_form(text: str, language: str, lexicon: tuple[tuple[str, str], ...]) -> SpokenForm:
    written = speakable(text)
    parts: list[_Part] = []
    at = 0
    for start, end, said in _said(written, language, lexicon):
        if start > at:
            parts.append(_Part(start - at, written[at:start]))
        parts.append(_Part(end - start, said))
        at = end
    if at < len(written):
        parts.append(_Part(len(written) - at, written[at:]))
    return SpokenForm(written, _tidy("".join(part.spoken for part in parts)), tuple(parts))


def spoken_form(text: str, language: str = "en-us", lexicon: Mapping[str, str] = NO_LEXICON) -> SpokenForm:
    """How ``text`` is said.

    Args:
        text: as written; Markdown and emoji are not said.
        language: a tag such as ``en-us``; American English has the month first in 3/4/2026, all other English the day.
        lexicon: word, or words, to respelling; capitals do not matter.
    """
    return _spoken_form(text, language.lower(), tuple(lexicon.items()))


def pause_before(text: str) -> float:
    """Seconds of silence that the piece ``text`` wants before it, whatever came before."""
    return PARAGRAPH_PAUSE_S if text.startswith(PARAGRAPH) else 0.0


def pause_after(text: str) -> float:
    """Seconds of silence between the piece ``text`` and the next one, by how it ends; 0 in the middle of a clause."""
    end = text.rstrip(_CLOSING)
    if end.endswith(("...", "…")):
        return ELLIPSIS_PAUSE_S
    if end.endswith((".", "!", "?", "。", "！", "？", "।")):
        return SENTENCE_PAUSE_S
    return CLAUSE_PAUSE_S if end.endswith((",", ";", ":", "،", "、", "，", "–", "—")) else 0.0


_Said: TypeAlias = Iterator[tuple[int, int, str]]


def _said(written: str, language: str, lexicon: tuple[tuple[str, str], ...]) -> _Said:
    """(start, end, what is said) for what is said otherwise than written, in order and apart."""
    respelled = _lexicon_matches(written, lexicon)
    others: _Said
    if language.partition("-")[0] == "en":
        others = english.matches(written, american=language in ("en", "en-us"))
    else:
        others = ((match.start(), match.end(), _grouped(match.group())) for match in _PHONE.finditer(written))
    taken = list(respelled)
    yield from sorted(
        [*taken, *(one for one in others if not any(one[0] < end and start < one[1] for start, end, _ in taken))]
    )


def _lexicon_matches(written: str, lexicon: tuple[tuple[str, str], ...]) -> _Said:
    if not lexicon:
        return
    respellings = {word.lower(): said for word, said in lexicon}
    longest_first = sorted(respellings, key=len, reverse=True)
    pattern = r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)"
    for match in re.finditer(pattern, written, re.IGNORECASE):
        yield match.start(), match.end(), respellings.get(match.group().lower(), match.group())


def _grouped(number: str) -> str:
    """A telephone number in digits of their own, the groups apart: what any engine can read in its own language."""
    groups = [" ".join(group) for group in re.findall(r"\d+", number)]
    plus = "+ " if number.startswith("+") else ""
    return plus + ", ".join(groups)


def _tidy(text: str) -> str:
    """One space between words, and one stop where an abbreviation ends the sentence."""
    return _STOPS.sub(r"\1", " ".join(text.split()))
