"""What a line does outside of its hours: what it says, who it hands on to, what it is instead."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.registry import CallRegistry
from appliance.dialplan.closing import while_closed
from appliance.dialplan.loader import Dialplan, load_dialplans
from appliance.dialplan.matcher import Arrival
from appliance.dialplan.planned import PlannedLines, packed
from appliance.dialplan.routing import InForce, Routing
from appliance.dialplan.schema import Line
from appliance.dialplan.surroundings import Surroundings
from appliance.errors import ConfigError
from tests.calls.virtual_call import VirtualCall
from tests.engines.virtual_time import run_virtual

pytestmark = pytest.mark.usefixtures("in_tmp_path")

MONDAY, SATURDAY, CHRISTMAS = (datetime(2026, *day, 10, tzinfo=UTC) for day in ((11, 23), (11, 28), (12, 25)))
OFFICE = """
lines:
  - name: office
    timezone: UTC
    hours: {mon-fri: "09:00-17:00"}
    holidays: [12-25]
    greeting: Hello, this is the office.
    voice: {rate: 1.2}
    closed: CLOSED
    flow:
      what: {ask: What is it?, expect: [an order, a question], next: bye}
      bye: {hang_up: Goodbye.}
"""


def load(text: str, **options: Any) -> Dialplan:
    Path("plan.yaml").write_text(text)
    return load_dialplans([Path("plan.yaml")], Surroundings(**options))


def office(closed: str, more: str = "") -> Routing:
    return Routing(load(OFFICE.replace("CLOSED", closed) + more).lines)


def mistakes(closed: str, more: str = "", **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(OFFICE.replace("CLOSED", closed) + more, **options)
    return [str(one).removeprefix("plan.yaml:") for one in caught.value.mistakes]


def at(routing: Routing, when: datetime) -> InForce:
    arrival = Arrival("local", "100", "200", when)
    line = routing.decide(arrival)
    assert line is not None
    return routing.in_force(line, arrival)


def test_a_line_is_itself_while_it_is_open_and_says_why_it_is_not() -> None:
    routing = office("We are closed.")
    assert at(routing, MONDAY) == InForce(routing.lines[0])
    assert at(routing, SATURDAY).closed == "Sat 2026-11-28 10:00 (UTC) is not within mon-fri 09:00-17:00"
    assert at(routing, CHRISTMAS).closed == "Fri 2026-12-25 10:00 (UTC) is a holiday (12-25)"


def test_a_text_is_said_before_the_call_is_ended() -> None:
    line = at(office("We are closed. Goodbye."), SATURDAY).line
    assert (line.name, line.greeting, line.voice.rate) == ("office", None, 1.2)

    async def call() -> None:
        virtual = VirtualCall(line)
        ended = await virtual.over()
        assert virtual.engines.said == ["We are closed. Goodbye."]
        assert (ended.hangup_by.value, ended.slots["ending"]) == ("agent", "closed")

    run_virtual(call())


def test_a_caller_is_handed_on() -> None:
    line = at(office("{transfer: '+4930123', say: One moment., failed: Nobody is there.}"), SATURDAY).line

    async def call() -> None:
        virtual = VirtualCall(line)
        await virtual.over()
        assert virtual.engines.said == ["One moment.", "Nobody is there."]

    run_virtual(call())


def test_another_line_answers_whatever_its_own_hours_say() -> None:
    night = """
  - {name: night, flow: {bye: {hang_up: Good night.}}}
"""
    routing = office("{line: night}", night)
    assert at(routing, SATURDAY).line is routing.line("night")
    assert at(routing, MONDAY).line is routing.line("office")


def test_keys_are_laid_over_the_line_as_by_extends() -> None:
    routing = office("{instead: {greeting: We are closed., voice: null, flow: {what: {ask: What may we note?}}}}")
    line = at(routing, SATURDAY).line
    assert line.greeting is not None
    assert (line.greeting.text, line.voice.rate, line.closed) == ("We are closed.", 1.0, None)
    what: Any = line.flow["what"]
    assert (what.ask, list(what.expect)) == ("What may we note?", ["an order", "a question"])
    assert at(routing, SATURDAY).line is line


def test_lines_that_differ_in_who_they_answer_keep_their_names_while_closed() -> None:
    text = """
bases:
  shop:
    hours: {mon-fri: "09:00-17:00"}
    timezone: UTC
    closed: {instead: {greeting: Closed.}}
    flow: {bye: {hang_up: Goodbye.}}
lines:
  - {name: north, extends: shop, match: {called: 1}}
  - {name: south, extends: shop, match: {called: 100}}
"""
    plan = load(text)
    blobs, contents = packed(plan.lines, plan.written, lists={})
    routing = Routing(PlannedLines(b"".join(blobs), contents), index=contents.index)
    line = at(routing, SATURDAY).line
    assert line.greeting is not None
    assert (line.name, line.greeting.text) == ("south", "Closed.")


def test_mistakes_are_told_where_they_stand() -> None:
    assert mistakes("{instead: {gretting: Closed.}}") == [
        "9: lines.0.closed.instead.gretting: unknown key; did you mean 'greeting'?"
    ]
    step, *_ = mistakes("{instead: {flow: {what: {next: nowhere}}}}")
    assert step.startswith("9: lines.0.closed.instead.flow.what.next.default: there is no step 'nowhere'")
    (plugins,) = mistakes("{instead: {plugins: [x]}}")
    assert plugins.startswith("9: lines.0.closed.instead.plugins: cannot change while the line is closed")
    (nobody,) = mistakes("{line: nihgt}")
    assert nobody.startswith("9: lines.0.closed.line: there is no line 'nihgt'")
    (itself,) = mistakes("{line: office}")
    assert "is this line itself" in itself
    (both,) = mistakes("{line: office, say: Closed.}")
    assert "has both line and say" in both
    (nothing,) = mistakes("{}")
    assert "says nothing" in nothing
    (failed,) = mistakes("{say: Closed., failed: Nobody.}")
    assert "never said without transfer" in failed
    (variable,) = mistakes("'${slots.what}'")
    assert "unknown variable ${slots.what}" in variable
    (trunk,) = mistakes("{transfer: {to: 1, trunk: nowhere}}", trunks=["local"])
    assert "there is no trunk 'nowhere'" in trunk


def test_hours_and_closed_need_one_another() -> None:
    flow = "flow: {bye: {hang_up: Goodbye.}}"
    for text, what in (
        ("hours: {mon: 9-17}", "hours: has no effect without closed"),
        ("holidays: [12-25]", "holidays: has no effect without closed"),
        ("closed: We are closed.", "closed: the line is never closed; give it hours or holidays"),
        ("closed: Closed.\nhours: {mon: 9-17, holidays: 9-12}", "hours.holidays: has no effect without holidays"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(f"name: x\n{text}\n{flow}")
        assert what in str(caught.value)


def test_the_call_is_taken_by_what_is_in_force_and_the_record_says_why() -> None:
    routing = office("We are closed. Goodbye.")

    async def call() -> None:
        virtual = VirtualCall(routing.lines[0])
        virtual.task.cancel()
        await asyncio.gather(virtual.task, return_exceptions=True)
        services: Any = virtual.session._services
        leg: Any = virtual.leg
        registry = CallRegistry(routing, services, max_calls=2, max_cps=10)
        registry.accepting = True
        virtual.log.events.clear()
        registry.admit(leg)
        await virtual.until(lambda: not registry.active)
        why = str(virtual.log.ended.slots["line.closed"])
        assert why.startswith("Thu 2026-01-01 00:")
        assert why.endswith("(UTC) is not within mon-fri 09:00-17:00")
        assert virtual.engines.said == ["We are closed. Goodbye."]

    run_virtual(call())


def test_a_line_without_hours_or_with_another_line_stays_as_it_is() -> None:
    line = Line.model_validate({"name": "x", "flow": {"bye": {"hang_up": "Goodbye."}}})
    assert while_closed(line) is line
    other = Line.model_validate({"name": "x", "hours": {"mon": "9-17"}, "closed": {"line": "y"}, "flow": {}})
    assert while_closed(other) is other
