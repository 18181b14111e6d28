"""Words: how phrases compare, digits as they are spoken, and ``${...}`` in what the agent says. PURE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from appliance.engines import lexicon
from appliance.engines.lexicon import DIGITS, spell_number

__all__ = ["DIGITS_PHRASE", "SUMMARY", "known_late", "normalise", "render", "spoken_digits", "variables_in"]

SUMMARY = "summary"
"""The variable for what a call has been about so far."""

DIGITS_PHRASE = "<digits {min} {max}>"
"""What a recogniser is asked for where a number is spoken digit by digit."""

_DIGIT = {word: str(value) for value, word in enumerate(DIGITS)} | {"oh": "0", "o": "0", "nought": "0"}
_TEEN = {spell_number(str(value)): str(value) for value in range(10, 20)}
_TENS = {spell_number(str(value * 10)): str(value) for value in range(2, 10)}
_REPEAT = {"double": 2, "triple": 3}

_VARIABLE = re.compile(r"\$\{\s*([^{}|]*?)\s*(?:\|\s*([^{}]*?)\s*)?\}")


@lru_cache(maxsize=8192)
def normalise(text: str) -> str:
    """``text`` as the recogniser writes it: words in lower case, no punctuation, numbers spelled out.

    Kept for the phrases of all lines, which every answer is compared with.
    """
    return lexicon.normalise(text)


def spoken_digits(text: str) -> str | None:
    """The digits that ``text`` (as :func:`normalise` writes it) says, or None where it says anything else.

    ``"one two oh"`` is 120, ``"double five"`` 55, ``"forty two"`` 42.
    """
    digits, words = "", text.split()
    position = 0
    while position < len(words):
        word = words[position]
        following = words[position + 1] if position + 1 < len(words) else ""
        if word in _REPEAT and following in _DIGIT:
            digits += _DIGIT[following] * _REPEAT[word]
            position += 2
        elif word in _TENS and following in _DIGIT and _DIGIT[following] != "0":
            digits += _TENS[word] + _DIGIT[following]
            position += 2
        elif word in _TENS:
            digits += _TENS[word] + "0"
            position += 1
        elif (value := _DIGIT.get(word) or _TEEN.get(word)) is not None:
            digits += value
            position += 1
        else:
            return None
    return digits or None


def variables_in(template: str) -> list[tuple[str, str]]:
    """Each ``${name}`` or ``${name | filter}`` as (name, filter), the filter "" where there is none."""
    return [(name, spoken or "") for name, spoken in _VARIABLE.findall(template)]


def known_late(template: str) -> bool:
    """Whether something in it is known only when a caller is handed on: ``${summary}``, or what tools have noted."""
    return any(name == SUMMARY or name.startswith("slots.") for name, _ in variables_in(template))


def render(template: str, values: Mapping[str, str]) -> str:
    """``template`` with its variables filled in, in one pass: a value is never read as a template.

    The filter ``digits`` has a number read digit by digit. Unknown names become nothing.
    """

    def fill(match: re.Match[str]) -> str:
        value = "".join(char if char.isprintable() else " " for char in values.get(match[1], ""))
        return " ".join(value) if match[2] == "digits" else value

    return " ".join(_VARIABLE.sub(fill, template).split())
