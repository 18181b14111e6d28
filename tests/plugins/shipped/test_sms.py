"""The plugin ``sms`` against a server that speaks as Twilio's does."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from appliance.errors import PluginError
from appliance.testing import run_virtual, uses
from appliance.testing import scripted_call as place
from tests.plugins.declarative.server import HttpServer

SID = "AC" + "0" * 32
CALLER = "+4915112345678"
VALUES: dict[str, Any] = {"account_sid": SID, "auth_token": "top", "sender": "+4930123456", "confirm": ""}


async def taken(request: web.Request) -> web.StreamResponse:
    return web.json_response({"sid": "SM1"}, status=201)


async def test_the_caller_is_sent_what_the_model_writes(scripted_call: Any) -> None:
    async with HttpServer(taken) as server:
        call = await scripted_call(
            plugins={"sms": {**VALUES, "api_url": server.url, "after_call": "Thank you, ${slots.message.name}!"}},
            caller=CALLER,
            model={
                "address": [uses("send_sms", text="Main Street 5"), "It is on its way."],
                "ann": [uses("take_message", message="x", name="Ann"), "Noted."],
            },
        )
        await call.says("send me the address")
        assert call.tool("send_sms").problem == ""
        await call.says("I am ann")
        await call.hangs_up()
    first, last = server.asked
    assert (first.method, first.path) == ("POST", f"/2010-04-01/Accounts/{SID}/Messages.json")
    assert first.headers["Authorization"] == "Basic " + base64.b64encode(f"{SID}:top".encode()).decode()
    assert parse_qs(first.body.decode()) == {"To": [CALLER], "From": ["+4930123456"], "Body": ["Main Street 5"]}
    assert parse_qs(last.body.decode())["Body"] == ["Thank you, Ann!"]


@pytest.mark.parametrize(
    ("caller", "answer", "problem"),
    [
        ("+4930123456", 201, "not call from a mobile"),
        ("+12025550123", 201, "numbers of that country"),
        (CALLER, 400, "refused: not so"),
        (CALLER, 302, "refused"),
    ],
)
async def test_what_cannot_be_sent_is_said(scripted_call: Any, caller: str, answer: int, problem: str) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "not so"}, status=answer, headers={"Location": "/other"})

    async with HttpServer(refuse) as server:
        call = await scripted_call(
            plugins={"sms": {**VALUES, "api_url": server.url}},
            caller=caller,
            model={"address": [uses("send_sms", text="Main Street 5"), "I could not."]},
        )
        await call.says("send me the address")
    assert problem in call.tool("send_sms").problem
    assert len(server.asked) == (1 if caller == CALLER else 0)


async def test_a_busy_service_is_asked_again_and_a_caller_is_not_sent_too_much(
    scripted_call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [429, 503, 201, 201]

    async def busy(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=answers.pop(0))

    async with HttpServer(busy) as server:
        call = await scripted_call(
            plugins={"sms": {**VALUES, "api_url": server.url, "most": 1}},
            caller=CALLER,
            model={"one": [uses("send_sms", text="1"), "Yes."], "two": [uses("send_sms", text="2"), "No."]},
        )
        monkeypatch.setattr(call.plugin("sms"), "_PAUSE_S", 0.01)
        await call.says("one")
        assert call.tool("send_sms").problem == ""
        await call.says("two")
    assert "1 messages were sent" in call.tool("send_sms").problem
    assert len(server.asked) == 3


async def test_who_withholds_a_number_is_sent_nothing(scripted_call: Any) -> None:
    call = await scripted_call(plugins={"sms": VALUES}, caller="", model={"x": "No."})
    await call.says("x")
    assert "send_sms" not in call.offered


def test_wrong_values_are_refused_in_words() -> None:
    async def wrong() -> None:
        await place(plugins={"sms": {**VALUES, "sender": "12345"}})

    with pytest.raises(PluginError, match="is no sender"):
        run_virtual(wrong())
