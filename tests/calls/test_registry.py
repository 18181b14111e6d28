"""Who is let in: limits of the box and of a trunk, the line that fits, a plugin's verdict on the number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from appliance.api import hookimpl
from appliance.calls.registry import CallRegistry
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from appliance.hookspecs import IdentityClaim
from appliance.plugins.call_hooks import CallHooks
from appliance.signalling.headers import CallHeaders, Passport
from appliance.signalling.trunks import TrunkRule, TrunkTable
from tests.calls.virtual_call import Leg, VirtualClock


def line(**wanted: Any) -> Line:
    return Line.model_validate({"name": "x", "match": wanted, "flow": {"bye": {"hang_up": "Goodbye."}}})


def admit(leg: Leg, hooks: CallHooks | None = None, trunks: TrunkTable | None = None, **wanted: Any) -> CallRegistry:
    services: Any = SimpleNamespace(trunks=trunks, clock=VirtualClock())
    registry = CallRegistry(Routing([line(**wanted)]), services, max_calls=10, max_cps=10, hooks=hooks)
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


class Verifier:
    """A plugin that knows one number."""

    def __init__(self, verdict: object) -> None:
        self.verdict = verdict
        self.asked: list[IdentityClaim] = []

    @hookimpl
    def appliance_verify_identity(self, claim: IdentityClaim) -> Any:
        self.asked.append(claim)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def signed(leg: Leg) -> Leg:
    passport = Passport("A", "200", ("100",), 1700000000, "https://cert.example", "a.b.c")
    leg.info = replace(leg.info, about=CallHeaders(verstat="No-TN-Validation", identity=(passport,)))
    return leg


def verdict(plugin: Verifier, leg: Leg) -> str:
    def test() -> None:
        admit(leg, CallHooks([("verifier", plugin)]), called="999")

    in_loop(test)
    return leg.info.about.verstat


def test_a_plugin_that_verifies_has_the_last_word_on_the_number() -> None:
    plugin = Verifier("TN-Validation-Passed")
    assert verdict(plugin, signed(Leg())) == "TN-Validation-Passed"
    (claim,) = plugin.asked
    assert (claim.token, claim.origin, claim.calling, claim.called) == ("a.b.c", "200", "200", "100")


def test_without_a_verdict_or_with_a_broken_plugin_the_networks_word_stands() -> None:
    for answer in (None, ValueError("no certificate"), 7, "x\n"):
        assert verdict(Verifier(answer), signed(Leg())) == "No-TN-Validation"


def test_a_call_that_is_not_signed_is_not_asked_about() -> None:
    plugin = Verifier("TN-Validation-Passed")
    assert verdict(plugin, Leg()) == ""
    assert plugin.asked == []
