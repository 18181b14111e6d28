"""``appliance dial``: what it asks the box for, how it follows the call, and what it prints."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from appliance.admin.auth import Tokens, protect
from appliance.admin.calls_api import CallsApi
from appliance.calls.orders import OutgoingOrder, OutgoingResult, Progress
from appliance.cli.box import free_port
from appliance.cli.main import main
from appliance.conversation.answering import Verdict

TOKEN = "0123456789abcdef0123"


class Originator:
    def __init__(self, result: OutgoingResult) -> None:
        self.result = result
        self.orders: list[OutgoingOrder] = []

    def room(self, line: str = "", trunk: str = "") -> int:
        return 1

    async def call(self, order: OutgoingOrder, progress: Progress = lambda what, at: None) -> OutgoingResult:
        self.orders.append(order)
        progress("ringing", 0.0)
        await asyncio.sleep(0.05)
        return self.result


@contextmanager
def box(result: OutgoingResult) -> Iterator[tuple[Originator, list[str]]]:
    """The API of a box that does what it is told, and the settings that lead there."""
    originator, port = Originator(result), free_port()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)

    async def serve() -> web.AppRunner:
        app = web.Application()
        protect(app, Tokens([TOKEN]))
        app.router.add_routes(CallsApi(originator).routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    thread.start()
    runner = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        yield originator, ["--set", f"listen.http.port={port}", "--set", f"api.tokens={TOKEN}"]
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_it_says_how_the_call_goes_and_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = OutgoingResult(
        sip_code=200, answered_at=1.0, ended_at=13.5, ended_by="agent", reason="completed", slots={"drink": "tea"},
        verdict=Verdict("machine", 0.97, 1.0, "talked on"), message_left=True,
    )  # fmt: skip
    with box(result) as (originator, settings):
        words = ["dial", "+12025550123", "--line", "recall", "--var", "name=Ann", "--message", "Call us.", *settings]
        assert main(words) == 0
    (order,) = originator.orders
    assert (order.number, order.line, order.variables) == ("+12025550123", "recall", {"name": "Ann"})
    assert order.answering is not None
    assert order.answering.on_machine == "message"
    printed = capsys.readouterr().out
    assert "answered, 12.5 s, ended by agent (completed)" in printed
    assert "who answered: machine (97%, talked on); the message was left" in printed
    assert "drink: tea" in printed


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with box(OutgoingResult(sip_code=486, sip_text="Busy Here")) as (_, settings):
        assert main(["dial", "100", "--line", "recall", "--json", *settings]) == 1
    assert json.loads(capsys.readouterr().out)["result"]["sip_text"] == "Busy Here"


def test_what_cannot_be_asked_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with box(OutgoingResult()) as (_, settings):
        assert main(["dial", "100", "--line", "recall", "--ring-timeout", "1", *settings]) == 2
        assert main(["dial", "100", "--line", "recall", "--var", "name", *settings]) == 2
    assert main(["dial", "100", "--line", "recall"]) == 2
    assert main(["dial", "1", "--line", "x", "--set", f"api.tokens={TOKEN}", "--set", "listen.http.port=1"]) == 2
    said = capsys.readouterr().err
    assert "ring_timeout_s: " in said
    assert "write it as --var name=Ann" in said
    assert "list a token under api.tokens" in said
    assert "no box answers at http://127.0.0.1:1" in said
