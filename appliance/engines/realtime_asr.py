"""Recognition over OpenAI's Realtime protocol: a WebSocket for each call, which hears the caller as he speaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from appliance.api import EngineContext, RecogniseRequest
from appliance.engines.asr_options import RealtimeAsrOptions
from appliance.engines.heard import MAX_CHARACTERS, answer_final, answer_partial, likely_words
from appliance.engines.hypotheses import Word, without_repeats
from appliance.engines.realtime_socket import RealtimeSocket, pool_for
from appliance.engines.realtime_transcript import TranscriptProtocol
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_MARGIN_S: Final = 0.05
_ATTEMPTS: Final = 2
_LOOK_EVERY_S: Final = 2.0


class OpenAiRealtimeAsr:
    """An engine of kind asr.

    Args:
        options: validated.
        now: CLOCK_MONOTONIC, the clock of the requests' deadlines.
    """

    kind = "asr"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = 1024
    cpu_bound = False

    def __init__(self, options: RealtimeAsrOptions, now: Callable[[], float] = time.monotonic) -> None:
        self.name = f"{options.model} at {urlsplit(options.base_url).netloc}"
        self._options = options
        self._now = now
        self._pool = pool_for(options, "intent=transcription", options.warm)
        self._calls: dict[int, _Call] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    async def load(self) -> None:
        await self._pool.open()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for slot in list(self._calls):
            self._let_go(slot)
        await asyncio.gather(*self._closing)
        await self._pool.close()

    async def run(self, batch: Sequence[RecogniseRequest], context: EngineContext) -> None:
        """Raises EngineError where the service could not; StaleSlot where the call is over."""
        for request in batch:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    await self._recognise(request, context, fresh=attempt > 1)
                    break
                except EngineError as error:
                    self._let_go(request.slot)
                    if attempt == _ATTEMPTS or not error.retryable or not request.final:
                        raise EngineError(str(error), retryable=False) from None
                    logger.info("%s; it is told again over a new connection", error)

    async def _recognise(self, request: RecogniseRequest, context: EngineContext, *, fresh: bool) -> None:
        call = await self._call_of(request, fresh=fresh)
        call.tell(request, context)
        if request.final:
            left_s = request.deadline - _MARGIN_S - self._now()
            try:
                async with asyncio.timeout(max(left_s, 0.0) if left_s < math.inf else None):
                    await call.written()
            except TimeoutError:
                raise EngineError(f"{self.name} gave no transcript in time", retryable=False) from None
        call.check()
        text, stable = call.protocol.text()
        if len(text) > MAX_CHARACTERS:
            raise EngineError(f"{self.name} sent a transcript of {len(text)} characters", retryable=False)
        words = [Word(word) for word in text.split()]
        confidence = math.exp(call.protocol.log_probability)
        if request.final:
            answer_final(request, without_repeats(words), confidence, context, timed=False)
        else:
            answer_partial(request, words, stable, confidence, context, timed=False)

    async def _call_of(self, request: RecogniseRequest, *, fresh: bool) -> _Call:
        call = self._calls.get(request.slot)
        if call is None or call.generation != request.generation or call.over:
            self._let_go(request.slot)
            socket = await self._pool.take(fresh=fresh)
            # Another request of the same call may have opened one meanwhile.
            other = self._calls.get(request.slot)
            if other is not None and other.generation == request.generation and not other.over:
                self._close(socket.close())
                call = other
            else:
                self._let_go(request.slot)
                call = self._calls[request.slot] = _Call(request.generation, socket, self._options, self.name)
        call.used_at = self._now()
        return call

    def _let_go(self, slot: int) -> None:
        call = self._calls.pop(slot, None)
        if call is not None:
            self._close(call.close())

    def _close(self, closing: Any) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _keep(self) -> None:
        """Let go of the sockets of calls that are over, or say nothing."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._options.idle_s / 2))
            for slot, call in list(self._calls.items()):
                if call.over or self._now() - call.used_at > self._options.idle_s:
                    self._let_go(slot)


class _Call:
    """One call's session."""

    def __init__(self, generation: int, socket: RealtimeSocket, options: RealtimeAsrOptions, name: str) -> None:
        self.generation = generation
        self.protocol = TranscriptProtocol(options)
        self.used_at = 0.0
        self._options = options
        self._name = name
        self._socket = socket
        self._utterance: tuple[int, int] | None = None
        self._told_to = 0
        self._why = ""
        self._news = asyncio.Event()
        self._unsent = asyncio.Event()
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]

    @property
    def over(self) -> bool:
        """The session is of no use any more."""
        return bool(self._why)

    def tell(self, request: RecogniseRequest, context: EngineContext) -> None:
        """Send what the service has not heard of the utterance; with a final request it is asked for the text.

        Raises:
            StaleSlot: the call is over, or its audio is.
        """
        protocol = self.protocol
        if self._utterance != (request.utterance, request.start):
            self._utterance = (request.utterance, request.start)
            self._told_to = request.start
            protocol.begin()
        protocol.configure(
            request.language.partition("-")[0].lower(), likely_words(request) if self._options.prompt else ""
        )
        if request.end > self._told_to:
            pcm = context.caller_audio(request, self._told_to)
            self._told_to = request.end
            protocol.hear(pcm)
        if request.final:
            protocol.commit()
        self._unsent.set()

    async def written(self) -> None:
        """Wait until all that was committed has its text, or is known never to get it."""
        protocol = self.protocol
        while protocol.pending and not (protocol.failed or protocol.refused or self._why):
            self._news.clear()
            await self._news.wait()

    def check(self) -> None:
        """Raises EngineError where the service has said that it cannot."""
        if self.protocol.refused:
            raise EngineError(
                f"{self._name} refuses the session: {self.protocol.refused}; check engines.asr.model, format and "
                "dialect",
                retryable=False,
            )
        if self._why:
            raise EngineError(self._why)
        if self.protocol.failed:
            raise EngineError(f"{self._name}: {self.protocol.failed}")

    async def close(self) -> None:
        self._broken(f"{self._name}: the session was closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()

    async def _send(self) -> None:
        """Everything in order, whoever waits or does not any more."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self._unsent.wait()
                self._unsent.clear()
                while self.protocol.outbox:
                    try:
                        await self._socket.send(self.protocol.outbox.pop(0))
                    except EngineError as error:
                        self._broken(str(error))
                        return

    async def _receive(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                try:
                    event = await self._socket.receive()
                except EngineError as error:
                    self._broken(str(error))
                    return
                if event["type"] == "error":
                    logger.warning("%s: %s", self._name, event.get("error"))
                self.protocol.received(event)
                self._news.set()

    def _broken(self, why: str) -> None:
        self._why = self._why or why
        self._news.set()
