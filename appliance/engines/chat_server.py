"""One server with an OpenAI-compatible API: its connections, its health, and one reply as it streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from appliance.engines.api_session import open_session, read_up_to, redacted, refusal, touch, unreached
from appliance.engines.chat_reply import Piece, ReplyReader, Usage
from appliance.engines.chat_request import probe_body
from appliance.engines.circuit import Circuit
from appliance.engines.openai_llm_options import LlmServer
from appliance.engines.server_fault import ServerFault
from appliance.engines.sse import EventDecoder
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_WHOLE_BYTES: Final = 1 << 20
_DRAIN_S: Final = 0.5
_PING_S: Final = 2.0
_SHORTEST_PING_S: Final = 2.0
_REFILL_S: Final = 0.25
_LONGEST_RETRY_S: Final = 1.0


class ChatServer:
    """Asks one server.

    Args:
        options: with everything that holds for it.
        where: the dotted key of its settings, for what errors say.
        failures: so many in a row put it out of use.
        connections: kept open.
        keep_alive_s: how often they are used while nobody asks for anything.
        now: CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        options: LlmServer,
        where: str,
        *,
        failures: int,
        connections: int,
        keep_alive_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.where = where
        self.name = options.name or f"{options.model} at {urlsplit(options.base_url).netloc}"
        self.circuit = Circuit(failures)
        self.opened = 0
        """Connections opened so far."""
        self.ping_every_s = keep_alive_s
        self._connections = connections
        self._now = now
        self._session: aiohttp.ClientSession | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._lost = 0

    async def open(self) -> None:
        """Open the connections, and keep them from now on. A server that cannot be reached now may be later.

        Raises:
            EngineError: ``ca_file`` cannot be read.
        """
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._connection_opened)
        trace.on_connection_reuseconn.append(self._connection_reused)
        self._session = open_session(self.options, self.where, self.ping_every_s, [trace])
        if await self._look():
            await self._warm()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def ask(self, body: bytes, session: str = "") -> ChatStream:
        """A reply that has not been asked for yet; see :meth:`ChatStream.open`."""
        assert self._session is not None
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self.options.session_header and session:
            headers[self.options.session_header] = session
        return ChatStream(self, self._session, body, headers)

    def note(self, fault: ServerFault) -> None:
        """An attempt has failed: whether the server stays in use."""
        logger.warning("%s %s", self.name, fault)
        wait_s = None if fault.again else fault.wait_s
        if fault.blame and self.circuit.failed(self._now(), str(fault), wait_s):
            logger.error("%s is out of use until it answers a probe: it %s", self.name, fault)
            self._news.set()

    def answered(self) -> None:
        """An attempt has begun to give its reply."""
        if self.circuit.succeeded():
            logger.info("%s is in use again", self.name)

    def lost_connection(self) -> None:
        """One has been closed in the middle of a reply; another takes its place soon."""
        self._lost += 1
        self._news.set()

    def redacted(self, text: str) -> str:
        """``text`` without what is secret."""
        return redacted(text, [self.options.api_key, self.options.extra_headers, self.options.extra_body])

    # --- connections ----------------------------------------------------------------------------------------------

    async def _connection_opened(self, *_: Any) -> None:
        self.opened += 1

    async def _connection_reused(self, _session: Any, context: Any, _parameters: Any) -> None:
        if isinstance(context.trace_request_ctx, ChatStream):
            context.trace_request_ctx.reused = True

    async def _look(self) -> bool:
        """Does the server take our key, and has it the model? What is wrong is logged; whether it was reached."""
        assert self._session is not None
        options, models = self.options, f"{self.options.base_url}/models"
        if (
            options.api_key is not None
            and urlsplit(options.base_url).scheme == "http"
            and not _is_near(options.base_url)
        ):
            logger.warning("%s.base_url: the key crosses the network unencrypted; use https", self.where)
        try:
            async with asyncio.timeout(_PING_S), self._session.get(models, allow_redirects=False) as response:
                if response.status in (401, 403):
                    logger.error("%s %s", self.name, await self.fault_of(response))
                elif response.status == 200:
                    listed = _model_names(await read_up_to(response.content, _WHOLE_BYTES))
                    if listed and options.model not in listed:
                        known = ", ".join(sorted(listed)[:8])
                        logger.warning(
                            "%s does not list %r; %s.model: it has %s", self.name, options.model, self.where, known
                        )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.note(self.fault_of_connection(error))
            return False
        return True

    async def _warm(self) -> bool:
        assert self._session is not None
        return await touch(self._session, self.options.base_url, self._connections, _PING_S)

    async def _keep(self) -> None:
        """Keep the connections warm, and probe the server when it is out of use."""
        warmed_at = self._now()
        while True:
            probe_at = self.circuit.get_timer()
            warm_at = warmed_at + (_REFILL_S if self._lost else self.ping_every_s)
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(min(warm_at, probe_at or math.inf) - self._now(), 0.0)):
                    await self._news.wait()
                    continue
            if probe_at is not None and self._now() >= probe_at:
                await self._probe()
            if self._now() >= warm_at:
                before, lost, self._lost = self.opened, self._lost, 0
                if await self._warm() and self.opened > before + lost:
                    # It closes what nobody uses sooner than that.
                    self.ping_every_s = max(self.ping_every_s / 2, _SHORTEST_PING_S)
                warmed_at = self._now()

    async def first_token_s(self) -> float:
        """Ask for one token, and say how long it took.

        Raises:
            ServerFault: there was none.
        """
        stream = self.ask(probe_body(self.options))
        asked_at = self._now()
        try:
            async with asyncio.timeout(self.options.first_token_s):
                await stream.open()
                while not await stream.read():
                    pass
        except TimeoutError:
            raise ServerFault(f"gave no first token within {self.options.first_token_s:g} s") from None
        finally:
            stream.close()
        return self._now() - asked_at

    async def _probe(self) -> None:
        self.circuit.begin_probe()
        try:
            await self.first_token_s()
        except ServerFault as fault:
            self.circuit.failed(self._now(), str(fault), None if fault.again else fault.wait_s)
        except Exception:
            logger.exception("the probe of %s failed", self.name)
            self.circuit.failed(self._now(), "could not be probed")
        else:
            self.answered()

    # --- what went wrong, in words --------------------------------------------------------------------------------

    def fault_of_connection(self, error: BaseException) -> ServerFault:
        """Why there was no answer at all."""
        return self.without_secrets(unreached(error, self.where))

    async def fault_of(self, response: aiohttp.ClientResponse) -> ServerFault:
        """What an answer other than 200 means, and what would help. Nobody waits long for a server."""
        fault = await refusal(response, self.options, self.where)
        fault.again = fault.again and (fault.wait_s is None or fault.wait_s <= _LONGEST_RETRY_S)
        return self.without_secrets(fault)

    def without_secrets(self, fault: ServerFault) -> ServerFault:
        """The same in words that hold none."""
        return ServerFault(self.redacted(str(fault)), again=fault.again, wait_s=fault.wait_s, blame=fault.blame)


class ChatStream:
    """One attempt at one reply. Closing it, at any time, closes the connection unless the reply is complete."""

    def __init__(
        self, server: ChatServer, session: aiohttp.ClientSession, body: bytes, headers: dict[str, str]
    ) -> None:
        self.server = server
        self.reused = False
        """The request went over a connection that was open before."""
        self.fault: ServerFault | None = None
        """What is wrong behind what has been read."""
        self._session = session
        self._body = body
        self._headers = headers
        self._response: aiohttp.ClientResponse | None = None
        self._reader = ReplyReader(thinks_first=server.options.thinks_first)
        self._decoder = EventDecoder()
        self._streamed = True

    @property
    def usage(self) -> Usage:
        return self._reader.usage

    async def open(self) -> None:
        """Ask. Nothing has been read of the reply yet.

        Raises:
            ServerFault: the server cannot be reached, or refuses.
        """
        response = await self._post()
        self._response = response
        if response.status != 200:
            raise await self.server.fault_of(response)
        kind = response.content_type
        self._streamed = kind not in ("application/json", "text/html")
        if kind == "text/html":
            hint = f"is {self.server.where}.base_url an OpenAI-compatible API?"
            raise ServerFault(f"answered with a web page; {hint}")

    async def _post(self) -> aiohttp.ClientResponse:
        """Once more where a connection that was kept turns out to have been closed: the server has seen nothing."""
        url = f"{self.server.options.base_url}/chat/completions"
        while True:
            self.reused = False
            try:
                return await self._session.post(
                    url, data=self._body, headers=self._headers, allow_redirects=False, trace_request_ctx=self
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if not self.reused or isinstance(error, aiohttp.ClientConnectorError):
                    raise self.server.fault_of_connection(error) from None
            except (aiohttp.ClientError, OSError) as error:
                raise self.server.fault_of_connection(error) from None

    async def read(self) -> list[Piece]:
        """What the next bytes add to the reply; often nothing. What came before a fault is given first.

        Raises:
            ServerFault: the reply is broken, or the connection ended within it.
        """
        assert self._response is not None
        if self.fault is not None:
            raise self.fault
        content = self._response.content
        try:
            data = await (content.readany() if self._streamed else read_up_to(content, _WHOLE_BYTES))
        except (aiohttp.ClientError, OSError) as error:
            reset = isinstance(error, ConnectionResetError) or isinstance(error.__cause__, ConnectionResetError)
            how = "the connection was reset" if reset else "the connection was closed"
            raise ServerFault(f"broke off in the middle of the reply: {how}", again=True) from None
        pieces: list[Piece] = []
        try:
            for event in self._events(data):
                pieces += self._reader.feed(event)
            if not data and not self._reader.finished:
                raise ServerFault("broke off in the middle of the reply", again=True)
        except ServerFault as fault:
            self.fault = self.server.without_secrets(fault)
            if not pieces:
                raise self.fault from None
        return pieces

    def _events(self, data: bytes) -> list[str]:
        if not self._streamed:
            return [data.decode(errors="replace")] if data else []
        try:
            return self._decoder.feed(data) if data else self._decoder.finish()
        except EngineError as error:
            raise ServerFault(f"broke off: {error}") from None

    async def drain(self) -> None:
        """The reply is complete: read what is left, so that the connection can be used again."""
        with contextlib.suppress(TimeoutError, ServerFault):
            async with asyncio.timeout(_DRAIN_S):
                while self._response is not None and not self._response.content.at_eof():
                    await self.read()

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            if not response.content.at_eof():
                self.server.lost_connection()
            response.close()


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _model_names(body: bytes) -> set[str]:
    try:
        listed = msgspec.json.decode(body).get("data", [])
        return {str(model["id"]) for model in listed}
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError):
        return set()
