"""Takes card numbers, e-mail addresses and telephone numbers out of what is kept: records, logs and exports.

Pages: docs/plugins/redact.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import phonenumbers
from pydantic import Field, field_validator

from appliance.api import Call, PluginValues, hookimpl

API = 1
SUMMARY = "Takes card numbers, e-mail addresses and telephone numbers out of what is kept of calls."

_CARD_DIGITS = range(13, 20)
_MOST_DIGITS = 200
"""More digits in a row than these are no number that anybody has; they go unseen."""
_PHONE_TRIES = 1000
_DIGITS = re.compile(r"\d(?:[ .\-]{0,2}\d){12,}")
_EMAIL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_SPOKEN_EMAIL = re.compile(
    r"\b[\w.+-]{1,64}(?: (?:dot|underscore|dash|hyphen) [\w+-]{1,64}){0,4} at [\w-]{1,63}(?: dot [\w-]{2,24}){1,4}\b",
    re.IGNORECASE,
)
_WORDS = {
    "zero": "0", "oh": "0", "o": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
_TIMES = {"double": 2, "triple": 3}
_WORD = re.compile(r"[A-Za-z]+|\d+")


class Values(PluginValues):
    """What an operator may write below `redact`.

    Attributes:
        cards: whether numbers of payment cards go: 13 to 19 digits with the right check digit, spoken ones included.
        emails: whether e-mail addresses go, written or spoken ("ann at example dot com").
        phones: whether telephone numbers go.
        region: the country of telephone numbers without a country code, such as `DE`; without it only those with
            one are known.
        keep_last: so many digits of a card or telephone number stay, for whoever compares them.
    """

    cards: bool = True
    emails: bool = True
    phones: bool = True
    region: str = ""
    keep_last: int = Field(default=0, ge=0, le=4)

    @field_validator("region")
    @classmethod
    def _is_region(cls, region: str) -> str:
        if region and region.upper() not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"{region!r} is not a country; write its two letters, such as DE")
        return region.upper()


@hookimpl
def appliance_before_storing(call: Call, texts: Sequence[str]) -> list[str]:
    return [redacted(text, call.values) for text in texts]


def redacted(text: str, values: Values) -> str:
    """The text without what is to be kept out of it. JSON stays JSON."""
    if text[:1] in ("{", "["):
        try:
            return json.dumps(_in_json(json.loads(text), values), ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            pass
    if values.emails:
        text = _SPOKEN_EMAIL.sub("[email]", _EMAIL.sub("[email]", text))
    if values.cards:
        text = _without_spoken_cards(_DIGITS.sub(lambda found: _card(found[0], values), text), values)
    return _without_phones(text, values) if values.phones else text


def _in_json(value: Any, values: Values) -> Any:
    if isinstance(value, str):
        return redacted(value, values)
    if isinstance(value, dict):
        return {redacted(str(key), values): _in_json(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_json(item, values) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
        changed = redacted(text, values)
        return value if changed == text else changed
    return value


def is_card(digits: str) -> bool:
    """Whether the digits could be a card's: their number fits, and so does the last one, by Luhn's rule."""
    if len(digits) not in _CARD_DIGITS or len(set(digits)) == 1:
        return False
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


def _holds_card(groups: Sequence[str]) -> bool:
    """Whether groups that follow one another could be a card's number; in a longer one, any part of it."""
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) >= _CARD_DIGITS.stop:
                break
            if is_card(digits):
                return True
    long = (group for group in groups if len(group) >= _CARD_DIGITS.stop)
    return any(
        is_card(group[begin : begin + length])
        for group in long
        for length in _CARD_DIGITS
        for begin in range(len(group) - length + 1)
    )


def _card(found: str, values: Values) -> str:
    groups = re.findall(r"\d+", found)
    digits = "".join(groups)
    return _label("card", digits, values) if len(digits) > _MOST_DIGITS or _holds_card(groups) else found


def _label(kind: str, digits: str, values: Values) -> str:
    return f"[{kind} ..{digits[-values.keep_last :]}]" if values.keep_last else f"[{kind}]"


def _without_spoken_cards(text: str, values: Values) -> str:
    """Card numbers that were written down as they were spoken: "four one double one ..."."""
    runs: list[tuple[int, int, str]] = []
    begin, end, digits, times = -1, -1, "", 1
    for found in _WORD.finditer(text):
        word = found[0].lower()
        gap = text[end : found.start()] if end >= 0 else ""
        value = word if word.isdigit() else _WORDS.get(word, "")
        if word in _TIMES and (begin < 0 or _is_gap(gap)):
            times = _TIMES[word]
            begin, end = (found.start() if begin < 0 else begin), found.end()
            continue
        if value and (begin < 0 or _is_gap(gap)):
            digits += value[:1] * (times - 1) + value
            times = 1
            begin, end = (found.start() if begin < 0 else begin), found.end()
            continue
        runs.append((begin, end, digits))
        begin, end, digits, times = (found.start(), found.end(), value, 1) if value else (-1, -1, "", 1)
    runs.append((begin, end, digits))
    for first, last, spoken in reversed(runs):
        if len(spoken) > _MOST_DIGITS or (len(spoken) >= _CARD_DIGITS.start and _holds_card([spoken])):
            text = text[:first] + _label("card", spoken, values) + text[last:]
    return text


def _is_gap(text: str) -> bool:
    return len(text) <= 3 and not any(char.isalnum() for char in text)


def _without_phones(text: str, values: Values) -> str:
    if sum(char.isdigit() for char in text) < 6:
        return text
    matches = list(phonenumbers.PhoneNumberMatcher(text, values.region or None, max_tries=_PHONE_TRIES))
    for match in reversed(matches):
        label = _label("phone", re.sub(r"\D", "", match.raw_string), values)
        text = text[: match.start] + label + text[match.end :]
    return text
