"""Numbers as English words. PURE."""

from __future__ import annotations

from typing import Final

DIGIT_WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MAX_CARDINAL: Final = 10**15
"""From here on a number is read digit by digit."""

_TEENS: Final = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS: Final = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES: Final = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"))
_IRREGULAR_ORDINALS: Final = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(value: int, *, with_and: bool = False) -> str:
    """``value``, not negative, in words; ``with_and`` as in "one hundred and five"."""
    if value >= MAX_CARDINAL:
        return digits(str(value))
    words: list[str] = []
    for scale, name in _SCALES:
        if value >= scale:
            words += [_below_1000(value // scale, with_and), name]
            value %= scale
    if value or not words:
        if words and value < 100 and with_and:
            words.append("and")
        words.append(_below_1000(value, with_and))
    return " ".join(words)


def ordinal(value: int, *, with_and: bool = False) -> str:
    """``value`` as in "twenty first"."""
    front, _, last = cardinal(value, with_and=with_and).rpartition(" ")
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{front} {last}".strip()


def digits(text: str) -> str:
    """Each digit of ``text`` by itself; what is no digit is left out."""
    return " ".join(DIGIT_WORDS[int(character)] for character in text if "0" <= character <= "9")


def number(text: str, *, with_and: bool = False) -> str:
    """A number as written: ``1,250``, ``3.14`` or ``007``, which is read digit by digit."""
    whole, point, decimals = text.replace(",", "").partition(".")
    coded = len(whole) > 1 and whole[0] == "0"
    words = digits(whole) if coded else cardinal(int(whole or "0"), with_and=with_and)
    return f"{words} point {digits(decimals)}" if point and decimals else words


def year(value: int) -> str:
    """A year from 1000 to 2999, as in "nineteen oh five", "two thousand eight" or "twenty twenty six"."""
    century, rest = divmod(value, 100)
    if 2000 <= value < 2010 or value % 1000 == 0:
        return cardinal(value)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def _below_1000(value: int, with_and: bool) -> str:
    words: list[str] = []
    if value >= 100:
        words += [DIGIT_WORDS[value // 100], "hundred"]
        value %= 100
        if value and with_and:
            words.append("and")
        if not value:
            return " ".join(words)
    if value >= 20:
        words.append(_TENS[value // 10])
        value %= 10
        if not value:
            return " ".join(words)
    words.append(_TEENS[value - 10] if value >= 10 else DIGIT_WORDS[value])
    return " ".join(words)
