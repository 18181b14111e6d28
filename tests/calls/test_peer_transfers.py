"""Transfers that the far end asks for: by REFER, and by an INVITE that takes a call's place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.signalling.leg import HangupCause
from appliance.signalling.sip_legs import OutgoingCall
from tests.calls.transfer_box import Box, LetsTheBoxOffer, Slot, follows


async def test_a_peer_may_not_transfer_unless_its_trunk_says_so() -> None:
    async with Box() as box:
        done = follows(box)
        status, _ = await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))
        assert (status, done, box.called) == (603, [False], [])
        assert box.trunks.state("pbx").counters["refused_transfer"] == 1


async def test_a_transfer_to_a_premium_number_is_refused_and_counted() -> None:
    async with Box(allow_transfer=True, allow_prefixes=("*",), region="DE") as box:
        follows(box)
        status, _ = await box.within(box.caller_call.transfer(f"sip:09001123456@127.0.0.1:{box.target.port}"))
        assert status == 603
        assert box.router.refused["premium"] == 1
        assert box.trunks.state("pbx").counters["refused_transfer"] == 1


async def test_the_leg_goes_on_with_the_one_the_peer_named() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        ended: list[HangupCause] = []
        box.leg.on_hangup = ended.append
        status, _ = await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))
        assert status == 200
        await box.until(lambda: done == [True])
        assert box.media.connected[-1].remote_port == 30000
        box.caller_call.hangup()
        await box.within(box.caller_call.wait_ended())
        assert not box.leg.ended
        assert ended == []
        box.called[0].hangup()
        await box.until(lambda: bool(ended))
        assert ended[0].by == "caller"


async def test_the_one_the_peer_named_is_called_with_the_headers_of_the_trunk() -> None:
    async with Box(allow_transfer=True, headers_out=(("X-Caller", "${caller.number}"),)) as box:
        follows(box)
        assert (await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))).done
        assert box.called[0].info.headers["X-Caller"] == "ann"


async def test_the_one_the_peer_named_may_do_what_its_own_trunk_says() -> None:
    async with Box(route="far", allow_transfer=True) as box:
        follows(box)
        assert (await box.within(box.caller_call.transfer("tel:200"))).done
        assert box.trunks.state("pbx").counters["transfers_in"] == 1
        assert (box.leg.info.trunk, box.leg.info.can_transfer) == ("far", True)
        assert box.leg.info.source == f"127.0.0.1:{box.target.port}"
        await box.until(box.called[0]._up.is_set)
        assert (await box.within(box.called[0].transfer("tel:200"))).status == 603
        assert box.trunks.state("far").counters["refused_transfer"] == 1


async def test_a_peer_may_hang_up_while_the_one_it_named_rings() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        box.on_called = lambda leg: leg.ring()
        ended: list[HangupCause] = []
        box.leg.on_hangup = ended.append
        box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")
        await box.until(lambda: bool(box.called))
        box.caller_call.hangup()
        await box.until(lambda: ended == [HangupCause("caller", 200, "BYE")])
        box.called[0].answer(Slot(local_port=30000))  # type: ignore[arg-type]
        await box.until(lambda: done == [True])
        assert box.media.connected[-1].remote_port == 30000
        await box.until(box.called[0]._up.is_set)
        box.called[0].hangup()
        await box.until(lambda: len(ended) == 2)


async def test_once_the_peer_has_hung_up_nothing_is_sent_to_it_again() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        box.on_called = lambda leg: leg.ring()
        box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")
        await box.until(lambda: bool(box.called))
        box.caller_call.hangup()
        await box.until(lambda: box.leg.ended)
        connected = len(box.media.connected)
        box.called[0].reject(486)
        await box.until(lambda: done == [False])
        assert len(box.media.connected) == connected


async def test_one_who_answers_and_is_gone_before_the_leg_goes_on_is_told_as_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        place = box.dialler.call

        async def call(*args: Any, **how: Any) -> OutgoingCall:
            outgoing = await place(*args, **how)
            box.called[0].hangup()
            await outgoing.wait_ended()
            return outgoing

        monkeypatch.setattr(box.dialler, "call", call)
        assert await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")) == (480, True)
        assert done == [False]
        assert not box.leg.ended
        assert box.media.connected[-1] == box.media.connected[0]


async def test_a_peer_that_holds_before_it_transfers_leaves_nobody_on_hold() -> None:
    async with Box(allow_transfer=True) as box:
        follows(box)
        held: list[bool] = []
        box.leg.on_held = held.append
        box.caller_call.hold()
        await box.until(lambda: held == [True])
        status, _ = await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))
        assert status == 200
        await box.until(lambda: held == [True, False])
        await box.until(box.called[0]._up.is_set)
        box.called[0].hold()
        await box.until(lambda: held == [True, False, True])


async def test_when_that_one_does_not_answer_the_call_goes_on_as_it_was() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        box.on_called = lambda leg: leg.reject(486)
        before = box.media.connected[-1]
        assert await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")) == (486, True)
        assert done == [False]
        assert box.media.connected[-1] == before
        assert not box.leg.ended


@pytest.mark.parametrize("allowed", [True, False])
async def test_an_invite_that_takes_the_callers_place(allowed: bool) -> None:
    async with Box(allow_transfer=allowed) as box:
        old = box.caller_call
        replaces = str(old.call.as_replaced())
        new = await box.caller.dial(
            f"sip:100@127.0.0.1:{box.endpoint.port}",
            "sip:bob@b",
            replace(Slot(), local_port=40000),  # type: ignore[arg-type]
            headers=[("Replaces", replaces)],
        )
        answered = await box.within(new.wait_answered())
        assert (answered is not None) is allowed
        counters = box.trunks.state("pbx").counters
        if allowed:
            assert (await box.within(old.wait_ended())).by == "agent"
            assert box.media.connected[-1].remote_port == 40000
            assert counters["transfers_in"] == 1
            assert len(box.legs) == 1
        else:
            assert (await box.within(new.wait_ended())).code == 403
            assert counters["refused_transfer"] == 1
            assert not old.ended


@pytest.mark.parametrize("how", ["offers", "lets the box offer", "lets the box offer, and holds"])
async def test_an_invite_that_takes_the_place_of_a_caller_who_held_says_anew_who_is_on_hold(how: str) -> None:
    async with Box(allow_transfer=True) as box:
        held: list[bool] = []
        box.leg.on_held = held.append
        box.caller_call.hold()
        await box.until(lambda: held == [True])
        headers = [("Replaces", str(box.caller_call.call.as_replaced()))]
        if how == "offers":
            await box.caller.dial(f"sip:100@127.0.0.1:{box.endpoint.port}", "sip:bob@b", Slot(), headers=headers)
        else:
            LetsTheBoxOffer(box, headers, ("a=sendrecv", "a=sendonly" if how.endswith("holds") else "a=sendrecv"))
        await box.until(lambda: box.leg._up.is_set() and held == [True, False, *[True] * how.endswith("holds")])
        box.leg.hangup()
