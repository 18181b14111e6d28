"""Which line answers, and why the others do not."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.dialplan.matcher import Circumstances, match
from appliance.dialplan.schema import Line


def line(name: str, **wanted: Any) -> Line:
    return Line.model_validate({"name": name, "match": wanted, "flow": {"bye": {"hang_up": "Goodbye."}}})


@pytest.mark.parametrize(
    ("wanted", "answers"),
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
        ({"trunk": "pbx", "called": "+49*", "calling": "bob"}, False),
    ],
)
def test_what_matches(wanted: dict[str, Any], answers: bool) -> None:
    found, _ = match([line("x", **wanted)], "pbx", "+49301234", "alice.smith")
    assert (found is not None) == answers


def test_the_first_that_matches_answers_and_the_others_say_why_not() -> None:
    lines = [line("a", trunk="t"), line("b", called=["1", "2*"]), line("c", calling="3"), line("d"), line("e")]
    found, reasons = match(lines, "local", "300", "anonymous")
    assert found is lines[3]
    assert reasons == (
        "line 'a': trunk 'local' is not t",
        "line 'b': called '300' is not 1 or 2*",
        "line 'c': calling 'anonymous' is not 3",
    )
    assert match(lines[:1], "local", "300", "") == (None, ("line 'a': trunk 'local' is not t",))


@pytest.mark.parametrize(
    ("wanted", "every"),
    [({}, True), ({"called": "*", "trunk": "*"}, True), ({"called": "+*"}, False), ({"trunk": "local"}, False)],
)
def test_catching_all(wanted: dict[str, Any], every: bool) -> None:
    assert line("x", **wanted).catches_all == every


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"verstat": "TN-Validation-Passed"}, True),
        ({"verstat": ["TN-Validation-Failed", ""]}, False),
        ({"diverted": "+4930*"}, True),
        ({"diverted": "200"}, False),
        ({"headers": {"x-account": "gold*"}}, True),
        ({"headers": {"X-Account": ["silver", "gold-7"], "X-Other": "1"}}, False),
    ],
)
def test_what_a_call_brings_beside_its_numbers(wanted: dict[str, object], expected: bool) -> None:
    beside = Circumstances(("+49 30 1", "300"), "TN-Validation-Passed", {"X-ACCOUNT": "gold-7"})
    lines = [line("a", **wanted)]
    assert (match(lines, "t", "1", "2", beside)[0] is not None) is expected


def test_a_call_without_any_of_it_matches_only_what_asks_for_nothing() -> None:
    lines = [line("a", verstat="TN-Validation-Passed"), line("b", diverted="2*"), line("c", headers={"X-A": "*"})]
    assert match(lines, "t", "1", "2") == (
        None,
        (
            "line 'a': verstat '' is not 'TN-Validation-Passed'",
            "line 'b': not diverted from 2*",
            "line 'c': header X-A is None, not *",
        ),
    )
    assert match([line("d", verstat="")], "t", "1", "2")[0] is not None
