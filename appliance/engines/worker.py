"""An engine worker: one process, one loaded engine, the requests of all calls.

Requests come over ``<runtime_dir>/<name>.sock``; the batcher decides which run together and when; the engine answers
through a :class:`~appliance.engines.answers.RunContext`. Audio stays in the shared rings.

A request ends in exactly one way: a final answer, ``Failed``, or silence after the client's ``Cancel``. An engine that
raises fails the requests of that batch that it has not answered; the worker lives on. An engine that cannot load ends
the process with code 3 and the reason on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from appliance.api import Shaping
from appliance.config import Settings
from appliance.config.settings import SpeechEngine
from appliance.engines.answers import Client, Job, RunContext
from appliance.engines.batcher import Batch, Batcher, BatchPolicy, Request
from appliance.engines.builtin import provider_registry
from appliance.engines.protocol import Engine, RequestMessage, accepts, check_engine, deadline_of
from appliance.engines.speech import shared_speech
from appliance.errors import ApplianceError, ChannelClosed, EngineError, StaleSlot
from appliance.ipc.channel import Channel, serve
from appliance.ipc.child import SupervisorLink
from appliance.ipc.logs import configure_logging
from appliance.ipc.messages import (
    AddToTalk,
    AnyMessage,
    CallerSilent,
    Cancel,
    Converse,
    CutShort,
    Failed,
    Generate,
    GiveRoom,
    HearCaller,
    JudgeTurn,
    Recognise,
    Respond,
    Synthesise,
    WorkerStats,
)
from appliance.ipc.rings import AudioRings
from appliance.ipc.settings import read_settings
from appliance.models.store import ModelStore, model_directory
from appliance.plugins.providers import with_own

logger = logging.getLogger(__name__)

EXIT_CANNOT_LOAD: Final = 3
RUN_TIMEOUT_S: Final = 10.0
STATS_EVERY_S: Final = 1.0
MAX_QUEUE: Final = 512

_CLOSE_TIMEOUT_S: Final = 2.0
_PARTIAL: Final = 1
"""Priority of what is only wanted for the time being: final results go first."""
_FALLBACK_NICE: Final = 10
_SPEECH_NICE: Final = 5
SCHEDULING: Final = {"turn": "idle", "asr": "idle", "tts": "nice", "llm": "normal", "speech": "nice"}
"""How a computing engine of each kind is scheduled, below the media process; see :func:`apply_scheduling`."""


@dataclass(slots=True)
class _Totals:
    done: int = 0
    failed: int = 0
    dropped: int = 0
    cache_hits: int = 0
    busy_s: float = 0.0


class Worker:
    """Runs the requests of all clients on one engine.

    Args:
        name: of the process, for logs and statistics.
        engine: loaded.
        rings: the calls' audio.
        now: CLOCK_MONOTONIC seconds, the clock of the requests' deadlines.
        max_queue: requests that may wait; one more is answered Failed (retryable).
        run_timeout_s: a batch that takes longer is cancelled and fails.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        rings: AudioRings,
        *,
        now: Callable[[], float] = time.monotonic,
        max_queue: int = MAX_QUEUE,
        run_timeout_s: float = RUN_TIMEOUT_S,
    ) -> None:
        self.name = name
        self.engine = engine
        self.rings = rings
        self.now = now
        self.totals = _Totals()
        policy = BatchPolicy(engine.max_batch, engine.max_wait_s, engine.concurrency, max_queue)
        self.batcher = Batcher(policy)
        self._run_timeout_s = run_timeout_s
        self._jobs: dict[int, Job] = {}
        self._by_client: dict[tuple[int, int], Job] = {}
        self._clients: dict[int, Client] = {}
        self._running: dict[int, tuple[asyncio.Task[tuple[str, bool]], RunContext]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_number = 1
        self._busy_since: float | None = None
        self._closing = False

    def connected(self, sock: socket.socket) -> Channel:
        """Take an accepted socket as a client."""
        channel: Channel

        def received(message: AnyMessage) -> None:
            self.handle(channel, message)

        def gone() -> None:
            self.forget(channel)

        channel = Channel(sock, asyncio.get_running_loop(), received, gone)
        self._clients[id(channel)] = channel
        return channel

    def handle(self, client: Client, message: AnyMessage) -> None:
        """A message of ``client``: a request of the engine's kind, or Cancel."""
        if isinstance(message, Cancel):
            job = self._by_client.get((id(client), message.request))
            if job is not None:
                self._cancel(job)
                self._pump()
        elif isinstance(message, HearCaller | CallerSilent | Respond | GiveRoom | CutShort | AddToTalk):
            job = self._by_client.get((id(client), message.request))
            if job is not None:
                job.told.put_nowait(message)
        elif isinstance(message, Recognise | JudgeTurn | Synthesise | Generate | Converse) and accepts(
            self.engine.kind, message
        ):
            self._accept(client, message)
        else:
            logger.error("%s is not for a worker of kind %s; dropped", type(message).__name__, self.engine.kind)

    def forget(self, client: Client) -> None:
        """The client is gone: nobody wants its answers."""
        self._clients.pop(id(client), None)
        for job in [job for job in self._jobs.values() if job.client is client]:
            self._cancel(job)
        self._pump()

    def stats(self) -> WorkerStats:
        """Counts since the start; ``busy_s`` is the time with at least one batch under way."""
        busy_s = self.totals.busy_s
        if self._busy_since is not None:
            busy_s += self.now() - self._busy_since
        return WorkerStats(
            self.name,
            queued=self.batcher.queued,
            running=self.batcher.running,
            done=self.totals.done,
            failed=self.totals.failed,
            dropped=self.totals.dropped,
            cache_hits=self.totals.cache_hits,
            busy_s=busy_s,
        )

    def send_stats(self) -> None:
        """Tell every client."""
        stats = self.stats()
        for client in list(self._clients.values()):
            client.send(stats)

    async def close(self) -> None:
        """Cancel what runs, take nothing more, and let the engine go."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.engine.close()

    # --- requests -------------------------------------------------------------------------------------------------

    def _accept(self, client: Client, message: RequestMessage) -> None:
        key = (id(client), message.request)
        if self._closing:
            client.send(Failed(message.request, f"{self.name} stops", True))
            return
        if key in self._by_client:
            logger.error("request %d of this client is under way; the second one is dropped", message.request)
            return
        now = self.now()
        job = Job(self._next_number, client, message, now)
        self._next_number += 1
        priority = _PARTIAL if isinstance(message, Recognise) and not message.final else 0
        request = Request(job.number, now, deadline_of(message), self._shape(message), priority)
        if not self.batcher.add(request, now):
            self.totals.failed += 1
            client.send(Failed(message.request, f"{self.name} has {self.batcher.queued} requests waiting", True))
            return
        self._jobs[job.number] = job
        self._by_client[key] = job
        if isinstance(message, Synthesise):
            job.tts_end = message.tts_start
        self._pump()

    def _shape(self, message: RequestMessage) -> Hashable:
        """What requests must have in common to share a batch: as the engine says, else their language."""
        if isinstance(self.engine, Shaping):
            return self.engine.shape(message)
        return message.language if isinstance(message, Recognise | Synthesise) else None

    def _cancel(self, job: Job) -> None:
        job.cancelled = True
        if self.batcher.cancel(job.number):
            self._close_job(job)
            return
        for task, context in self._running.values():
            if job in context.jobs and all(other.cancelled or other.closed for other in context.jobs):
                task.cancel()

    def _close_job(self, job: Job) -> None:
        job.closed = True
        self._jobs.pop(job.number, None)
        self._by_client.pop((id(job.client), job.message.request), None)

    def _answer(self, job: Job, message: AnyMessage, last: bool) -> None:
        if job.closed:
            return
        if last:
            self._close_job(job)
        if job.cancelled:
            return
        try:
            job.client.send(message)
        except (ValueError, OverflowError) as error:
            logger.error("request %d: %s", job.message.request, error)
            self._close_job(job)
            last, message = True, Failed(job.message.request, f"the answer cannot be sent: {error}", False)
            job.client.send(message)
        if last and isinstance(message, Failed):
            self.totals.failed += 1
        elif last:
            self.totals.done += 1

    # --- batches --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Report what came too late, start what is ripe, and come back in time."""
        now = self.now()
        while (batch := self.batcher.next_batch(now)) is not None:
            self._start(batch, now)
        for request in self.batcher.take_dropped():
            job = self._jobs[request.id]
            self.totals.dropped += 1
            waited = now - job.arrived
            self._answer(job, Failed(job.message.request, f"its deadline passed after {waited:.2f} s", True), True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self.batcher.get_timer()
        if when is not None:
            self._timer = asyncio.get_running_loop().call_later(max(when - now, 0.0), self._pump)

    def _start(self, batch: Batch, now: float) -> None:
        if self._busy_since is None:
            self._busy_since = now
        jobs = [self._jobs[request.id] for request in batch.requests]
        for job in jobs:
            job.started = now
        context = RunContext(jobs, self.rings, self.now, self._answer)
        task = asyncio.get_running_loop().create_task(self._run(context))
        task.add_done_callback(lambda done: self._ended(batch, context, done))
        self._running[batch.id] = (task, context)

    async def _run(self, context: RunContext) -> tuple[str, bool]:
        """Let the engine answer; why it has not answered the rest, and whether another worker may."""
        try:
            async with asyncio.timeout(None if self.engine.kind == "speech" else self._run_timeout_s):
                await self.engine.run([job.message for job in context.jobs], context)
        except TimeoutError:
            reason = f"the engine took longer than {self._run_timeout_s:g} s"
            logger.error("%s: %s", context.describe(), reason)
            return reason, True
        except StaleSlot as error:
            logger.info("%s: %s", context.describe(), error)
            return str(error), False
        except EngineError as error:
            logger.warning("%s: %s", context.describe(), error)
            return str(error), error.retryable
        except Exception as error:
            logger.exception("%s failed", context.describe())
            return f"{type(error).__name__}: {error}", True
        return "the engine gave no answer", True

    def _ended(self, batch: Batch, context: RunContext, task: asyncio.Task[tuple[str, bool]]) -> None:
        """Also called for a task that was cancelled before it began."""
        reason, retryable = (f"{self.name} stops", True) if task.cancelled() else task.result()
        for job in context.jobs:
            self._answer(job, Failed(job.message.request, reason, retryable), True)
        self.totals.cache_hits += context.cache_hits
        del self._running[batch.id]
        self.batcher.finished(batch)
        if not self._running and self._busy_since is not None:
            self.totals.busy_s += self.now() - self._busy_since
            self._busy_since = None
        if not self._closing:
            self._pump()


def make_engine(settings: Settings, kind: str, name: str = "") -> Engine:
    """The engine of ``kind`` that the settings have under ``name``, "" for the one of all lines; not loaded yet.

    Raises:
        EngineError: unknown provider or wrong options.
        ModelFileError: a model file is missing or corrupt.
    """
    chosen = settings.engines.of(kind, name)
    resources = ModelStore(model_directory(settings.models_dir))
    wanted = [chosen.provider, *([chosen.fallback.provider] if isinstance(chosen, SpeechEngine) else [])]
    registry = with_own(provider_registry(), settings.plugins, kind, wanted)
    if isinstance(chosen, SpeechEngine):
        return shared_speech(chosen, registry, resources)
    engine = registry.create(kind, chosen.provider, chosen.options, resources)
    return check_engine(engine, kind, chosen.provider)


def apply_scheduling(policy: str) -> str:
    """Put this process below the media process.

    Args:
        policy: "idle" (runs only when nobody else wants the core), "nice" or "normal".

    Returns:
        What was applied, in words.
    """
    if policy == "idle":
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except (OSError, AttributeError):
            os.nice(_FALLBACK_NICE)
            return f"nice {_FALLBACK_NICE} (no SCHED_IDLE here)"
        return "SCHED_IDLE"
    if policy == "nice":
        os.nice(_SPEECH_NICE)
        return f"nice {_SPEECH_NICE}"
    return "normal priority"


async def serve_engine(name: str, engine: Engine, rings: AudioRings, runtime_dir: Path, timeout_s: float) -> None:
    """Load, say Ready, and work until the supervisor says Stop or is gone.

    Raises:
        EngineError, ModelFileError: the engine cannot load.
        ChannelClosed: there is no supervisor.
    """
    loop = asyncio.get_running_loop()
    link = SupervisorLink(name)
    await link.open(runtime_dir)
    loop.add_signal_handler(signal.SIGTERM, link.stopping.set)
    try:
        await engine.load()
        gc.collect()
        gc.freeze()
        worker = Worker(name, engine, rings, run_timeout_s=timeout_s)
        listener = await serve(runtime_dir / f"{name}.sock", worker.connected)
        link.ready()
        while not link.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATS_EVERY_S):
                    await link.stopping.wait()
            worker.send_stats()
        await worker.close()
        listener.close()
    finally:
        link.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="appliance-engine", description="Started by `appliance serve`.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--kind", required=True, choices=sorted(SCHEDULING))
    parser.add_argument("--engine", default="", metavar="NAME", help="one of engines.named; without, that of all lines")
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--rings-fd", type=int, required=True)
    parser.add_argument("--capacity", type=int, required=True)
    parser.add_argument("--cpus", help="cores this process may use, comma-separated")
    parser.add_argument("--scheduling", choices=["idle", "nice", "normal"], help="the default follows the kind")
    arguments = parser.parse_args()
    settings = read_settings(arguments.settings_fd)
    configure_logging(arguments.name, settings.log.level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    try:
        engine = make_engine(settings, arguments.kind, arguments.engine)
        default = SCHEDULING[arguments.kind] if engine.cpu_bound else "normal"
        applied = apply_scheduling(arguments.scheduling or default)
        logger.info("%s serves %s, %s", type(engine).__name__, arguments.kind, applied)
        rings = AudioRings.attach(arguments.rings_fd, arguments.capacity)
        timeout_s = settings.engines.of(arguments.kind, arguments.engine).timeout_s
        uvloop.run(serve_engine(arguments.name, engine, rings, settings.runtime_dir, timeout_s))
    except ChannelClosed as error:
        sys.exit(f"{arguments.name}: {error}")
    except Exception as error:
        known = isinstance(error, ApplianceError)
        if not known:
            logger.exception("the engine cannot be loaded")
        print(f"{arguments.name}: {error if known else repr(error)}", file=sys.stderr)
        sys.exit(EXIT_CANNOT_LOAD)


if __name__ == "__main__":
    main()
