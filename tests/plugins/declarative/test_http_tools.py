"""HTTP tools against a real server: what it is asked, and what the model is told of what it answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from appliance.errors import ToolError
from appliance.plugins.declarative.source import Declarative
from tests.certificates import Authority
from tests.plugins.declarative.server import FakeCall, Handler, HttpServer, hang, plugin_of, tool_of

GET = """
allow_hosts: [127.0.0.1]
tools:
  order_status:
    description: The state of an order.
    parameters:
      type: object
      properties: {number: {type: string}, note: {type: string}}
      required: [number]
    url: URL/orders/${arguments.number}
"""
POST = GET.replace("url: URL", "method: POST\n    body: ${arguments}\n    url: URL")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer() as running:
        yield running


class Shop:
    """One tool of one plugin."""

    def __init__(self, folder: Path, server: HttpServer, text: str, **secrets: str) -> None:
        self.source = Declarative({"shop": plugin_of(folder, text.replace("URL", server.url), **secrets)})

    async def run(self, arguments: dict[str, Any], **values: object) -> Any:
        try:
            return await tool_of(self.source, **values).run(arguments, FakeCall())
        finally:
            await self.source.close()


def answering(*answers: object, status: int = 200) -> Handler:
    """Each in turn, the last for ever: a status, bytes, or something as JSON."""
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, web.Response):
            return now
        if isinstance(now, bytes):
            return web.Response(status=status, body=now, content_type="application/json")
        return web.Response(status=now) if isinstance(now, int) else web.json_response(now, status=status)

    return answer


async def test_the_server_is_asked_as_the_file_says_and_the_model_told_what_it_picks(
    tmp_path: Path, server: HttpServer
) -> None:
    server.handler = answering({"order": {"state": "sent", "items": [{"name": "hat"}, {"name": "shoe"}], "cost": 3}})
    text = """
allow_hosts: [127.0.0.1]
secrets: {key: !secret shop_key}
values:
  shop: north
  limit: {type: number, default: 5}
  address: {}
tools:
  order_status:
    description: The state of an order.
    parameters:
      type: object
      properties: {number: {type: string}, since: {type: string}, tags: {type: array}}
      required: [number]
    url: ${values.address}/v1/${values.shop}/orders/${arguments.number}?fixed=a%20b&line=${call.line}
    query: {from: "${call.caller}", since: "${arguments.since}", tag: "${arguments.tags}", limit: "${values.limit}"}
    headers: {Authorization: "Bearer ${secrets.key}", X-Key: !secret shop_key, X-Shop: "${values.shop}"}
    response:
      tell: {state: order.state, items: order.items.*.name, second: /order/items/1/name, gone: order.nothing}
"""
    shop = Shop(tmp_path, server, text, shop_key="top")
    told = await shop.run({"number": "7/a ü?#", "tags": ["x&y", "z"]}, address=f"{server.url}/api/", shop="south")
    assert told == {"state": "sent", "items": ["hat", "shoe"], "second": "shoe"}
    (asked,) = server.asked
    assert asked.path == (
        "/api/v1/south/orders/7%2Fa%20%C3%BC%3F%23?fixed=a%20b&line=desk&from=%2B15551234567&tag=x%26y&tag=z&limit=5"
    )
    assert asked.headers["Authorization"] == "Bearer top"
    assert asked.headers["X-Key"] == "top"
    assert asked.headers["X-Shop"] == "south"
    assert "Idempotency-Key" not in asked.headers


@pytest.mark.parametrize(
    ("how", "type_", "body"),
    [
        (
            "json",
            "application/json",
            b'{"who":"+15551234567","n":3,"all":{"number":"7","n":3},"text":"no. 7","fix":[1,true]}',
        ),
        ("form", "application/x-www-form-urlencoded", b"who=%2B15551234567&n=3"),
    ],
)
async def test_a_body_keeps_types_and_leaves_out_what_the_model_left_out(
    tmp_path: Path, server: HttpServer, how: str, type_: str, body: bytes
) -> None:
    more = '\n      all: ${arguments}\n      text: "no. ${arguments.number}"\n      fix: [1, true, "${arguments.x}"]'
    text = f"""
allow_hosts: [127.0.0.1]
tools:
  order:
    description: Orders.
    parameters: {{type: object, properties: {{number: {{type: string}}, n: {{type: integer}}, x: {{type: string}}}}}}
    method: POST
    url: URL/orders
    body_as: {how}
    body:
      who: ${{call.caller}}
      n: ${{arguments.n}}
      x: ${{arguments.x}}{more if how == "json" else ""}
"""
    assert await Shop(tmp_path, server, text).run({"number": "7", "n": 3}) == {}
    assert server.asked[0].body == body
    assert server.asked[0].headers["Content-Type"] == type_
    assert server.asked[0].headers["Idempotency-Key"] == "call-1-1"


async def test_what_is_known_of_the_one_called_goes_to_the_server_as_data(tmp_path: Path, server: HttpServer) -> None:
    text = """
allow_hosts: [127.0.0.1]
tools:
  order:
    description: Orders.
    method: POST
    url: URL/orders/${call.lead.account}
    body: {name: "${call.lead.name}", gone: "${call.lead.gone}"}
"""
    shop = Shop(tmp_path, server, text)
    lead = {"account": "7/8?x", "name": "Ann ${secrets.key}"}
    ((_, tool),) = shop.source.tools_of("desk", {"shop": {}}, lead)
    try:
        await tool.run({}, FakeCall())
    finally:
        await shop.source.close()
    (asked,) = server.asked
    assert asked.path == "/orders/7%2F8%3Fx"
    assert json.loads(asked.body) == {"name": "Ann ${secrets.key}"}


async def test_half_a_character_in_a_number_called_is_replaced(tmp_path: Path, server: HttpServer) -> None:
    text = POST.replace("${arguments}", "{to: '${call.called}'}")
    shop = Shop(tmp_path, server, text)
    await tool_of(shop.source).run({"number": "1"}, FakeCall(called="10\ud8000"))
    assert json.loads(server.asked[0].body) == {"to": "10?0"}
    await shop.source.close()


@pytest.mark.parametrize("number", ["..", ".", "../admin", "a/../../admin", "a\\..\\b", "", "  ", " .. ", "x" * 2001])
async def test_what_a_call_says_cannot_leave_its_place_in_the_path(
    tmp_path: Path, server: HttpServer, number: str
) -> None:
    with pytest.raises(ToolError):
        await Shop(tmp_path, server, GET).run({"number": number})
    assert server.asked == []


@pytest.mark.parametrize(
    "number", ["@evil.example", "//evil.example", "x\r\nHost: evil", "?a=b", "#x", "%2e%2e", ":80/", "${values.x}"]
)
async def test_what_a_call_says_stays_one_segment_of_the_path(tmp_path: Path, server: HttpServer, number: str) -> None:
    server.handler = answering({"ok": 1})
    await Shop(tmp_path, server, GET).run({"number": number})
    (asked,) = server.asked
    assert asked.path.startswith("/orders/")
    assert not set(asked.path.removeprefix("/orders/")) & set("/?#@:\r\n ")
    assert asked.headers["Host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", {"status": "done"}),
        (b"{", "not what was expected"),
        (b"<html>no</html>", "not what was expected"),
        (b"\xff\xfe", "not what was expected"),
        (b"[" * 100_000, "not what was expected"),
        (b'"' + b"x" * 300_000 + b'"', "cannot be reached"),
        (b'{"a": "' + b"x" * 5000 + b'"}', {"a": "x" * 2000 + " ..."}),
        (json.dumps(list(range(500))).encode(), list(range(20))),
        (json.dumps({"a": "b\u202e\u0000<c>"}).encode(), {"a": "b  <c>"}),
        (500, "the server answered 500"),
        (404, "There is no such order."),
        (204, {"status": "done"}),
    ],
)
async def test_whatever_the_server_answers_becomes_a_short_result_or_a_sentence(
    tmp_path: Path, server: HttpServer, answer: bytes | int, told: object
) -> None:
    server.handler = answering(answer)
    shop = Shop(tmp_path, server, GET + "    response: {errors: {404: There is no such order.}}\n    retries: 0\n")
    if isinstance(told, str):
        with pytest.raises(ToolError, match=told):
            await shop.run({"number": "1"})
    else:
        assert await shop.run({"number": "1"}) == told


async def test_places_that_are_not_there_are_a_failure_when_none_is(tmp_path: Path, server: HttpServer) -> None:
    server.handler = answering({"b": 1})
    with pytest.raises(ToolError, match="nothing of what was asked"):
        await Shop(tmp_path, server, GET + "    response: {tell: {a: a.b}}\n").run({"number": "1"})


async def test_text_is_told_as_text(tmp_path: Path, server: HttpServer) -> None:
    server.handler = answering(b"It rains.\x07")
    assert await Shop(tmp_path, server, GET + "    response: {format: text}\n").run({"number": "1"}) == {
        "text": "It rains. "
    }


async def test_a_compressed_answer_that_nobody_asked_for_is_not_unpacked(tmp_path: Path, server: HttpServer) -> None:
    async def bomb(request: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"})

    server.handler = bomb
    with pytest.raises(ToolError, match="cannot be reached"):
        await Shop(tmp_path, server, GET).run({"number": "1"})
    assert server.asked[0].headers["Accept-Encoding"] == "identity"
    assert len(server.asked) == 1


async def test_a_get_is_tried_again_after_what_may_pass(tmp_path: Path, server: HttpServer) -> None:
    server.handler = answering(503, web.Response(status=429, headers={"Retry-After": "0"}), {"ok": True})
    assert await Shop(tmp_path, server, GET).run({"number": "1"}) == {"ok": True}
    assert len(server.asked) == 3


async def test_a_server_that_wants_to_be_left_alone_for_longer_than_there_is_time_is(
    tmp_path: Path, server: HttpServer
) -> None:
    server.handler = answering(web.Response(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(ToolError, match="answered 503"):
        await Shop(tmp_path, server, GET).run({"number": "1"})
    assert len(server.asked) == 1


@pytest.mark.parametrize(("more", "asked"), [("", 1), ("    idempotency_key: true\n", 3)])
async def test_what_changes_something_is_sent_again_only_where_the_server_knows_it_again(
    tmp_path: Path, server: HttpServer, more: str, asked: int
) -> None:
    server.handler = answering(503)
    with pytest.raises(ToolError):
        await Shop(tmp_path, server, POST + more).run({"number": "1"})
    assert len(server.asked) == asked
    assert {one.headers["Idempotency-Key"] for one in server.asked} == {"call-1-1"}


async def test_a_server_that_says_nothing_is_given_up_in_time(tmp_path: Path, server: HttpServer) -> None:
    server.handler = hang
    with pytest.raises(ToolError, match="cannot be reached"):
        await Shop(tmp_path, server, GET + "    timeout_s: 0.5\n    attempt_s: 0.1\n").run({"number": "1"})
    assert len(server.asked) >= 2


async def test_a_body_that_trickles_is_given_up_in_time(tmp_path: Path, server: HttpServer) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    server.handler = trickle
    with pytest.raises(ToolError, match="cannot be reached"):
        await Shop(tmp_path, server, GET + "    timeout_s: 0.3\n").run({"number": "1"})


async def test_a_server_that_hangs_up_is_a_failure(tmp_path: Path, server: HttpServer) -> None:
    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    server.handler = drop
    for method, asked in (("GET", 3), ("PUT", 1), ("DELETE", 1), ("POST", 1)):
        server.asked.clear()
        with pytest.raises(ToolError, match="cannot be reached"):
            await Shop(tmp_path, server, GET.replace("url:", f"method: {method}\n    url:")).run({"number": "1"})
        assert len(server.asked) == asked


async def test_nobody_listening_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = HttpServer()
    async with server:
        pass
    with pytest.raises(ToolError, match="cannot be reached"):
        await Shop(tmp_path, server, POST + "    idempotency_key: true\n    retries: 1\n").run({"number": "1"})
    assert sum("attempt" in record.message for record in caplog.records) == 2


async def test_redirects_are_followed_on_the_same_server_only(tmp_path: Path, server: HttpServer) -> None:
    async with HttpServer() as other:

        async def onward(request: web.Request) -> web.StreamResponse:
            to = {"/orders/1": "/there", "/orders/2": f"{other.url}/x", "/orders/3": "/orders/3"}.get(request.raw_path)
            return web.Response(status=302, headers={"Location": to}) if to else web.json_response({"path": "there"})

        server.handler = onward
        assert await Shop(tmp_path, server, GET).run({"number": "1"}) == {"path": "there"}
        for number in ("2", "3"):
            with pytest.raises(ToolError, match="cannot be reached"):
                await Shop(tmp_path, server, GET).run({"number": number})
        assert other.asked == []
        with pytest.raises(ToolError, match="cannot be reached"):
            await Shop(tmp_path, server, POST).run({"number": "1"})


async def test_the_log_and_the_model_learn_no_secret(
    tmp_path: Path, server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.handler = answering(500)
    text = GET.replace("tools:", "secrets: {key: !secret k}\ntools:").replace(
        "arguments.number}\n", "arguments.number}?key=${secrets.key}\n"
    )
    with pytest.raises(ToolError) as caught:
        await Shop(tmp_path, server, text, k="hush-hush").run({"number": "1"})
    assert server.asked[0].query == {"key": "hush-hush"}
    assert "hush-hush" not in caplog.text + str(caught.value)


async def test_what_the_model_sees_of_a_tool(tmp_path: Path, server: HttpServer) -> None:
    shop = Shop(tmp_path, server, POST + "    confirm: Shall I order ${arguments.number}?\n    filler: One moment.\n")
    tool = tool_of(shop.source)
    assert (tool.name, tool.side_effects, tool.filler) == ("order_status", True, "One moment.")
    assert tool.confirm == "Shall I order {number}?"
    assert not tool_of(Shop(tmp_path, server, GET).source).side_effects
    assert tool_of(Shop(tmp_path, server, GET + "    confirm: true\n").source).confirm


async def test_two_lines_use_one_plugin_with_their_own_values(tmp_path: Path, server: HttpServer) -> None:
    text = GET.replace("tools:", "values: {shop: north}\ntools:").replace("/orders/", "/${values.shop}/")
    shop = Shop(tmp_path, server, text)
    first, second = tool_of(shop.source), tool_of(shop.source, shop="south")
    await asyncio.gather(first.run({"number": "1"}, FakeCall()), second.run({"number": "1"}, FakeCall()))
    assert {one.path for one in server.asked} == {"/north/1", "/south/1"}
    assert shop.source.tools_of("desk", {"shop": {"shpo": "x"}, "other": {}}) == []
    await shop.source.close()


async def test_a_call_keeps_its_tools_when_others_take_their_place(tmp_path: Path, server: HttpServer) -> None:
    server.handler = answering({"ok": 1})
    shop = Shop(tmp_path, server, GET)
    tool = tool_of(shop.source)
    await shop.source.swap({})
    assert shop.source.names() == ()
    assert await tool.run({"number": "1"}, FakeCall()) == {"ok": 1}
    assert await tool.run({"number": "1"}, FakeCall()) == {"ok": 1}
    await shop.source.close()


async def test_a_server_has_to_prove_who_it_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusted = f"ca: {authority.ca.name}\n{GET}"
    for names, text, right in (
        (("127.0.0.1",), trusted, True),
        (("127.0.0.1",), GET, False),
        (("a.example",), trusted, False),
    ):
        pair = authority.issue(*names)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair.cert, pair.key)
        async with HttpServer(answering({"ok": 1}), tls=tls) as server:
            if right:
                assert await Shop(tmp_path, server, text).run({"number": "1"}) == {"ok": 1}
            else:
                with pytest.raises(ToolError, match="cannot be reached"):
                    await Shop(tmp_path, server, text).run({"number": "1"})
                assert server.asked == []
