"""What the servers of this package share: a socket of their own, a key, what was asked, and how a server goes away."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

HOST: Final = "127.0.0.1"
LIMIT_S: Final = 30.0


class SimServer(ABC):
    """``async with`` one; it may be started again, on the same port.

    Args:
        key: it wants this API key.
        largest: bytes of the largest request.
        idle_s: connections that are silent for longer are closed.
        tls: it speaks this.

    Attributes:
        asked: every request or session, in order; each kind of server has its own.
        connections: ports of the clients that have asked for anything.
        looked: the methods of those who asked for the list of models.
        news: set whenever anything has come; see :meth:`until`.
        problems: what was wrong with requests.
    """

    scheme = "http"
    gives_up = True
    """Whether work on an answer stops when its client goes away."""

    def __init__(
        self, key: str = "", *, largest: int = 1 << 20, idle_s: float = 75.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.key = key
        self.port = 0
        self.asked: list[Any] = []
        self.connections: set[int] = set()
        self.looked: list[str] = []
        self.problems: list[str] = []
        self.news = asyncio.Event()
        self.stopping = asyncio.Event()
        self._largest = largest
        self._idle_s = idle_s
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def routes(self) -> Sequence[web.RouteDef]:
        """What it answers beside the list of models."""

    @property
    def url(self) -> str:
        return f"{self.scheme}{'s' if self._tls else ''}://{HOST}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self.stopping.clear()
        app = web.Application(client_max_size=self._largest)
        app.add_routes([web.get("/v1/models", self._models), *self.routes()])
        self._runner = web.AppRunner(
            app,
            handler_cancellation=self.gives_up,
            access_log=None,
            keepalive_timeout=self._idle_s,
            shutdown_timeout=0.1,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close everything."""
        self.stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, condition: Callable[[], object], within_s: float = LIMIT_S) -> None:
        """Wait until it is so; asked again whenever anything has come."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def wait_asked(self, count: int) -> Any:
        """The request of this number, from one."""
        await self.until(lambda: len(self.asked) >= count)
        return self.asked[count - 1]

    def came(self, request: web.Request, asked: object) -> None:
        """Note a request."""
        self.connections.add(port_of(request))
        self.asked.append(asked)
        self.news.set()

    def knows(self, request: web.Request) -> bool:
        """Whether the client has the key, where one is wanted."""
        return not self.key or request.headers.get("Authorization") == f"Bearer {self.key}"

    async def _models(self, request: web.Request) -> web.Response:
        self.looked.append(request.method)
        self.connections.add(port_of(request))
        self.news.set()
        if not self.knows(request):
            return refused(401, "Incorrect API key provided")
        return web.json_response({"object": "list", "data": [{"id": "sim", "object": "model"}]})


def refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """As OpenAI words an error."""
    error = {"error": {"message": message, "type": "invalid_request_error"}}
    return web.json_response(error, status=status, headers=headers)


def wrong_key(request: web.Request) -> web.Response:
    """As OpenAI words it, what was sent included."""
    return refused(401, f"Incorrect API key provided: {request.headers.get('Authorization', 'none')}")


def port_of(request: web.Request) -> int:
    """The client's port, which tells its connections apart."""
    assert request.transport is not None
    return int(request.transport.get_extra_info("peername")[1])


def reset(request: web.Request) -> None:
    """Die as a killed server does: its kernel answers with RST."""
    assert request.transport is not None
    sock = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def close(request: web.Request) -> None:
    """Close the connection as a server does that goes down in order."""
    assert request.transport is not None
    request.transport.close()
