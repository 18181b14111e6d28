"""The language model behind an OpenAI-compatible API, over HTTP, streamed; and a second one where the first fails."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from appliance.api import EngineContext, GenerateRequest
from appliance.engines.chat_race import Race
from appliance.engines.chat_reply import Calls, Finished, Piece, Words
from appliance.engines.chat_request import request_body
from appliance.engines.chat_server import ChatServer, ChatStream
from appliance.engines.openai_llm_options import OpenAiLlmOptions
from appliance.engines.server_fault import ServerFault
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_CONCURRENCY: Final = 1024
_AT_A_TIME: Final = 64
_MARGIN_S: Final = 0.05
"""So much before its deadline a reply is given up: the one who asked is told why."""


class OpenAiLlm:
    """An engine of kind llm; see docs/llm.md for what happens when a server fails.

    Args:
        options: validated.
        now: CLOCK_MONOTONIC, the clock of the requests' deadlines.
        jitter: 0 to 1, at random.
    """

    kind = "llm"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = _CONCURRENCY
    cpu_bound = False

    def __init__(
        self,
        options: OpenAiLlmOptions,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.options = options
        self._now = now
        self._jitter = jitter
        many = bool(options.servers)
        self.servers = [
            ChatServer(
                server,
                f"engines.llm.servers.{index}" if many else "engines.llm",
                failures=options.failures,
                connections=options.connections,
                keep_alive_s=options.keep_alive_s,
                now=now,
            )
            for index, server in enumerate(options.all_servers)
        ]

    async def load(self) -> None:
        """Open the connections. A server that cannot be reached keeps nobody from starting.

        Raises:
            EngineError: a certificate file cannot be read.
        """
        await asyncio.gather(*(server.open() for server in self.servers))

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self.servers))

    async def run(self, batch: Sequence[GenerateRequest], context: EngineContext) -> None:
        """Raises EngineError where no server gave the reply, or one broke off in the middle of it."""
        for request in batch:
            await self._reply(request, context)

    async def _reply(self, request: GenerateRequest, context: EngineContext) -> None:
        deadline = request.deadline - _MARGIN_S
        race = Race(
            self.servers,
            lambda server: server.ask(request_body(server.options, request), request.session),
            min(deadline, request.first_token_by or deadline),
            self.options.hedge_after_s,
            self.options.retries,
            self._now,
            self._jitter,
        )
        begun = await race.run()
        stream, server = begun.stream, begun.stream.server
        if race.causes:
            logger.warning("call %s is answered by %s: %s", request.session, server.name, "; ".join(race.causes))
        try:
            await self._pass_on(request, context, stream, begun.pieces, deadline)
            await stream.drain()
            logger.debug("call %s: %s counted %s", request.session, server.name, stream.usage)
        except ServerFault as fault:
            server.note(fault)
            raise EngineError(f"{server.name} {fault}", retryable=False) from None
        finally:
            stream.close()

    async def _pass_on(
        self, request: GenerateRequest, context: EngineContext, stream: ChatStream, pieces: list[Piece], deadline: float
    ) -> None:
        """Give the words on as they come, until the reply is complete."""
        stall_s = stream.server.options.stall_s
        while True:
            for index, piece in enumerate(pieces):
                if isinstance(piece, Words):
                    context.token(request, piece.text)
                elif isinstance(piece, Calls):
                    context.token(request, "", calls=piece.calls)
                elif isinstance(piece, Finished):
                    self._end(request, piece, stream)
                    context.token(request, "", last=True, server=stream.server.name)
                    return
                if index % _AT_A_TIME == _AT_A_TIME - 1:
                    await context.checkpoint()
            if context.cancelled(request):
                return
            left_s = deadline - self._now()
            try:
                async with asyncio.timeout(max(min(stall_s, left_s), 0.0)):
                    pieces = await stream.read()
            except TimeoutError:
                if left_s <= stall_s:
                    raise ServerFault("took too long for its reply; see engines.llm.timeout_s", blame=False) from None
                raise ServerFault(f"fell silent for {stall_s:g} s in the middle of the reply") from None

    def _end(self, request: GenerateRequest, end: Finished, stream: ChatStream) -> None:
        if end.reason in ("length", "content_filter"):
            logger.warning("call %s: %s cut its reply short (%s)", request.session, stream.server.name, end.reason)
