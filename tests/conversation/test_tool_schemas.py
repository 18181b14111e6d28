"""Arguments are held against a tool's schema in bounded time, whatever expressions stand in it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from appliance.conversation.tool_schemas import check, validator_of
from appliance.errors import ToolError

LONG = "a" * 7000 + "!"
NASTY = "^(a+)+$"


def mistakes(schema: dict[str, Any], arguments: Any) -> str:
    try:
        check(validator_of(msgspec.json.encode({"type": "object", **schema})), arguments)
    except ToolError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("schema", "right", "wrong", "told"),
    [
        (
            {"properties": {"day": {"type": "string", "pattern": "^[a-z]+day$"}}},
            {"day": "monday"},
            {"day": "tomorrow"},
            "day: 'tomorrow' does not match '^[a-z]+day$'",
        ),
        (
            {"patternProperties": {"^n_": {"type": "integer"}}},
            {"n_a": 1, "b": "x"},
            {"n_a": "x"},
            "n_a: 'x' is not of type 'integer'",
        ),
        (
            {"properties": {"a": {}}, "patternProperties": {"^n_": {}}, "additionalProperties": False},
            {"a": 1, "n_x": 2},
            {"b": 1},
            "('b' was unexpected)",
        ),
        ({"additionalProperties": {"type": "integer"}}, {"b": 1}, {"b": "x"}, "b: 'x' is not of type 'integer'"),
    ],
)
def test_what_a_schema_says_of_texts_and_names_holds(schema: Any, right: Any, wrong: Any, told: str) -> None:
    assert mistakes(schema, right) == ""
    assert told in mistakes(schema, wrong)


@pytest.mark.parametrize(
    ("schema", "arguments", "fits"),
    [
        ({"properties": {"x": {"pattern": NASTY}}}, {"x": LONG}, False),
        ({"patternProperties": {NASTY: False}}, {LONG: 1}, True),
        ({"patternProperties": {NASTY: {}}, "additionalProperties": False}, {LONG: 1}, False),
        ({"patternProperties": {NASTY: {}}, "unevaluatedProperties": False}, {LONG: 1}, True),
    ],
)
def test_an_expression_that_goes_back_and_forth_holds_nobody_up(schema: Any, arguments: Any, fits: bool) -> None:
    # With a backtracking engine this takes longer than the universe has.
    assert bool(mistakes(schema, arguments)) is not fits


def test_an_expression_that_cannot_be_bounded_is_left_to_the_tool() -> None:
    assert mistakes({"properties": {"x": {"pattern": "(?=a)b"}}}, {"x": "c"}) == ""


def test_a_schema_that_goes_in_circles_ends() -> None:
    schema = {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert "nested too deeply" in mistakes(schema, {"x": 1})
