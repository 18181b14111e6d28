"""Lines that inherit: what they come to, and mistakes that are reported where they were written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dialplan.extends import laid_over
from appliance.dialplan.loader import Dialplan, load_dialplans
from appliance.dialplan.schema import Line
from appliance.dialplan.steps import AskStep, HangUpStep, SayStep
from appliance.dialplan.surroundings import Surroundings
from appliance.engines.lexicon import Lexicon
from appliance.errors import ConfigError

pytestmark = pytest.mark.usefixtures("in_tmp_path")

BYE = "flow: {bye: {hang_up: Goodbye.}}"


def load(around: Surroundings | None = None, **files: str) -> Dialplan:
    folder = Path("plans")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.yaml"):
        old.unlink()
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return load_dialplans([folder], around)


def mistakes(around: Surroundings | None = None, **files: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(around, **files)
    return [str(mistake).removeprefix("plans/") for mistake in caught.value.mistakes]


def line(plan: Dialplan, name: str) -> Line:
    found = plan.line(name)
    assert found is not None
    return found


# --- what lines come to -----------------------------------------------------------------------------------------------


def test_a_line_says_what_differs_from_its_base_and_its_base_from_another() -> None:
    plan = load(
        shops="""
bases:
  shop:
    greeting: Hello.
    turn: {patience: 1.5, speculate: 2}
    hints: [pizza, pasta]
    flow:
      what: {ask: Pizza or pasta?, expect: [pizza, pasta], next: bye}
      bye: {hang_up: Goodbye.}
  late_shop:
    extends: shop
    turn: {patience: 2}
lines:
- name: north
  extends: late_shop
  match: {called: "1"}
  hints: [calzone]
- name: south
  extends: shop
  flow:
    what: {ask: Pasta or pizza?}
    bye: {say: Thank you.}
    end: {hang_up: }
"""
    )
    north, south = line(plan, "north"), line(plan, "south")
    assert north.greeting == south.greeting
    assert (north.turn.patience, north.turn.speculate) == (2, 2)
    assert north.hints == ("calzone",)
    assert (north.match.called, north.extends) == (("1",), "late_shop")
    what = south.flow["what"]
    assert isinstance(what, AskStep)
    assert (what.ask, what.choices) == ("Pasta or pizza?", ("pizza", "pasta"))
    assert isinstance(south.flow["bye"], SayStep)  # of another kind: nothing of the base's step is left
    end = south.flow["end"]
    assert isinstance(end, HangUpStep)
    assert end.hang_up is None
    assert list(south.flow) == ["what", "bye", "end"]
    assert plan.warnings == ()


def test_a_line_can_extend_a_line_in_a_file_below_but_not_who_it_answers() -> None:
    plan = load(
        a=f"name: first\ndescription: of its own\nmatch: {{called: 1}}\nlanguage: en-gb\ngreeting: Hello.\n{BYE}",
        b="name: second\nextends: first\ngreeting: null\n",
    )
    second = line(plan, "second")
    assert (second.language, second.greeting, second.description) == ("en-gb", None, "")
    assert second.catches_all


def test_the_defaults_of_a_file_lie_beneath_all_of_its_lines_and_of_nothing_else() -> None:
    plan = load(
        a=f"defaults: {{language: de, record: true, {BYE}}}\n"
        "lines:\n- {name: one, match: {called: 1}}\n- {name: two, match: {called: 2}, extends: far, language: fr}\n",
        b="bases:\n  far: {language: it, greeting: Hi.}\n"
        f"lines:\n- {{name: three, match: {{called: 3}}, extends: far, {BYE}}}\n- {{name: four, extends: one}}\n",
    )
    said = {one.name: (one.language, one.record.enabled, one.greeting is not None) for one in plan.lines}
    assert said == {
        "one": ("de", True, False),
        "two": ("fr", True, True),
        "three": ("it", False, True),
        "four": ("de", True, False),
    }


def test_what_only_bases_say_of_matching_holds_for_their_lines() -> None:
    plan = load(
        a=f"bases: {{b: {{match: {{trunk: pbx, called: 0}}, {BYE}}}}}\n"
        "lines: [{name: x, extends: b, match: {called: 1}}, {name: y, extends: b, match: {called: null}}]"
    )
    assert [(one.match.trunk, one.match.called) for one in plan.lines] == [(("pbx",), ("1",)), (("pbx",), None)]


def test_lines_that_differ_in_who_they_answer_only_share_all_the_rest() -> None:
    text = f"bases: {{b: {{greeting: Hello., {BYE}}}}}\nlines:\n" + "".join(
        f"- {{name: n{number}, extends: b, match: {{called: '{number}'}}}}\n" for number in range(30)
    )
    plan = load(a=text)
    first, last = line(plan, "n0"), line(plan, "n29")
    assert first.flow is last.flow
    assert last.match.called == ("29",)
    assert last == Line.model_validate(
        {"name": "n29", "extends": "b", "match": {"called": "29"}, "greeting": "Hello.", "flow": dict(first.flow)}
    )
    assert last.model_fields_set == {"name", "extends", "match", "greeting", "flow"}


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_mistake_in_a_base_is_reported_there_and_once() -> None:
    text = """\
bases:
  shop:
    greting: Hello.
    turn: {patience: 9}
    flow:
      what: {ask: What now, expect: [x], next: nowhere}
lines:
- {name: a, extends: shop, match: {called: 1}}
- {name: b, extends: shop, match: {called: 2}, turn: {speculate: many}}
- {name: c, extends: shop, match: {trunk: pbxx, called: '*1'}}
"""
    assert mistakes(Surroundings(trunks=["pbx"]), plan=text) == [
        "plan.yaml:3: bases.shop.greting: unknown key; did you mean 'greeting'?",
        "plan.yaml:4: bases.shop.turn.patience: must be at most 4, not 9",
        "plan.yaml:6: bases.shop.flow.what.next.default: there is no step 'nowhere'; known: what",
        "plan.yaml:9: lines.1.turn.speculate: must be a whole number, not 'many'",
        "plan.yaml:10: lines.2.match.called: '*1' is not a number or a prefix; "
        "write it in full, or as +49* with the star at the end; {regex: ...} takes anything else",
        "plan.yaml:10: lines.2.match.trunk: there is no trunk 'pbxx'; did you mean 'pbx'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"bases: {{shop: {{{BYE}}}}}\nlines:\n- {{name: a, extends: shp}}",
            "3: lines.0.extends: there is no line or base 'shp'; did you mean 'shop'?",
        ),
        (
            f"lines:\n- {{name: a, extends: b, match: {{called: 1}}}}\n- {{name: b, extends: a, {BYE}}}",
            "2: lines.0.extends: a -> b -> a goes round; let one of them extend nothing",
        ),
        ("name: a\nextends: a", "2: extends: a -> a goes round; let one of them extend nothing"),
        (
            "bases:\n  a: {extends: b}\n  b: {extends: c}\n  c: {extends: b}\n"
            f"lines: [{{name: x, extends: a, {BYE}}}]",
            "3: bases.b.extends: b -> c -> b goes round",
        ),
        (f"bases: {{b: 1}}\nlines: [{{name: x, {BYE}}}]", "1: bases.b: is not a base; write keys of a line below it"),
        (f"bases: [b]\nlines: [{{name: x, {BYE}}}]", "1: bases: must be a mapping of bases; write each as `NAME:`"),
        (
            f"bases: {{b: {{name: c}}}}\nlines: [{{name: x, {BYE}}}]",
            "1: bases.b.name: a base has no name but its key, 'b'",
        ),
        (f"bases: {{b b: {{}}}}\nlines: [{{name: x, {BYE}}}]", "1: bases.b b: 'b b' is not a name; use letters, dig"),
        (
            f"bases: {{x: {{record: true}}}}\nlines: [{{name: x, {BYE}}}]",
            "2: lines.0.name: 'x' is already the base at plans/plan.yaml:1; give each line a name of its own",
        ),
        (f"defaults: 5\nlines: [{{name: x, {BYE}}}]", "1: defaults: must be a mapping (key: value); write keys of a l"),
        (
            f"defaults: {{name: y}}\nlines: [{{name: x, {BYE}}}]",
            "1: defaults.name: has no effect in defaults; wri",
        ),
        (f"defaults: {{recrod: 1}}\nlines: [{{name: x, {BYE}}}]", "1: defaults.recrod: unknown key; did you mean 'rec"),
        (f"defaults: {{record: true}}\nbases: {{b: {{{BYE}}}}}", "1: defaults: has no effect without lines; put it in"),
        (
            f"bases: {{b: {{recrod: true}}}}\nlines: [{{name: x, {BYE}}}]",
            "1: bases.b.recrod: unknown key; did you mean",
        ),
        (f"name: x\nextends: [a]\n{BYE}", "2: extends: must be text, not a list"),
    ],
)
def test_a_mistake_about_inheritance(text: str, expected: str) -> None:
    found = mistakes(plan=text)
    assert [one for one in found if one.startswith(f"plan.yaml:{expected}")], found
    assert len(found) == 1, found


def test_a_line_whose_base_is_missing_is_looked_at_all_the_same() -> None:
    assert mistakes(plan="name: a\nextends: nobody\nrecrod: true\n") == [
        "plan.yaml:2: extends: there is no line or base 'nobody'; known: a",
        "plan.yaml:3: recrod: unknown key; did you mean 'record'?",
    ]


def test_a_base_that_no_line_extends_is_warned_about() -> None:
    plan = load(a=f"bases: {{b: {{record: true}}}}\nlines: [{{name: x, {BYE}}}]")
    assert [str(one) for one in plan.warnings] == [
        "plans/a.yaml:1: bases.b: no line extends 'b'; write extends: b in a line, or remove it"
    ]


def test_a_thousand_mistakes_are_enough() -> None:
    text = "lines:\n" + "".join(f"- {{name: n{number}, match: {{called: '{number}'}}}}\n" for number in range(1500))
    found = mistakes(plan=text)
    assert len(found) == 1002
    assert found[-1].endswith("lines.1001: is not read: more than 1000 mistakes were found; mend those above first")


# --- laying one over another ------------------------------------------------------------------------------------------

_keys = st.sampled_from(["a", "b", "c"])
_values = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2), lambda held: st.dictionaries(_keys, held), max_leaves=6
)
_mappings = st.dictionaries(_keys, _values)


@given(_mappings, _mappings)
def test_what_is_laid_over_wins_and_the_rest_shines_through(one: dict[str, Any], two: dict[str, Any]) -> None:
    both = laid_over(one, two)
    assert laid_over(both, two) == both
    assert both.keys() == one.keys() | two.keys()
    assert laid_over(one, {}) == one == laid_over({}, one) == laid_over(one, one)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_example_of_the_page_comes_to_what_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dialplans.md").read_text()
    example = re.search(r"## What lines have in common\n\n```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    plan = load(Surroundings(missing_words=Lexicon().missing, trunks=["pbx"]), shops=example[1])
    north, south = line(plan, "north"), line(plan, "south")
    asked = [one.flow["what"] for one in (north, south)]
    assert all(isinstance(step, AskStep) and step.choices == ("delivery", "hours") for step in asked)
    assert asked[0] != asked[1]
    assert (south.greeting, south.timezone, south.turn.patience) == (None, "Europe/London", 1.5)
    assert list(south.flow) == ["what", "who", "open", "bye"]
    assert isinstance(south.flow["open"], SayStep)
