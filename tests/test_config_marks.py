"""The two ways of reading YAML come to the same, and neither can be made to fall over."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from appliance.config import marks
from appliance.config.marks import MAX_DEPTH, Document, parse

TEXT = """\
# what lines are made of
lines:
- name: a
  match: {called: [0301234, "+4930*", 112]}   # numbers
  flow: {bye: {hang_up: }}
  rate: 1.25
  record: true
- name: b
  prompt: |
    Two
    lines
"""


def slowly(text: str) -> Document:
    """As :func:`parse`, without its short cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "_FastParser", marks.yaml.SafeLoader)
        return parse(text, "x")


def test_each_value_is_found_at_its_line() -> None:
    document = parse(TEXT, "x")
    assert document.data == slowly(TEXT).data
    assert document.origins == slowly(TEXT).origins
    assert document.origin(("lines", 0, "match", "called", 1)) == ("x", 4)
    assert document.origin(("lines", 1, "prompt")) == ("x", 9)
    assert document.origin(("lines", 1, "prompt", "deeper")) == ("x", 9)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab: {}[]-\n\t&*!'\"|>#0179.,~truefalsn+?%@", max_size=60))
@example("a: {b: 1, b: 2}")
@example("a: !secret b")
@example("- [a, *a]")
@example("? [a]\n: b")
@example("--- a\n--- b")
@example("a: !!str 1")
@example("")
@example("#")
def test_a_file_reads_the_same_with_and_without_the_short_cut(text: str) -> None:
    short, long = parse(text, "x"), slowly(text)
    if long.mistakes and not short.mistakes:
        return  # LibYAML takes a tab behind a value, and a few other things, that the other parser refuses
    assert short.data == long.data
    assert short.mistakes == long.mistakes
    assert short.origins == long.origins


@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "[{a: "])
def test_no_depth_can_break_the_reader(opened: str) -> None:
    for depth in (MAX_DEPTH + 2, 100_000):
        (mistake,) = parse(opened * depth, "x").mistakes
        assert mistake.what in ("is nested too deeply", "expected the node content, but found '<stream end>'")


def test_a_long_file_that_is_no_yaml_says_so_at_its_line() -> None:
    text = "".join(f"- {{name: line-{number}}}\n" for number in range(20_000)) + "- {name: [}\n"
    (mistake,) = parse(text, "x").mistakes
    assert (mistake.line, mistake.key) == (20_001, "syntax")


def test_a_secret_may_be_allowed_in_some_places_only() -> None:
    document = parse(
        "a: !secret x\nb: {c: !secret x}",
        "x",
        secrets=SecretStr,
        secret_at=lambda path: path[0] == "b",
    )
    assert [str(mistake) for mistake in document.mistakes] == [
        "x:1: a: !secret cannot be used here; secrets belong in the values of a plugin, or in appliance.yaml"
    ]
    assert document.data["b"] == {"c": SecretStr("x")}
    assert "SecretStr('**********')" in repr(document.data)


def test_what_holds_too_many_values_is_refused() -> None:
    (mistake,) = parse("[" + "1," * 50 + "]", "x", max_nodes=40).mistakes
    assert mistake.what == "holds more than 40 values"
    (mistake,) = parse("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: [*a,*a,*a,*a,*a]", "x", max_nodes=40).mistakes
    assert mistake.what == "holds more than 40 values"
