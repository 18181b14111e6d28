"""Where somebody is, by telephone number and by address: country, part of it, time zones."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumber
from phonenumbers.timezone import UNKNOWN_TIMEZONE, time_zones_for_number

_ZIP: Final = """
    005 NY, 006-007 PR, 008 VI, 009 PR, 010-027 MA, 028-029 RI, 030-038 NH, 039-049 ME, 050-054 VT, 055 MA, 056-059 VT,
    060-069 CT, 070-089 NJ, 100-149 NY, 150-196 PA, 197-199 DE, 200 DC, 201 VA, 202-205 DC, 206-219 MD, 220-246 VA,
    247-268 WV, 270-289 NC, 290-299 SC, 300-319 GA, 320-339 FL, 341-349 FL, 350-369 AL, 370-385 TN, 386-397 MS,
    398-399 GA, 400-427 KY, 430-459 OH, 460-479 IN, 480-499 MI, 500-528 IA, 530-549 WI, 550-567 MN, 569 DC, 570-577 SD,
    580-588 ND, 590-599 MT, 600-629 IL, 630-658 MO, 660-679 KS, 680-693 NE, 700-714 LA, 716-729 AR, 730-732 OK, 733 TX,
    734-749 OK, 750-799 TX, 800-816 CO, 820-831 WY, 832-838 ID, 840-847 UT, 850-865 AZ, 870-884 NM, 885 TX, 889-898 NV,
    900-961 CA, 967-968 HI, 970-979 OR, 980-994 WA, 995-999 AK"""
"""The first three digits of postal codes of the United States, and their states; military ones belong to none."""
_COUNTRIES: Final = {
    "usa": "US",
    "united states": "US",
    "united states of america": "US",
    "canada": "CA",
    "uk": "GB",
    "united kingdom": "GB",
    "great britain": "GB",
    "england": "GB",
    "germany": "DE",
    "deutschland": "DE",
    "france": "FR",
    "spain": "ES",
    "españa": "ES",
    "italy": "IT",
    "italia": "IT",
    "austria": "AT",
    "österreich": "AT",
    "switzerland": "CH",
    "schweiz": "CH",
    "suisse": "CH",
    "netherlands": "NL",
    "belgium": "BE",
    "ireland": "IE",
    "australia": "AU",
    "new zealand": "NZ",
    "mexico": "MX",
    "brazil": "BR",
}


def country_of(written: str) -> str:
    """``us``, ``USA`` or ``United States`` as ``US``; "" for no country that is known."""
    text = " ".join(written.split())
    code = text.upper()
    return code if code in phonenumbers.SUPPORTED_REGIONS else _COUNTRIES.get(text.casefold(), "")


def zones_of_number(number: PhoneNumber) -> tuple[str, ...]:
    """Every time zone that the number may be in; empty where that is not known."""
    return tuple(zone for zone in time_zones_for_number(number) if zone != UNKNOWN_TIMEZONE)


@lru_cache(maxsize=256)
def zones_of_country(country: str) -> tuple[str, ...]:
    """Every time zone of a country; empty where none is known."""
    table = resources.files("tzdata").joinpath("zoneinfo/zone.tab").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return tuple(row[2] for row in rows if row[0] == country)


def country_of_number(number: PhoneNumber) -> str:
    """``US``; "" for a number of no country."""
    country = phonenumbers.region_code_for_number(number) or ""
    return country if country in phonenumbers.SUPPORTED_REGIONS else ""


def state_of_zip(postcode: str) -> str:
    """The state of a postal code of the United States; "" where it has none."""
    digits = postcode.strip()[:5]
    return _states().get(digits[:3], "") if len(digits) == 5 and digits.isascii() and digits.isdecimal() else ""


@lru_cache(maxsize=1)
def _states() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in _ZIP.split(","):
        codes, state = entry.split()
        first, _, last = codes.partition("-")
        found |= {f"{code:03}": state for code in range(int(first), int(last or first) + 1)}
    return found
