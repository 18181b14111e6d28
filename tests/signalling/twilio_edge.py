"""What Twilio is to the control process, small: it signs webhooks as Twilio does and takes requests to its API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from appliance.api import CarrierCall, IncomingCall, StreamAddress, StreamOffer
from appliance.signalling.twilio import TwilioCarrier, TwilioOptions
from tests.signalling.fake_box import running
from tests.waiting import LIMIT_S

ACCOUNT = "AC" + "0123456789abcdef" * 2
TOKEN = "the token of the account"
PUBLIC = "https://voice.example.com"
FORM = "application/x-www-form-urlencoded"


class FakeBoxCall:
    """The box's side of a call: what it was told."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.ended = False
        self.rang = 0
        self.overs: list[tuple[int, bool]] = []
        self.streams = 0

    def ringing(self) -> None:
        self.rang += 1

    def digits(self, digits: str) -> None:
        raise AssertionError("Twilio's keys come in the stream")

    def over(self, status: int, reason: str, *, by_peer: bool = True) -> None:
        self.ended = True
        self.overs.append((status, by_peer))

    def new_stream(self) -> StreamAddress:
        self.streams += 1
        return StreamAddress("wss://voice.example.com/twilio/media", f"again-{self.streams}")


Decide = Callable[[CarrierCall], Awaitable[None]]


class FakeBox:
    """Admits every call, and has ``decide`` say what becomes of it."""

    trunk = "pstn"
    caller_id = "+4930555"
    media_port = 8081

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.decide: Decide | None = None
        self.admitted: list[tuple[CarrierCall, IncomingCall, FakeBoxCall]] = []
        self.refused: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def allows(self, host: str) -> bool:
        return True

    def client_of(self, request: web.Request) -> str:
        return request.remote or ""

    def admit(self, call: CarrierCall, incoming: IncomingCall, offer: StreamOffer | None = None) -> FakeBoxCall:
        box_call = FakeBoxCall(incoming.call_id)
        self.admitted.append((call, incoming, box_call))
        if self.decide is not None:
            self._tasks.append(asyncio.ensure_future(self.decide(call)))
        return box_call

    def refuse(self, offer: StreamOffer, reason: str) -> None:
        self.refused.append(reason)


def stream(token: str = "secret-1") -> StreamAddress:
    return StreamAddress("wss://voice.example.com/twilio/media", token)


async def answer(call: CarrierCall) -> None:
    await call.answer(stream())


@dataclass
class Asked:
    """A request to the API: ``path`` below the account's calls."""

    path: str
    form: MultiDict[str]
    authorization: str


@dataclass
class Edge:
    """A running trunk, and Twilio on both sides of it.

    ``children`` are the calls that the API has when it is asked for those of a call, None where it does not answer;
    ``looked`` says for which call and status it was asked. ``answers`` are what the API says to the next requests, as
    (status, body, headers); a callable is awaited first.
    """

    box: FakeBox
    carrier: TwilioCarrier
    port: int
    http: aiohttp.ClientSession
    public: str = PUBLIC
    token: str = TOKEN
    asked: list[Asked] = field(default_factory=list)
    answers: list[tuple[int, object, dict[str, str]] | Callable[[], Awaitable[web.Response]]] = field(
        default_factory=list
    )
    made: int = 0
    children: list[dict[str, str]] | None = field(default_factory=list)
    looked: list[tuple[str, str]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def sign(self, target: str, form: Mapping[str, str]) -> str:
        return str(RequestValidator(self.token).compute_signature(self.public + target, form))

    async def post(
        self,
        target: str,
        form: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **more: str,
    ) -> tuple[int, str]:
        """A signed webhook: its status and what it was answered."""
        whole = {"AccountSid": ACCOUNT, "CallSid": "CA1", "CallStatus": "ringing", **(form or {}), **more}
        signed = {"X-Twilio-Signature": self.sign(target, whole), "Content-Type": FORM, **(headers or {})}
        return await self.raw(target, urlencode(whole), signed)

    async def raw(self, target: str, body: str | bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        from yarl import URL

        url = URL(f"http://127.0.0.1:{self.port}{target}", encoded=True)
        async with self.http.post(url, data=body, headers=headers) as response:
            return response.status, await response.text()

    async def back(self, url: str, form: Mapping[str, str] | None = None, **more: str) -> tuple[int, str]:
        """A webhook at an address that the box gave out."""
        assert url.startswith(self.public), url
        return await self.post(url.removeprefix(self.public), form, **more)

    async def api(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            self.looked.append((request.query["ParentCallSid"], request.query["Status"]))
            return web.json_response({"calls": self.children, "page": 0}, status=503 if self.children is None else 200)
        form: MultiDict[str] = MultiDict((k, str(v)) for k, v in (await request.post()).items())
        path = request.path.partition(f"/Accounts/{ACCOUNT}/Calls")[2]
        self.asked.append(Asked(path, form, request.headers.get("Authorization", "")))
        self.news.set()
        self.news.clear()
        if self.answers:
            told = self.answers.pop(0)
            if callable(told):
                return await told()
            status, body, headers = told
            return web.json_response(body, status=status, headers=headers)
        return self.created()

    def created(self) -> web.Response:
        self.made += 1
        return web.json_response({"sid": f"CA{self.made:032x}", "status": "queued"}, status=201)

    async def asked_for(self, count: int) -> list[Asked]:
        """The requests to the API, once there are so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.asked) < count:
                await self.news.wait()
        return self.asked


@asynccontextmanager
async def edge(public: str = PUBLIC, answer_timeout_s: float = 10.0, **options: object) -> AsyncIterator[Edge]:
    """A trunk "pstn" at ``/twilio/pstn`` and ``/twilio``, and an API that it is told of."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        edges: list[Edge] = []

        async def to_api(request: web.Request) -> web.Response:
            return await edges[0].api(request)

        api = web.Application()
        api.router.add_route("*", "/{path:.*}", to_api)
        async with running(api) as api_port:
            given = TwilioOptions.model_validate(
                {
                    "account_sid": ACCOUNT,
                    "auth_token": TOKEN,
                    "public_url": public,
                    "api_url": f"http://127.0.0.1:{api_port}",
                    **options,
                }
            )
            box = FakeBox(http)
            carrier = TwilioCarrier(given, box, answer_timeout_s=answer_timeout_s)
            app = web.Application()
            for route in carrier.routes():
                app.router.add_route(route.method, "/twilio/pstn" + route.path, route.handler)
                app.router.add_route(route.method, "/twilio" + route.path, route.handler)
            async with running(app) as port:
                found = Edge(box, carrier, port, http, public)
                edges.append(found)
                await carrier.start()
                try:
                    yield found
                finally:
                    await carrier.close()
