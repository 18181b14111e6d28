"""Brings events to webhooks: out of the durable queue, a few at a time to each, again and again until they are taken.

An event may come twice (the box can be killed between the answer and its note of it), with the same ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeAlias

from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.plugins.declarative.http_client import HttpClient, HttpFailure
from appliance.plugins.declarative.webhooks import NewEvent, Target, pause_s, signed

logger = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, str]
"""Plugin and webhook."""

_HOT_S: Final = 0.25
_AHEAD: Final = 50
"""Events of one webhook in memory."""
_TOGETHER_S: Final = 0.05
"""What happens within so short a time is looked at together."""
_LONGEST_S: Final = 30.0
_STORE_FAILED_S: Final = 5.0
_COMMITTED_S: Final = 2.0
"""So long after an event it is looked for at short intervals: the record writes in batches."""


@dataclass(frozen=True)
class Waiting:
    """An event in the queue; ``attempts`` have been made."""

    id: str
    line: str
    call_id: str
    event: str
    body: str
    attempts: int


class Queue(Protocol):
    """Keeps events until they are delivered. All methods raise StoreError where it cannot be read or written."""

    async def waiting(self) -> Mapping[Key, tuple[int, datetime]]:
        """How many events wait for each webhook, and when the first is due."""
        ...

    async def due(self, key: Key, now: datetime, limit: int, without: Collection[str]) -> Sequence[Waiting]:
        """Events whose time has come, the longest due first."""
        ...

    async def delivered(self, event_ids: Collection[str]) -> None:
        """Forget them."""
        ...

    async def failed(self, event_id: str, attempts: int, again_at: datetime, problem: str) -> None:
        """Keep it for another attempt."""
        ...

    async def give_up(self, event_id: str, attempts: int, now: datetime, problem: str) -> None:
        """Keep it as undeliverable."""
        ...


@dataclass
class WebhookStats:
    """Counters for /metrics, and how many events wait for each webhook."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """``delivered``, ``failed`` (one attempt), ``given_up``, ``dropped`` (the queue was full)."""
    waiting: Counter[Key] = field(default_factory=Counter)


@dataclass
class _Lane:
    """One webhook: what is being sent to it, and what has been taken out of the queue to be sent next."""

    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    ahead: deque[Waiting] = field(default_factory=deque)


class Delivery:
    """The task that delivers.

    Args:
        queue: where events are.
        target_of: a webhook of a line as it is configured now (plugin, webhook, line); None where there is none.
        client_of: how a plugin connects.
        clock: for due times.
    """

    def __init__(
        self,
        queue: Queue,
        target_of: Callable[[str, str, str], Target | None],
        client_of: Callable[[str], HttpClient],
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._target_of = target_of
        self._client_of = client_of
        self._clock = clock
        self._news = asyncio.Event()
        self._hot_until = 0.0
        self._lanes: dict[Key, _Lane] = {}
        self._delivered: set[str] = set()
        """To be forgotten by the queue, many at a time."""
        self.stats = WebhookStats()

    def room(self, target: Target, event: NewEvent) -> bool:
        """Whether one more event may wait for ``target``; counts it, and has it looked for."""
        if self.stats.waiting[target.key] >= target.max_waiting:
            self.stats.outcomes["dropped"] += 1
            if self.stats.outcomes["dropped"] % 100 == 1:
                name = f"{target.plugin}.{target.webhook}"
                logger.error("webhook %s: %d events wait; %s of call %s is dropped", name, target.max_waiting,
                             event.event, event.call_id)  # fmt: skip
            return False
        self.stats.waiting[target.key] += 1
        self._hot_until = self._clock.monotonic() + _COMMITTED_S
        self._news.set()
        return True

    async def run(self) -> None:
        """Deliver until cancelled; what is not delivered by then is, after the next start."""
        try:
            while True:
                self._news.clear()
                try:
                    wait_s = await self._round()
                except StoreError as error:
                    logger.error("%s", error)
                    wait_s = _STORE_FAILED_S
                except Exception:
                    # Whatever one event or one line is like: the others are still to be told.
                    logger.exception("webhooks: what waits cannot be looked at; again in %d s", _STORE_FAILED_S)
                    wait_s = _STORE_FAILED_S
                if self._clock.monotonic() < self._hot_until:
                    wait_s = min(wait_s, _HOT_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
                await asyncio.sleep(_TOGETHER_S)
        finally:
            tasks = [task for lane in self._lanes.values() for task in lane.running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(StoreError):
                await self._forget()

    async def _round(self) -> float:
        """Start what is due; how long until something else will be, in seconds."""
        await self._forget()
        now = self._clock.utc()
        states = await self._queue.waiting()
        self.stats.waiting = Counter({key: count for key, (count, _) in states.items()})
        wait_s = _LONGEST_S
        for key, (_, first_at) in states.items():
            lane = self._lanes.setdefault(key, _Lane())
            if first_at > now:
                wait_s = min(wait_s, (first_at - now).total_seconds())
                continue
            if not lane.ahead:
                lane.ahead.extend(await self._queue.due(key, now, _AHEAD, (*lane.running, *self._delivered)))
            self._start(key, lane)
        return wait_s

    async def _forget(self) -> None:
        done = set(self._delivered)
        if done:
            await self._queue.delivered(done)
            self._delivered -= done

    def _start(self, key: Key, lane: _Lane) -> None:
        """As many as may be sent at a time."""
        while lane.ahead:
            event = lane.ahead[0]
            target = self._target_of(*key, event.line)
            if target is not None and len(lane.running) >= target.concurrency:
                return
            lane.ahead.popleft()
            task = asyncio.create_task(self._deliver(key, target, event), name=f"webhook {event.id}")
            lane.running[event.id] = task
            task.add_done_callback(partial(self._done, key, lane, event.id))

    def _done(self, key: Key, lane: _Lane, event_id: str, task: asyncio.Task[None]) -> None:
        lane.running.pop(event_id, None)
        if not task.cancelled():
            self._start(key, lane)
            self._news.set()

    async def _deliver(self, key: Key, target: Target | None, event: Waiting) -> None:
        name = ".".join(key)
        attempts = event.attempts + 1
        problem, wanted_s = "there is no such webhook any more", None
        if target is not None:
            problem, wanted_s = await self._attempt(target, event)
        if not problem:
            self.stats.outcomes["delivered"] += 1
            self._delivered.add(event.id)
            return
        try:
            if target is None or attempts >= target.attempts or problem == _GONE:
                self.stats.outcomes["given_up"] += 1
                logger.error("webhook %s: %s of call %s is given up: %s", name, event.event, event.call_id, problem)
                await self._queue.give_up(event.id, attempts, self._clock.utc(), problem)
            else:
                self.stats.outcomes["failed"] += 1
                pause = pause_s(event.id, attempts, wanted_s)
                logger.warning(
                    "webhook %s: %s of call %s, attempt %d: %s; again in %d s",
                    *(name, event.event, event.call_id, attempts, problem, pause),
                )
                again_at = self._clock.utc() + timedelta(seconds=pause)
                await self._queue.failed(event.id, attempts, again_at, problem)
        except StoreError as error:
            logger.error("webhook %s: what became of %s cannot be noted: %s", name, event.id, error)
            await asyncio.sleep(_STORE_FAILED_S)

    async def _attempt(self, target: Target, event: Waiting) -> tuple[str, float | None]:
        """What went wrong ("" for nothing), and for how long the server wants to be left alone."""
        body = event.body.encode()
        seals = signed(target.secret, event.id, int(self._clock.utc().timestamp()), body)
        headers = {**target.headers, **seals, "Content-Type": "application/json"}
        try:
            answer = await self._client_of(target.plugin).ask(
                "POST", target.url, headers=headers, body=body, timeout_s=target.timeout_s
            )
        except (HttpFailure, KeyError) as error:
            return str(error), None
        except Exception as error:
            # An attempt like any other: one that is not counted would be made again at once, and for ever.
            logger.exception("webhook %s.%s: %s of call %s", target.plugin, target.webhook, event.event, event.call_id)
            return f"cannot be sent: {type(error).__name__}", None
        if 200 <= answer.status <= 299:
            return "", None
        return (_GONE if answer.status == 410 else f"answered {answer.status}"), answer.retry_after_s


_GONE: Final = "answered 410: wants no more"
