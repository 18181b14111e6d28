"""The way from an engine back to whoever asked: jobs under way, and the context an engine answers through."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from appliance.audio.prosody import HEARD_S, RATE_HZ, ending
from appliance.engines.protocol import Pcm, RequestMessage
from appliance.engines.talk import RingTalk
from appliance.errors import StaleSlot
from appliance.ipc.messages import (
    AnyMessage,
    Failed,
    Generate,
    HeardWord,
    Recognised,
    Spoken,
    Token,
    ToolCall,
    TurnVerdict,
)
from appliance.ipc.rings import AudioRings


class Client(Protocol):
    """Who asked: a :class:`~appliance.ipc.channel.Channel`, as far as a worker needs one."""

    def send(self, message: AnyMessage) -> bool: ...


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way through the worker.

    ``closed``: finally answered, or given up. ``cancelled``: nobody wants the answer. ``tts_end``: where the next
    samples go. Times are CLOCK_MONOTONIC seconds.
    """

    number: int
    client: Client
    message: RequestMessage
    arrived: float
    started: float = math.inf
    closed: bool = False
    cancelled: bool = False
    tts_end: int = 0
    told: asyncio.Queue[AnyMessage] = field(default_factory=asyncio.Queue)
    """What the client has said since about it."""


Answer: TypeAlias = Callable[[Job, AnyMessage, bool], None]
"""Passes (job, message, is it the final one) on."""


class RunContext:
    """What an engine sees of the worker while it runs a batch; implements :class:`appliance.api.EngineContext`.

    Requests are told apart by identity: two clients may use the same number.
    """

    def __init__(self, jobs: list[Job], rings: AudioRings, now: Callable[[], float], answer: Answer) -> None:
        self.jobs = jobs
        self.cache_hits = 0
        self._rings = rings
        self._now = now
        self._answer = answer
        self._by_message = {id(job.message): job for job in jobs}

    def describe(self) -> str:
        """The batch for a log line."""
        return "request " + ", ".join(map(_describe, (job.message for job in self.jobs)))

    def cancelled(self, request: Any) -> bool:
        job = self._by_message[id(request)]
        return job.cancelled or job.closed

    async def checkpoint(self) -> None:
        # The first turn of the loop polls the sockets, the second handles what has come.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def caller_audio(self, request: Any, start: int | None = None) -> Pcm:
        first = request.start if start is None else start
        return self._rings.read_rx(request.slot, request.generation, first, request.end)

    def recognised(
        self,
        request: Any,
        text: str,
        *,
        confidence: float,
        accepted: bool,
        words: Sequence[tuple[str, int, int]] = (),
        stable: int = 0,
    ) -> None:
        job, queued_s, run_s = self._timed(request)
        timed = tuple(HeardWord(*word) for word in words)
        answer = Recognised(request.request, text, confidence, accepted, queued_s, run_s, timed, stable)
        self._answer(job, answer, True)

    def verdict(self, request: Any, probability: float) -> None:
        sounds = self._ending(request)
        job, queued_s, run_s = self._timed(request)
        self._answer(job, TurnVerdict(request.request, probability, queued_s, run_s, sounds), True)

    def _ending(self, request: Any) -> tuple[float, ...]:
        """How the utterance sounds at its end, whatever the turn model makes of it."""
        if request.speech_start < 0:
            return ()
        start = max(request.speech_start, request.end - int(HEARD_S * RATE_HZ))
        return ending(self._rings.read_rx(request.slot, request.generation, start, request.end)) or ()

    def token(
        self,
        request: Any,
        text: str,
        *,
        last: bool = False,
        calls: Sequence[tuple[str, str, str]] = (),
        server: str = "",
    ) -> None:
        job = self._by_message[id(request)]
        wanted = tuple(ToolCall(*call) for call in calls)
        self._answer(job, Token(request.request, text, last, wanted, server), last)

    def speak(self, request: Any, pcm: Pcm, *, last: bool = False, cached: bool = False) -> bool:
        job, queued_s, run_s = self._timed(request)
        if job.cancelled or job.closed:
            return False
        if request.slot < 0:  # it is only to be in the cache
            if last:
                self._answer(job, Spoken(request.request, job.tts_end, True, cached, queued_s, run_s), True)
            return True
        if job.tts_end + len(pcm) > request.tts_start + request.room:
            room_s = request.room / 8000
            self.failed(request, f"the speech is longer than the {room_s:.1f} s there is room for", retryable=False)
            return False
        try:
            self._rings.write_tts(request.slot, request.generation, job.tts_end, pcm)
        except StaleSlot as error:
            self.failed(request, str(error), retryable=False)
            return False
        job.tts_end += len(pcm)
        if last and cached:
            self.cache_hits += 1
        self._answer(job, Spoken(request.request, job.tts_end, last, cached, queued_s, run_s), last)
        return True

    def talk(self, request: Any) -> RingTalk:
        job = self._by_message[id(request)]
        return RingTalk(request, self._rings, job.told, lambda message: self._answer(job, message, False))

    def failed(self, request: Any, reason: str, *, retryable: bool) -> None:
        self._answer(self._by_message[id(request)], Failed(request.request, reason, retryable), True)

    def _timed(self, request: Any) -> tuple[Job, float, float]:
        job = self._by_message[id(request)]
        return job, job.started - job.arrived, self._now() - job.started


def _describe(message: RequestMessage) -> str:
    if isinstance(message, Generate):
        return str(message.request)
    return f"{message.request} (slot {message.slot}, call {message.generation})"
