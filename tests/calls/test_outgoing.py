"""Who places calls of agents: what is not placed, and why; how many could be; what a cancelled one comes to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.calls.orders import OutgoingOrder, OutgoingResult
from appliance.calls.outgoing import BoxOriginator, zone_of
from appliance.config.trunks import Route
from appliance.dialplan.schema import Line
from appliance.errors import StoreError
from appliance.signalling.routes import Router
from appliance.signalling.trunks import TrunkRule, TrunkTable

LINES = {"recall": Line.model_validate({"name": "recall", "flow": {"bye": {"hang_up": "Goodbye."}}})}
LINES["closed"] = Line.model_validate({"name": "closed", "refuse": 603})
ORDER = OutgoingOrder("call1", "+12025550123", "recall", variables={"name": "Ann\n"}, campaign="spring", owner="Acme")


class Listed:
    """The do-not-call list."""

    def __init__(self, *numbers: str, broken: bool = False) -> None:
        self.numbers, self.broken = numbers, broken

    async def refuses_calls(self, number: str) -> bool:
        if self.broken:
            raise StoreError("the disk is full")
        return number in self.numbers


class Registry:
    """Begins calls that last until ``over`` is set."""

    def __init__(self, callers: Any = None, refusal: str = "", room: int = 40) -> None:
        self.services = SimpleNamespace(callers=callers, clock=None, rings=None)
        self.routing = SimpleNamespace(line=LINES.get)
        self.refused, self.room = refusal, room
        self.legs: list[Any] = []
        self.ended: list[tuple[str, bool]] = []
        self.over = asyncio.Event()

    def refusal(self) -> str:
        return self.refused

    def begin(self, leg: Any, line: Line, placing: Any) -> tuple[Any, asyncio.Task[None]]:
        self.legs.append(leg)

        async def run() -> None:
            await self.over.wait()
            placing._result = replace(placing.result, sip_code=200)
            placing.kept.set()
            await asyncio.Event().wait()  # what plugins do with the record

        def end(disposition: Any, text: str, *, politely: bool) -> None:
            self.ended.append((text, politely))
            self.over.set()

        self.task = asyncio.create_task(run())
        return SimpleNamespace(end=end), self.task


def made(registry: Registry, **rule: Any) -> BoxOriginator:
    usual: dict[str, Any] = {"proxies": ("sip:192.0.2.1",), "allow_prefixes": ("+1202",), "caller_id": "+12025550100"}
    trunks = TrunkTable([TrunkRule("carrier", **(usual | rule)), TrunkRule("other", **(usual | {"caller_id": ""}))])
    dialler: Any = SimpleNamespace(router=Router(trunks, [Route(to=("+1",), trunks=("carrier", "other"))]))
    calls: Any = registry
    return BoxOriginator(calls, dialler, trunks, lambda: 0.0)


async def result(order: OutgoingOrder, registry: Registry, **rule: Any) -> OutgoingResult:
    registry.over.set()
    found = await made(registry, **rule).call(order)
    if registry.legs:
        registry.task.cancel()
    return found


@pytest.mark.parametrize(
    ("change", "callers", "refusal", "why"),
    [
        ({}, Listed("+12025550123"), "", "+12025550123 is on the do-not-call list"),
        ({"number": "+1 (202) 555-0123"}, Listed("+12025550123"), "", "+12025550123 is on the do-not-call list"),
        ({}, Listed(broken=True), "", "the do-not-call list cannot be read: the disk is full"),
        ({"line": "nobody"}, None, "", "there is no line 'nobody'"),
        ({"line": "closed"}, None, "", "line 'closed' refuses calls"),
        ({"number": "+4930222"}, None, "", "no route leads to +4930222"),
        ({"number": "+13035550123"}, None, "", "allow_prefixes"),
        ({"trunk": "nowhere"}, None, "", "there is no trunk 'nowhere'"),
        ({"caller_id": "+12025559999"}, None, "", "+12025559999 is not ours to show"),
        ({}, None, "limits.max_calls (40) reached", "no room: limits.max_calls (40) reached"),
    ],
)
async def test_what_is_not_placed(change: dict[str, Any], callers: Any, refusal: str, why: str) -> None:
    registry = Registry(callers, refusal)
    found = await result(replace(ORDER, **change), registry)
    assert why in found.problem
    assert (found.sip_code, registry.legs) == (0, [])


async def test_whom_the_leg_calls_and_what_is_known_of_them() -> None:
    registry = Registry(Listed())
    assert (await result(ORDER, registry)).sip_code == 200
    info = registry.legs[0].info
    assert (info.leg_id, info.called, info.calling, info.outbound) == ("call1", "+12025550123", "+12025550100", True)
    assert info.known == {"lead.name": "Ann", "campaign.name": "spring", "campaign.owner": "Acme"}
    assert info.person == "+12025550123"
    assert info.zone == "America/New_York"


async def test_a_caller_id_goes_only_by_the_trunks_that_own_it() -> None:
    registry = Registry()
    await result(replace(ORDER, caller_id="+12025550101"), registry, caller_ids=("+12025550101",))
    leg = registry.legs[0]
    assert [attempt.trunk.name for attempt in leg._attempts] == ["carrier"]
    assert leg._caller_id == "+12025550101"


async def test_a_call_that_is_cancelled_is_ended_politely() -> None:
    registry = Registry()
    call = asyncio.create_task(made(registry).call(ORDER))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert registry.ended == [("the call is no longer wanted", True)]
    registry.task.cancel()


async def test_room() -> None:
    assert made(Registry(room=7)).room() == 7
    assert made(Registry(room=0)).room("recall") == 0
    assert made(Registry(room=7)).room("nobody") == 0
    assert made(Registry(room=7)).room("recall", "nowhere") == 0
    limited = made(Registry(room=7), max_calls=3, max_cps=2.0)
    assert limited.room("recall", "carrier") == 2
    limited._trunks.take("carrier", 0.0, outgoing=True)
    assert limited.room("recall", "carrier") == 1
    limited._trunks.take("carrier", 0.0, outgoing=True)
    assert limited.room("recall", "carrier") == 0
    assert limited._trunks.room("carrier", 1.0) == 1
    assert limited.room("recall", "other") == 7


def test_zones() -> None:
    assert zone_of("+12025550123") == "America/New_York"
    assert zone_of("+390612345678") == "Europe/Rome"
    assert zone_of("+18005550123") == ""
    assert zone_of("sip:ann@example.net") == ""
