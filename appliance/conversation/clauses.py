"""Cutting a streamed reply into pieces that can be spoken, the first of them as early as it makes sense.

The first piece leaves at a comma, a sentence end, or simply a natural break once it has a few words, for the caller
waits for it; later pieces are sentences, for they have time and sound better whole. Numbers, abbreviations and links
are not cut. What a model writes for the eye (Markdown, emoji) is not spoken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import takewhile
from typing import Final

FIRST_WORDS: Final = 4
FIRST_MAX_WORDS: Final = 8
MAX_CHARACTERS: Final = 200
PARAGRAPH: Final = "\n\n"
"""What a piece begins with that follows a blank line."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLES: Final = _words("dr mr mrs ms prof st rev gen sgt capt lt col gov sen rep mt vs approx ext e.g i.e fig cf")
_ABBREVIATIONS: Final = _words(
    "etc inc ltd co corp jr sr dept est ave blvd rd apt min max hr "
    "a.m p.m am pm u.s u.k ph.d "
    "jan feb mar apr jun jul aug sep sept oct nov dec "
    "mon tue tues wed thu thur thurs fri sat sun"
)
_BOUND_WORDS: Final = _words(
    "a an the this that these those my your his her its our their no "
    "i you he she it we they who which there what when where how why "
    "of to in on at by for from with about into as per between until "
    "and or but so if because than then while not very just also "
    "is are was were be been am do does did has have had will would "
    "can could should may might must shall let please number dollars percent "
    "zero one two three four five six seven eight nine ten eleven twelve "
    "twenty thirty forty fifty sixty seventy eighty ninety hundred thousand half"
)
_KEPT_SYMBOLS: Final = frozenset("°№℃℉")

_END: Final = re.compile(r"[.!?…。!?]+[\"'”’)\]*_]*|\n+")
_CLAUSE_END: Final = re.compile(r"[,;:,、;:][\"'”’)*_]*|\s[-–—]+(?=\s)|—")
_WORD: Final = re.compile(r"[^\W_](?:[\w'’./:-]*[^\W_])?")
_SPACE: Final = re.compile(r"\s(?=\S)")
_LAST_WORD: Final = re.compile(r"[^\W_](?:[\w.'’]*[^\W_])?$")
_OPEN_LINK: Final = re.compile(r"\[[^\]\n]*$|\[[^\]\n]*\]$|\[[^\]\n]*\]\([^)\n]*$")
_FENCE: Final = re.compile(r"```.*?(?:```|$)", re.DOTALL)
_LINK: Final = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_TAG: Final = re.compile(r"</?[a-zA-Z][^<>\n]*>")
_LINE_START: Final = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|>+[ \t]*|[-+*•][ \t]+)+", re.MULTILINE)
_RULE: Final = re.compile(r"^[ \t]*(?:[-*_=][ \t]*){3,}$", re.MULTILINE)
_STARS: Final = re.compile(r"(?<!\d)\*+|\*+(?!\d)")
_UNDERSCORES: Final = re.compile(r"(?<!\w)_+|_+(?!\w)")
_LINE_END: Final = re.compile(r"(?<=\w)[ \t]*\n+")
_BEFORE_PUNCTUATION: Final = re.compile(r"\s+(?=[,.;:!?…](?:\s|$))")


def speakable(text: str) -> str:
    """``text`` as it should be said: without Markdown, tags, code, emoji and control characters, on one line."""
    text = _FENCE.sub(" ", text)
    text = _LINK.sub(r"\1", text)
    text = _TAG.sub(" ", text)
    text = _RULE.sub("", text)
    text = _LINE_START.sub("", text)
    text = _STARS.sub("", text)
    text = _UNDERSCORES.sub("", text)
    text = text.replace("~~", "").replace("`", "").replace("|", " ")
    text = _LINE_END.sub(". ", text.strip())
    text = "".join(character for character in text if _is_spoken(character))
    return _BEFORE_PUNCTUATION.sub("", " ".join(text.split())).strip()


def word_count(text: str) -> int:
    """Words and numbers in ``text``."""
    return len(_WORD.findall(text))


class ClauseCutter:
    """One reply on its way from the model to the voice.

    Args:
        first_words: the first piece has at least so many words, unless the reply ends before.
        first_max_words: with so many words the first piece leaves at any space.
        max_characters: no piece is longer.
    """

    def __init__(
        self,
        first_words: int = FIRST_WORDS,
        first_max_words: int = FIRST_MAX_WORDS,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self._first_words = first_words
        self._first_max_words = first_max_words
        self._max = max_characters
        self._text = ""
        self._gap = ""
        self._is_first = True

    def push(self, token: str) -> list[str]:
        """The next part of the reply; the pieces that are complete with it."""
        self._text += token
        return self._cut(final=False)

    def finish(self) -> list[str]:
        """The reply is complete; the pieces that are left."""
        return self._cut(final=True)

    def _cut(self, *, final: bool) -> list[str]:
        pieces: list[str] = []
        while self._text:
            at = self._next_cut(final=final)
            if at is None:
                break
            raw, self._text = self._text[:at], self._text[at:]
            piece = speakable(raw)
            if not _WORD.search(piece):
                self._gap += raw
                continue
            gap = self._gap + raw[: len(raw) - len(raw.lstrip())]
            self._gap = raw[len(raw.rstrip()) :]
            pieces.append(PARAGRAPH + piece if gap.count("\n") > 1 and not self._is_first else piece)
            self._is_first = False
        return pieces

    def _next_cut(self, *, final: bool) -> int | None:
        """Where the next piece ends, None if that is not known yet."""
        text = self._text
        at = self._first_cut(final) if self._is_first else self._sentence_cut(0, final)
        if at is not None and at <= self._max:
            return at
        if len(text) > self._max:
            return self._forced_cut()
        return len(text) if final else None

    def _first_cut(self, final: bool) -> int | None:
        text = self._text
        # What lies behind the limit is never cut there, and a fixed text may be many pages long.
        near = self._max + 1
        candidates = [match.end() for match in _upto(near, _END, text) if self._ends_sentence(match, final)]
        candidates += [match.end() for match in _upto(near, _CLAUSE_END, text) if self._ends_clause(match, final)]
        candidates += [match.start() for match in _upto(near, _SPACE, text) if self._is_natural(match.start())]
        for at in sorted(candidates):
            if word_count(speakable(text[:at])) >= self._first_words and not _inside_link(text[:at]):
                return at
        return None

    def _sentence_cut(self, start: int, final: bool) -> int | None:
        for match in _END.finditer(self._text, start):
            if self._ends_sentence(match, final) and not _inside_link(self._text[: match.end()]):
                return match.end()
        return None

    def _forced_cut(self) -> int:
        """The last sentence end, clause end or space within the limit; the limit itself where there is none."""
        head = self._text[: self._max]
        for pattern in (_END, _CLAUSE_END):
            ends = [
                match.end()
                for match in pattern.finditer(head)
                if match.end() < self._max and head[match.end()].isspace() and not self._is_abbreviation(match)
            ]
            if ends:
                return ends[-1]
        at = head.rstrip().rfind(" ")
        return at if at > 0 else self._max

    def _ends_sentence(self, match: re.Match[str], final: bool) -> bool:
        text = self._text
        if "\n" in match.group():
            return True
        at_end = match.end() == len(text)
        if not at_end and not text[match.end()].isspace() and match.group()[0] not in "。!?":
            return False
        if match.group()[0] != "." or match.group().startswith(".."):
            return True
        word = _word_before(text, match.start())
        following = text[match.end() :].lstrip()[:1]
        if word in _TITLES:
            return False
        if word == "no":
            return bool(following and not following.isdigit()) or (final and not following)
        if word in _ABBREVIATIONS or len(word) <= 1 or "." in word:
            if word.isdigit() and _starts_line(text, match.start() - len(word)):
                return False
            return following.isupper() and not (len(word) == 1 and word != "i" and word.isalpha())
        if word.isdigit():
            return bool(following) and not _starts_line(text, match.start() - len(word))
        return not at_end or word.isalpha() or final

    def _is_abbreviation(self, match: re.Match[str]) -> bool:
        word = _word_before(self._text, match.start())
        return match.group()[0] == "." and (word in _TITLES or word in _ABBREVIATIONS or len(word) <= 1 or "." in word)

    def _ends_clause(self, match: re.Match[str], final: bool) -> bool:
        text = self._text
        if match.end() < len(text):
            return text[match.end()].isspace() or match.group()[0] in "—,、;:"
        return final or (match.start() > 0 and text[match.start() - 1].isalpha())

    def _is_natural(self, at: int) -> bool:
        """Whether the piece before the space at ``at`` may stand alone, so far."""
        before = self._text[:at]
        match = _LAST_WORD.search(before)
        if match is None:
            return False
        if word_count(speakable(before)) >= self._first_max_words:
            return True
        word = match.group()
        return not (
            word.lower() in _BOUND_WORDS
            or any(character.isdigit() for character in word)
            or (word[0].isupper() and not _starts_sentence(before, match.start()))
        )


def _upto(limit: int, pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches that end there or before."""
    return takewhile(lambda match: match.end() <= limit, pattern.finditer(text))


def _is_spoken(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "So":
        return character in _KEPT_SYMBOLS
    if category[0] == "C":
        return character == "\n"
    return not ("\U0001f3fb" <= character <= "\U0001f3ff" or "\ufe00" <= character <= "\ufe0f" or character == "\u20e3")


def _word_before(text: str, at: int) -> str:
    match = _LAST_WORD.search(text[:at])
    return match.group().lower() if match else ""


def _starts_line(text: str, at: int) -> bool:
    line = text[:at].rpartition("\n")[2]
    return not line.strip(" \t*#>-")


def _starts_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip(" \t\"'“‘(*_")
    return not before or before[-1] in ".!?…\n:"


def _inside_link(prefix: str) -> bool:
    return _OPEN_LINK.search(prefix) is not None or prefix.count("```") % 2 == 1
