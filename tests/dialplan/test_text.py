"""Digits as they are spoken, and variables in what is said."""

from __future__ import annotations

import pytest

from appliance.dialplan.text import normalise, render, spoken_digits, variables_in


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("one two oh", "120"),
        ("zero", "0"),
        ("double five one", "551"),
        ("triple zero", "000"),
        ("forty two", "42"),
        ("twenty twenty five", "2025"),
        ("nineteen", "19"),
        ("ten zero", "100"),
        ("one hundred", None),
        ("double", None),
        ("book a table", None),
        ("", None),
    ],
)
def test_spoken_digits(said: str, digits: str | None) -> None:
    assert spoken_digits(said) == digits


def test_written_digits_are_spoken_ones() -> None:
    assert spoken_digits(normalise("1 2 0")) == "120"
    assert normalise("A table for 4, please!") == "a table for four please"


def test_variables() -> None:
    text = "Call ${ caller.number | digits } about ${slots.topic}, ${unknown}now. $5 {x}"
    assert variables_in(text) == [("caller.number", "digits"), ("slots.topic", ""), ("unknown", "")]
    values = {"caller.number": "+4930", "slots.topic": "${caller.number}\n\x00tea"}
    assert render(text, values) == "Call + 4 9 3 0 about ${caller.number} tea, now. $5 {x}"
