"""A call that we have placed as an agent's leg, between two SIP endpoints of our own over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from appliance.calls.transfer import Transfers
from appliance.config.trunks import Route
from appliance.errors import DialError
from appliance.signalling.leg import CallInfo
from appliance.signalling.outgoing_leg import OutgoingLeg
from appliance.signalling.routes import Dialler, Router
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import SipLeg
from appliance.signalling.trunks import TrunkRule, TrunkTable
from tests.calls.transfer_box import LOOPBACK, Slot
from tests.waiting import LIMIT_S, eventually

INFO = CallInfo("call1", "sip", "", "+4930222", "+4930111", "", "", "", {}, outbound=True)


class Called:
    """The box, and somebody who is called; ``answers`` does with each of their legs what they do."""

    def __init__(self, answers: Callable[[SipLeg], None] = lambda leg: leg.answer(Slot(local_port=30000))) -> None:  # type: ignore[arg-type]
        self.answers = answers
        self.legs: list[SipLeg] = []
        self.media = Slot()
        self.told: list[str] = []
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Called:
        await self.stack.__aenter__()
        self.far = await self._endpoint(self._called, (TrunkRule("box", LOOPBACK, allow_transfer=True),))
        rule = TrunkRule(
            "far", LOOPBACK, proxies=(f"sip:127.0.0.1:{self.far.port}",), allow_prefixes=("+49",), allow_transfer=True
        )
        self.trunks = TrunkTable([rule])
        router = Router(self.trunks, [Route(to=("+49",), trunks=("far",))])
        self.box = await self._endpoint(lambda leg: leg.reject(404), self.trunks)
        self.dialler = Dialler(router, self.trunks, self.box.dial, asyncio.get_running_loop().time)
        self.leg = OutgoingLeg(INFO, self.dialler, router.attempts(INFO.called), 5.0, INFO.calling)
        self.leg.on_hangup = lambda cause: self.told.append(f"hangup {cause.by} {cause.code}")
        self.leg.on_held = lambda held: self.told.append(f"held {held}")
        self.leg.on_placed = lambda: self.told.append("placed")
        self.leg.on_ringing = lambda status: self.told.append(f"ringing {status}")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stack.aclose()

    async def _endpoint(self, on_call: Callable[[Any], None], trunks: Any) -> SipEndpoint:
        made = SipEndpoint([ListenOn("udp", "127.0.0.1", 0)], trunks=trunks, on_call=on_call, stop_grace_s=0.2)
        await made.start()
        self.stack.push_async_callback(made.stop)
        return made

    def _called(self, leg: SipLeg) -> None:
        leg.on_hangup = lambda cause: self.told.append(f"far: hangup {cause.by}")
        self.legs.append(leg)
        leg.ring()
        self.answers(leg)

    async def dial(self) -> None:
        media: Any = self.media
        async with asyncio.timeout(LIMIT_S):
            await self.leg.dial(media, {})


async def test_the_leg_knows_what_it_has_become_once_it_is_answered() -> None:
    async with Called() as called:
        await called.dial()
        info = called.leg.info
        assert (info.trunk, info.protocol, info.called, info.calling) == ("far", "sip", "+4930222", "+4930111")
        assert info.protocol_call_id == called.legs[0].info.protocol_call_id
        assert called.legs[0].info.calling == "+4930111"
        assert info.can_transfer
        assert called.told == ["placed", "ringing 180"]
        assert len(called.media.connected) == 1
        assert called.trunks.state("far").calls == 1


@pytest.mark.parametrize("by_them", [True, False])
async def test_whoever_hangs_up_the_leg_tells_only_of_the_far_end(by_them: bool) -> None:
    async with Called() as called:
        await called.dial()
        await called.leg.settled()
        if by_them:
            called.legs[0].hangup()
            await eventually(lambda: "hangup caller 200" in called.told)
        else:
            called.leg.hangup("goodbye")
            await eventually(lambda: "far: hangup caller" in called.told)
            await eventually(lambda: called.trunks.state("far").calls == 0)
            assert not any(word.startswith("hangup") for word in called.told)


async def test_a_refusal_tells_what_the_far_end_said() -> None:
    async with Called(lambda leg: leg.reject(486)) as called:
        with pytest.raises(DialError) as failed:
            await called.dial()
        assert (failed.value.code, failed.value.text, failed.value.status) == (486, "Busy Here", 486)
        assert called.trunks.state("far").calls == 0


async def test_a_call_that_nobody_waits_for_is_cancelled() -> None:
    async with Called(lambda leg: None) as called:
        dialling = asyncio.create_task(called.dial())
        await eventually(lambda: "ringing 180" in called.told)
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        await eventually(lambda: "far: hangup caller" in called.told)
        assert called.trunks.state("far").calls == 0


async def test_holding_works_both_ways() -> None:
    async with Called() as called:
        await called.dial()
        await called.leg.settled()
        await called.legs[0].settled()
        held: list[bool] = []
        called.legs[0].on_held = held.append
        called.leg.hold()
        await eventually(lambda: held == [True])
        called.leg.resume()
        await eventually(lambda: held == [True, False])
        called.legs[0].hold()
        await eventually(lambda: "held True" in called.told)
        called.legs[0].resume()
        await eventually(lambda: "held False" in called.told)


async def test_the_far_end_is_asked_to_call_somebody_else() -> None:
    async with Called() as called:
        await called.dial()
        await called.leg.settled()
        asked: list[str] = []

        def follow(request: Any) -> None:
            asked.append(request.target)
            request.accept()
            request.report(200)

        called.legs[0].on_transfer = follow
        outcome = await asyncio.wait_for(called.leg.transfer("sip:300@127.0.0.1"), LIMIT_S)
        assert (outcome.done, asked) == (True, ["sip:300@127.0.0.1"])


async def test_a_far_end_that_transfers_is_followed_and_then_means_nothing_any_more() -> None:
    async with Called() as called:
        await called.dial()
        await called.leg.settled()
        media: Any = called.media
        client: Any = None
        transfers = Transfers(called.dialler, called.trunks, client)
        followed: list[asyncio.Task[bool]] = []

        def follow(request: Any) -> None:
            attempts = transfers.admit(called.leg, request)
            followed.append(asyncio.create_task(transfers.follow(called.leg, media, request, attempts, {})))

        called.leg.on_transfer = follow
        first = called.legs[0]
        outcome = await asyncio.wait_for(first.transfer(f"sip:+4930333@127.0.0.1:{called.far.port}"), LIMIT_S)
        assert outcome.done
        assert await followed[0]
        second = called.legs[1]
        assert called.leg.info.protocol_call_id == second.info.protocol_call_id
        first.hangup()
        await eventually(lambda: called.trunks.state("far").calls == 1)
        assert not any(word.startswith("hangup") for word in called.told)
        second.hangup()
        await eventually(lambda: "hangup caller 200" in called.told)


async def test_a_leg_that_was_not_answered_does_nothing() -> None:
    async with Called() as called:
        called.leg.hangup()
        called.leg.hold()
        called.leg.resume()
        called.leg.reconnect()
        assert not called.leg.send_digits("1")
        assert (await called.leg.transfer("sip:300@x")).status == 481
        await called.leg.settled(0.01)
        assert called.told == []
