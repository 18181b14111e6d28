"""The browser phone's page, the list of lines, and a call's events as a page reads them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from appliance.admin.phone import PhonePages
from appliance.admin.phone.lines import reaches
from appliance.calls.watch import CallWatch
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from appliance.events import (
    CallAnswered,
    CallEnded,
    CallRinging,
    CallStarted,
    Direction,
    Disposition,
    Doing,
    HangupBy,
    InputBy,
    LineMeasured,
    RecordingStarted,
    Stage,
    StageTiming,
    TurnFinished,
    TurnProgress,
)
from appliance.signalling.browser import BrowserCarrier
from appliance.signalling.browser_options import BrowserOptions
from tests.calls.virtual_call import FLOW

Client = TestClient[web.Request, web.Application]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Box:
    """As much of a carrier's box as the page needs."""

    media_port = 8081
    http: Any = None

    def __init__(self, trunk: str) -> None:
        self.trunk = trunk
        self.allowed = True

    def allows(self, host: str) -> bool:
        return self.allowed

    def client_of(self, request: web.Request) -> str:
        return request.remote or ""

    def admit(self, call: Any, incoming: Any, offer: Any = None) -> Any:
        raise NotImplementedError

    def refuse(self, offer: Any, reason: str) -> None:
        raise NotImplementedError


def line(name: str, **match: Any) -> Line:
    return Line.model_validate({**FLOW, "name": name, "description": f"The {name}.", "match": match})


LINES = (
    line("desk", called=["+4930*", "4711"]),
    line("secret", calling="+491"),
    line("other", trunk="carrier"),
    line("all"),
    line("never"),
)


class Phone:
    def __init__(self, boxes: dict[str, Box], watch: CallWatch, client: Client) -> None:
        self.boxes, self.watch, self.client = boxes, watch, client


async def made(trunks: tuple[str, ...]) -> AsyncIterator[Phone]:
    boxes = {name: Box(name) for name in trunks}
    watch = CallWatch(frozenset({"browser"}))
    carriers = {name: BrowserCarrier(BrowserOptions(), box) for name, box in boxes.items()}
    application = web.Application()
    application.router.add_routes(PhonePages(carriers, lambda: Routing(LINES), watch).routes())
    async with TestClient(TestServer(application)) as client:
        yield Phone(boxes, watch, client)


@pytest_asyncio.fixture
async def phone() -> AsyncIterator[Phone]:
    async for one in made(("phone", "second")):
        yield one


async def test_the_page_runs_nothing_but_its_own(phone: Phone) -> None:
    async with phone.client.get("/phone") as got:
        page = await got.text()
        headers = got.headers
    assert (got.status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "connect-src 'self' ws://127.0.0.1:8081 wss://127.0.0.1:8081" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "microphone=(self)" in headers["Permissions-Policy"]
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|https?://", page)


async def test_a_strange_host_says_nothing_to_the_policy(phone: Phone) -> None:
    async with phone.client.get("/phone", headers={"Host": "x; script-src *"}) as got:
        assert got.headers["Content-Security-Policy"].endswith("connect-src 'self'")


async def test_every_file_that_is_asked_for_is_there(phone: Phone) -> None:
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    async with phone.client.get("/phone") as got:
        names = re.findall(r'(?:src|href)="phone/([^"]+)"', await got.text())
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        async with phone.client.get(f"/phone/{name}") as got:
            assert got.status == 200, name
            assert got.headers["Content-Type"].startswith(types[name.rpartition(".")[2]])
            text = await got.text()
            tag = got.headers["ETag"]
        names += re.findall(r'(?:from |new URL\()"\./([^"]+)"', text)
        assert "http://" not in text.replace("http://www.w3.org", "").replace("http://localhost", "")
        async with phone.client.get(f"/phone/{name}", headers={"If-None-Match": tag}) as again:
            assert (again.status, await again.read()) == (304, b"")
    assert seen == {"app.js", "audio.js", "call.js", "icon.svg", "phone.css", "transcript.js", "worklet.js"}


@pytest.mark.parametrize("path", ["/phone/index.html", "/phone/pages.py", "/phone/..%2fpages.py", "/phone/x"])
async def test_no_other_file(phone: Phone, path: str) -> None:
    async with phone.client.get(path) as got:
        assert got.status == 404


async def test_the_page_with_a_slash(phone: Phone) -> None:
    async with phone.client.get("/phone/?trunk=second", allow_redirects=False) as got:
        assert (got.status, got.headers["Location"]) == (301, "../phone?trunk=second")


async def test_the_lines(phone: Phone) -> None:
    async with phone.client.get("/phone/lines") as got:
        said = await got.json()
    assert said["trunk"] == "phone"
    assert [(one["name"], one["number"]) for one in said["lines"]] == [
        ("desk", "4711"), ("secret", ""), ("other", ""), ("all", "100"), ("never", ""),
    ]  # fmt: skip
    assert said["lines"][0]["description"] == "The desk."
    assert said["lines"][2]["why"] == "trunk 'phone' is not carrier"
    assert said["lines"][4]["why"] == "line 'all' answers first"
    async with phone.client.get("/phone/lines?trunk=second") as got:
        assert (await got.json())["trunk"] == "second"


def test_a_prefix_is_made_a_number() -> None:
    routing = Routing((line("one", called="+4930100*"), line("all", called="+4930*")))
    first, second = reaches(routing, "phone", "browser", NOW)
    assert (first.number, second.number) == ("+4930100", "+4930")


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [("", 403, "add that address to trunks.phone.allow"), ("?trunk=none", 404, "there is no trunk 'none'")],
)
async def test_lines_are_not_for_everybody(phone: Phone, query: str, status: int, words: str) -> None:
    phone.boxes["phone"].allowed = False
    async with phone.client.get(f"/phone/lines{query}") as got:
        assert got.status == status
        assert words in (await got.json())["error"]


async def test_a_box_without_a_browser_trunk() -> None:
    async for phone in made(()):
        async with phone.client.get("/phone") as got:
            assert got.status == 200
        async with phone.client.get("/phone/lines") as got:
            assert got.status == 404
            assert "kind: browser" in (await got.json())["error"]


def the_call(watch: CallWatch) -> None:
    """A call with one turn, from ring to end."""
    turn = TurnFinished(
        call_id="c1", number=1, finished_utc=NOW, answered_at=1.0, by=InputBy.VOICE, caller_text="tea please",
        confidence=0.9, agent_text="One tea. Anything else?", heard_text="One tea.", interrupted=True,
        speech_start_at=2.0, speech_end_at=3.0, reply_at=3.5, stages=(StageTiming(Stage.ASR, 3.1, 3.2),),
    )  # fmt: skip
    started = CallStarted(
        call_id="c1", started_at=0.0, started_utc=NOW, direction=Direction.INBOUND, protocol="browser",
        protocol_call_id="p1", trunk="phone", line="desk", called="100", calling="browser", calling_name="",
    )  # fmt: skip
    for event in (
        started,
        CallRinging(call_id="c1", ringing_at=0.1, ringing_utc=NOW),
        CallAnswered(call_id="c1", answered_at=1.0, answered_utc=NOW),
        RecordingStarted(call_id="c1", path="/x.wav", start_frame=0),
        TurnProgress(call_id="c1", doing=Doing.AGENT_SPEAKS, turn=turn),
        turn,
        LineMeasured(call_id="c1", mos=4.0, mos_far=None, loss_percent=0.0, jitter_ms=0.0, round_trip_ms=None),
        CallEnded(
            call_id="c1", ended_at=9.0, ended_utc=NOW, disposition=Disposition.COMPLETED, hangup_by=HangupBy.AGENT,
            hangup_code=200, hangup_text="booked", slots={"drink": "tea", "header.X-Secret": "no"},
        ),
    ):  # fmt: skip
        watch.observe(event)


async def test_the_events_of_a_call(phone: Phone) -> None:
    the_call(phone.watch)
    async with phone.client.get("/phone/calls/p1/events") as got:
        assert got.headers["Content-Type"] == "text/event-stream"
        text = await got.text()
    told = [json.loads(one) for one in re.findall(r"^data: (.*)$", text, re.MULTILINE)]
    turn = {
        "number": 1, "by": "voice", "caller_text": "tea please", "confidence": 0.9, "accepted": True,
        "agent_text": "One tea. Anything else?", "heard_text": "One tea.", "interrupted": True, "latency_ms": 500,
        "waterfall_ms": {"asr": [100.0, 200.0]},
    }  # fmt: skip
    assert told == [
        {"type": "started", "call_id": "c1", "line": "desk", "called": "100"},
        {"type": "ringing"},
        {"type": "answered"},
        {"type": "recorded"},
        {"type": "progress", "doing": "agent_speaks", "hearing": "", "turn": turn},
        {"type": "turn", "turn": turn},
        {"type": "ended", "disposition": "completed", "by": "agent", "code": 200, "text": "booked",
         "slots": {"drink": "tea"}},
    ]  # fmt: skip
    async with phone.client.get("/phone/calls/p1/events", headers={"Last-Event-ID": "6"}) as got:
        assert re.findall(r"^id: (\d+)$", await got.text(), re.MULTILINE) == ["8"]


async def test_events_are_the_callers(phone: Phone) -> None:
    async with phone.client.get("/phone/calls/p1/events") as got:
        assert got.status == 404
    the_call(phone.watch)
    async with phone.client.get("/phone/calls/p1/events", headers={"Sec-Fetch-Site": "cross-site"}) as got:
        assert got.status == 403
    phone.boxes["phone"].allowed = False
    async with phone.client.get("/phone/calls/p1/events") as got:
        assert got.status == 403
