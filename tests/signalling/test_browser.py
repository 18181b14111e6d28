"""What the browser phone's page asks of the box over HTTP, and what it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError

from appliance.api.carriers import BoxCall, CarrierCall, IncomingCall, StreamAddress, StreamOffer
from appliance.errors import DialError
from appliance.signalling.browser import BrowserCarrier, BrowserOptions

Client = TestClient[web.Request, web.Application]


class Call:
    """The box's side of a call."""

    key = "leg1"

    def __init__(self) -> None:
        self.ended = False
        self.told: list[object] = []

    def ringing(self) -> None:
        self.told.append("ringing")

    def digits(self, digits: str) -> None:
        self.told.append(digits)

    def over(self, status: int, reason: str, *, by_peer: bool = True) -> None:
        self.ended = True
        self.told.append((status, reason, by_peer))

    def new_stream(self) -> StreamAddress:
        return StreamAddress("", "again")


class Box:
    """What the box does with a call: ``decide`` is what the dialplan wants."""

    trunk = "phone"
    media_port = 8081
    http: Any = None

    def __init__(self) -> None:
        self.allowed = True
        self.came: list[IncomingCall] = []
        self.calls: list[Call] = []
        self.carrier_calls: list[CarrierCall] = []
        self.refused: list[str] = []
        self.decide: Callable[[CarrierCall], Any] = lambda call: call.answer(StreamAddress("ws://x", "s3cret"))
        self.tasks: list[asyncio.Task[None]] = []

    def allows(self, host: str) -> bool:
        return self.allowed and host in ("127.0.0.1", "::1")

    def client_of(self, request: web.Request) -> str:
        return request.remote or ""

    def admit(self, call: CarrierCall, incoming: IncomingCall, offer: StreamOffer | None = None) -> BoxCall:
        self.came.append(incoming)
        self.carrier_calls.append(call)
        self.calls.append(Call())
        self.tasks.append(asyncio.ensure_future(self._ring(call)))
        return self.calls[-1]

    async def _ring(self, call: CarrierCall) -> None:
        await call.ring()
        await self.decide(call)

    def refuse(self, offer: StreamOffer, reason: str) -> None:
        self.refused.append(reason)


class Phone:
    """A carrier behind a server, and a page's requests to it."""

    def __init__(self, box: Box, client: Client) -> None:
        self.box = box
        self.client = client

    async def call(self, *, called: object = "100", **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.client.post("/browser/calls", json={"called": called}, headers=self.headers(**headers)) as got:
            return got.status, await got.json()

    def headers(self, **changes: str) -> dict[str, str]:
        port = self.client.port
        base = {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}"}
        return {name: value for name, value in (base | changes).items() if value}


async def made(options: BrowserOptions) -> AsyncIterator[Phone]:
    box = Box()
    carrier = BrowserCarrier(options, box)
    await carrier.start()
    application = web.Application()
    application.router.add_routes(
        [web.RouteDef(one.method, f"/browser{one.path}", one.handler, {}) for one in carrier.routes()]
    )
    async with TestClient(TestServer(application)) as client:
        yield Phone(box, client)
    await asyncio.gather(*box.tasks)
    await carrier.close()


@pytest_asyncio.fixture
async def phone() -> AsyncIterator[Phone]:
    async for one in made(BrowserOptions()):
        yield one


@pytest_asyncio.fixture
async def public() -> AsyncIterator[Phone]:
    options = BrowserOptions(hosts=("Voice.example.com",), media_url="wss://voice.example.com/media/")
    async for one in made(options):
        yield one


async def test_a_call_is_answered_with_the_address_of_its_stream(phone: Phone) -> None:
    status, said = await phone.call()
    assert status == 200
    assert said == {"call": said["call"], "token": "s3cret", "media_url": "ws://127.0.0.1:8081/browser/media"}
    (came,) = phone.box.came
    assert (came.call_id, came.called, came.calling) == (said["call"], "100", "browser")
    assert came.source.startswith("127.0.0.1:")
    assert len(said["call"]) >= 20, "it cannot be guessed"


async def test_a_call_is_hung_up(phone: Phone) -> None:
    _, said = await phone.call()
    where = f"/browser/calls/{said['call']}"
    async with phone.client.delete(where, headers=phone.headers()) as got:
        assert got.status == 204
    assert phone.box.calls[0].told == [(200, "the caller hung up", True)]
    async with phone.client.delete(where, headers=phone.headers()) as got:
        assert got.status == 404


async def test_a_stream_in_place_of_one_that_broke(phone: Phone) -> None:
    _, said = await phone.call()
    where = f"/browser/calls/{said['call']}/stream"
    async with phone.client.post(where, headers=phone.headers()) as got:
        assert await got.json() == {"token": "again", "media_url": "ws://127.0.0.1:8081/browser/media"}
    async with phone.client.post(where, headers=phone.headers(Origin="http://evil.example")) as got:
        assert got.status == 403
    phone.box.calls[0].ended = True
    async with phone.client.post(where, headers=phone.headers()) as got:
        assert got.status == 404


async def test_calls_that_are_over_are_forgotten(phone: Phone) -> None:
    _, first = await phone.call()
    await phone.box.carrier_calls[0].hangup()
    _, second = await phone.call()
    phone.box.calls[1].ended = True
    await phone.call()
    for gone in (first, second):
        async with phone.client.delete(f"/browser/calls/{gone['call']}", headers=phone.headers()) as got:
            assert got.status == 404


@pytest.mark.parametrize(
    ("refused", "status", "words"),
    [
        (404, 404, "no line of the dialplan answers '100' on trunk 'phone'"),
        (486, 486, "busy"),
        (503, 503, "no room for another call"),
        (480, 502, "the box refused the call: Sorry"),
    ],
)
async def test_a_call_is_refused(phone: Phone, refused: int, status: int, words: str) -> None:
    phone.box.decide = lambda call: call.reject(refused, "Sorry")
    got, said = await phone.call()
    assert got == status
    assert words in said["error"]


async def test_a_call_ended_before_it_was_answered(phone: Phone) -> None:
    phone.box.decide = lambda call: call.hangup()
    status, said = await phone.call()
    assert status == 502
    assert "ended before it was answered" in said["error"]


async def test_a_box_that_does_not_answer(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.signalling.browser._ANSWER_TIMEOUT_S", 0.05)
    phone.box.decide = lambda call: asyncio.sleep(0)
    status, said = await phone.call()
    assert status == 504
    assert "did not answer" in said["error"]
    assert phone.box.calls[0].told[-1] == (408, "the box did not answer in time", False)


async def test_a_stranger(phone: Phone) -> None:
    phone.box.allowed = False
    status, said = await phone.call()
    assert status == 403
    assert said["error"] == "calls from 127.0.0.1 are not taken; add that address to trunks.phone.allow"
    assert not phone.box.came


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Origin": ""}, "another site's page"),
        ({"Origin": "null"}, "the page is of 'null'"),
        ({"Origin": "http://evil.example"}, "the page is of 'http://evil.example'"),
        ({"Origin": "http://127.0.0.1"}, "the page is of 'http://127.0.0.1'"),
        ({"Origin": "http://127.0.0.1:1@evil.example"}, "the page is of"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, "add it to trunks.phone.hosts"),
        ({"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"}, "trunks.phone.hosts"),
        ({"Host": "a b", "Origin": "http://a b"}, "trunks.phone.hosts"),
    ],
)
async def test_another_sites_page(phone: Phone, headers: dict[str, str], words: str) -> None:
    status, said = await phone.call(**headers)
    assert status == 403
    assert words in said["error"]
    assert not phone.box.came


@pytest.mark.parametrize(
    ("host", "origin", "url"),
    [
        ("localhost:8080", "http://localhost:8080", "ws://localhost:8081/browser/media"),
        ("LOCALHOST", "http://localhost:80", "ws://localhost:8081/browser/media"),
        ("192.0.2.1", "https://192.0.2.1", "wss://192.0.2.1:8081/browser/media"),
        ("[::1]:8080", "http://[::1]:8080", "ws://[::1]:8081/browser/media"),
    ],
)
async def test_where_the_stream_is_follows_the_page(phone: Phone, host: str, origin: str, url: str) -> None:
    status, said = await phone.call(Host=host, Origin=origin)
    assert (status, said["media_url"]) == (200, url)


async def test_a_name_and_an_address_of_the_box_for_others(public: Phone) -> None:
    status, said = await public.call(Host="voice.example.com", Origin="https://voice.example.com")
    assert (status, said["media_url"]) == (200, "wss://voice.example.com/media/browser/media")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b'{"called":"100"}', 415),
        ("application/json", b"", 400),
        ("application/json", b"[1]", 400),
        ("application/json", b'{"called":100}', 400),
        ("application/json", b'{"called":"100","x":1}', 400),
        ("application/json", b'{"called":""}', 400),
        ("application/json", b'{"called":"<script>"}', 400),
        ("application/json", b'{"called":"' + b"1" * 65 + b'"}', 400),
        ("application/json", b"[" * 1000, 400),
        ("application/json", b" " * 2000, 413),
    ],
)
async def test_bodies_that_are_refused(phone: Phone, content_type: str, body: bytes, status: int) -> None:
    headers = phone.headers() | {"Content-Type": content_type}
    async with phone.client.post("/browser/calls", data=body, headers=headers) as got:
        assert got.status == status
        assert (await got.json())["error"]
    assert not phone.box.came


async def test_a_body_without_a_length(phone: Phone) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"called":"100"}'

    headers = phone.headers() | {"Content-Type": "application/json"}
    async with phone.client.post("/browser/calls", data=pieces(), headers=headers) as got:
        assert got.status == 413


async def test_a_browser_is_not_called() -> None:
    carrier = BrowserCarrier(BrowserOptions(), Box())
    request: Any = None
    with pytest.raises(DialError, match="only calls in"):
        await carrier.place(request)


async def test_a_stream_without_a_token_is_refused() -> None:
    box = Box()
    BrowserCarrier(BrowserOptions(), box).offered(StreamOffer("t", "127.0.0.1:9", "c"))
    assert box.refused == ["a browser's stream comes with a token"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hosts": ["https://voice.example.com"]}, "is not the name of a host"),
        ({"hosts": ["voice.example.com:8080"]}, "without a port"),
        ({"media_url": "https://voice.example.com"}, "write wss://voice.example.com"),
        ({"media_url": "voice.example.com"}, "write wss://voice.example.com"),
        ({"media_url": "wss://voice.example.com/a b"}, "write wss://voice.example.com"),
        ({"media_url": "wss://voice.example.com/; script-src *"}, "write wss://voice.example.com"),
    ],
)
def test_mistakes_in_the_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BrowserOptions.model_validate(options)


def test_what_the_page_may_connect_to() -> None:
    carrier = BrowserCarrier(BrowserOptions(), Box())
    assert carrier.media_sources("127.0.0.1:8080") == ("ws://127.0.0.1:8081", "wss://127.0.0.1:8081")
    assert carrier.media_sources("x; script-src *") == ()
    carrier = BrowserCarrier(BrowserOptions(media_url="wss://voice.example.com/media"), Box())
    assert carrier.media_sources("127.0.0.1:8080") == ("wss://voice.example.com",)
    assert carrier.stream_url("t") == "wss://voice.example.com/media/browser/media"
