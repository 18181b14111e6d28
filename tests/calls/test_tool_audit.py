"""Each use of a tool is told of by one turn, whatever becomes of the reply that it was for."""

from __future__ import annotations

from appliance.calls.tool_audit import ToolAudit
from appliance.events import ToolRun


def used(number: int) -> ToolRun:
    return ToolRun(f"tool{number}", "{}", "1", float(number), number + 0.5, key=f"call-{number}")


def test_what_a_turn_tells_of_is_told_of_once() -> None:
    audit = ToolAudit()
    audit.ran(used(1))
    tools = [used(1)]
    audit.settle(tools)
    audit.settle(later := [])
    assert (tools, later, audit.rest()) == ([used(1)], [], [])


def test_a_reply_begun_in_advance_tells_of_what_it_has_used_in_the_next_turn() -> None:
    audit = ToolAudit()
    audit.ran(used(1))
    audit.settle(before := [])
    audit.settle(its_own := [used(1)])
    assert (before, its_own, audit.rest()) == ([], [used(1)], [])


def test_what_nobody_tells_of_is_told_of_by_the_turn_after_the_next_or_at_the_end() -> None:
    audit = ToolAudit()
    audit.ran(used(1))
    audit.settle(first := [])
    audit.ran(used(2))
    audit.settle(second := [])
    assert (first, second) == ([], [used(1)])
    assert audit.rest() == [used(2)]
    assert audit.rest() == []


def test_a_failed_use_and_its_repetition_are_two() -> None:
    audit = ToolAudit()
    audit.ran(ToolRun("pay", "{}", "", 1.0, 2.0, "failed", key="call-1"))
    audit.ran(ToolRun("pay", "{}", "1", 3.0, 4.0, key="call-1"))
    assert len(audit.rest()) == 2
