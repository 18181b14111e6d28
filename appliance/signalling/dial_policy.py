"""Which numbers a trunk may dial. The answer to toll fraud: nothing, unless the operator has listed it.

Two questions are asked of every number, and both must be answered well: does it begin as ``allow_prefixes`` say, and
is it none of the costly kinds (premium, shared cost, satellite) and no emergency number, unless ``allow_kinds`` names
that kind. The second is asked of every way a carrier might read the digits: with and without the country code, with
the digits behind a service code (``*31#``), and with the surplus digits that many networks ignore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType, shortnumberinfo

from appliance.signalling.trunks import TrunkRule

_SEPARATORS = str.maketrans("", "", " -().\t/")
_NUMBER = re.compile(r"\+?[0-9][0-9*#]{0,31}|[*#][0-9*#]{0,31}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SATELLITE: Final = frozenset((870, 881, 882, 883))
_PREMIUM_CODES: Final = frozenset((979,))
_KINDS: Final = {PhoneNumberType.PREMIUM_RATE: "premium", PhoneNumberType.SHARED_COST: "shared_cost"}
_SHORTEST_COSTLY: Final = 6


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a number is not dialled. ``cause`` is one of a few words, for the metrics; ``text`` says how to allow it."""

    cause: str
    text: str


def plain(target: str) -> str:
    """A number without separators; a name as it is; "" for what is neither (and could be dialled by no trunk)."""
    bare = target.translate(_SEPARATORS)
    if _NUMBER.fullmatch(bare):
        return bare
    return target if _NAME.fullmatch(target) else ""


def refusal(number: str, rule: TrunkRule) -> Refusal | None:
    """Why ``rule`` may not dial ``number``; None where it may.

    ``number`` is as it was asked for: any text, of any origin.
    """
    bare = plain(number)
    where = f"trunks.{rule.name}"
    if not bare:
        return Refusal("malformed", f"{number[:40]!r} is neither a number nor a name")
    if not rule.allow_prefixes:
        return Refusal("denied", f"{where} may dial nothing; list what it may under {where}.allow_prefixes")
    if not any(fits(bare, prefix, rule.region) for prefix in rule.allow_prefixes):
        return Refusal("prefix", f"{bare} begins with nothing that {where}.allow_prefixes lists; add its beginning")
    if _NAME.fullmatch(bare):
        return None
    for kind in kinds(bare, rule.region):
        if kind not in rule.allow_kinds:
            hint = f"add it to {where}.allow_kinds to dial such numbers"
            if kind == "emergency" and rule.region is None:
                hint = f"set {where}.region if it is not one there, or {hint}"
            return Refusal(kind, f"{bare} is {_ARTICLE[kind]}; {hint}")
    return None


_ARTICLE: Final = {
    "premium": "a premium number (premium)",
    "shared_cost": "a shared-cost number (shared_cost)",
    "satellite": "a satellite number (satellite)",
    "emergency": "an emergency number (emergency)",
}


def fits(number: str, prefix: str, region: str | None = None) -> bool:
    """Whether ``number`` begins with ``prefix``; names must be equal, ``*`` is any.

    A prefix with a country code also fits the same number written nationally or with an international prefix, if
    ``region`` tells what these mean. A prefix for national numbers fits no international one: ``0`` not ``0044...``.
    """
    if prefix == "*":
        return True
    wanted = prefix.removesuffix("*").translate(_SEPARATORS)
    if _NAME.fullmatch(number):
        return number == prefix or (prefix.endswith("*") and bool(wanted) and number.startswith(wanted))
    if wanted.startswith("+"):
        return _international(number, region).startswith(wanted)
    exit_code = _exit_code(number, region)
    return number.startswith(wanted) and bool(wanted) and (not exit_code or wanted.startswith(exit_code))


def _international(number: str, region: str | None) -> str:
    """``number`` with + and country code; "" where that cannot be known."""
    if number.startswith("+"):
        return number
    if region is None:
        return ""
    parsed = _parse(number, region)
    # An extension such as 200 is no number of the country, though it can be written behind its code.
    if (
        parsed is None
        or phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE
    ):
        return ""
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def _exit_code(number: str, region: str | None) -> str:
    """What begins an international call and stands at the beginning of ``number``: 00 or 011, say; "" for none."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region) if region is not None else None
    pattern = metadata.international_prefix if metadata is not None else None
    found = re.match(pattern or "00", number)
    return found.group(0) if found else ""


@lru_cache(maxsize=4096)
def kinds(number: str, region: str | None) -> tuple[str, ...]:
    """What kinds of costly or special number this is, in any way a carrier might read it."""
    found: dict[str, None] = {}
    for reading in _readings(number):
        if _is_emergency(reading, region):
            found["emergency"] = None
        if region is not None and _is_premium_short(reading, region):
            found["premium"] = None
        for text, home in _spellings(reading, region):
            parsed = _parse(text, home)
            if parsed is None:
                continue
            kind = _kind(parsed) or _kind_of_surplus(parsed, text, home)
            if kind:
                found[kind] = None
            national = str(parsed.national_number)
            for country in phonenumbers.region_codes_for_country_code(parsed.country_code or 0):
                if len(national) <= 4 and shortnumberinfo.is_emergency_number(national, country):
                    found["emergency"] = None
    return tuple(found)


def _readings(number: str) -> Iterator[str]:
    """The digits as they are, and those behind service codes."""
    if "*" not in number and "#" not in number:
        yield number
        return
    parts = [part for part in re.split(r"[*#]+", number) if part]
    yield from parts
    yield "".join(parts)
    yield from ("".join(parts[index:]) for index in range(1, len(parts)))


def _spellings(number: str, region: str | None) -> Iterator[tuple[str, str | None]]:
    """What a carrier might take the digits for, each with the country it is to be read in."""
    digits = number.lstrip("+")
    yield "+" + digits, None
    if region is not None:
        yield number, region
    yield from (("+" + digits[len(code) :], None) for code in ("00", "011") if digits.startswith(code))


def _parse(number: str, region: str | None) -> PhoneNumber | None:
    # Longer than any number: what is dialled beyond it is ignored by networks, and so here.
    try:
        return phonenumbers.parse(number[:20] if len(number) > 20 else number, region)
    except phonenumbers.NumberParseException:
        return None


def _kind(number: PhoneNumber) -> str:
    if number.country_code in _SATELLITE:
        return "satellite"
    if number.country_code in _PREMIUM_CODES:
        return "premium"
    return _KINDS.get(phonenumbers.number_type(number), "")


def _kind_of_surplus(number: PhoneNumber, text: str, region: str | None) -> str:
    """The kind of an impossible number once surplus digits are dropped, or missing ones are there."""
    if phonenumbers.number_type(number) != PhoneNumberType.UNKNOWN:
        return ""
    shorter = [text[:length] for length in range(len(text) - 1, _SHORTEST_COSTLY, -1)]
    longer = [text + "123"[:count] for count in (1, 2, 3)]
    for candidate in (*shorter, *longer):
        parsed = _parse(candidate, region)
        if parsed is not None and (kind := _kind(parsed)):
            return kind
    return ""


def _is_emergency(number: str, region: str | None) -> bool:
    if region is not None:
        return bool(shortnumberinfo.connects_to_emergency_number(number, region))
    if not 2 <= len(number) <= 6:
        return False
    return any(shortnumberinfo.is_emergency_number(number, home) for home in phonenumbers.SUPPORTED_SHORT_REGIONS)


def _is_premium_short(number: str, region: str) -> bool:
    if not number.isdecimal() or len(number) > 8:
        return False
    parsed = PhoneNumber(
        country_code=phonenumbers.country_code_for_region(region),
        national_number=int(number),
        italian_leading_zero=None,
    )
    cost = shortnumberinfo.expected_cost_for_region(parsed, region)
    return bool(cost == shortnumberinfo.ShortNumberCost.PREMIUM_RATE)
