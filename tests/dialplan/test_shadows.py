"""Lines that never answer are found, and no other is taken for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.routing import Routing
from appliance.dialplan.shadows import shadows
from tests.dialplan.test_matcher import arrival, line


@pytest.mark.parametrize(
    ("above", "below", "hidden"),
    [
        ({"called": "1*"}, {"called": "12"}, True),
        ({"called": "1*"}, {"called": ["12", "1*", "13*"]}, True),
        ({"called": "1*"}, {"called": ["12", "2"]}, False),
        ({"called": "12"}, {"called": "1*"}, False),
        ({"called": "12*"}, {"called": "1*"}, False),
        ({"called": "+49 30*"}, {"called": "+49301"}, True),
        ({"called": ["1", "2"]}, {"called": ["2", "1"], "calling": "5"}, True),
        ({"called": "1", "calling": "5*"}, {"called": "1", "calling": "56"}, True),
        ({"called": "1", "calling": "5*"}, {"called": "1"}, False),
        ({"trunk": "a"}, {"trunk": "a", "called": "1"}, True),
        ({"trunk": ["a", "b"]}, {"trunk": "a", "language": "de"}, True),
        ({"trunk": "a"}, {"called": "1"}, False),
        ({"trunk": "*", "called": "*", "calling": "5*"}, {"calling": "5*"}, True),
        ({"called": "1", "hours": {"mon": "9-17"}}, {"called": "1"}, False),
        ({"called": "1", "calls_below": 5}, {"called": "1"}, False),
        ({"called": "1"}, {"called": {"regex": "1"}}, False),
        ({"called": {"regex": "1"}}, {"called": {"regex": "1"}}, False),
        ({"calling": "5"}, {}, False),
    ],
)
def test_what_hides_a_line(above: dict[str, Any], below: dict[str, Any], hidden: bool) -> None:
    first, second = line("above", **above), line("below", **below)
    assert list(shadows([first, second])) == ([(second, first)] if hidden else [])


def test_numbers_of_another_country_are_others() -> None:
    assert list(shadows([line("a", called="030*", region="DE"), line("b", called="0301", region="FR")])) == []


_wanted = st.fixed_dictionaries(
    {},
    optional={
        "trunk": st.lists(st.sampled_from(("a", "b", "*")), min_size=1, max_size=2),
        "called": st.lists(st.sampled_from(("1", "12", "1*", "12*", "*", "2*", "al*")), min_size=1, max_size=2),
        "calling": st.lists(st.sampled_from(("1", "12", "1*", "*")), min_size=1, max_size=2),
        "calls_below": st.just(1),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_wanted, max_size=8))
def test_what_is_hidden_answers_no_call(wanted: list[dict[str, Any]]) -> None:
    lines = [line(f"l{number}", **match) for number, match in enumerate(wanted)]
    hidden = {shadow.line.name for shadow in shadows(lines)}
    routing = Routing(lines)
    for trunk in "abc":
        for called in ("1", "12", "123", "2", "alice", ""):
            for calling in ("1", "12", "5"):
                for busy in ({}, {one.name: 1 for one in lines}):
                    found = routing.decide(arrival(trunk, called, calling, on_line=busy))
                    assert found is None or found.name not in hidden


@pytest.mark.usefixtures("in_tmp_path")
def test_the_operator_is_warned() -> None:
    Path("a.yaml").write_text(
        "defaults: {flow: {bye: {hang_up: Bye}}}\n"
        "lines:\n"
        "- {name: a, match: {called: 1*}}\n"
        "- name: b\n"
        "  match: {called: 10}\n"
        "- {name: all}\n"
    )
    assert [str(warning) for warning in load_dialplans([Path("a.yaml")]).warnings] == [
        "a.yaml:5: lines.1.match: line 'b' never answers: 'a' above it takes all its calls; "
        "move it up, or ask for something else"
    ]
