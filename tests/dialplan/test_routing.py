"""The first line that fits answers, whatever the index does; and what is told of those before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.dialplan.matcher import Arrival
from appliance.dialplan.numbers import NumberSet
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from tests.dialplan.test_matcher import arrival, line

NUMBERS = (
    "+49301234567", "0301234567", "030 1234567", "49301234567", "+4930", "+331", "0142685300", "+33142685300", "100",
    "1001", "10", "110", "alice", "alicia", "", "anonymous", "+1 312 555 1234", "3125551234",
)  # fmt: skip
REGIONS = ("", "DE", "FR", "US")
TRUNKS = ("a", "b", "c")


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_patterns = st.lists(
    st.sampled_from(NUMBERS[:13])
    | st.sampled_from(
        ("*", "+*", "+49*", "+4930*", "03*", "0*", "1*", "10*", "100*", "al*", "alic*", "+33*", "+1 (312)*")
    )
    | st.sampled_from([{"regex": regex} for regex in (r"\+49.*", "10+", "[+]33(1|2).*", "(?i)AL.*", ".*", "1|al.*")])
    | st.just({"file": "list.txt"}),
    min_size=1,
    max_size=3,
).map(lambda found: [one for one in found if one != ""] or ["*"])

_matches = st.fixed_dictionaries(
    {},
    optional={
        "trunk": st.lists(st.sampled_from((*TRUNKS, "*")), min_size=1, max_size=2),
        "called": _patterns,
        "calling": _patterns,
        "diverted": _patterns,
        "headers": st.dictionaries(st.sampled_from(("X-A", "x-b")), _patterns, max_size=1),
        "verstat": st.sampled_from(("", "TN-Validation-Passed")),
        "language": st.sampled_from(("de", "fr", "en")),
        "hours": st.sampled_from(({"mon-fri": "09:00-17:00"}, {"sat": "22:00-02:00"})),
        "calls_below": st.integers(1, 3),
        "load_below": st.sampled_from((10, 90)),
    },
)
_lines = st.lists(st.tuples(_matches, st.sampled_from(REGIONS)), max_size=12)
_arrivals = st.builds(
    Arrival,
    trunk=st.sampled_from((*TRUNKS, "d")),
    called=st.sampled_from(NUMBERS),
    calling=st.sampled_from(NUMBERS),
    at=st.integers(0, 7 * 24).map(lambda hours: datetime(2026, 3, 2, tzinfo=UTC) + timedelta(hours=hours)),
    diverted=st.lists(st.sampled_from(NUMBERS), max_size=2).map(tuple),
    headers=st.dictionaries(st.sampled_from(("x-a", "X-B")), st.sampled_from(NUMBERS), max_size=2),
    verstat=st.sampled_from(("", "TN-Validation-Passed")),
    accept_language=st.sampled_from(("", "de", "fr, en;q=0.5")),
    on_line=st.dictionaries(st.sampled_from([f"l{n}" for n in range(4)]), st.integers(0, 4), max_size=3),
    load=st.sampled_from((0.0, 50.0, 95.0)),
)


@settings(max_examples=150, deadline=None)
@given(_lines, st.lists(_arrivals, min_size=1, max_size=4), st.sampled_from(REGIONS), st.sampled_from(REGIONS))
def test_the_index_never_changes_the_answer(
    wanted: list[tuple[dict[str, Any], str]], arrivals: list[Arrival], region: str, trunk_region: str
) -> None:
    lines = [line(f"l{number}", region=own or None, **match) for number, (match, own) in enumerate(wanted)]
    lists = {(f"l{number}", "list.txt", ""): NumberSet(["+4930*", "alice", "10"]) for number in range(0, len(lines), 2)}
    routing = Routing(lines, lists=lists, region=region, trunk_regions={"a": trunk_region} if trunk_region else {})
    for call in arrivals:
        found = routing.decide_in_order(call)
        assert routing.decide(call) is found
        told = routing.explain(call)
        assert told.line is found
        assert told.tried == (lines.index(found) if found is not None else len(lines)) == sum(told.counts.values())


def test_the_first_that_fits_answers_and_the_others_say_why_not() -> None:
    lines = [line("a", trunk="t"), line("b", called=["1", "2*"]), line("c", calling="3"), line("d"), line("e")]
    routing = Routing(lines)
    call = arrival(trunk="local", called="300", calling="anonymous")
    told = routing.explain(call)
    assert told.line is routing.decide(call) is lines[3]
    assert {str(passed) for passed in told.nearest} == {
        "line 'a': trunk 'local' is not t",
        "line 'b': called '300' is not 1 or 2*",
        "line 'c': calling 'anonymous' is not 3",
    }
    assert routing.passed_over(call, 2) == [routing.passed_over(call, 9)[0], routing.passed_over(call, 9)[1]]
    assert [passed.line.name for passed in routing.passed_over(call, 9)] == ["a", "b", "c"]
    assert Routing(lines[:1]).decide(call) is None


def test_of_many_the_nearest_are_told_and_the_rest_counted() -> None:
    lines = [line(f"n{n}", called=f"+4930{n:04}", trunk="pbx") for n in range(1000)]
    lines.insert(500, line("closed", called="+49301234", hours={"sun": "10:00-12:00"}))
    told = Routing(lines).explain(arrival(trunk="x", called="+493012345"), nearest=3)
    assert (told.line, told.tried, len(told.nearest)) == (None, 1001, 3)
    assert told.nearest[0].line.name == "closed"
    assert told.counts == {"trunk": 1000, "called": 1}
    near = Routing(lines).explain(arrival(called="+49301234"), nearest=2)
    assert str(near.nearest[0]) == "line 'closed': Wed 2026-03-04 12:00 (CET) is not within sun 10:00-12:00"


def test_lines_are_filed_under_what_tells_them_apart() -> None:
    lines: list[Line] = [line(f"c{n}", called="+49301234", calling=f"+4940{n:04}*") for n in range(300)]
    lines += [line(f"t{n}", called="+49301234", trunk=f"t{n}") for n in range(300)]
    lines += [line(f"r{n}", called={"regex": rf"\+33{n:03}(1|2)\d*"}) for n in range(300)]
    routing = Routing([*lines, line("all")])
    for call, name, tries in (
        (arrival(called="+49301234", calling="+4940000912"), "c9", 2),
        (arrival(trunk="t7", called="+49301234"), "t7", 2),
        (arrival(called="+332991"), "r299", 2),
        (arrival(called="+1"), "all", 1),
    ):
        assert (found := routing.decide(call)) is not None
        assert found.name == name
        assert routing.candidates(call) <= tries
