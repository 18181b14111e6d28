"""Who is let in: limits of the box and of a trunk, the line that fits, a plugin's verdict on the number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from appliance.calls import registry as registry_module
from appliance.calls.registry import CallRegistry
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from appliance.events import Disposition
from appliance.hook_types import Refusal
from appliance.ipc.hook_messages import HookOutcome
from appliance.plugins.hooks import NO_HOOKS, Hooks
from appliance.signalling.headers import CallHeaders, Passport
from appliance.signalling.leg import HangupCause
from appliance.signalling.trunks import TrunkRule, TrunkTable
from tests.calls.virtual_call import Leg, Log, VirtualClock
from tests.engines.virtual_time import run_virtual
from tests.plugins.spoken_hooks import SpokenHooks


@dataclass(frozen=True)
class SomeServices:
    """What the registry needs of them."""

    trunks: TrunkTable | None
    hooks: Hooks
    log: Log = field(default_factory=Log)
    clock: VirtualClock = field(default_factory=VirtualClock)


def line(**wanted: Any) -> Line:
    return Line.model_validate({"name": "x", "match": wanted, "flow": {"bye": {"hang_up": "Goodbye."}}})


def admit(leg: Leg, hooks: Hooks = NO_HOOKS, trunks: TrunkTable | None = None, **wanted: Any) -> CallRegistry:
    services: Any = SomeServices(trunks, hooks)
    registry = CallRegistry(Routing([line(**wanted)]), services, max_calls=10, max_cps=10)
    registry.accepting = True
    registry.admit(leg)
    return registry


def in_loop(test: Callable[[], None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


def test_a_full_trunk_is_told_when_to_come_back() -> None:
    def test() -> None:
        trunks = TrunkTable([TrunkRule("local", max_calls=1)])
        trunks.take("local", 0.0)
        leg = Leg()
        admit(leg, trunks=trunks)
        assert leg.told == ["reject 503"]
        assert trunks.state("local").calls == 1

    in_loop(test)


def test_a_call_that_no_line_answers_leaves_its_place_on_the_trunk() -> None:
    def test() -> None:
        trunks = TrunkTable([TrunkRule("local", max_calls=1)])
        leg = Leg()
        admit(leg, trunks=trunks, called="999")
        assert leg.told == ["reject 404"]
        assert trunks.state("local").calls == 0

    in_loop(test)


def signed(leg: Leg) -> Leg:
    passport = Passport("A", "200", ("100",), 1700000000, "https://cert.example", "a.b.c")
    leg.info = replace(leg.info, about=CallHeaders(verstat="No-TN-Validation", identity=(passport,)))
    return leg


async def settled(registry: CallRegistry) -> None:
    """Until plugins have decided about every call, and no call is on."""
    async with asyncio.timeout(10.0):
        while registry.active:
            await asyncio.sleep(0.01)


def verdict(answer: object, leg: Leg) -> tuple[str, SpokenHooks]:
    hooks = SpokenHooks(verify_identity=answer)

    async def test() -> None:
        await settled(admit(leg, hooks, called="999"))

    run_virtual(test())
    return leg.info.about.verstat, hooks


def test_a_plugin_that_verifies_has_the_last_word_on_the_number() -> None:
    said, hooks = verdict("TN-Validation-Passed", signed(Leg()))
    assert said == "TN-Validation-Passed"
    (asked,) = hooks.told["verify_identity"]
    claim = asked["claim"]
    assert (claim.token, claim.origin, claim.calling, claim.called) == ("a.b.c", "200", "200", "100")


def test_without_a_verdict_the_networks_word_stands() -> None:
    for answer in (None, "x\n", ""):
        assert verdict(answer, signed(Leg()))[0] == "No-TN-Validation"


def test_a_call_that_is_not_signed_is_not_asked_about() -> None:
    said, hooks = verdict("TN-Validation-Passed", Leg())
    assert said == ""
    assert not hooks.told


def test_a_plugin_turns_a_call_away_and_it_is_on_record() -> None:
    async def test() -> None:
        trunks = TrunkTable([TrunkRule("local", max_calls=1)])
        leg = Leg()
        hooks = SpokenHooks(0.05, admit=lambda: Refusal("a known nuisance", 486), route="x")
        registry = admit(leg, hooks, trunks)
        assert (leg.told, registry.active, trunks.state("local").calls) == ([], 1, 1)
        await settled(registry)
        assert leg.told == ["reject 486"]
        assert trunks.state("local").calls == 0
        assert registry.refused == {"plugin": 1}
        assert hooks.ended == ["leg1"]
        assert "route" not in hooks.told
        ended = registry._services.log.ended
        assert (ended.disposition, ended.hangup_code, ended.hangup_text) == ("rejected", 486, "a known nuisance")

    run_virtual(test())


class Taken:
    """In place of sessions: which calls were begun, and on which line."""

    def __init__(self, monkeypatch: Any) -> None:
        self.lines: list[str] = []
        self.over = asyncio.Event()
        taken = self

        self.troubles: list[str] = []

        class Session:
            def note_trouble(self, hook: str, outcome: HookOutcome) -> None:
                taken.troubles.append(f"{hook} {outcome.outcome}")

            def __init__(self, leg: Leg, line: Line, services: Any, *, closed: str, lines: Any) -> None:
                self.call_id, self.trunk = leg.info.leg_id, leg.info.trunk
                self.gone: list[HangupCause] = []
                leg.on_hangup = self.gone.append
                self.line = line.name

            async def run(self) -> None:
                taken.lines.append(f"{self.line}{' gone' if self.gone else ''}")
                await taken.over.wait()

            def end(self, disposition: Disposition, text: str) -> None:
                taken.over.set()

        monkeypatch.setattr(registry_module, "CallSession", Session)


def two_lines(hooks: Hooks) -> CallRegistry:
    services: Any = SomeServices(None, hooks)
    other = line().model_copy(update={"name": "other"})
    registry = CallRegistry(Routing([line(), other]), services, max_calls=1, max_cps=10)
    registry.accepting = True
    return registry


@pytest.mark.parametrize(("route", "answers"), [("other", "other"), ("nobody", "x"), (None, "x")])
def test_a_plugin_chooses_the_line_if_there_is_one_of_that_name(route: Any, answers: str, monkeypatch: Any) -> None:
    async def test() -> None:
        taken = Taken(monkeypatch)
        hooks = SpokenHooks(0.05, route=lambda: route, admit=lambda: None)
        registry = two_lines(hooks)
        registry.admit(Leg())
        registry.trouble("leg1", "admit", HookOutcome("guard", "failed", 0.0))
        registry.trouble("another", "admit", HookOutcome("guard", "failed", 0.0))
        full = Leg()
        registry.admit(full)
        assert full.told == ["reject 503"], "a call that plugins are asked about takes the place of a call"
        await asyncio.sleep(0.2)
        assert (taken.lines, taken.troubles) == ([answers], ["admit failed"])
        call = hooks.calls["route"]
        assert call is not None
        assert (call.line, call.caller, call.called, call.caller_name) == ("", "200", "100", "Ann")
        taken.over.set()
        await settled(registry)

    run_virtual(test())


def test_a_call_keeps_the_plan_that_it_came_with_whatever_plugins_take_time_for(monkeypatch: Any) -> None:
    async def test() -> None:
        taken = Taken(monkeypatch)
        registry = two_lines(SpokenHooks(0.05, route="other"))
        registry.admit(Leg())
        await asyncio.sleep(0.01)
        newer = line().model_copy(update={"name": "newer"})
        later = SpokenHooks(route=lambda: None)
        registry.take_over(Routing([newer]), later)
        await asyncio.sleep(0.1)
        taken.over.set()
        await settled(registry)
        registry.admit(Leg())
        await asyncio.sleep(0.1)
        await settled(registry)
        assert taken.lines == ["other", "newer"]

    run_virtual(test())


def test_a_caller_who_gives_up_while_plugins_are_asked_is_on_record_as_one_who_did(monkeypatch: Any) -> None:
    async def test() -> None:
        taken = Taken(monkeypatch)
        registry = two_lines(SpokenHooks(0.05, admit=lambda: None))
        leg = Leg()
        registry.admit(leg)
        await asyncio.sleep(0.01)
        assert leg.on_hangup is not None
        leg.on_hangup(HangupCause("caller", 487, "cancelled"))
        await asyncio.sleep(0.2)
        assert taken.lines == ["x gone"]
        taken.over.set()
        await settled(registry)

    run_virtual(test())


@pytest.mark.parametrize("after_s", [0.0, 0.02])
def test_a_box_that_stops_does_not_wait_for_plugins(after_s: float, monkeypatch: Any) -> None:
    async def test() -> None:
        taken = Taken(monkeypatch)
        registry = two_lines(SpokenHooks(60.0, admit=lambda: None))
        leg = Leg()
        registry.admit(leg)
        if after_s:
            await asyncio.sleep(after_s)
        await registry.end_all("the box stops")
        assert (leg.told, taken.lines, registry.active) == (["reject 503"], [], 0)

    run_virtual(test())
