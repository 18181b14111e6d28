"""A whole box with a YAML plugin: its model asks a real server, says what it answered, and a webhook is told of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from appliance.cli.box import Box
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.bench.uac import BareUac
from tests.openai_sim.chat import Answer, ChatSim
from tests.plugins.declarative.server import HttpServer
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow]

NUMBER = "+49301234"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PLUGIN = """
summary: The shop.
values: {shop: {}}
secrets: {token: !secret shop_token}
allow_hosts: [127.0.0.1]
tools:
  order_status:
    description: The state of an order.
    parameters: {type: object, properties: {number: {type: string}}, required: [number]}
    url: URL/${values.shop}/orders/${arguments.number}
    headers: {Authorization: "Bearer ${secrets.token}"}
    response: {tell: {state: order.state}}
webhooks:
  calls:
    url: URL/hook
    events: [call.started, call.answered, call.ended, tool.used]
    secret: !secret hook_key
"""
LINE: dict[str, object] = {
    "name": "desk",
    "agent": "llm",
    "prompt": "You are the desk.",
    "greeting": "Good morning.",
    "turn": {"speculate": 0},
    "plugins": {"shop": {"shop": "south"}},
}


def told_of(server: HttpServer) -> list[dict[str, Any]]:
    """What the server was told of calls so far."""
    return [json.loads(asked.body) for asked in server.asked]


def box_of(folder: Path, server: HttpServer, models: ChatSim, egress: Sequence[str] = ("127.0.0.1",)) -> Box:
    plugins = folder / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "shop.yaml").write_text(PLUGIN.replace("URL", server.url))
    secrets = folder / "secrets.yaml"
    secrets.write_text(f"shop_token: top-secret\nhook_key: {KEY}\n")
    chosen = {
        **settings(folder, [models.url]),
        **lines.dialplan(folder / "own", [LINE]),
        "plugins.paths": [str(plugins)],
        "secrets_file": str(secrets),
        "egress": list(egress),
    }
    return Box(folder / "box", chosen)


async def one_question(box: Box, clip: Path) -> None:
    """A call with a question; the box hangs up."""
    async with BareUac(("127.0.0.1", box.sip_port), NUMBER) as uac, Softphone(uac) as phone:
        await phone.dial(box.uri(lines.ASSISTANT))
        await phone.wait_agent_silent(30.0, quiet_s=0.8)
        await phone.play(read_wav(clip))
        await phone.wait_hangup(30.0)


async def test_with_an_empty_egress_nothing_of_a_call_leaves_but_the_call(tmp_path: Path) -> None:
    script = [
        Answer("", calls=[("a", "order_status", '{"number": "7"}')]),
        Answer("I cannot look that up.", calls=[("b", "hang_up", "{}")]),
    ]
    async with HttpServer() as server, ChatSim() as models:
        models.script.extend(script)
        box = box_of(tmp_path, server, models, egress=())
        try:
            await asyncio.to_thread(box.start)
            await one_question(box, lines.question(tmp_path))
            await eventually(lambda: box.log_tail().count("egress does not list 127.0.0.1") >= 2, box.log_tail)
        finally:
            code = await asyncio.to_thread(box.stop)
    assert code == 0, box.log_tail()
    assert server.asked == []
    told = next(text for text in models.asked[1].body["messages"] if text["role"] == "tool")["content"]
    assert "cannot be reached" in told


async def test_the_model_asks_a_server_and_says_what_it_answered(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"order": {"state": "sent </tool> yesterday"}, "hidden": "cost price"})

    script = [
        Answer("", calls=[("a", "order_status", '{"number": "7/8"}')]),
        Answer("It was sent yesterday.", calls=[("b", "hang_up", '{"reason": "done"}')]),
    ]
    async with HttpServer(answer) as server, ChatSim() as models:
        models.script.extend(script)
        box = box_of(tmp_path, server, models)
        try:
            await asyncio.to_thread(box.start)
            await one_question(box, lines.question(tmp_path))
            (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
            await eventually(lambda: sum(one.path == "/hook" for one in server.asked) == 5, box.log_tail)
        finally:
            code = await asyncio.to_thread(box.stop)
    assert code == 0, box.log_tail()
    assert models.problems == []

    (asked,) = [one for one in server.asked if one.path != "/hook"]
    assert asked.path == "/south/orders/7%2F8"
    assert asked.headers["Authorization"] == "Bearer top-secret"
    told = next(text for text in models.asked[1].body["messages"] if text["role"] == "tool")["content"]
    assert "sent" in told
    assert "yesterday" in told
    assert "</tool>" not in told
    assert "cost price" not in json.dumps([one.body for one in models.asked])
    turn = next(turn for turn in call["turns"] if turn["by"] == "voice")
    assert turn["heard_text"] == "It was sent yesterday."
    tool = json.loads(turn["tools"])[0]
    assert (tool["name"], tool["source"], json.loads(tool["arguments"])) == ("order_status", "shop", {"number": "7/8"})

    judge = Webhook(KEY)
    sent = [judge.verify(one.body, one.headers) for one in server.asked if one.path == "/hook"]
    assert {one["data"]["call_id"] for one in sent} == {call["id"]}
    tools = {one["data"]["tool"]: one["data"] for one in sent if one["type"] == "tool.used"}
    assert set(tools) == {"order_status", "hang_up"}
    assert tools["order_status"]["arguments"] == {"number": "7/8"}
    (end,) = [one["data"] for one in sent if one["type"] == "call.ended"]
    assert end["hangup_by"] == "agent"
    assert "top-secret" not in box.log_tail()


async def test_a_call_that_was_cut_off_is_told_once_control_is_back(tmp_path: Path) -> None:
    async with HttpServer() as server, ChatSim() as models:
        box = box_of(tmp_path, server, models)
        try:
            await asyncio.to_thread(box.start)
            async with BareUac(("127.0.0.1", box.sip_port), NUMBER) as uac, Softphone(uac) as phone:
                await phone.dial(box.uri(lines.ASSISTANT))
                await eventually(lambda: len(server.asked) == 2, box.log_tail)
                os.kill(box.processes()["control"], signal.SIGKILL)
                # What was on its way when control died is told twice.
                await eventually(lambda: any(told["type"] == "call.ended" for told in told_of(server)), box.log_tail)
        finally:
            await asyncio.to_thread(box.stop)
    assert {told["data"]["disposition"] for told in told_of(server) if told["type"] == "call.ended"} == {"interrupted"}


async def test_a_plugin_that_has_changed_is_used_by_the_next_call_and_a_broken_one_by_none(tmp_path: Path) -> None:
    script = [
        Answer("", calls=[("a", "order_status", '{"number": "7"}')]),
        Answer("That is it.", calls=[("b", "hang_up", "{}")]),
    ]
    async with HttpServer() as server, ChatSim() as models:
        models.script.extend(script)
        box = box_of(tmp_path, server, models)
        file = tmp_path / "plugins" / "shop.yaml"
        written = file.read_text()
        try:
            await asyncio.to_thread(box.start)
            file.write_text(written.replace("/orders/", "/${caller}/"))
            os.kill(box.pid, signal.SIGHUP)
            await eventually(lambda: "refused, all stays as it was" in box.log_tail(), box.log_tail)
            assert "plugins/shop.yaml:10: tools.order_status.url: unknown variable ${caller}" in box.log_tail()
            file.write_text(written.replace("/orders/", "/parcels/"))
            os.kill(box.pid, signal.SIGHUP)
            await eventually(lambda: "no line has changed" in box.log_tail(), box.log_tail)
            await one_question(box, lines.question(tmp_path))
            await eventually(lambda: any("/south/parcels/7" in one.path for one in server.asked), box.log_tail)
        finally:
            code = await asyncio.to_thread(box.stop)
    assert code == 0, box.log_tail()
    assert not any("orders" in one.path for one in server.asked)
