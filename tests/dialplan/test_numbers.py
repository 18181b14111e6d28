"""Numbers as peers write them: never an error, and never another number."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.dialplan.languages import preferred, spoken_in
from appliance.dialplan.numbers import NumberSet, plain_number, region_of, spellings

_digits = st.text("0123456789+-() .*\u0663\uff11x", max_size=30)


@settings(deadline=None)
@given(_digits | st.text(max_size=40), st.sampled_from(("", "DE", "US", "FR", "IT")))
def test_anything_can_be_a_number(number: str, region: str) -> None:
    found = spellings(number, region)
    assert found[0] == plain_number(number)
    assert len(found) == len(set(found)) <= 3
    assert all(plain_number(spelt) == spelt for spelt in found)
    assert region_of(number, region) in ("", *phonenumbers.SUPPORTED_REGIONS)
    for spelt in found[1:]:
        assert set(spellings(spelt, region)) <= set(found) | {found[1]}


@pytest.mark.parametrize("region", ["DE", "US", "GB", "FR", "IT", "BR", "JP", "IN"])
def test_a_number_is_the_same_however_it_is_dialled(region: str) -> None:
    example = phonenumbers.example_number(region)
    international, national, e164 = (
        phonenumbers.format_number(example, form)
        for form in (
            phonenumbers.PhoneNumberFormat.INTERNATIONAL,
            phonenumbers.PhoneNumberFormat.NATIONAL,
            phonenumbers.PhoneNumberFormat.E164,
        )
    )
    for written in (international, national, e164, phonenumbers.format_out_of_country_calling_number(example, region)):
        assert e164 in spellings(written, region), written
        assert region_of(written, region) in (region, *phonenumbers.COUNTRY_CODE_TO_REGION_CODE[example.country_code])


def test_whole_numbers_and_beginnings() -> None:
    numbers = NumberSet(["+49 30*", "100", "al*", "*1"])
    assert [text for text in ("+4930", "+49301", "+49", "100", "1001", "alice", "*1", "") if numbers.holds(text)] == [
        "+4930", "+49301", "100", "alice", "*1",
    ]  # fmt: skip
    assert len(numbers) == 4
    assert not NumberSet([]).holds("")


@settings(deadline=None)
@given(st.text("defrn-,;q=01.5 *\t", max_size=60) | st.text(max_size=40))
def test_any_value_of_accept_language_can_be_read(value: str) -> None:
    assert all(name and name == name.lower() for name in preferred(value))


@pytest.mark.parametrize(
    ("value", "first"),
    [
        ("", ()),
        ("*", ()),
        ("de", ("de",)),
        ("da, en-GB;q=0.8, en;q=0.7", ("da",)),
        ("en;q=0.7, fr ; q = 0.9", ("fr",)),
        ("en;q=0, de;q=2, fr;q=nan", ()),
        ("DE-at, fr", ("de-at", "fr")),
    ],
)
def test_what_a_caller_prefers(value: str, first: tuple[str, ...]) -> None:
    assert preferred(value) == first


def test_every_country_has_a_language() -> None:
    assert {region for region in phonenumbers.SUPPORTED_REGIONS if not spoken_in(region)} == set()
    assert spoken_in("CH") == ("de", "fr", "it")
