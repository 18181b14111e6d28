"""Which numbers a trunk may dial. The answer to toll fraud: nothing, unless the operator has listed it.

Two questions are asked of every number, and both must be answered well: does it begin as ``allow_prefixes`` say, and
is it none of the costly kinds (premium, shared cost, satellite) and no emergency number, unless ``allow_kinds`` names
that kind. The second is asked of every way a carrier might read the digits: with and without the country code, with
the digits behind a service code (``*31#``), behind an exit code that follows the country code (``+1 011 44...``, which
leads abroad where a carrier takes +1 off), and with the surplus digits that many networks ignore.
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
_COUNTRY_CODES: Final = frozenset(str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
_SHORTEST_COSTLY: Final = 6
_LONGEST: Final = 20
"""Digits of any number, exit code and country code included."""
_SHORTEST_ABROAD: Final = 12
"""Digits of a country code, an exit code and a number abroad; what is shorter is an extension, say."""


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
        if any(begins(bare, prefix, rule.region) for prefix in rule.allow_prefixes):
            return Refusal(
                "prefix", f"{bare} is no number of the country it begins with; write +, country code, number"
            )
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


def refusal_of_dialled(dialled: str, asked: str, rule: TrunkRule) -> Refusal | None:
    """Why ``rule`` may not dial ``dialled`` in place of ``asked``, which it may: stripping a digit can hide a number.

    The prefixes are for what is asked for. Where it becomes a number with a country code only by being rewritten, one
    of them must fit that number too.
    """
    if leads_abroad(dialled, rule.region) and not same_number(asked, dialled, rule.region):
        where = f"trunks.{rule.name}.allow_prefixes"
        if not any(fits(dialled, prefix, rule.region) for prefix in rule.allow_prefixes):
            return Refusal("prefix", f"{asked} is dialled as {dialled}, which {where} does not list; add its beginning")
    for kind in kinds(dialled, rule.region):
        if kind not in rule.allow_kinds:
            return Refusal(kind, f"{dialled} is of kind {kind}, which {rule.name} may not dial")
    return None


_ARTICLE: Final = {
    "premium": "a premium number (premium)",
    "shared_cost": "a shared-cost number (shared_cost)",
    "satellite": "a satellite number (satellite)",
    "emergency": "an emergency number (emergency)",
}


def fits(number: str, prefix: str, region: str | None = None) -> bool:
    """Whether ``prefix`` lets ``number`` be dialled: it begins so, and leads where that says; ``*`` is any."""
    return prefix == "*" or (begins(number, prefix, region) and not _misleads(number, region))


def begins(number: str, prefix: str, region: str | None = None) -> bool:
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
        return international(number, region).startswith(wanted)
    exit_code = _exit_code(number, region)
    return number.startswith(wanted) and bool(wanted) and (not exit_code or wanted.startswith(exit_code))


def leads_abroad(number: str, region: str | None) -> bool:
    """Whether ``number`` is dialled as one with a country code, so that no prefix for national numbers fits it.

    Without a region both 00 and 011 mean that one follows.
    """
    if number.startswith("+") or (region is None and number.startswith("011")):
        return True
    return bool(_exit_code(number, region) or _behind_exit_codes(number, region))


def same_number(number: str, other: str, region: str | None) -> bool:
    """Whether both are one number, in different spellings."""
    whole = international(number, region)
    return bool(whole) and whole == international(other, region)


def international(number: str, region: str | None) -> str:
    """``number``, a plain one, with + and country code; "" where that cannot be known."""
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


def _misleads(number: str, region: str | None) -> bool:
    """Whether ``number`` leads to another country than it seems to, or with a country code to none."""
    if _NAME.fullmatch(number):
        return False
    exit_code = _exit_code(number, region)
    whole = "+" + number[len(exit_code) :] if exit_code else international(number, region)
    if _behind_exit_codes(number, region) or (whole and _behind_exit_codes(whole, None)):
        return True
    if not exit_code and not number.startswith("+"):
        return False
    parsed = _parse(whole, None)
    return len(whole) > _LONGEST or parsed is None or not phonenumbers.is_possible_number(parsed)


def _exit_code(number: str, region: str | None) -> str:
    """What begins an international call and stands at the beginning of ``number``: 00 or 011, say; "" for none."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region) if region is not None else None
    pattern = metadata.international_prefix if metadata is not None else None
    found = re.match(pattern or "00", number)
    return found.group(0) if found else ""


def _behind_exit_codes(number: str, region: str | None) -> tuple[str, ...]:
    """What a carrier dials abroad that takes the country code off ``number``, each without + and exit code.

    That is what stands behind the exit code of that country, 00 or 011, where one follows the country code.
    """
    digits = re.sub(r"[+*#]", "", number)
    if not number.startswith("+"):
        digits = digits.removeprefix(_exit_code(digits, region))
        if len(digits) < _SHORTEST_ABROAD:
            return ()
    country = _country_code(digits)
    if not country:
        return ()
    national = digits[len(country) :]
    codes = {_exit_code(national, home) for home in phonenumbers.region_codes_for_country_code(int(country))}
    codes |= {"00"} if _is_valid("+" + digits, None) else {"00", "011"}  # +39 011 is Turin
    behind = {national[len(code) :].lstrip("0") for code in codes if code and national.startswith(code)}
    return tuple(sorted(behind - {""}))


def _country_code(digits: str) -> str:
    """The country code that ``digits`` begin with; "" for none."""
    return next((digits[:length] for length in (1, 2, 3) if digits[:length] in _COUNTRY_CODES), "")


def _is_valid(number: str, region: str | None) -> bool:
    parsed = _parse(number, region)
    return parsed is not None and phonenumbers.is_valid_number(parsed)


def _is_of(number: str, region: str | None) -> bool:
    if region is None or (parsed := _parse(number, region)) is None:
        return False
    return phonenumbers.is_valid_number_for_region(parsed, region)


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
    seen: set[str] = set()
    codes = ("00",) if _is_of(number, region) else ("00", "011")  # 011 is Turin in Italy
    left = [digits[len(code) :] for code in codes if digits.startswith(code)]
    left += _behind_exit_codes(number, region)
    while left:
        abroad = "+" + left.pop()
        if abroad not in seen:
            seen.add(abroad)
            yield abroad, None
            left += _behind_exit_codes(abroad, None)


def _parse(number: str, region: str | None) -> PhoneNumber | None:
    # Longer than any number: what is dialled beyond it is ignored by networks, and so here.
    try:
        return phonenumbers.parse(number[:_LONGEST], region)
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
