"""Toll fraud: what a trunk may dial, however the number is written."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.signalling.dial_policy import begins, fits, kinds, plain, refusal
from appliance.signalling.trunks import TrunkRule


def cause(number: str, **rule: object) -> str:
    found = refusal(number, TrunkRule("carrier", **rule))  # type: ignore[arg-type]
    return found.cause if found else "allowed"


def test_nothing_may_be_dialled_by_default() -> None:
    found = refusal("+4930123456", TrunkRule("carrier"))
    assert found is not None
    assert (found.cause, found.text) == (
        "denied",
        "trunks.carrier may dial nothing; list what it may under trunks.carrier.allow_prefixes",
    )


@pytest.mark.parametrize(
    ("number", "prefix", "region", "allowed"),
    [
        ("+4930123456", "+49", None, True),
        ("+49 (30) 123-456", "+49", None, True),
        ("030123456", "+49", None, False),
        ("030123456", "+49", "DE", True),
        ("004930123456", "+49", "DE", True),
        ("01149301234567", "+49", "US", True),
        ("+43123456", "+49", "DE", False),
        ("200", "+49", "DE", False),
        ("030123456", "0", "DE", True),
        ("00441234567890", "0", "DE", False),
        ("00441234567890", "0", None, False),
        ("00441234567890", "0044", "DE", True),
        ("01144207946000", "0", "US", False),
        ("+4930123456", "0", "DE", False),
        ("200", "2", "DE", True),
        ("300", "2", "DE", False),
        ("alice", "alice", None, True),
        ("alice2", "alice", None, False),
        ("alice2", "alice*", None, True),
        ("alice", "2", None, False),
        ("alice", "*", None, True),
    ],
)
def test_prefixes(number: str, prefix: str, region: str | None, allowed: bool) -> None:
    assert fits(plain(number), prefix, region) is allowed
    assert cause(number, allow_prefixes=("999999", prefix), region=region) == ("allowed" if allowed else "prefix")


@pytest.mark.parametrize(
    ("number", "prefix", "region"),
    [
        ("+1011442071234567", "+1", "US"),
        ("+1 011 8816 12345678", "+1", "US"),
        ("+1011442071234567", "+1", None),
        ("1011442071234567", "1", "US"),
        ("10118816123", "+1", "US"),
        ("+4900442071234567", "+49", "DE"),
        ("+49008816123456", "+49", "DE"),
        ("+49 0 00 44 20 712345", "+49", "DE"),
        ("0049 0044 2071234567", "+49", "DE"),
        ("0049 0044 2071234567", "0049", "DE"),
        ("0049 0044 2071234567", "0049", None),
        ("4900442071234567", "49", "DE"),
        ("000442071234567", "+49", "DE"),
        ("+7 810 44 2071234", "+7", None),
        ("+49301234567890123456", "+49", "DE"),
    ],
)
def test_no_number_abroad_hides_behind_an_allowed_country_code(number: str, prefix: str, region: str | None) -> None:
    assert begins(plain(number), prefix, region), "else this tests nothing"
    assert cause(number, allow_prefixes=(prefix,), region=region) == "prefix"


@pytest.mark.parametrize("number", ["+390115691111", "+2250101234567", "+15550001", "+4930123456#5"])
def test_a_number_that_only_looks_so_is_dialled(number: str) -> None:
    """Numbers of Turin begin with 011, and a local one has fewer digits."""
    assert cause(number, allow_prefixes=(number[:3],)) == "allowed"


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
@pytest.mark.parametrize("kind", [phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE])
def test_ordinary_numbers_of_every_country_are_dialled_by_its_code(region: str, kind: int) -> None:
    example = phonenumbers.example_number_for_type(region, kind)
    if example is not None:
        number = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        assert cause(number, allow_prefixes=(f"+{example.country_code}",), region=region) == "allowed"


@pytest.mark.parametrize(
    ("number", "region", "expected"),
    [
        ("+1 011 8816 12345678", "US", "satellite"),
        ("+1 011 1 011 8816 12345678", None, "satellite"),
        ("+49008816123456", "DE", "satellite"),
        ("0049 00 1 900 5551234", "DE", "premium"),
        ("4900 8816 12345678", None, "satellite"),
        ("+19005551234", "DE", "premium"),
        ("19005551234", "US", "premium"),
        ("9005551234", "US", "premium"),
        ("0019005551234", "DE", "premium"),
        ("01119005551234", None, "premium"),
        ("09001123456", "DE", "premium"),
        ("+499001123456", None, "premium"),
        ("+4990011234567890", None, "premium"),
        ("+49900112345", None, "premium"),
        ("*31#09001123456", "DE", "premium"),
        ("*31*0900#3123456", "DE", "premium"),
        ("+97912345678", None, "premium"),
        ("0180 5 123456", "DE", "shared_cost"),
        ("+881612345678", None, "satellite"),
        ("00870773123456", "DE", "satellite"),
        ("011881612345678", None, "satellite"),
        ("011881612345678", "US", "satellite"),
        ("0118816123", "IT", "allowed"),
        ("112", "DE", "emergency"),
        ("110", "DE", "emergency"),
        ("911", "US", "emergency"),
        ("911", None, "emergency"),
        ("+1911", None, "emergency"),
        ("+49112", "US", "emergency"),
        ("100", "DE", "allowed"),
        ("100", None, "emergency"),
        ("+4930123456", None, "allowed"),
        ("+12025550123", "DE", "allowed"),
    ],
)
def test_costly_numbers_are_refused_however_they_are_written(number: str, region: str | None, expected: str) -> None:
    assert cause(number, allow_prefixes=("*",), region=region) == expected
    if expected != "allowed":
        assert cause(number, allow_prefixes=("*",), region=region, allow_kinds=(expected,)) == "allowed"


@pytest.mark.parametrize(
    "target",
    ["", " ", "+", "1900FLOWERS", "tel:110", "a@b", "a;b", "%31", "٠٩٠٠", "1\r\n2", "+1+900", "1" * 33, "a" * 65, "¹²"],
)
def test_what_is_neither_number_nor_name_is_dialled_by_no_trunk(target: str) -> None:
    assert cause(target, allow_prefixes=("*",), allow_kinds=("premium", "emergency")) == "malformed"


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_no_premium_example_of_any_country_gets_through(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.PREMIUM_RATE)
    if example is None:
        return
    number = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    written = {
        number,
        number[1:],
        "00" + number[1:],
        phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.INTERNATIONAL),
        phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL),
    }
    for text in written:
        found = cause(text, allow_prefixes=("*",), region=region)
        assert found != "allowed", f"{text} in {region} is {found}"
    for surplus in ("0", "12", "999"):
        if not phonenumbers.is_valid_number(phonenumbers.parse(number + surplus)):
            assert cause(number + surplus, allow_prefixes=("*",), region=region) != "allowed", number + surplus


@given(st.text(max_size=80), st.sampled_from([None, "DE", "US", "IN", "ZZ"]))
def test_any_text_at_all(number: str, region: str | None) -> None:
    rule = TrunkRule("x", allow_prefixes=("*",), region=region)
    found = refusal(number, rule)
    if found is None:
        assert plain(number).isascii()
        assert not kinds(plain(number), region) or plain(number)[0].isalpha()
