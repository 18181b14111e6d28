"""Whatever an operator writes below ``match`` is understood, or refused in words."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from tests.dialplan.test_matcher import arrival

_text = st.text("monfrisat,- 0123459:.DEBUS\u2013\u0663*+()[]{}|\\^$?x", max_size=20) | st.text(max_size=20)
_value = _text | st.integers() | st.booleans() | st.none() | st.lists(_text, max_size=2)
_pattern = _value | st.dictionaries(st.sampled_from(("regex", "file", "column", "x")), _value, max_size=2)
_match = st.fixed_dictionaries(
    {},
    optional={
        "trunk": _value,
        "called": _pattern | st.lists(_pattern, max_size=3),
        "headers": st.dictionaries(_text, _pattern, max_size=2),
        "language": _value,
        "hours": st.dictionaries(_text | st.sampled_from(("mon", "sat-sun", "holidays")), _value, max_size=2) | _value,
        "holidays": _value | st.sampled_from(("DE", "US-CA", "12-24..01-02")),
        "closed": _value,
        "calls_below": _value,
        "load_below": _value,
    },
)


@settings(max_examples=200, deadline=None)
@given(_match, _text)
def test_anything_can_be_written(match: dict[str, Any], number: str) -> None:
    try:
        line = Line.model_validate({"name": "x", "match": match, "refuse": 404})
    except ValidationError:
        return
    call = arrival(called=number, calling=number, headers=dict.fromkeys(match.get("headers", {}), number))
    routing = Routing([line])
    assert (routing.decide(call) is line) is (routing.why_not(line, call) == ())
