"""Dialplans that another process has read: the same lines, the same choice, at next to no cost."""

from __future__ import annotations

import gc
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.config import load_settings
from appliance.config.shipped import shipped_dir
from appliance.dialplan.loader import Dialplan, load_dialplans, load_lines, surroundings_of
from appliance.dialplan.matcher import Arrival
from appliance.dialplan.planned import PlannedLines, packed
from appliance.dialplan.routing import Routing, RoutingIndex
from appliance.errors import ApplianceError, ConfigError
from appliance.server.compiling import Plan, compiled

AT = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("in_tmp_path")

TEXT = """\
bases:
  shop:
    greeting: Hello.
    prompt: Sell.
    agent: llm
lines:
- {name: one, extends: shop, match: {called: 1, holidays: DE, closed: true}}
- {name: two, extends: shop, match: {called: [20, "2*"]}, description: the second}
- {name: own, match: {calling: {regex: '\\+49\\d+'}}, flow: {a: {say: Hi., next: b}, b: {hang_up: }}}
- {name: three, extends: shop, greeting: null, match: {trunk: [a, b]}}
- {name: rest, extends: own}
"""


def write(text: str = TEXT) -> Path:
    Path("plans").mkdir(exist_ok=True)
    path = Path("plans/plan.yaml")
    path.write_text(text)
    return path


def planned(plan: Dialplan) -> PlannedLines:
    blobs, contents = packed(plan.lines, plan.written, lists=plan.numbers.found)
    return PlannedLines(b"".join(blobs), pickle.loads(pickle.dumps(contents)))


def test_the_lines_are_those_that_were_read() -> None:
    plan = load_dialplans([write()])
    lines = planned(plan)
    assert tuple(lines) == plan.lines
    assert list(lines.names()) == ["one", "two", "own", "three", "rest"]
    assert [line.model_fields_set for line in lines] == [line.model_fields_set for line in plan.lines]
    assert lines[-1].name == "rest"
    assert [line.name for line in lines[1:3]] == ["two", "own"]
    with pytest.raises(IndexError):
        _ = lines[5]
    assert lines[0].flow is lines[1].flow or lines[0].flow == {}


def test_a_line_is_the_same_object_while_somebody_has_it() -> None:
    lines = planned(load_dialplans([write()]))
    line = lines[2]
    assert all(lines[2] is line for _ in range(3))


@pytest.mark.parametrize("called", ["1", "20", "2999", "3"])
@pytest.mark.parametrize("trunk", ["a", "c"])
@pytest.mark.parametrize("calling", ["+4930", "7"])
def test_the_choice_among_them_is_the_same(called: str, trunk: str, calling: str) -> None:
    plan = load_dialplans([write()])
    blobs, contents = packed(plan.lines, plan.written, lists=plan.numbers.found)
    contents = pickle.loads(pickle.dumps(contents))
    routing = Routing(PlannedLines(b"".join(blobs), contents), lists=contents.lists, index=contents.index)
    routing.prepare(AT)
    arrival = Arrival(trunk, called, calling, AT)
    assert routing.decide(arrival) == Routing(plan.lines).decide(arrival) == routing.decide_in_order(arrival)


def test_a_line_has_changed_if_anything_in_it_has() -> None:
    before = planned(load_dialplans([write()]))
    after = planned(load_dialplans([write(TEXT.replace("Sell.", "Sell more.").replace("say: Hi.", "say: Hello."))]))
    same = planned(load_dialplans([write("# a remark\n" + TEXT)]))
    assert all(before.digest(name) == same.digest(name) for name in before.names())
    assert [name for name in before.names() if before.digest(name) != after.digest(name)] == list(before.names())
    moved = planned(load_dialplans([write(TEXT.replace("called: 1,", "called: 9,"))]))
    assert [name for name in before.names() if before.digest(name) != moved.digest(name)] == ["one"]
    assert before.digest("nobody") == b""


def test_a_new_secret_makes_another_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write("name: x\nplugins: {crm: {token: !secret crm}}\nflow: {a: {hang_up: }}\n")
    around = surroundings_of(load_settings(None, []))
    found = []
    for value in ("one", "two"):
        monkeypatch.setenv("APPLIANCE_SECRET_CRM", value)
        found.append(load_without_plugins(around))
    assert planned(found[0]).digest("x") != planned(found[1]).digest("x")
    token: Any = planned(found[1])[0].plugins["crm"]
    assert token["token"].get_secret_value() == "two"
    assert "two" not in repr(planned(found[1])[0])


def load_without_plugins(around: Any) -> Dialplan:
    return load_dialplans([Path("plans")], replace(around, checks=(), tools=None))


def test_ten_thousand_lines_are_no_objects_until_they_are_asked_for() -> None:
    head = "bases: {b: {flow: {bye: {hang_up: Goodbye.}}}}\nlines:\n"
    text = "".join(f"- {{name: n{one}, extends: b, match: {{called: '{one:05}*'}}}}\n" for one in range(10_000))
    lines = planned(load_dialplans([write(head + text)]))
    routing = Routing(lines, index=pickle.loads(pickle.dumps(RoutingIndex.of(lines, {}))))
    gc.collect()
    before = len(gc.get_objects())
    line = routing.decide(Arrival("t", "0777712", "", AT))
    assert line is not None
    assert line.name == "n7777"
    assert len(gc.get_objects()) - before < 500


# --- the process ------------------------------------------------------------------------------------------------------


def box(*overrides: str) -> Any:
    return load_settings(None, ["dialplans.paths=[plans]", *overrides])


async def read(*overrides: str) -> Plan:
    return await compiled(box(*overrides))


async def test_another_process_reads_the_same() -> None:
    text = TEXT.replace("agent: llm", "flow: {a: {hang_up: Goodbye.}}").replace("    prompt: Sell.\n", "")
    write(text.replace("trunk: [a, b]", "calling: {file: vip.txt}"))
    Path("plans/vip.txt").write_text("+49301\n")
    plan = await read()
    assert tuple(plan.lines) == load_lines(box()).lines
    own = [file for file in plan.files if not Path(file).is_relative_to(shipped_dir("plugins"))]
    assert sorted(own) == ["plans/plan.yaml", "plans/vip.txt"]
    assert plan.warnings == ()
    line = plan.routing.decide(Arrival("local", "5", "+49301", AT))
    assert line is not None
    assert line.name == "own"
    assert plan.plugins.empty


async def test_what_is_wrong_is_told_with_every_mistake() -> None:
    write("name: x\nrecrod: true\nflow: {a: {goto: b}}\nplugins: [nosuch]\n")
    with pytest.raises(ConfigError) as caught:
        await read()
    assert [(one.file, one.line, one.key) for one in caught.value.mistakes] == [
        ("plans/plan.yaml", 2, "recrod"),
        ("plans/plan.yaml", 3, "flow.a.goto"),
        ("plans/plan.yaml", 4, "plugins.nosuch"),
    ]


async def test_a_reader_that_takes_too_long_is_killed() -> None:
    write()
    with pytest.raises(ApplianceError, match=r"could not be read within 0\.01 s"):
        await compiled(box(), timeout_s=0.01)
