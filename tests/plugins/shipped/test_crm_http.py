"""The plugin ``crm_http``, which is YAML alone, against a real server."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from appliance.testing import uses
from tests.plugins.declarative.server import HttpServer


async def system(request: web.Request) -> web.StreamResponse:
    if request.path == "/api/customers":
        return web.json_response({"customers": [{"id": 7, "name": "Ann Lee", "since": 2019, "iban": "secret"}]})
    if request.path == "/api/orders/12345":
        return web.json_response({"order": {"state": "sent", "items": [{"name": "hat"}], "arrives": "Tuesday"}})
    if request.method == "POST":
        return web.json_response({"ticket": {"number": "T-9"}}, status=201)
    return web.json_response({}, status=404)


async def test_customers_orders_and_tickets(scripted_call: Any) -> None:
    async with HttpServer(system) as server:
        call = await scripted_call(
            plugins={"crm_http": {"address": f"{server.url}/api", "token": SecretStr("top")}},
            caller="+4915112345678",
            model={
                "my order": [uses("find_customer"), uses("order_status", number="12345"), "On Tuesday, Ann."],
                "other": [uses("order_status", number="99999"), "There is none."],
                "broken": [uses("open_ticket", subject="a broken hat", text="The hat is broken."), "Noted."],
            },
        )
        await call.says("where is my order")
        assert call.tool("find_customer").result == {"customer": 7, "name": "Ann Lee", "since": 2019}
        assert call.tool("order_status").result == {"state": "sent", "items": ["hat"], "arrives": "Tuesday"}
        await call.says("and the other one")
        assert "no order of this number" in call.tool("order_status").problem
        await call.says("it is broken")
        assert call.heard("Shall I note down a broken hat for our staff?")
        await call.says("yes")
        assert call.tool("open_ticket").result == {"ticket": "T-9"}
        await call.hangs_up()
    assert all(one.headers["Authorization"] == "Bearer top" for one in server.asked)
    assert server.asked[0].query == {"phone": "+4915112345678"}
    sent = json.loads(server.asked[-1].body)
    assert sent == {
        "subject": "a broken hat", "text": "The hat is broken.", "phone": "+4915112345678", "call": "call-1",
    }  # fmt: skip
