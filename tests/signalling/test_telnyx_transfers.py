"""Callers handed on by Telnyx, over real sockets to a server that takes what Telnyx takes."""

from __future__ import annotations

import asyncio

import pytest

from appliance.api import CallRequest, CarrierCall, StreamAddress, web_calls
from appliance.api import web as api_web
from appliance.errors import CarrierApiError
from tests.signalling.fake_box import FakeBoxCall
from tests.signalling.telnyx_edge import Edge, edge


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is asked again without a wait."""
    monkeypatch.setattr(api_web, "_BACK_OFF_S", 0.0)


def address(found: Edge, token: str = "s3cret") -> StreamAddress:
    return StreamAddress(found.carrier.stream_url(token), token)


def request(found: Edge, key: str = "lead-7") -> CallRequest:
    box_call = FakeBoxCall(key, found.carrier)
    return CallRequest("+4930123", "+15550002", 31.6, address(found), key, box_call)


def transferring(call: CarrierCall, other: CarrierCall | None = None) -> asyncio.Task[int]:
    return asyncio.ensure_future(call.transfer("+4930999", other))


async def test_a_transfer() -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        task = transferring(call)
        (command, _, body) = (await found.asked_for(1))[0]
        state = body.pop("target_leg_client_state")
        assert (command, body) == ("transfer", {"to": "+4930999", "timeout_secs": 30})
        await found.tell("call.initiated", "v3:two", direction="outgoing", client_state=state)
        await found.tell("call.answered", "v3:two", client_state=state)
        assert not task.done()
        await found.tell("call.bridged", "v3:two", client_state=state)
        assert await task == 200
        assert (await found.asked_for(2))[1][:2] == ("streaming_stop", "v3:one")
        await call.hangup()
        assert len(found.asked) == 2, "the two talk on when we are gone"


async def test_a_transfer_that_is_given_up_rings_nobody() -> None:
    """The target is hung up: named before that, after it, and by an answer that comes as late as can be."""
    async with edge() as found:
        for number, named in enumerate((True, False)):
            caller, target = f"v3:{number}", f"v3:target-{number}"
            found.asked.clear()
            await found.incoming(caller)
            task = transferring(found.box.admitted[number].call)
            state = (await found.asked_for(1))[0][2]["target_leg_client_state"]
            if named:
                await found.tell("call.initiated", target, direction="outgoing", client_state=state)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not named:
                await found.tell("call.answered", target, client_state=state)
            assert (await found.asked_for(2))[1][:2] == ("hangup", target)
            await found.tell("call.bridged", target, client_state=state)
            await found.tell("call.hangup", target, client_state=state)
            assert not found.box.admitted[number].box_call.ended
            assert list(found.carrier.calls) == [f"v3:{n}" for n in range(number + 1)]


async def test_a_transfer_that_nobody_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.signalling.telnyx.TRANSFER_SLACK_S", 0.0)
    async with edge() as found:
        await found.incoming()
        task = asyncio.ensure_future(found.box.admitted[0].call.transfer("+4930999", None, 0.3))
        state = (await found.asked_for(1))[0][2]["target_leg_client_state"]
        await found.tell("call.initiated", "v3:two", direction="outgoing", client_state=state)
        assert await task == 408
        assert (await found.asked_for(2))[1][:2] == ("hangup", "v3:two")
        found.carrier.sweep(asyncio.get_running_loop().time() + web_calls.KEEP_S + 1)
        await found.tell("call.initiated", "v3:three", client_state=state)
        assert len(found.asked) == 2


async def test_a_transfer_that_the_api_may_have_begun() -> None:
    async with edge() as found:
        await found.incoming()
        found.answers += [(500, {})] * 4
        assert await found.box.admitted[0].call.transfer("+4930999", None) == 408
        state = found.asked[0][2]["target_leg_client_state"]
        await found.tell("call.answered", "v3:two", client_state=state)
        assert (await found.asked_for(5))[4][:2] == ("hangup", "v3:two")
        found.answers += [(403, {})]
        with pytest.raises(CarrierApiError, match="HTTP 403"):
            await found.box.admitted[0].call.transfer("+4930999", None)


@pytest.mark.parametrize("by", ["the caller", "the box"])
async def test_a_caller_who_is_gone_leaves_no_target(by: str) -> None:
    async with edge() as found:
        await found.incoming()
        task = transferring(found.box.admitted[0].call)
        state = (await found.asked_for(1))[0][2]["target_leg_client_state"]
        await found.tell("call.initiated", "v3:two", direction="outgoing", client_state=state)
        if by == "the box":
            await found.box.admitted[0].call.hangup()
        else:
            await found.tell("call.hangup", hangup_cause="normal_clearing")
        assert await task == 487
        hung_up = {("hangup", "v3:two")} | ({("hangup", "v3:one")} if by == "the box" else set())
        assert {asked[:2] for asked in (await found.asked_for(1 + len(hung_up)))[1:]} == hung_up


async def test_a_bridge_that_is_given_up() -> None:
    async with edge() as found:
        await found.incoming()
        call, other = found.box.admitted[0].call, await found.carrier.place(request(found))
        task = transferring(call, other)
        await found.asked_for(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await found.asked_for(3))[2][:2] == ("hangup", "v3:placed")
        await found.incoming("v3:three")
        task = transferring(found.box.admitted[1].call, await found.carrier.place(request(found)))
        await found.asked_for(5)
        await found.tell("call.hangup", "v3:placed", hangup_cause="normal_clearing")
        assert await task == 487, "the other one has gone"


async def test_a_transfer_to_one_who_is_busy() -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        task = transferring(call)
        state = (await found.asked_for(1))[0][2]["target_leg_client_state"]
        await found.tell("call.hangup", "v3:two", client_state=state, hangup_cause="user_busy")
        assert await task == 486
        assert found.box.admitted[0].box_call.overs == [], "the caller is still there"
        await call.hangup()
        assert [command for command, _, _ in found.asked] == ["transfer", "hangup"]


async def test_a_caller_who_hangs_up_during_a_transfer() -> None:
    async with edge() as found:
        await found.incoming()
        task = transferring(found.box.admitted[0].call)
        await found.asked_for(1)
        await found.tell("call.hangup", hangup_cause="normal_clearing")
        assert await task == 487
        assert len(found.box.admitted[0].box_call.overs) == 1


async def test_a_transfer_to_a_call_that_was_placed() -> None:
    async with edge() as found:
        await found.incoming()
        call, other = found.box.admitted[0].call, await found.carrier.place(request(found))
        task = transferring(call, other)
        assert (await found.asked_for(2))[1] == ("bridge", "v3:one", {"call_control_id": "v3:placed"})
        await found.tell("call.bridged", "v3:one")
        assert await task == 200
        stopped = {call_id for command, call_id, _ in await found.asked_for(4) if command == "streaming_stop"}
        assert stopped == {"v3:one", "v3:placed"}
