"""Placing calls through the HTTP API: what it takes, what it tells, and how a call is hung up by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from appliance.admin.calls_api import CallsApi
from appliance.calls.orders import OutgoingOrder, OutgoingResult, Progress
from appliance.conversation.answering import Verdict


class Scripted:
    """An originator whose call is over when ``ends`` is set."""

    def __init__(self, result: OutgoingResult | None = None) -> None:
        self.result = result or OutgoingResult(sip_code=486, sip_text="Busy Here")
        self.orders: list[OutgoingOrder] = []
        self.ends = asyncio.Event()
        self.hung_up = False

    def room(self, line: str = "", trunk: str = "") -> int:
        return 1

    async def call(self, order: OutgoingOrder, progress: Progress = lambda what, at: None) -> OutgoingResult:
        self.orders.append(order)
        progress("ringing", 1.0)
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            self.hung_up = True
            raise
        return self.result


def served(test: Callable[[ClientSession, Scripted], Awaitable[None]], result: OutgoingResult | None = None) -> None:
    async def run() -> None:
        originator = Scripted(result)
        api = CallsApi(originator)
        app = web.Application()
        app.router.add_routes(api.routes())
        async with TestServer(app) as server, ClientSession(server.make_url("/")) as client:
            await test(client, originator)
        await api.close()

    asyncio.run(run())


ORDER: dict[str, Any] = {
    "number": "+12025550123",
    "line": "recall",
    "trunk": "carrier",
    "caller_id": "+1 202 555 0100",
    "ring_timeout_s": 20,
    "owner": "Acme",
    "zone": "America/New_York",
    "opt_out_key": "",
    "variables": {"name": "Ann"},
    "answering": {"on_machine": "message", "message": "Call us.", "on_screening": "hang_up"},
}


def test_a_call_is_ordered_followed_and_told_of() -> None:
    async def test(client: ClientSession, originator: Scripted) -> None:
        async with client.post("/api/v1/calls", json=ORDER) as answer:
            assert answer.status == 202
            call_id = (await answer.json())["call_id"]
            assert answer.headers["Location"] == f"/api/v1/calls/{call_id}"
        async with client.get(f"/api/v1/calls/{call_id}") as answer:
            assert await answer.json() == {"call_id": call_id, "state": "ringing"}
        originator.ends.set()
        async with client.get(f"/api/v1/calls/{call_id}?wait=20") as answer:
            told = await answer.json()
        (order,) = originator.orders
        assert (order.call_id, order.number, order.caller_id) == (call_id, "+12025550123", "+12025550100")
        assert (order.variables, order.opt_out_key, order.owner) == ({"name": "Ann"}, "", "Acme")
        assert order.answering is not None
        assert (order.answering.on_machine, order.answering.message) == ("message", "Call us.")
        assert (told["state"], told["result"]["sip_code"], told["result"]["sip_text"]) == ("over", 486, "Busy Here")

    served(test)


def test_a_result_tells_times_after_the_order_and_when_to_call_again_in_utc() -> None:
    result = OutgoingResult(
        sip_code=200,
        answered_at=1e12,
        ended_at=1e12 + 4.5,
        verdict=Verdict("human", 0.9, 1.1, "short"),
        callback_at=datetime(2026, 11, 23, 9, 0, tzinfo=timezone(timedelta(hours=-5))),
    )

    async def test(client: ClientSession, originator: Scripted) -> None:
        originator.ends.set()
        async with client.post("/api/v1/calls?wait=true", json=ORDER) as answer:
            told = (await answer.json())["result"]
        assert (told["talk_s"], told["callback_at"]) == (4.5, "2026-11-23T14:00:00+00:00")
        assert told["verdict"] == {"kind": "human", "confidence": 0.9, "at_s": 1.1, "why": "short"}
        assert told["ringing_after_s"] is None
        assert told["answered_after_s"] > 0

    served(test, result)


def test_a_call_is_hung_up() -> None:
    async def test(client: ClientSession, originator: Scripted) -> None:
        async with client.post("/api/v1/calls", json=ORDER) as answer:
            call_id = (await answer.json())["call_id"]
        await asyncio.sleep(0)
        async with client.delete(f"/api/v1/calls/{call_id}") as answer:
            told = await answer.json()
        assert originator.hung_up
        assert told["result"]["problem"] == "hung up as asked for"

    served(test)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"number": ""}, "number"),
        ({"line": "a b"}, "line"),
        ({"caller_id": "0301234"}, "caller_id"),
        ({"ring_timeout_s": 4000}, "ring_timeout_s"),
        ({"opt_out_key": "99"}, "opt_out_key"),
        ({"variables": {"Name": "Ann"}}, "variables.Name"),
        ({"answering": {"on_machine": "shout"}}, "answering.on_machine"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(change: dict[str, Any], key: str) -> None:
    async def test(client: ClientSession, originator: Scripted) -> None:
        async with client.post("/api/v1/calls", json={**ORDER, **change}) as answer:
            told = await answer.json()
            assert answer.status == 422
        assert told["mistakes"][0]["key"].startswith(key)
        assert originator.orders == []

    served(test)


def test_bodies_that_are_no_json_or_too_long_and_calls_that_are_not_there() -> None:
    async def test(client: ClientSession, originator: Scripted) -> None:
        async with client.post("/api/v1/calls", data=b"{nothing") as answer:
            assert answer.status == 400
            assert "not JSON" in (await answer.json())["error"]
        async with client.post("/api/v1/calls", data=b"x" * 100_000) as answer:
            assert answer.status == 413
        async with client.get("/api/v1/calls/none") as answer:
            assert answer.status == 404

    served(test)
