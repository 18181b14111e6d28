"""The box as a carrier sees it, in the tests of carriers: it admits every call and writes down what it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import aiohttp
from aiohttp import web

from appliance.api import Carrier, CarrierCall, IncomingCall, StreamAddress, StreamOffer
from appliance.carriers.forwarded import client_address


class FakeBoxCall:
    """The box's side of a call."""

    def __init__(self, key: str, carrier: Carrier | None = None) -> None:
        self.key = key
        self.ended = False
        self.overs: list[tuple[int, str]] = []
        self.streams = 0
        self.rang = 0
        self._carrier = carrier

    def ringing(self) -> None:
        self.rang += 1

    def digits(self, digits: str) -> None: ...

    def over(self, status: int, reason: str, *, by_peer: bool = True) -> None:
        self.ended = True
        self.overs.append((status, reason))

    def new_stream(self) -> StreamAddress:
        self.streams += 1
        token = f"again-{self.streams}"
        return StreamAddress(self._carrier.stream_url(token) if self._carrier is not None else "", token)


@dataclass
class Admitted:
    call: CarrierCall
    incoming: IncomingCall
    box_call: FakeBoxCall
    offer: StreamOffer | None


@dataclass
class FakeBox:
    """Admits every call; ``decide`` says what becomes of it, in a task of its own."""

    http: aiohttp.ClientSession
    trunk: str = "pstn"
    caller_id: str = ""
    media_port: int = 8081
    allowed: tuple[str, ...] = ("127.0.0.1",)
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    decide: Callable[[CarrierCall], Awaitable[None]] | None = None
    carrier: Carrier | None = None
    admitted: list[Admitted] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def allows(self, host: str) -> bool:
        return host in self.allowed

    def client_of(self, request: web.Request) -> str:
        return client_address(request.remote or "", request.headers.get("X-Forwarded-For", ""), self.proxies)

    def admit(self, call: CarrierCall, incoming: IncomingCall, offer: StreamOffer | None = None) -> FakeBoxCall:
        box_call = FakeBoxCall(f"box-{len(self.admitted)}", self.carrier)
        self.admitted.append(Admitted(call, incoming, box_call, offer))
        if self.decide is not None:
            self.tasks.append(asyncio.ensure_future(self.decide(call)))
        return box_call

    def refuse(self, offer: StreamOffer, reason: str) -> None:
        self.refused.append(reason)


@asynccontextmanager
async def running(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port at which it runs."""
    runner = web.AppRunner(app, lingering_time=0.05)  # of bodies that do not come, after the answer
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(make: Callable[[FakeBox], Carrier], prefix: str) -> AsyncIterator[tuple[FakeBox, Carrier, str]]:
    """A carrier with its routes below ``prefix``: the box, the carrier, and the address of the prefix."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        box = FakeBox(http)
        carrier = box.carrier = make(box)
        app = web.Application()
        for route in carrier.routes():
            app.router.add_route(route.method, prefix + route.path, route.handler)  # type: ignore[attr-defined]
        async with running(app) as port:
            await carrier.start()
            try:
                yield box, carrier, f"http://127.0.0.1:{port}{prefix}"
            finally:
                await asyncio.gather(*box.tasks)
                await carrier.close()
