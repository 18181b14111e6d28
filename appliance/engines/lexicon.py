"""The words the embedded recogniser knows, and how a phrase is written so that phrases compare.

Both are used without a decoder: ``appliance check`` names the words of a dialplan that no caller could be heard
saying, and the dialplan compares what was recognised with what it expects.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from appliance.errors import ModelFileError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHONES = frozenset(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)

_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_SYMBOLS = {"&": " and ", "%": " percent ", "@": " at ", "+": " plus ", "’": "'", "‘": "'"}
_DOTTED = re.compile(r"\b(?:[a-z]\.)+(?:[a-z]\b\.?)?")
_MONEY = re.compile(r"\$\s*(\d[\d,]*)(?:\.(\d\d))?")
_CLOCK = re.compile(r"\b(\d{1,2}):(\d\d)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_DECIMAL = re.compile(r"\b(\d+)\.(\d+)\b")
_ORDINAL = re.compile(r"\b(\d{1,3})(?:st|nd|rd|th)\b")
_HALF_DAY = re.compile(r"(?<=\d)\s*([ap])\.?m\b\.?")
_NUMBER = re.compile(r"\d+")
_OTHER = re.compile(r"[^a-z' ]+")
_QUOTES = re.compile(r"(?<![a-z])'+|'+(?![a-z])")


def spell_number(digits: str) -> str:
    """A run of decimal digits as words.

    Numbers up to 9999 are read as numbers; longer runs and those with a leading zero digit by digit, as people read
    account numbers.
    """
    if len(digits) > 4 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(DIGITS[int(d)] for d in digits)
    value = int(digits)
    if value == 0:
        return DIGITS[0]
    words = []
    if value >= 1000:
        words += [DIGITS[value // 1000], "thousand"]
    if value % 1000 >= 100:
        words += [DIGITS[value % 1000 // 100], "hundred"]
    rest = value % 100
    if rest >= 20:
        words.append(_TENS[rest // 10 - 2])
        rest %= 10
    if rest >= 10:
        words.append(_TEENS[rest - 10])
    elif rest:
        words.append(DIGITS[rest])
    return " ".join(words)


def _ordinal(digits: str) -> str:
    *front, last = spell_number(digits).split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return " ".join([*front, last])


def _clock(match: re.Match[str]) -> str:
    hour, minute = match.groups()
    spoken = "" if minute == "00" else ("oh " if minute[0] == "0" else "") + spell_number(str(int(minute)))
    return f" {spell_number(str(int(hour)))} {spoken} "


def _money(match: re.Match[str]) -> str:
    whole, cents = match.groups()
    dollars = whole.replace(",", "")
    unit = "dollar" if dollars == "1" else "dollars"
    tail = "" if cents in (None, "00") else f" and {spell_number(str(int(cents)))} cents"
    return f" {spell_number(dollars)} {unit}{tail} "


def normalise(text: str) -> str:
    """Words in lower case, single spaces, no punctuation, numbers spelled out.

    ``"7"`` becomes ``"seven"``, ``"7 p.m."`` and ``"7pm"`` become ``"seven p m"``, ``"I'm sorry!"`` becomes
    ``"i'm sorry"``. Applied to phrases and to hypotheses, so that the two compare; applying it twice changes nothing.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    for symbol, word in _SYMBOLS.items():
        text = text.replace(symbol, word)
    text = _MONEY.sub(_money, text)
    text = _THOUSANDS.sub("", text)
    text = _HALF_DAY.sub(r" \1 m ", text)
    text = _CLOCK.sub(_clock, text)
    text = _ORDINAL.sub(lambda m: f" {_ordinal(m[1])} ", text)
    text = _DECIMAL.sub(lambda m: f" {spell_number(m[1])} point {' '.join(DIGITS[int(d)] for d in m[2])} ", text)
    text = _DOTTED.sub(lambda m: f" {m[0].replace('.', ' ')} ", text)
    text = _NUMBER.sub(lambda m: f" {spell_number(m[0])} ", text)
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = _OTHER.sub(" ", text)
    return " ".join(_QUOTES.sub(" ", text).split())


def model_folder() -> Path:
    """The folder of the English model inside the installed ``pocketsphinx`` package.

    Raises:
        ModelFileError: if the package or its model is missing.
    """
    spec = importlib.util.find_spec("pocketsphinx")
    where = Path(spec.origin).parent / "model" / "en-us" if spec and spec.origin else None
    if where is None or not (where / "cmudict-en-us.dict").exists():
        raise ModelFileError(
            "the PocketSphinx English model is missing: reinstall it with "
            "`pip install --force-reinstall --no-deps pocketsphinx`"
        )
    return where


@cache
def _dictionary_words(path: Path) -> frozenset[str]:
    # A line is "word PH PH ..." or, for a further pronunciation, "word(2) PH PH ...".
    with path.open(encoding="utf-8") as file:
        return frozenset(line.partition(" ")[0].partition("(")[0] for line in file)


class Lexicon:
    """Which words the recogniser can hear.

    Args:
        pronunciations: further words, each with its phones (ARPAbet, space separated, no stress marks).
    """

    def __init__(self, pronunciations: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._known = _dictionary_words(model_folder() / "cmudict-en-us.dict")
        self._added = frozenset(word.lower() for word in dict(pronunciations))

    def words(self) -> frozenset[str]:
        """Every known word, in lower case."""
        return self._known | self._added

    def __contains__(self, word: str) -> bool:
        return word in self._added or word in self._known

    def missing(self, phrase: str) -> list[str]:
        """The words of a phrase (as ``normalise`` writes it) that are not known, each once, in order."""
        return list(dict.fromkeys(word for word in normalise(phrase).split() if word not in self))
