"""What all synthesisers have in common: phrases are kept and shared, levels match, and another takes over on failure.

The worker runs one :class:`SharedSpeech` around the engine that the settings name. A request is answered from the cache
where its phrase has been spoken before; where somebody else's call is just having it spoken, it joins; else it waits
for its turn, those first whose callers hear nothing until then. What the engine says goes through a
:class:`~appliance.engines.speech_level.Shaper` on its way to everyone who waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from appliance.api import Engine, EngineContext, Pcm
from appliance.config.settings import FallbackSpeech, SpeechEngine
from appliance.engines.batcher import Batch, Batcher, BatchPolicy, Request
from appliance.engines.phrase_cache import Key, PhraseCache
from appliance.engines.protocol import check_engine
from appliance.engines.speech_level import Shaper, VoiceLevels
from appliance.engines.speech_order import priority_of
from appliance.errors import EngineError
from appliance.hookspecs import Resources
from appliance.ipc.messages import Synthesise
from appliance.plugins.registry import ProviderRegistry

logger = logging.getLogger(__name__)

RATE_HZ: Final = 8000
MAX_PHRASE_SAMPLES: Final = 30 * RATE_HZ
REST_S: Final = 15.0
"""So long a synthesiser that has failed is not asked while another can take its place."""

_CONCURRENCY: Final = 1024
_STARVATION_S: Final = 5.0
_NO_SAMPLES: Final = np.zeros(0, np.int16)


@dataclass
class Source:
    """A synthesiser, and how its audio is to be treated.

    Attributes:
        engine: speaks.
        name: of its provider, for log lines.
        levelled: its speech has the common level and clean ends already.
        exact: nothing may be done to its audio, and none of it is kept.
        first_audio_s: without audio after so long the next source is asked instead; only where there is one.
    """

    engine: Engine
    name: str = ""
    levelled: bool = False
    exact: bool = False
    first_audio_s: float = 1.5
    levels: VoiceLevels = field(default_factory=VoiceLevels)
    resting_until: float = 0.0


@dataclass(eq=False)
class _Flight:
    """A phrase that is being spoken, and how far it has come."""

    number: int
    key: Key
    request: Synthesise
    priority: int
    keep: bool
    arrived: float
    chunks: list[Pcm] = field(default_factory=list)
    samples: int = 0
    listeners: int = 0
    live_since: float = math.inf
    over: bool = False
    substitute: bool = False
    problem: EngineError | None = None
    shaper: Shaper | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, source: Source, *, substitute: bool) -> None:
        """``source`` is asked for it."""
        self.problem = None
        self.substitute = substitute
        shaped = not source.levelled and not source.exact
        self.shaper = Shaper(source.levels, self.request.voice or self.request.language) if shaped else None

    @property
    def live(self) -> bool:
        """A caller waits for it."""
        return self.live_since < math.inf

    def wanted_now(self) -> None:
        """A caller waits for it from now on, if none has before."""
        if not self.live:
            self.live_since = asyncio.get_running_loop().time()
            self.tell()

    def tell(self) -> None:
        """Wake everyone who waits for more of it."""
        self.news.set()
        self.news = asyncio.Event()

    def add(self, pcm: Pcm) -> None:
        if len(pcm):
            self.chunks.append(pcm)
            self.samples += len(pcm)
            self.tell()


class SharedSpeech:
    """An engine around the synthesisers of a worker.

    Args:
        sources: the synthesiser, and who takes its place before the first audio when it fails; in that order.
        cache: phrases spoken before.
    """

    kind = "tts"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = _CONCURRENCY

    def __init__(self, sources: Sequence[Source], cache: PhraseCache) -> None:
        self._sources = list(sources)
        self._cache = cache
        first = sources[0].engine
        self.cpu_bound = any(source.engine.cpu_bound for source in sources)
        policy = BatchPolicy(
            first.max_batch, first.max_wait_s, first.concurrency, max_queue=2 * _CONCURRENCY, starvation_s=_STARVATION_S
        )
        self._batcher = Batcher(policy)
        self._flights: dict[Key, _Flight] = {}
        self._waiting: dict[int, _Flight] = {}
        self._tasks: dict[asyncio.Task[None], list[_Flight]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = 0

    async def load(self) -> None:
        """Load all sources. Raises what keeps the last one from working; without the others the box can do."""
        for place, source in enumerate(self._sources):
            try:
                await source.engine.load()
            except EngineError as error:
                if place == len(self._sources) - 1:
                    raise
                logger.error("%s cannot speak now: %s", source.name, error)
                source.resting_until = asyncio.get_running_loop().time() + REST_S

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for source in self._sources:
            await source.engine.close()

    async def run(self, batch: Sequence[Synthesise], context: EngineContext) -> None:
        for request in batch:
            await self._answer(request, context)

    async def _answer(self, request: Synthesise, context: EngineContext) -> None:
        ahead = request.slot < 0
        exact = self._sources[0].exact
        if exact and ahead:
            context.speak(request, _NO_SAMPLES, last=True, cached=True)
            return
        pause = np.zeros(round(request.pause_s * RATE_HZ), np.int16)
        if len(pause) and not ahead and not context.speak(request, pause):
            return
        key = (request.text, request.voice, request.language, request.rate)
        kept = None if exact else self._cache.get(key)
        if kept is not None:
            if request.keep:
                self._cache.keep(key)
            context.speak(request, _NO_SAMPLES if ahead else kept, last=True, cached=True)
            return
        flight = None if exact else self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._depart(request, key)
        else:
            self._hurry(flight, request)
        flight.listeners += 1
        if not ahead:
            flight.wanted_now()
        try:
            await self._follow(flight, request, context, ahead=ahead, joined=joined)
        finally:
            flight.listeners -= 1
            if not flight.listeners and not flight.over:
                self._abandon(flight)

    async def _follow(
        self, flight: _Flight, request: Synthesise, context: EngineContext, *, ahead: bool, joined: bool
    ) -> None:
        """Pass on what the flight brings, from its beginning."""
        told = 0
        while True:
            while told < len(flight.chunks):
                if not ahead and not context.speak(request, flight.chunks[told]):
                    return
                told += 1
            if flight.over:
                break
            await flight.news.wait()
        if flight.problem is not None:
            spare = self._cache.at_any_rate(flight.key) if not told and not ahead else None
            if spare is not None:
                context.speak(request, spare, last=True, cached=True)
                return
            # Whoever waits has waited long enough; who works ahead can come again.
            again = flight.problem.retryable and (ahead or told > 0)
            raise EngineError(str(flight.problem), retryable=again)
        context.speak(request, _NO_SAMPLES, last=True, cached=joined)

    # --- flights --------------------------------------------------------------------------------------------------

    def _depart(self, request: Synthesise, key: Key) -> _Flight:
        self._numbers += 1
        now = asyncio.get_running_loop().time()
        flight = _Flight(self._numbers, key, request, priority_of(request), request.keep, now)
        if not self._sources[0].exact:
            self._flights[key] = flight
        self._enqueue(flight)
        self._pump()
        return flight

    def _enqueue(self, flight: _Flight) -> None:
        self._waiting[flight.number] = flight
        request = Request(flight.number, flight.arrived, shape=flight.request.language, priority=flight.priority)
        self._batcher.add(request, asyncio.get_running_loop().time())

    def _hurry(self, flight: _Flight, request: Synthesise) -> None:
        """Somebody else wants the same, and perhaps sooner."""
        flight.keep = flight.keep or request.keep
        if priority_of(request) < flight.priority and self._batcher.cancel(flight.number):
            flight.priority = priority_of(request)
            self._enqueue(flight)
            self._pump()

    def _abandon(self, flight: _Flight) -> None:
        """Nobody wants it any more."""
        self._end(flight, None)
        if self._batcher.cancel(flight.number):
            self._waiting.pop(flight.number, None)
            return
        for task, flights in self._tasks.items():
            if flight in flights and all(other.over for other in flights):
                task.cancel()

    def _end(self, flight: _Flight, problem: EngineError | None) -> None:
        if flight.over:
            return
        flight.over = True
        flight.problem = problem
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.tell()

    def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while (batch := self._batcher.next_batch(now)) is not None:
            flights = [self._waiting.pop(one.id) for one in batch.requests]
            task = loop.create_task(self._speak(flights))
            self._tasks[task] = flights
            task.add_done_callback(lambda done, batch=batch: self._spoken(done, batch))  # type: ignore[misc]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._batcher.get_timer()
        if when is not None:
            self._timer = loop.call_later(max(when - now, 0.0), self._pump)

    def _spoken(self, task: asyncio.Task[None], batch: Batch) -> None:
        flights = self._tasks.pop(task)
        for flight in flights:
            self._end(flight, EngineError("the synthesiser stopped", retryable=True))
        if not task.cancelled() and task.exception() is not None:
            logger.error("speaking failed", exc_info=task.exception())
        self._batcher.finished(batch)
        self._pump()

    # --- speaking -------------------------------------------------------------------------------------------------

    async def _speak(self, flights: list[_Flight]) -> None:
        """Have one source after the other try, until each phrase is spoken or has at least begun."""
        left = flights
        loop = asyncio.get_running_loop()
        for place, source in enumerate(self._sources):
            is_last = place == len(self._sources) - 1
            if place:
                # What a substitute says is not kept, so that it is of no use to those who work ahead.
                for flight in [flight for flight in left if not flight.live]:
                    self._end(flight, flight.problem or EngineError(f"{self._sources[0].name} rests", retryable=True))
                left = [flight for flight in left if flight.live]
            if not left:
                return
            if not is_last and loop.time() < source.resting_until:
                continue
            for flight in left:
                flight.begin(source, substitute=place > 0)
            await self._ask(source, left, limit_s=None if is_last else source.first_audio_s)
            left = [flight for flight in left if flight.problem is not None and not flight.chunks and not flight.over]
            if left and not is_last:
                self._rest(source, self._sources[place + 1], left[0].problem)
        for flight in left:
            self._end(flight, flight.problem)

    def _rest(self, source: Source, following: Source, problem: EngineError | None) -> None:
        """``source`` has failed: it is not asked for a while, unless the request was to blame."""
        if problem is None or not problem.retryable:
            logger.error("%s failed (%s); %s speaks", source.name, problem, following.name)
            return
        source.resting_until = asyncio.get_running_loop().time() + REST_S
        logger.error("%s failed (%s); %s speaks for %.0f s", source.name, problem, following.name, REST_S)

    async def _ask(self, source: Source, flights: list[_Flight], *, limit_s: float | None) -> None:
        """Let ``source`` speak; afterwards each flight is over, or has a problem."""
        context = _FlightContext(self, flights)
        requests = [
            msgspec.structs.replace(flight.request, voice="") if flight.substitute else flight.request
            for flight in flights
        ]
        context.about = dict(zip(map(id, requests), flights, strict=True))
        task = asyncio.ensure_future(source.engine.run(requests, context))
        problem = EngineError(f"{source.name or 'the synthesiser'} gave no answer", retryable=True)
        try:
            if limit_s is not None and not await _begun(task, flights, limit_s):
                problem = EngineError(f"no audio within {limit_s:g} s", retryable=True)
                return
            await task
        except EngineError as error:
            problem = error
        except Exception as error:
            logger.exception("%s failed", source.name or "the synthesiser")
            problem = EngineError(f"{type(error).__name__}: {error}", retryable=True)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            for flight in flights:
                if flight.over:
                    continue
                flight.problem = flight.problem or problem
                if flight.chunks:
                    self._end(flight, flight.problem)

    def heard(self, flight: _Flight, pcm: Pcm, *, last: bool) -> bool:
        """More of a phrase has come from its source."""
        if flight.over:
            return False
        if flight.shaper is not None:
            shaped = flight.shaper.push(pcm)
            pcm = np.concatenate([shaped, flight.shaper.finish()]) if last else shaped
        flight.add(pcm)
        if flight.samples > MAX_PHRASE_SAMPLES:
            reason = f"the speech is longer than {MAX_PHRASE_SAMPLES // RATE_HZ} s"
            self._end(flight, EngineError(reason, retryable=False))
            return False
        if last:
            if flight.samples and not flight.substitute and not self._sources[0].exact:
                self._cache.put(flight.key, np.concatenate(flight.chunks), keep=flight.keep)
            self._end(flight, None)
        return True


def shared_speech(chosen: SpeechEngine, registry: ProviderRegistry, resources: Resources) -> SharedSpeech:
    """The synthesiser that the settings name, with its fallback and a cache; not loaded yet.

    Raises:
        EngineError: unknown provider or wrong options.
        ModelFileError: a model file is missing or corrupt.
    """

    def source(named: SpeechEngine | FallbackSpeech) -> Source:
        engine = registry.create("tts", named.provider, named.options, resources)
        provider = registry.provider("tts", named.provider)
        return Source(check_engine(engine, "tts", named.provider), named.provider, provider.levelled, provider.exact)

    fallback = chosen.fallback
    sources = [source(chosen)]
    sources[0].first_audio_s = fallback.first_audio_s
    nobody = sources[0].exact or "none" in (chosen.provider, fallback.provider)
    if not nobody and fallback.provider != chosen.provider:
        sources.append(source(fallback))
    return SharedSpeech(sources, PhraseCache(int(chosen.cache_mb * 1024 * 1024)))


class _FlightContext:
    """What a synthesiser sees of the worker; implements the part of :class:`appliance.api.EngineContext` it needs."""

    def __init__(self, speech: SharedSpeech, flights: list[_Flight]) -> None:
        self._speech = speech
        self.about: dict[int, _Flight] = {}

    def cancelled(self, request: Any) -> bool:
        return self.about[id(request)].over

    async def checkpoint(self) -> None:
        # The first turn of the loop polls the sockets, the second handles what has come, the third passes it on.
        for _ in range(3):
            await asyncio.sleep(0)

    def speak(self, request: Any, pcm: Pcm, *, last: bool = False, cached: bool = False) -> bool:
        return self._speech.heard(self.about[id(request)], pcm, last=last)

    def failed(self, request: Any, reason: str, *, retryable: bool) -> None:
        flight = self.about[id(request)]
        flight.problem = flight.problem or EngineError(reason, retryable=retryable)

    def caller_audio(self, request: Any, start: int | None = None) -> Pcm:
        raise EngineError("a synthesiser hears no caller", retryable=False)

    def recognised(self, request: Any, text: str, **_: Any) -> None:
        raise EngineError("a synthesiser recognises nothing", retryable=False)

    def verdict(self, request: Any, probability: float) -> None:
        raise EngineError("a synthesiser judges no turns", retryable=False)

    def talk(self, request: Any) -> Any:
        raise EngineError("a synthesiser holds no conversation", retryable=False)

    def token(self, request: Any, text: str, **_: Any) -> None:
        raise EngineError("a synthesiser writes no text", retryable=False)


async def _begun(task: asyncio.Future[None], flights: list[_Flight], limit_s: float) -> bool:
    """Whether there is audio, or the end, within ``limit_s`` of a caller's waiting for it."""
    loop = asyncio.get_running_loop()
    asked = loop.time()
    while not task.done() and not any(flight.chunks or flight.over for flight in flights):
        since = min((flight.live_since for flight in flights), default=math.inf)
        left_s = max(since, asked) + limit_s - loop.time()
        if left_s <= 0:
            return False
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(flight.news.wait()) for flight in flights]
        try:
            timeout = None if left_s == math.inf else left_s
            await asyncio.wait([task, *waits], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
    return True
