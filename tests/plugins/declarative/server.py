"""A real HTTP server that notes what it is asked, and a call that a tool is used in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from aiohttp import web

from appliance.api.tools import Answer, Question, Tool
from appliance.errors import ConfigError
from appliance.plugins.declarative.loader import DeclarativePlugin, examine_declarative
from appliance.plugins.declarative.source import Declarative

HOST = "127.0.0.1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class HttpServer:
    """``async with HttpServer(handler) as server``; ``asked`` is what came, ``raw_path`` undecoded."""

    def __init__(self, handler: Handler | None = None, host: str = HOST, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler or _empty
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.port = 0
        self._host = host
        self._tls = tls
        self._now = 0
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self._host}:{self.port}"

    async def __aenter__(self) -> HttpServer:
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(Asked(request.method, request.raw_path, dict(request.query), dict(request.headers), body))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self.handler(request)  # type: ignore[arg-type]
        finally:
            self._now -= 1


async def _empty(request: web.Request) -> web.StreamResponse:
    return web.json_response({})


@dataclass
class FakeCall:
    """The call of a tool, without a call."""

    call_id: str = "call-1"
    line: str = "desk"
    caller: str = "+15551234567"
    called: str = "100"
    idempotency_key: str = "call-1-1"
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    async def ask(self, question: Question) -> Answer:
        return Answer()

    def note(self, name: str, value: str) -> None: ...
    def press(self, digits: str) -> None: ...
    def hand_on(self, target: str) -> None: ...
    def hang_up(self, reason: str, farewell: str = "") -> None: ...


def plugin_of(folder: Path, text: str, name: str = "shop", **secrets: str) -> DeclarativePlugin:
    """The plugin that a file makes.

    Raises:
        ConfigError: it is wrong.
    """
    from pydantic import SecretStr

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    found = examine_declarative([path], lambda key: SecretStr(secrets[key]) if key in secrets else "add it")
    if found.mistakes:
        raise ConfigError(found.mistakes_of([name]))
    return found.plugins[name]


def tool_of(source: Declarative, name: str = "shop", **values: object) -> Tool:
    """The first tool of a plugin."""
    return source.tools_of("desk", {name: values})[0][1]


async def hang(request: web.Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError
