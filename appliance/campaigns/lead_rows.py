"""One row of a list as a lead: its number, where it is, its consent and its variables; or what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType

from appliance.campaigns.columns import NUMBER, Columns
from appliance.campaigns.places import country_of, country_of_number, state_of_zip, zones_of_country, zones_of_number
from appliance.campaigns.regions import subdivision, subdivisions_of, zones_of
from appliance.store.campaign_rows import NewLead

MAX_VALUE: Final = 2048
"""Characters of a variable."""
MAX_REFERENCE: Final = 200

Kind: TypeAlias = Literal["columns", "number", "zone", "consent", "value", "duplicate", "do_not_call"]

_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SHORTENED: Final = re.compile(r"[+-]?\d+([.,]\d+)?[eE]\+?\d+")
_AS_DECIMAL: Final = re.compile(r"(\d{7,15})\.0+")
"""As programs write a whole number that they took for a decimal one."""
_BETWEEN: Final = re.compile("[;/,|]")
_BARRED: Final = {
    PhoneNumberType.PREMIUM_RATE: "a premium-rate number",
    PhoneNumberType.SHARED_COST: "a shared-cost number",
    PhoneNumberType.PAGER: "a pager",
    PhoneNumberType.VOICEMAIL: "a voicemail access number",
}
_WHY: Final = {
    phonenumbers.ValidationResult.TOO_SHORT: "too short",
    phonenumbers.ValidationResult.TOO_LONG: "too long",
    phonenumbers.ValidationResult.INVALID_COUNTRY_CODE: "of no country",
    phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "without its area code",
    phonenumbers.ValidationResult.INVALID_LENGTH: "of no length that is used there",
}


class RowError(ValueError):
    """What is wrong with a row, in the operator's words; ``kind`` is a word for it, to count by."""

    def __init__(self, kind: Kind, text: str) -> None:
        self.kind: Kind = kind
        super().__init__(text)


class RowReader:
    """Makes leads of rows.

    Args:
        columns: what the columns mean.
        region: country of numbers that have no country code.
        consent_required: whether a row without evidence of consent is wrong.
        now: consent cannot be later.
    """

    def __init__(self, columns: Columns, region: str, *, consent_required: bool, now: datetime) -> None:
        self._columns = columns
        self._region = region
        self._consent_required = consent_required
        self._now = now

    def lead(self, line: int, values: Mapping[str, str]) -> NewLead:
        """The lead that a row is.

        Its zones are all that the number may be in; ``address_zone`` holds those that the address may be in, with
        blanks between; ``region`` is ``US-FL``, or ``FR``.

        Args:
            line: of the operator's file.
            values: column to text.

        Raises:
            RowError: the row is wrong.
        """
        cells = {target: _clean(column, values.get(column, "")) for target, column in self._columns.of.items()}
        variables = {
            name: _limited(column, _clean(column, values.get(column, "")))
            for name, column in self._columns.variables.items()
        }
        home = self._country(cells.get("country", ""))
        number = parsed_number(cells[NUMBER], home or self._region)
        country, zones = country_of_number(number), zones_of_number(number)
        if not zones or not country:
            raise RowError("zone", f"no time zone is known for {cells[NUMBER]}")
        region, address = _address(cells, home, country)
        return NewLead(
            row=line,
            reference=cells.get("reference", "")[:MAX_REFERENCE],
            number=phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
            zones=zones,
            address_zone=" ".join(address),
            region=region,
            variables=variables,
            consent=self._consent(cells),
        )

    def _country(self, written: str) -> str:
        if not written:
            return ""
        country = country_of(written)
        if not country:
            raise RowError("zone", f"{written[:40]!r} is not a country; write its two letters, such as US")
        return country

    def _consent(self, cells: Mapping[str, str]) -> Mapping[str, str] | None:
        source, text, at = (cells.get(f"consent_{name}", "") for name in ("source", "text", "at"))
        if not (source or text or at):
            if self._consent_required:
                raise RowError("consent", "no consent: consent_source, consent_text and consent_at are needed")
            return None
        missing = [name for name, value in (("source", source), ("text", text), ("at", at)) if not value]
        if missing:
            if self._consent_required:
                raise RowError("consent", f"the consent has no {' and no '.join(missing)}")
            return None
        when = _time(at)
        if when is None:
            raise RowError("consent", f"consent_at {at[:40]!r} is not a time; write it as 2026-03-01T14:30:00+01:00")
        if when > self._now:
            raise RowError("consent", f"consent_at {at[:40]} is in the future")
        return {"source": _limited("consent_source", source), "text": _limited("consent_text", text)} | {
            "at": when.isoformat()
        }


def parsed_number(written: str, region: str, *, barred: bool = True) -> PhoneNumber:
    """A number that can be called.

    Args:
        written: as in the file.
        region: its country, where it has no country code.
        barred: whether those that cost the caller more are wrong.

    Raises:
        RowError: it is none, or one that costs the caller more.
    """
    text = written.strip().removeprefix("'").removeprefix("=").strip('"').strip()
    if not text:
        raise RowError("number", "there is no number")
    shown = repr(written[:40])
    if found := _AS_DECIMAL.fullmatch(text):
        text = found[1]
    if sum(sum(char.isdigit() for char in part) >= 7 for part in _BETWEEN.split(text[:250])) > 1:
        raise RowError("number", f"{shown} holds more than one number; keep one")
    if _SHORTENED.fullmatch(text):
        raise RowError("number", f"{shown} was shortened by a spreadsheet; make its column text and export it again")
    try:
        number = phonenumbers.parse(text[:250], region)
    except phonenumbers.NumberParseException:
        raise RowError("number", f"{shown} is not a telephone number") from None
    if not phonenumbers.is_valid_number(number):
        why = _WHY.get(phonenumbers.is_possible_number_with_reason(number), "")
        raise RowError("number", f"{shown} is {why}" if why else f"{shown} is no number that is in use")
    if number.extension:
        raise RowError("number", f"{shown} has an extension, which cannot be dialled")
    if barred and (kind := _BARRED.get(phonenumbers.number_type(number))):
        raise RowError("number", f"{shown} is {kind}")
    return number


def _address(cells: Mapping[str, str], home: str, country: str) -> tuple[str, tuple[str, ...]]:
    """(region, zones) of the address; where it says nothing, the country of the number, and no zones.

    Args:
        cells: of the row.
        home: country of the address; "" where it has none.
        country: of the number.
    """
    state, postcode, zone = (cells.get(name, "") for name in ("state", "postcode", "zone"))
    at = home or country
    part = ""
    if state:
        part = subdivision(at, state)
        if not part and subdivisions_of(at):
            raise RowError("zone", f"{at} has no part {state[:40]!r}, so its time zone is not known")
    elif postcode and at == "US":
        part = state_of_zip(postcode.zfill(5) if postcode.isdecimal() else postcode)
        if not part:
            raise RowError("zone", f"{postcode[:20]!r} is the postal code of no state, so its time zone is not known")
    region = f"{at}-{part}" if part else at
    zones = zones_of(region) if part else ()
    if not zones and home not in ("", country):
        zones = zones_of_country(home)
        if not zones:
            raise RowError("zone", f"no time zone is known for {home}")
    if zone:
        if not _is_zone(zone):
            raise RowError("zone", f"{zone[:40]!r} is not a time zone; write one such as America/New_York")
        zones = (zone,) if not zones or zone in zones else tuple(dict.fromkeys((zone, *zones)))
    return region, zones


@lru_cache(maxsize=1024)
def _is_zone(name: str) -> bool:
    if "/" not in name or name.startswith("Etc/"):
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _time(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _clean(column: str, value: str) -> str:
    if not value.isprintable() and _UNPRINTABLE.search(value):
        raise RowError("value", f"{column!r} holds a control character")
    return value.strip()


def _limited(column: str, value: str) -> str:
    if len(value) > MAX_VALUE:
        raise RowError("value", f"{column!r} has {len(value):,} characters; {MAX_VALUE:,} are kept at most")
    return value
