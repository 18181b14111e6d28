"""Callers whom the box hands on, by REFER and through itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.signalling.leg import HangupCause, TransferRequest
from tests.calls.transfer_box import Box, LetsTheBoxOffer, Slot, caller_refers


async def test_a_peer_that_takes_refer_calls_the_target_itself() -> None:
    async with Box() as box:
        caller_refers(box)
        assert await box.within(box.hand_on()) == "transferred to 200"
        assert [leg.info.called for leg in box.called] == ["200"]
        assert box.media.told == []
        assert box.trunks.state("pbx").calls == 0


async def test_when_the_target_is_busy_the_caller_is_here_again() -> None:
    async with Box() as box:
        caller_refers(box)
        box.on_called = lambda leg: leg.reject(486)
        assert await box.within(box.hand_on()) is None
        assert not box.leg.ended
        assert box.media.told == [], "the target has refused, so the box does not call it again"


async def test_where_the_peer_reports_that_it_cannot_reach_the_target_the_box_calls_it() -> None:
    async with Box() as box:

        def fail(request: TransferRequest) -> None:
            request.accept()
            request.report(404)

        box.caller_call.on_transfer = fail
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.called[0].hangup()
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"


async def test_a_peer_is_not_told_to_call_what_another_trunk_leads_to() -> None:
    async with Box(route="far") as box:
        told: list[TransferRequest] = []
        box.caller_call.on_transfer = told.append
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        assert box.trunks.state("far").calls == 1
        assert told == []
        box.called[0].hangup()
        await box.within(transfer)


@pytest.mark.parametrize("proxy", [True, False])
async def test_a_peer_that_is_told_to_call_whatever_leads_elsewhere_calls_it_by_its_own_proxy(proxy: bool) -> None:
    async with Box(route="far", transfer="refer", **({} if proxy else {"proxies": ()})) as box:
        told: list[str] = []

        def follow(request: TransferRequest) -> None:
            told.append(request.target)
            request.accept()
            request.report(200)

        box.caller_call.on_transfer = follow
        assert await box.within(box.hand_on()) == "transferred to 200"
        assert told == [f"sip:200@127.0.0.1:{box.target.port if proxy else box.caller.port}"]


async def test_a_peer_is_not_told_to_call_what_its_own_trunk_may_not_dial() -> None:
    async with Box(route="far", transfer="refer", allow_prefixes=("3",)) as box:
        told: list[TransferRequest] = []
        box.caller_call.on_transfer = told.append
        assert await box.within(box.hand_on()) is None
        assert told == box.called == []
        assert box.router.refused["prefix"] == box.trunks.state("pbx").counters["refused_dialling"] == 1


async def test_a_peer_that_refuses_refer_is_put_through_the_box() -> None:
    async with Box() as box:
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        assert box.media.told == ["music True", "music False", "bridge 1"]
        assert box.trunks.state("pbx").calls == 1
        await box.until(lambda: box.media.connected[-1].receive)
        box.called[0].hangup("done")
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"
        assert box.media.told[3:] == ["bridge None", "music False"]
        assert box.second.told == ["close", "release"]
        assert box.trunks.state("pbx").calls == 0


async def test_the_caller_is_on_hold_while_the_other_side_rings() -> None:
    async with Box(transfer="bridge") as box:
        held: list[bool] = []
        box.caller_call.on_held = held.append
        box.on_called = lambda leg: leg.ring()
        transfer = box.hand_on(attended=True)
        await box.until(lambda: held == [True])
        box.called[0].answer(Slot(local_port=30000))  # type: ignore[arg-type]
        await box.until(lambda: held == [True, False])
        assert "bridge 1" in box.media.told
        box.called[0].hangup()
        assert await box.within(transfer) is not None


@pytest.mark.parametrize("offers", [True, False])
async def test_a_call_of_ours_that_somebody_else_picks_up_is_answered(offers: bool) -> None:
    async with Box(transfer="bridge", allow_transfer=True) as box:
        box.on_called = lambda leg: leg.ring()
        ended: list[HangupCause] = []
        transfer = box.hand_on()
        await box.until(lambda: bool(box.called))
        box.called[0].on_hangup = ended.append
        headers = [("Replaces", str(box.called[0]._call.as_replaced()))]
        picked_up: Any
        if offers:
            slot: Any = Slot(local_port=40000)
            picked_up = await box.caller.dial(
                f"sip:100@127.0.0.1:{box.endpoint.port}", "sip:bob@b", slot, headers=headers
            )
        else:
            picked_up = LetsTheBoxOffer(box, headers)
        await box.until(lambda: "bridge 1" in box.media.told)
        assert box.second.connected[-1].remote_port == 40000
        await box.until(lambda: ended == [HangupCause("caller", 487, "cancelled")])
        picked_up.hangup()
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"
        assert box.trunks.state("pbx").calls == 0


async def test_a_pick_up_whose_media_cannot_be_agreed_on_is_no_answer() -> None:
    async with Box(transfer="bridge", allow_transfer=True) as box:
        box.on_called = lambda leg: leg.ring()
        transfer = box.hand_on()
        await box.until(lambda: bool(box.called))
        LetsTheBoxOffer(box, [("Replaces", str(box.called[0]._call.as_replaced()))], ("m=audio 40000", "m=audio 0"))
        assert await box.within(transfer) is None
        assert "bridge 1" not in box.media.told


async def test_a_caller_who_hangs_up_takes_the_other_side_along() -> None:
    async with Box(transfer="bridge") as box:
        ended: list[HangupCause] = []
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.called[0].on_hangup = ended.append
        transfer.cancel()
        await asyncio.gather(transfer, return_exceptions=True)
        await box.until(lambda: bool(ended))
        assert box.second.told == ["close", "release"]
        assert box.trunks.state("pbx").calls == 0


async def test_attended_with_a_peer_that_takes_refer_joins_both_there() -> None:
    async with Box() as box:
        caller_refers(box)
        held: list[bool] = []
        box.caller_call.on_held = held.append
        assert await box.within(box.hand_on(attended=True)) == "transferred to 200"
        assert held == [True], "a call that is about to end is not taken off hold"
        assert len(box.called) == 1, "the second INVITE took the place of the first call"
        assert box.target.counters["calls_received"] == 2
        assert box.second.told == ["close", "release"]


async def test_what_may_not_be_dialled_is_not_transferred_to() -> None:
    async with Box() as box:
        for to in ("300", "sip:200@192.0.2.1", "909001123456", ""):
            assert await box.within(box.hand_on(to)) is None
        assert box.called == []
        assert sum(box.router.refused.values()) == 4


async def test_without_a_free_slot_the_caller_stays() -> None:
    async with Box(transfer="bridge") as box:
        box.full = True
        assert await box.within(box.hand_on()) is None
        assert not box.leg.ended


async def test_one_who_was_called_may_hold_a_call_that_goes_through_the_box() -> None:
    async with Box(transfer="bridge") as box:
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        await box.until(box.called[0]._up.is_set)
        box.called[0].hold()
        await box.until(lambda: box.listener.outgoing.held)
        box.listener.on_media_timeout(30.0)
        assert not box.listener.outgoing.ended
        box.called[0].resume()
        await box.until(lambda: not box.listener.outgoing.held)
        box.listener.on_media_timeout(30.0)
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"


async def test_a_trunk_may_keep_calls_without_rtp_that_go_through_the_box() -> None:
    async with Box(transfer="bridge", media_timeout="keep") as box:
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.listener.on_media_timeout(30.0)
        assert not box.listener.outgoing.ended
        box.called[0].hangup()
        await box.within(transfer)


@pytest.mark.parametrize("dtmf", ["info", "auto"])
async def test_over_a_bridge_each_key_goes_on_once_the_way_the_other_side_takes_it(dtmf: str) -> None:
    """Media passes on by itself what it heard, unless the other side takes keys by INFO."""

    async with Box(transfer="bridge", dtmf=dtmf) as box:
        heard: list[str] = []
        task = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.called[0].on_digits = lambda digits: heard.append(f"called {digits}")
        box.caller_call.on_digits = lambda digits: heard.append(f"caller {digits}")
        [relay] = box.relays
        assert relay is not None
        relay("5", "media")
        relay("#", "info")
        box.listener.on_digit("7", 0)
        box.listener.pressed("7", "info")
        box.listener.pressed("8", "info")
        by_info = {"called 5", "called #", "caller 7", "caller 8"} if dtmf == "info" else set()
        await box.until(lambda: set(heard) >= by_info)
        assert sorted(heard) == sorted(by_info)
        assert ("keys #" in box.second.told) == ("keys 8" in box.media.told) == (dtmf == "auto")
        assert not {"keys 5", "keys 7"} & {*box.second.told, *box.media.told}
        box.called[0].hangup()
        await box.within(task)
        assert box.relays[1:] == [None]
