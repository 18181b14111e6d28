"""WebSockets to a server of OpenAI's Realtime protocol: JSON events in both directions, some kept open in advance."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from appliance.engines.api_address import secrets_in
from appliance.engines.api_options import RealtimeApiOptions
from appliance.engines.api_session import headers_of
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_HEARTBEAT_S: Final = 15.0
_MAX_EVENT: Final = 16 * 1024 * 1024
_MAX_AGE_S: Final = 600.0
"""A connection that has waited for longer is replaced: servers end sessions after half an hour or an hour."""
_LOOK_EVERY_S: Final = 5.0
_RETRY_S: Final = (1.0, 30.0)
_CLOSE_S: Final = 1.0
_CLOSED: Final = None


class RealtimeSocket:
    """One connection. Events are read as they come, so that it is known at once when it breaks."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, where: str) -> None:
        self._socket = socket
        self._where = where
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._why = ""
        self.opened_at = asyncio.get_running_loop().time()
        self._reader = asyncio.create_task(self._read())

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more; events that came before may still be received."""
        return self._reader.done() or self._socket.closed

    async def send(self, event: Mapping[str, Any]) -> None:
        """Raises EngineError where the connection is gone."""
        try:
            await self._socket.send_str(msgspec.json.encode(event).decode())
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            raise EngineError(f"{self._where}: the connection is gone ({error})", retryable=True) from error

    async def receive(self) -> dict[str, Any]:
        """The next event; its ``type`` is text.

        Raises:
            EngineError: the connection is gone, or what came is no event.
        """
        event = await self._events.get()
        if event is _CLOSED:
            self._events.put_nowait(_CLOSED)
            raise EngineError(f"{self._where}: {self._why or 'the connection is gone'}", retryable=True)
        return event

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait({self._reader})
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close()

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                try:
                    event = msgspec.json.decode(message.data)
                except (msgspec.DecodeError, RecursionError) as error:
                    self._why = f"the server sent no JSON ({error})"
                    return
                if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                    self._why = "the server sent JSON that is no event"
                    return
                self._events.put_nowait(event)
            code = self._socket.close_code
            self._why = "the server has closed the connection" + (f" ({code})" if code else "")
        except (aiohttp.ClientError, OSError) as error:
            self._why = f"the connection broke ({error})"
        finally:
            self._events.put_nowait(_CLOSED)


class RealtimePool:
    """Connections to one server, ``spare`` of them open in advance: a call then waits for no handshake.

    Args:
        url: of the WebSocket, its query included.
        headers: of the handshake.
        where: what messages call the server.
        spare: connections that are kept open for the next calls.
        connect_s: a connection that is not open by then has failed.
        ca_file: certificates to trust instead of the system's.
        secrets: texts that no message may show.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        where: str,
        spare: int,
        connect_s: float,
        ca_file: Path | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._url = url
        self._headers = dict(headers)
        self._where = where
        self._spare = spare
        self._connect_s = connect_s
        self._ca_file = ca_file
        self._secrets = secrets
        self._session: aiohttp.ClientSession | None = None
        self._ready: deque[RealtimeSocket] = deque()
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to keep connections. A server that cannot be reached now may be later.

        Raises:
            EngineError: ``ca_file`` cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as error:
            raise EngineError(f"{self._where}: ca_file cannot be read ({error}); name a PEM file", retryable=False)  # noqa: B904
        connector = aiohttp.TCPConnector(limit=0, ssl=context)
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(self._redirected)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]
        )
        if self._spare:
            self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.gather(*(socket.close() for socket in self._ready))
        if self._session is not None:
            await self._session.close()

    async def take(self, *, fresh: bool = False) -> RealtimeSocket:
        """A connection of one's own; ``fresh``: not one that has been waiting.

        Raises:
            EngineError: the server cannot be reached, or refuses; says why.
        """
        while self._ready and not fresh:
            socket = self._ready.popleft()
            self._wake.set()
            if not socket.closed:
                return socket
            await socket.close()
        return await self._connect()

    def redacted(self, text: str) -> str:
        """``text`` without what is secret."""
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "***")
        return text

    async def _redirected(self, _session: Any, _context: Any, answer: aiohttp.TraceRequestRedirectParams) -> None:
        """A handshake is not taken elsewhere: our keys would go with it."""
        target = " ".join(answer.response.headers.get("Location", "elsewhere").split())[:300]
        raise EngineError(
            f"{self._where}: the server redirects to {self.redacted(target)}; set base_url to where it is",
            retryable=False,
        )

    async def _connect(self) -> RealtimeSocket:
        assert self._session is not None
        try:
            async with asyncio.timeout(self._connect_s):
                socket = await self._session.ws_connect(
                    self._url, headers=self._headers, heartbeat=_HEARTBEAT_S, max_msg_size=_MAX_EVENT
                )
        except TimeoutError:
            raise EngineError(f"{self._where}: no connection within {self._connect_s:g} s", retryable=True) from None
        except aiohttp.WSServerHandshakeError as error:
            raise EngineError(
                f"{self._where}: the server refuses: {_words(error.status)}",
                retryable=error.status >= 500 or error.status == 429,
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            told = self.redacted(str(error))
            raise EngineError(f"{self._where}: cannot be reached ({told})", retryable=True) from error
        return RealtimeSocket(socket, self._where)

    async def _keep(self) -> None:
        wait_s, least_s = _LOOK_EVERY_S, _RETRY_S[0]
        while True:
            try:
                await self._tend()
                wait_s, least_s = _LOOK_EVERY_S, _RETRY_S[0]
            except EngineError as error:
                if wait_s >= _LOOK_EVERY_S and least_s == _RETRY_S[0]:
                    logger.error("%s", error)
                wait_s, least_s = least_s, min(2 * least_s, _RETRY_S[1])
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _tend(self) -> None:
        """Close what is old or broken, and open what is missing."""
        now = asyncio.get_running_loop().time()
        for socket in list(self._ready):
            if socket.closed or now - socket.opened_at > _MAX_AGE_S:
                self._ready.remove(socket)
                await socket.close()
        while len(self._ready) < self._spare:
            self._ready.append(await self._connect())


def pool_for(options: RealtimeApiOptions, query: str, spare: int) -> RealtimePool:
    """The pool of an engine, ``query`` behind its address."""
    headers = headers_of(options)
    if options.dialect == "beta":
        headers["OpenAI-Beta"] = "realtime=v1"
    return RealtimePool(
        f"{options.base_url}/realtime?{query}",
        headers,
        where=f"{options.model} at {urlsplit(options.base_url).netloc}",
        spare=spare,
        connect_s=options.connect_s,
        ca_file=options.ca_file,
        secrets=tuple(secrets_in([options.api_key, options.extra_headers])),
    )


def _words(status: int) -> str:
    """An HTTP status, and what to do about it."""
    known = status in HTTPStatus.__members__.values()
    remedies = {401: "; set api_key", 403: "; set api_key", 404: "; check base_url and model"}
    return f"{status} {HTTPStatus(status).phrase if known else ''}".rstrip() + remedies.get(status, "")
