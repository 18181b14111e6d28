"""Parts of countries, and the time zones that people there may be in. PURE.

Where a part has several zones all are given: a call is made only where it is no wrong time in any of them. The parts
are those of ISO 3166-2; of countries that are not listed here, and have one zone, the country's own holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import phonenumbers

_ZONES: Final[Mapping[str, Mapping[str, str]]] = {
    "US": {
        "America/New_York": "CT DC DE GA MA MD ME NC NH NJ NY OH PA RI SC VA VT WV",
        "America/Detroit America/Menominee": "MI",
        "America/New_York America/Chicago": "FL TN",
        "America/Indiana/Indianapolis America/Chicago": "IN",
        "America/New_York America/Kentucky/Louisville America/Chicago": "KY",
        "America/Chicago": "AL AR IA IL LA MN MO MS OK WI",
        "America/Chicago America/Denver": "KS NE ND SD TX",
        "America/Denver": "CO MT NM UT WY",
        "America/Phoenix America/Denver": "AZ",
        "America/Boise America/Los_Angeles": "ID",
        "America/Los_Angeles America/Denver": "NV",
        "America/Los_Angeles America/Boise": "OR",
        "America/Los_Angeles": "CA WA",
        "America/Anchorage America/Adak": "AK",
        "Pacific/Honolulu": "HI",
        "America/Puerto_Rico": "PR",
        "America/St_Thomas": "VI",
        "Pacific/Guam": "GU",
        "Pacific/Saipan": "MP",
        "Pacific/Pago_Pago": "AS",
    },
    "CA": {
        "America/St_Johns America/Goose_Bay": "NL",
        "America/Halifax": "NS PE",
        "America/Moncton": "NB",
        "America/Toronto America/Blanc-Sablon": "QC",
        "America/Toronto America/Winnipeg America/Atikokan": "ON",
        "America/Winnipeg": "MB",
        "America/Regina America/Edmonton": "SK",
        "America/Edmonton": "AB NT",
        "America/Vancouver America/Edmonton America/Fort_Nelson": "BC",
        "America/Whitehorse": "YT",
        "America/Iqaluit America/Rankin_Inlet America/Cambridge_Bay America/Atikokan": "NU",
    },
    "AU": {
        "Australia/Sydney": "ACT",
        "Australia/Sydney Australia/Broken_Hill Australia/Lord_Howe": "NSW",
        "Australia/Melbourne": "VIC",
        "Australia/Brisbane": "QLD",
        "Australia/Adelaide": "SA",
        "Australia/Perth Australia/Eucla": "WA",
        "Australia/Hobart": "TAS",
        "Australia/Darwin": "NT",
    },
}
_US_NAMES: Final = """
    AL Alabama, AK Alaska, AZ Arizona, AR Arkansas, CA California, CO Colorado, CT Connecticut, DE Delaware,
    DC District of Columbia, FL Florida, GA Georgia, HI Hawaii, ID Idaho, IL Illinois, IN Indiana, IA Iowa, KS Kansas,
    KY Kentucky, LA Louisiana, ME Maine, MD Maryland, MA Massachusetts, MI Michigan, MN Minnesota, MS Mississippi,
    MO Missouri, MT Montana, NE Nebraska, NV Nevada, NH New Hampshire, NJ New Jersey, NM New Mexico, NY New York,
    NC North Carolina, ND North Dakota, OH Ohio, OK Oklahoma, OR Oregon, PA Pennsylvania, PR Puerto Rico,
    RI Rhode Island, SC South Carolina, SD South Dakota, TN Tennessee, TX Texas, UT Utah, VT Vermont, VA Virginia,
    WA Washington, WV West Virginia, WI Wisconsin, WY Wyoming, VI Virgin Islands, GU Guam, AS American Samoa,
    MP Northern Mariana Islands"""
_CA_NAMES: Final = """
    AB Alberta, BC British Columbia, MB Manitoba, NB New Brunswick, NL Newfoundland and Labrador, NS Nova Scotia,
    NT Northwest Territories, NU Nunavut, ON Ontario, PE Prince Edward Island, QC Quebec, SK Saskatchewan, YT Yukon"""
_AU_NAMES: Final = """
    ACT Australian Capital Territory, NSW New South Wales, NT Northern Territory, QLD Queensland, SA South Australia,
    TAS Tasmania, VIC Victoria, WA Western Australia"""
_PART: Final = re.compile(r"[A-Z0-9]{1,3}")


def _by_name(listed: str) -> dict[str, str]:
    pairs = (one.strip().partition(" ") for one in listed.split(","))
    return {name.lower(): code for code, _, name in pairs}


_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "US": _by_name(_US_NAMES),
    "CA": _by_name(_CA_NAMES),
    "AU": _by_name(_AU_NAMES),
}
_OF_PART: Final[Mapping[str, tuple[str, ...]]] = {
    f"{country}-{part}": tuple(zones.split())
    for country, listed in _ZONES.items()
    for zones, parts in listed.items()
    for part in parts.split()
}


def is_subdivision(region: str) -> bool:
    """Whether ``region`` is written as a country (``US``), or a part of one (``US-FL``)."""
    country, dash, part = region.partition("-")
    return country in phonenumbers.SUPPORTED_REGIONS and (not dash or bool(_PART.fullmatch(part)))


@lru_cache(maxsize=256)
def subdivisions_of(country: str) -> tuple[str, ...]:
    """The parts of a country that are known here; empty where none are."""
    return tuple(sorted(key.partition("-")[2] for key in _OF_PART if key.startswith(f"{country}-")))


def subdivision(country: str, written: str) -> str:
    """``Florida``, ``FL`` or ``US-FL`` as ``FL``; "" where the country has no such part.

    Of a country whose parts are not known here, a code is taken as it is written.
    """
    text = " ".join(written.split())
    code = text.upper().removeprefix(f"{country}-")
    known = subdivisions_of(country)
    if not known:
        return code if _PART.fullmatch(code) else ""
    return code if code in known else _NAMES.get(country, {}).get(text.lower(), "")


def zones_of(region: str) -> tuple[str, ...]:
    """Every time zone that people in ``region`` may be in; empty where that is not known."""
    return _OF_PART.get(region, ())
