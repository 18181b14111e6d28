"""A tiny box for the tests of the simulators: answers webhooks, and says into streams what a test tells it to."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

import numpy as np
from aiohttp import WSMsgType, web

from appliance.audio import g711
from appliance.cli.playout import Pcm
from tests.waiting import LIMIT_S

Script = Callable[["Socket"], Awaitable[None]]


def tone(seconds: float, hz: float = 440.0, rate_hz: int = 8000) -> Pcm:
    """A sine at a third of full scale."""
    at = np.arange(round(seconds * rate_hz))
    return np.asarray(10_000 * np.sin(2 * np.pi * hz * at / rate_hz), np.int16)


def mulaw(pcm: Pcm) -> str:
    return base64.b64encode(g711.encode(pcm, False).tobytes()).decode()


class Socket:
    """The box's end of one stream; ``got`` is every message that has come."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.request = request
        self.got: list[Any] = []
        self.news = asyncio.Event()

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.got if isinstance(message, dict)]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.got if isinstance(message, dict) and message["event"] == event]

    async def until(self, met: Callable[[], bool], timeout_s: float = LIMIT_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not met():
                self.news.clear()
                await self.news.wait()

    @property
    def stream_sid(self) -> str:
        return str(self.of("start")[0]["streamSid"])

    async def say(self, pcm: Pcm) -> None:
        """20 ms a message, all at once."""
        for at in range(0, len(pcm), 160):
            media = {"payload": mulaw(pcm[at : at + 160])}
            await self.send({"event": "media", "streamSid": self.stream_sid, "media": media})

    async def mark(self, name: str) -> None:
        await self.send({"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}})

    async def clear(self) -> None:
        await self.send({"event": "clear", "streamSid": self.stream_sid})

    async def send(self, message: object) -> None:
        await self.socket.send_str(json.dumps(message))

    async def close(self) -> None:
        await self.socket.close()


class Peer:
    """An HTTP server: ``/media`` runs ``script`` per stream, any other path is answered by ``documents``.

    ``documents`` maps a path to TwiML (or to a function of the form that gives it); ``posted`` is what came.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.sockets: list[Socket] = []
        self.documents: dict[str, Any] = {}
        self.posted: list[tuple[str, dict[str, str], web.Request]] = []
        self.url = ""
        self.news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/media", self._media)
        app.router.add_get("/media/{token}", self._media)
        app.router.add_post("/{path:.*}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self.sockets:
            await socket.socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def media_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/media"

    def connect(self, action: str = "", **parameters: str) -> str:
        """TwiML that opens a stream here."""
        inner = "".join(f'<Parameter name="{name}" value="{value}"/>' for name, value in parameters.items())
        after = f' action="{self.url}{action}"' if action else ""
        return f'<Response><Connect{after}><Stream url="{self.media_url}">{inner}</Stream></Connect></Response>'

    def forms(self, path: str) -> list[dict[str, str]]:
        return [form for where, form, _ in self.posted if where == path]

    async def _media(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        mine = Socket(socket, request)
        self.sockets.append(mine)
        script = asyncio.create_task(self._run(mine))
        async for message in socket:
            text = message.type is WSMsgType.TEXT
            mine.got.append(_read(message.data) if text else message.data)
            mine.news.set()
        mine.news.set()
        script.cancel()
        await asyncio.gather(script, return_exceptions=True)
        return socket

    async def _run(self, socket: Socket) -> None:
        if self.script is not None:
            await self.script(socket)

    async def _post(self, request: web.Request) -> web.Response:
        path = request.path
        if request.content_type == "application/json":
            form = await request.json()
        else:
            form = {name: str(value) for name, value in (await request.post()).items()}
        self.posted.append((path, form, request))
        found = self.documents.get(path, "<Response/>")
        if callable(found):
            found = found(form)
        return web.Response(text=found, content_type="text/xml")


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
