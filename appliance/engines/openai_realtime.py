"""A speech-to-speech model behind OpenAI's Realtime protocol as an engine: one WebSocket for each call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from appliance.api import ChatTurn, ConverseRequest, EngineContext, Talk
from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions
from appliance.engines.realtime_protocol import (
    Broken,
    CallerIs,
    CallerSaid,
    Done,
    Outcome,
    RealtimeProtocol,
    Said,
    Words,
)
from appliance.engines.realtime_socket import RealtimeSocket, pool_for
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_PIECE_S: Final = 0.04
_WATCH_EVERY_S: Final = 0.25
_ATTEMPTS: Final = 2


class OpenAiRealtime:
    """Holds any number of conversations at once."""

    kind = "speech"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = 1024
    cpu_bound = False

    def __init__(self, options: OpenAiRealtimeOptions) -> None:
        self._options = options
        self._pool = pool_for(options, f"model={quote(options.model)}", options.connections)

    async def load(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def run(self, batch: Sequence[ConverseRequest], context: EngineContext) -> None:
        (request,) = batch
        session = await self._open(request, context.talk(request))
        try:
            await session.run()
        finally:
            await session.close()

    async def _open(self, request: ConverseRequest, talk: Talk) -> _Session:
        """A session that the server has agreed to; one that broke while it waited is replaced by a new one.

        Raises:
            EngineError: there is no getting one.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            socket = await self._pool.take(fresh=attempt > 1)
            session = _Session(self._options, request, talk, socket, self._pool.redacted)
            try:
                await session.open()
            except EngineError as error:
                await session.close()
                if attempt == _ATTEMPTS or not error.retryable:
                    raise
                logger.info("%s; a new connection is tried", error)
            except BaseException:
                await session.close()
                raise
            else:
                return session
        raise AssertionError("unreachable")


class _Session:
    """One call's. Implements :class:`appliance.api.Talker`."""

    def __init__(
        self,
        options: OpenAiRealtimeOptions,
        request: ConverseRequest,
        talk: Talk,
        socket: RealtimeSocket,
        redacted: Callable[[str], str],
    ) -> None:
        self._options = options
        self._talk = talk
        self._socket = socket
        self._redacted = redacted
        self._always = request.detects_turns
        self._protocol = RealtimeProtocol(options, request)
        self._unsent = asyncio.Event()
        self._hearing = False
        self._next = 0
        self._news_at = 0.0

    async def open(self) -> None:
        """Say how the session is to be, and wait until the server agrees.

        Raises:
            EngineError: it does not, or the connection is gone.
        """
        self._protocol.open()
        await self._send_all()
        with contextlib.suppress(TimeoutError):  # a server that does not answer to that may still work
            async with asyncio.timeout(self._options.connect_s):
                kind = ""
                while kind != "session.updated":
                    event = await self._socket.receive()
                    kind = event["type"]
                    self._received(event)

    async def run(self) -> None:
        """Until cancelled. Raises EngineError where the conversation cannot go on, StaleSlot where the call is over."""
        if self._always:
            self._hearing, self._next = True, self._talk.position
        tasks = [
            asyncio.create_task(work)
            for work in (self._talk.attend(self), self._read(), self._write(), self._listen(), self._watch())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self._socket.close()

    # --- what the box says ----------------------------------------------------------------------------------------

    def hear(self, start: int) -> None:
        if self._always:
            return
        self._protocol.forget()
        self._hearing, self._next = True, max(start, 0)
        self._take_audio()

    def caller_silent(self, keep: bool) -> None:
        if self._always:
            return
        self._take_audio()
        self._hearing = False
        if not keep:
            self._protocol.forget()
        self._unsent.set()

    def respond(self, reply: int, heard: bool) -> None:
        self._protocol.respond(reply, heard=heard)
        self._pass_on()

    def cut_short(self, reply: int, heard: int) -> None:
        self._protocol.cut_short(reply, heard)
        self._pass_on()

    def add(self, message: ChatTurn) -> None:
        self._protocol.add(message)
        self._unsent.set()

    # --- what goes on ---------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """The caller's audio as it comes, on the absolute clock."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + _PIECE_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self._take_audio()

    def _take_audio(self) -> None:
        position = self._talk.position
        if self._hearing and position > self._next:
            self._protocol.hear(self._talk.caller_audio(self._next, position))
            self._next = position
            self._unsent.set()

    async def _read(self) -> None:
        while True:
            self._received(await self._socket.receive())

    def _received(self, event: dict[str, Any]) -> None:
        self._news_at = asyncio.get_running_loop().time()
        self._protocol.received(event)
        self._pass_on()

    def _pass_on(self) -> None:
        self._unsent.set()
        while self._protocol.outcomes:
            self._tell(self._protocol.outcomes.popleft())

    def _tell(self, outcome: Outcome) -> None:
        match outcome:
            case Said(reply, pcm):
                self._talk.say(reply, pcm)
            case Words(reply, text):
                self._talk.words(reply, text)
            case Done(reply, calls, problem):
                self._talk.done(reply, calls=calls, problem=self._redacted(problem))
            case CallerSaid(reply, text, final):
                self._talk.caller_words(reply, text, final=final)
            case CallerIs(speaks):
                self._talk.caller_turn(speaks)
            case Broken(problem):
                raise EngineError(self._redacted(problem), retryable=True)

    async def _write(self) -> None:
        while True:
            await self._send_all()
            self._unsent.clear()
            await self._unsent.wait()

    async def _send_all(self) -> None:
        while self._protocol.outgoing:
            event = self._protocol.outgoing.popleft()
            if event["type"] == "response.create":
                self._news_at = asyncio.get_running_loop().time()
            await self._socket.send(event)

    async def _watch(self) -> None:
        """A reply that does not begin, or breaks off, ends the conversation."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            awaits = self._protocol.awaits
            limit_s = self._options.first_audio_s if awaits == "reply" else self._options.stall_s
            if awaits and asyncio.get_running_loop().time() - self._news_at > limit_s:
                what = "the reply did not begin" if awaits == "reply" else "the reply broke off"
                raise EngineError(f"{what}: nothing came for {limit_s:g} s", retryable=True)
