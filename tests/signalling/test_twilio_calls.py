"""Whole calls, at a Twilio that executes every document it is given and holds it to the language's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import WSMsgType, web

from appliance.api import CallRequest, CarrierCall, StreamAddress
from appliance.signalling.twilio_rest import TwilioApi
from tests.carriers.twilio_call import Callee
from tests.carriers.twilio_sim import TwilioSim
from tests.signalling.fake_box import running
from tests.signalling.twilio_edge import ACCOUNT, PUBLIC, TOKEN, Edge, FakeBoxCall, edge
from tests.waiting import LIMIT_S

MEDIA = "wss://voice.example.com"
TARGET = "+4930999"


@dataclass
class Place:
    """A trunk and its Twilio, and the media server between them."""

    twilio: Edge
    sim: TwilioSim
    sockets: list[web.WebSocketResponse]

    async def caller(self) -> tuple[CarrierCall, FakeBoxCall]:
        """A caller whose stream is up."""

        async def answer(call: CarrierCall) -> None:
            await call.answer(StreamAddress(f"{MEDIA}/twilio/media", "secret-1"))

        self.twilio.box.decide = answer
        calling = await self.sim.call("+4930222", "+4930111")
        await calling.streaming()
        call, incoming, box_call = self.twilio.box.admitted[-1]
        assert (incoming.call_id, incoming.offered["StirVerstat"]) == (calling.sid, "TN-Validation-Passed-A")
        return call, box_call

    def request(self, key: str = "leg-1") -> CallRequest:
        stream = StreamAddress(f"{MEDIA}/twilio/media", f"secret of {key}")
        return CallRequest(TARGET, "+4930222", 20, stream, key, FakeBoxCall(key))


@asynccontextmanager
async def place(**options: object) -> AsyncIterator[Place]:
    sockets: list[web.WebSocketResponse] = []

    async def media(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sockets.append(socket)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
        return socket

    app = web.Application()
    app.router.add_get("/twilio/media", media)
    async with (
        TwilioSim(
            f"{PUBLIC}/twilio/voice", status_url=f"{PUBLIC}/twilio/status", account_sid=ACCOUNT, auth_token=TOKEN,
            tls_only=True,
        ) as sim,
        edge(**options) as twilio,
        running(app) as port,
    ):  # fmt: skip
        sim.reach = {PUBLIC: f"http://127.0.0.1:{twilio.port}", MEDIA: f"ws://127.0.0.1:{port}"}
        twilio.carrier._api = TwilioApi(ACCOUNT, TOKEN, sim.api_url, twilio.http, backoff_s=0.05, try_s=0.5)
        yield Place(twilio, sim, sockets)
        sim.check()


async def until(met: asyncio.Event) -> None:
    async with asyncio.timeout(LIMIT_S):
        await met.wait()


async def test_a_caller_hangs_up() -> None:
    async with place() as at:
        _, box_call = await at.caller()
        (calling,) = at.sim.calls.values()
        await calling.hang_up()
        assert box_call.overs[0] == (200, True)


async def test_the_box_hangs_up() -> None:
    async with place() as at:
        call, _ = await at.caller()
        await call.hangup()
        (calling,) = at.sim.calls.values()
        assert await calling.wait_ended() == "completed"


async def test_a_stream_that_the_network_breaks_is_opened_again() -> None:
    async with place() as at:
        _, box_call = await at.caller()
        (calling,) = at.sim.calls.values()
        transport = at.sockets[0]._req and at.sockets[0]._req.transport
        assert transport is not None
        transport.abort()
        again = await calling.streaming(number=2)
        assert box_call.streams == 1 and not box_call.overs
        assert "again-1" in calling.documents[-1] and not again.ended.is_set()
        await calling.hang_up()


@pytest.mark.parametrize(("outcome", "status"), [("busy", 486), ("failed", 503)])
async def test_a_transfer_that_comes_to_nothing_brings_the_caller_back(outcome: str, status: int) -> None:
    async with place() as at:
        call, box_call = await at.caller()
        (calling,) = at.sim.calls.values()
        at.sim.callees[TARGET] = Callee(outcome, ring_s=0.05)  # type: ignore[arg-type]
        assert await call.transfer(TARGET, None) == status
        await calling.streaming(number=2)
        assert box_call.streams == 1 and not box_call.overs
        await calling.hang_up()


async def test_a_caller_is_handed_on_and_the_box_s_goodbye_leaves_them_talking() -> None:
    async with place() as at:
        call, _ = await at.caller()
        (calling,) = at.sim.calls.values()
        assert await call.transfer(TARGET, None) == 200
        await call.hangup()
        far = calling.dialled
        assert far is not None and far.from_ == "+4930111"
        assert (calling.status, far.status) == ("in-progress", "in-progress")
        await far.hang_up()
        assert await calling.wait_ended() == "completed"


async def test_a_placed_call_is_answered_and_streams() -> None:
    async with place(machine_detection="enable") as at:
        at.sim.callees[TARGET] = Callee(answered_by="machine_start", amd_s=0.01)
        asked = at.request()
        call = await at.twilio.carrier.place(asked)
        placed = at.sim.calls[call.call_id]
        stream = await placed.streaming()
        assert not stream.ended.is_set() and "secret of leg-1" in placed.documents[0]
        assert isinstance(asked.box_call, FakeBoxCall) and asked.box_call.rang == 1
        await placed.until(lambda: bool(placed.answered_by), "verdict")
        await call.hangup()
        assert await placed.wait_ended() == "completed"
        assert asked.box_call.overs[-1] == (200, True)
        assert getattr(call, "answered_by") == "machine_start"  # noqa: B009 - no part of CarrierCall


@pytest.mark.parametrize(("outcome", "status"), [("busy", 486), ("no-answer", 480), ("failed", 503)])
async def test_a_placed_call_that_is_not_answered(outcome: str, status: int) -> None:
    async with place() as at:
        at.sim.callees[TARGET] = Callee(outcome, ring_s=0.05)  # type: ignore[arg-type]
        asked = at.request()
        asked = CallRequest(**{**{name: getattr(asked, name) for name in asked.__slots__}, "ring_timeout_s": 1})
        call = await at.twilio.carrier.place(asked)
        await at.sim.calls[call.call_id].wait_ended()
        assert isinstance(asked.box_call, FakeBoxCall) and asked.box_call.overs == [(status, True)]


@pytest.mark.parametrize("fault", ["lost", "timeout", "reset", "503", "500"])
async def test_whatever_the_network_loses_there_is_one_conversation(fault: str) -> None:
    async with place() as at:
        at.sim.fail(fault)  # type: ignore[arg-type]
        call = await at.twilio.carrier.place(at.request())
        placed = at.sim.calls[call.call_id]
        await placed.streaming()
        for other in tuple(at.sim.calls.values()):
            if other is not placed:
                await other.wait_ended()
        assert len(at.sim.streams) == 1
        await call.hangup()
        await placed.wait_ended()


async def test_a_warm_transfer() -> None:
    async with place() as at:
        call, _ = await at.caller()
        (calling,) = at.sim.calls.values()
        other = await at.twilio.carrier.place(at.request())
        called = at.sim.calls[other.call_id]
        await called.streaming()
        assert await call.transfer(TARGET, other) == 200
        await calling.until(lambda: any(len(room.members) == 2 for room in at.sim.rooms.values()), "conference")
        await call.hangup()
        await other.hangup()
        assert (calling.status, called.status) == ("in-progress", "in-progress")
        await called.hang_up()
        assert await calling.wait_ended() == "completed"
