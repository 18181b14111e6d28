"""What each key of ``match`` asks of a call, and how it says that a call is otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from appliance.dialplan.matcher import Arrival
from appliance.dialplan.numbers import NumberSet
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
"""A Wednesday."""


def line(name: str = "x", /, region: str | None = None, timezone: str | None = None, **wanted: Any) -> Line:
    data = {"name": name, "match": wanted, "region": region, "timezone": timezone}
    return Line.model_validate({**data, "flow": {"bye": {"hang_up": "Goodbye."}}})


def arrival(trunk: str = "pbx", called: str = "+49301234", calling: str = "alice.smith", **more: Any) -> Arrival:
    return Arrival(trunk, called, calling, **{"at": NOON, **more})


def answers(wanted: Line, call: Arrival, **routing: Any) -> bool:
    return Routing([wanted], **routing).decide(call) is not None


def why(wanted: Line, call: Arrival, **routing: Any) -> str:
    return "; ".join(Routing([wanted], **routing).why_not(wanted, call))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, True),
        ({"called": "*"}, True),
        ({"trunk": "*"}, True),
        ({"trunk": "pbx"}, True),
        ({"trunk": ["a", "pbx"]}, True),
        ({"trunk": "PBX"}, False),
        ({"called": "+49301234"}, True),
        ({"called": "+49 (30) 12-34"}, True),
        ({"called": "+4930123"}, False),
        ({"called": "+4930*"}, True),
        ({"called": "+49 30*"}, True),
        ({"called": "4930*"}, False),
        ({"called": ["1", "+49*"]}, True),
        ({"calling": "alice.smith"}, True),
        ({"calling": "alicesmith"}, False),
        ({"calling": "alice*"}, True),
        ({"calling": "Alice*"}, False),
        ({"calling": {"regex": "(alice|bob)[.]sm.*"}}, True),
        ({"calling": {"regex": "alice"}}, False),
        ({"calling": {"regex": "(?i)ALICE.SMITH"}}, True),
        ({"called": [{"regex": r"\+44.*"}, {"regex": r"\+49(30|40)\d+"}]}, True),
        ({"called": ["1", {"regex": r"\+49\d{3}"}]}, False),
        ({"trunk": "pbx", "called": "+49*", "calling": "bob"}, False),
    ],
)
def test_trunks_and_numbers(wanted: dict[str, Any], expected: bool) -> None:
    assert answers(line(**wanted), arrival()) is expected


@pytest.mark.parametrize(
    ("called", "region", "pattern", "expected"),
    [
        ("0301234567", "DE", "+4930*", True),
        ("030 123 45 67", "DE", "+49301234567", True),
        ("+49301234567", "DE", "030*", True),
        ("+49 (0)30 1234567", "", "+4930*", True),
        ("0049301234567", "DE", "+4930*", True),
        ("49301234567", "DE", "+4930*", True),
        ("0301234567", "", "+4930*", False),
        ("0301234567", "", "030*", True),
        ("100", "DE", "+49*", False),
        ("100", "DE", "100", True),
        ("110", "DE", "+49*", False),
        ("+43123456789", "DE", "0*", False),
        ("3125551234", "US", "+1312*", True),
        ("alice", "DE", "alice", True),
        ("0301234567", "DE", {"regex": r"\+4930\d+"}, True),
    ],
)
def test_numbers_without_country_code_belong_to_a_region(
    called: str, region: str, pattern: Any, expected: bool
) -> None:
    call = arrival(called=called)
    assert answers(line(called=pattern), call, region=region) is expected
    assert answers(line(called=pattern, region=region or None), call) is expected
    assert answers(line(called=pattern), call, trunk_regions={"pbx": region}, region="FR") is expected or not region


def test_the_region_of_the_line_goes_before_those_of_the_trunk_and_of_the_box() -> None:
    call = arrival(called="0142685300")
    for region in ({"trunk_regions": {"pbx": "DE"}}, {"region": "DE"}):
        assert answers(line(called="+331*", region="FR"), call, **region)
        assert not answers(line(called="+331*"), call, **region)
    assert answers(line(called="+331*"), call, trunk_regions={"pbx": "FR"}, region="DE")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"verstat": "TN-Validation-Passed"}, True),
        ({"verstat": ["TN-Validation-Failed", ""]}, False),
        ({"diverted": "+4930*"}, True),
        ({"diverted": "200"}, False),
        ({"diverted": {"regex": "3.*"}}, True),
        ({"headers": {"x-account": "gold*"}}, True),
        ({"headers": {"X-Account": ["silver", "gold-7"], "X-Other": "1"}}, False),
        ({"headers": {"X-Account": {"regex": "(gold|silver)-[0-9]"}}}, True),
        ({"headers": {"X-Number": "+4930*"}}, True),
    ],
)
def test_what_a_call_brings_beside_its_numbers(wanted: dict[str, Any], expected: bool) -> None:
    headers = {"X-ACCOUNT": "gold-7", "x-number": "+49 (30) 1"}
    call = arrival(diverted=("+49 30 1", "300"), verstat="TN-Validation-Passed", headers=headers)
    assert answers(line(**wanted), call) is expected


def test_a_call_without_any_of_it_matches_only_what_asks_for_nothing() -> None:
    call = arrival()
    assert why(line(verstat="TN-Validation-Passed"), call) == "verstat '' is not 'TN-Validation-Passed'"
    assert why(line(diverted="2*"), call) == "not diverted from 2*"
    assert why(line(headers={"X-A": "*"}), call) == "header X-A is missing, not *"
    assert answers(line(verstat=""), call)


@pytest.mark.parametrize(
    ("accept", "trunk", "calling", "wanted", "expected"),
    [
        ("de-CH, fr;q=0.8", "", "", "de", True),
        ("de-CH, fr;q=0.8", "", "", "de-at", False),
        ("de-CH, fr;q=0.8", "", "", "fr", False),
        ("de, fr", "", "", "fr", True),
        ("de;q=0.5, fr;q=0.9, *", "", "", "fr", True),
        ("de;q=nonsense", "en", "", "en", True),
        ("fr", "en", "+49301234567", "fr", True),
        ("", "en-gb", "+49301234567", "en", True),
        ("", "en-gb", "+49301234567", "de", False),
        ("", "", "+41446681800", "it", True),
        ("", "", "+41446681800", "en", False),
        ("", "", "0301234567", ["tr", "de"], True),
        ("", "", "anonymous", "de", False),
        ("", "", "", "en", False),
    ],
)
def test_the_language_a_call_asks_for(accept: str, trunk: str, calling: str, wanted: Any, expected: bool) -> None:
    call = arrival(calling=calling, accept_language=accept)
    settings: dict[str, Any] = {"trunk_languages": {"pbx": trunk} if trunk else {}, "region": "DE"}
    assert answers(line(language=wanted), call, **settings) is expected
    if not expected:
        assert "language" in why(line(language=wanted), call, **settings)


def test_load() -> None:
    few = line(calls_below=2)
    assert answers(few, arrival())
    assert answers(few, arrival(on_line={"x": 1, "other": 9}))
    assert why(few, arrival(on_line={"x": 2})) == "it has 2 calls, not fewer than 2"
    assert answers(line(load_below=80), arrival(load=79.5))
    assert why(line(load_below=80), arrival(load=80.0)) == "80 % of the box's calls are on, not less than 80 %"


def test_numbers_of_a_file() -> None:
    wanted = line(calling=["5", {"file": "vip.csv", "column": "number"}])
    lists = {("x", "vip.csv", "number"): NumberSet(["+49 30 1*", "alice"])}
    assert answers(wanted, arrival(calling="alice"), lists=lists)
    assert answers(wanted, arrival(calling="030 1234567"), lists=lists, region="DE")
    assert why(wanted, arrival(calling="bob"), lists=lists) == "calling 'bob' is not 5 or in vip.csv"
    assert not answers(wanted, arrival(calling="alice"))


def test_many_patterns_are_not_all_shown() -> None:
    assert why(line(called=[str(n) for n in range(10, 20)]), arrival(called="1")) == (
        "called '1' is not 10 or 11 or 12 or 13 or one of 6 more"
    )
    shown = why(line(called="+4940*"), arrival(called="030 1234567"), region="DE")
    assert shown == "called '030 1234567' (+49301234567) is not +4940*"


@pytest.mark.parametrize(
    ("wanted", "every"),
    [
        ({}, True),
        ({"called": "*", "trunk": "*"}, True),
        ({"called": "+*"}, False),
        ({"called": {"regex": ".*"}}, False),
        ({"trunk": "local"}, False),
        ({"language": "de"}, False),
        ({"hours": {"mon-sun": "00:00-24:00"}}, False),
        ({"holidays": "DE"}, False),
        ({"calls_below": 1}, False),
        ({"load_below": 50}, False),
    ],
)
def test_catching_all(wanted: dict[str, Any], every: bool) -> None:
    assert line(**wanted).catches_all == every


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"called": {"regex": r"(\d+)\1"}}, "is not a regular expression that can be run here: invalid escape"),
        ({"called": {"regex": "+49.*"}}, "no argument for repetition operator"),
        ({"called": {"regex": "a)|(b"}}, "is not a regular expression"),
        ({"called": {"regex": "(?=x)"}}, "is not a regular expression"),
        ({"called": {"regex": "(((a{100}){100}){100})"}}, "is not a regular expression"),
        ({"called": "+49*30"}, "is not a number or a prefix"),
        ({"called": {"prefix": "+49"}}, "is neither a number nor a list of them"),
        ({"called": {"regex": "a", "file": "b"}}, "Extra inputs"),
        ({"called": []}, "at least 1"),
        ({"hours": {"mon-fry": "09:00-17:00"}}, "'fry' is not a day of the week"),
        ({"hours": {"mon": "9 to 5"}}, "'9 to 5' is not a span of time"),
        ({"hours": {"mon": "09:00-25:00"}}, "is not a span of time"),
        ({"hours": {"mon": "09:00-09:00"}}, "begins when it ends"),
        ({"holidays": "XX"}, "there is no calendar of holidays 'XX'"),
        ({"holidays": "DE-XX"}, "DE has no part 'XX'"),
        ({"holidays": "2026-02-30"}, "'2026-02-30' is not a day"),
        ({"holidays": "2026-12-24..01-02"}, "has a year on one side only"),
        ({"holidays": "2026-12-24..2026-12-01"}, "ends before it begins"),
        ({"closed": True}, "closed has no effect without hours or holidays"),
        ({"hours": {"holidays": "10:00-12:00"}}, "hours.holidays has no effect without holidays"),
        ({"language": "German"}, "'German' is not the code of a language"),
        ({"calls_below": 0}, "greater than or equal to 1"),
        ({"load_below": 120}, "less than or equal to 100"),
    ],
)
def test_what_no_line_can_ask_for(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        line(**wanted)
    assert said in str(raised.value)
