"""Telephone numbers: the spellings one counts in, and sets of numbers and prefixes. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumberFormat

_SEPARATORS = str.maketrans("", "", " -()./\t\u00a0\u2010\u2011\u2013")
_MAIN_REGION = {code: regions[0] for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()}
"""The country that most numbers of a country code belong to."""
_LONGEST = 24
"""A longer run of digits is no telephone number; E.164 has at most 15."""


def plain_number(number: str) -> str:
    """A telephone number without its separators; any other user name (``alice``, ``john.doe``) as it is."""
    bare = number.translate(_SEPARATORS)
    return bare if bare.lstrip("+").rstrip("*").isdecimal() else number


@lru_cache(maxsize=8192)
def spellings(number: str, region: str = "") -> tuple[str, ...]:
    """Every way in which patterns may write ``number``, the way it came first.

    Args:
        number: as the call brings it: E.164, national, a short number, or a user name.
        region: where numbers without country code are dialled from, as ``DE``; "" where that is not known.

    Returns:
        What came, without separators; then its E.164 form, and its national form where it belongs to ``region``.
        A number without country code has these only if ``region`` has such a number: ``100`` stays a short number.
    """
    plain = plain_number(number)
    parsed = _parsed(plain, region)
    if parsed is None:
        return (plain,)
    found = [plain, phonenumbers.format_number(parsed, PhoneNumberFormat.E164)]
    if region and phonenumbers.country_code_for_region(region) == parsed.country_code:
        national = phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL).translate(_SEPARATORS)
        found += [national] if national.isdecimal() else []
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=8192)
def region_of(number: str, region: str = "") -> str:
    """The country that ``number`` belongs to, as ``DE``; "" where that cannot be told. ``region`` as above."""
    parsed = _parsed(plain_number(number), region)
    if parsed is None:
        return ""
    sure = phonenumbers.region_code_for_number(parsed)
    return sure or _MAIN_REGION.get(parsed.country_code or 0, "")


def _parsed(plain: str, region: str) -> phonenumbers.PhoneNumber | None:
    if not plain.lstrip("+").isdecimal() or len(plain) > _LONGEST or (not region and plain[:1] != "+"):
        return None
    try:
        parsed = phonenumbers.parse(plain, region or None)
    except phonenumbers.NumberParseException:
        return None
    sure = plain.startswith("+") and phonenumbers.is_possible_number(parsed)
    return parsed if sure or phonenumbers.is_valid_number(parsed) else None


class NumberSet:
    """Numbers and prefixes (``+49*``), looked up in a time that does not depend on how many there are."""

    __slots__ = ("_exact", "_lengths", "_prefixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        plain = [plain_number(pattern) for pattern in patterns]
        self._exact = frozenset(one for one in plain if not one.endswith("*"))
        self._prefixes = frozenset(one[:-1] for one in plain if one.endswith("*"))
        self._lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}))

    def __len__(self) -> int:
        return len(self._exact) + len(self._prefixes)

    def holds(self, number: str) -> bool:
        """Whether ``number``, written as :func:`spellings` writes it, is one of the numbers or begins as a prefix."""
        return number in self._exact or any(number[:length] in self._prefixes for length in self._lengths)
