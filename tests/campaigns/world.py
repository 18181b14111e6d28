"""A campaign in virtual time: a real database, the real runner, and callees who do as they are told.

Everything that a box does to the outside, it does by calling somebody, and the callees write down when that was. So a
test can kill the box wherever it likes and ask them afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosqlite import core
from sqlalchemy import event

from appliance.calls.outgoing import OutgoingOrder, OutgoingResult
from appliance.campaigns.runner import CampaignRunner
from appliance.conversation.answering import Verdict
from appliance.hook_types import CampaignEvent
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.campaign_rows import AttemptRow, Lead, NewLead
from appliance.store.campaigns import CampaignStore
from appliance.testing import VirtualLoop
from tests.campaigns.leads import CONSENT

MONDAY_NOON = datetime(2026, 3, 2, 17, 0, tzinfo=UTC)
"""12:00 in New York."""
ZONE = "America/New_York"

Behaviour = Callable[["Callee", OutgoingOrder, Callable[[str, float], None]], Any]


class SqlQueue(queue.SimpleQueue[Any]):
    """Work for SQLite's thread: virtual time stands still until it is done."""

    _ends = False
    """The thread has been told to end, and does nothing that comes after that."""

    def put_nowait(self, item: Any) -> None:
        future, work = item
        gone, self._ends = self._ends, self._ends or getattr(work, "__name__", "") == "close_and_stop"
        if future is not None and not gone and isinstance(loop := future.get_loop(), VirtualLoop):
            loop.thread_began()
            future.add_done_callback(lambda _: loop._thread_ended())
        super().put_nowait(item)


def in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SQLite's threads and virtual time go together."""
    monkeypatch.setattr(core, "SimpleQueue", SqlQueue)


class WorldClock:
    """The machine's clocks; ``step_s`` is what its wall clock was set by."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime = MONDAY_NOON) -> None:
        self._loop = loop
        self._start = start - timedelta(seconds=loop.time())
        self.step_s = 0.0

    def monotonic(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time() + self.step_s)


@dataclass
class Callee:
    """Whoever has the number. ``calls`` are the begin and end of each call it got, in virtual seconds."""

    number: str
    calls: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Network:
    """All callees together: an :class:`~appliance.calls.outgoing.Originator`.

    Attributes:
        answer: what becomes of a call: seconds until the answer (None: never), seconds until the end, the result.
        room_for: calls at a time that the box takes.
    """

    answer: Callable[[Callee, OutgoingOrder], tuple[float | None, float, OutgoingResult]]
    room_for: int = 1000
    callees: dict[str, Callee] = field(default_factory=dict)
    began: list[float] = field(default_factory=list)
    active: int = 0
    peak: int = 0
    orders: list[OutgoingOrder] = field(default_factory=list)

    def room(self, line: str = "", trunk: str = "") -> int:
        return self.room_for - self.active

    async def call(
        self, order: OutgoingOrder, progress: Callable[[str, float], None] = lambda what, at: None
    ) -> OutgoingResult:
        loop = asyncio.get_running_loop()
        callee = self.callees.setdefault(order.number, Callee(order.number))
        at = loop.time()
        progress("dialling", at)
        self.orders.append(order)
        self.began.append(at)
        self.active += 1
        self.peak = max(self.peak, self.active)
        index = len(callee.calls)
        callee.calls.append((at, at))
        try:
            answered_s, ended_s, result = self.answer(callee, order)
            if answered_s is not None:
                await asyncio.sleep(answered_s)
                progress("answered", loop.time())
                await asyncio.sleep(ended_s - answered_s)
            else:
                await asyncio.sleep(ended_s)
        finally:
            callee.calls[index] = (at, loop.time())
            self.active -= 1
        answered_at = None if answered_s is None else at + answered_s
        greeted_at = answered_at if result.greeted_at is None else result.greeted_at
        return replace(result, answered_at=answered_at, greeted_at=greeted_at, ended_at=loop.time())

    def gaps(self) -> list[float]:
        """Times between the beginnings of two calls of one number."""
        return [
            later[0] - earlier[0]
            for callee in self.callees.values()
            for earlier, later in zip(callee.calls, callee.calls[1:], strict=False)
        ]

    def most_in(self, seconds: float) -> int:
        """The most calls that began within any stretch of so many seconds."""
        return max(sum(at <= other < at + seconds for other in self.began) for at in self.began)


def human(talk_s: float = 20.0, after_s: float = 4.0, **changes: Any) -> tuple[float | None, float, OutgoingResult]:
    result = OutgoingResult(sip_code=200, completed=True, verdict=Verdict("human", 0.9, 0.8, "short"), ended_by="agent")
    return after_s, after_s + talk_s, replace(result, **changes)


def refused(code: int, after_s: float = 0.5) -> tuple[float | None, float, OutgoingResult]:
    return None, after_s, OutgoingResult(sip_code=code, sip_text="no")


def definition(name: str = "spring", **changes: Any) -> dict[str, Any]:
    """What a test's campaign is to do; every hour of every day, and without consent."""
    keys: dict[str, Any] = {
        "name": name,
        "line": "recall",
        "caller_ids": ["+12025550100"],
        "owner": "Acme Plumbing",
        "region": "US",
        "windows": {"default": {"days": "mon-sun", "hours": "00:00-24:00"}},
        "consent": {"required": False},
        "attempts": {"per_lead": 20, "per_number_per_day": 20, "per_number_total": 50, "gap_s": 60},
        "pacing": {"max_calls": 20, "calls_per_s": 10},
        "retry": {
            kind: {"after_s": 60, "times": 20, "best_hour": False}
            for kind in ("busy", "no_answer", "machine", "rejected", "failed", "interrupted")
        },
    }
    return {**keys, **changes}


def leads(count: int, **changes: Any) -> list[NewLead]:
    values = {"zones": (ZONE,), "consent": CONSENT, **changes}
    return [NewLead(row=i + 2, number=f"+1212555{i:04d}", reference=f"r{i}", **values) for i in range(count)]


class World:
    """A database, and boxes that come and go."""

    def __init__(self, folder: Path, network: Network, clock: WorldClock, url: str = "") -> None:
        self.url = url or f"sqlite+aiosqlite:///{folder / 'campaigns.db'}"
        self.network = network
        self.clock = clock
        self.told: list[CampaignEvent] = []
        self.sent: list[NewEvent] = []

    @contextlib.asynccontextmanager
    async def store(self, box: str = "one") -> AsyncIterator[CampaignStore]:
        async with CampaignStore(self.url, box=box, clock=self.clock) as store:
            yield store

    def runner(self, store: CampaignStore, **changes: Any) -> CampaignRunner:
        return CampaignRunner(
            store,
            changes.pop("originator", self.network),
            self.clock,
            **{
                "poll_s": 2.0,
                "owned": lambda trunk: {"+12025550100", "+12025550101"},
                "tell": self.told.append,
                "sent": self.sent.extend,
                **changes,
            },
        )

    async def make(self, count: int, name: str = "spring", lead: Mapping[str, Any] | None = None, **keys: Any) -> str:
        """A campaign that runs."""
        async with self.store() as store:
            campaign_id = await store.create(name, definition(name, **keys))
            await store.insert_leads(campaign_id, leads(count, **(lead or {})))
            await store.set_state(name, "running")
        return campaign_id

    @contextlib.asynccontextmanager
    async def box(self, name: str = "one", **changes: Any) -> AsyncIterator[CampaignRunner]:
        """A box that calls as long as the block lasts."""
        async with self.store(name) as store:
            runner = self.runner(store, **changes)
            running = asyncio.create_task(runner.run())
            try:
                yield runner
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await runner.close()

    async def until(self, state: str, name: str = "spring", limit_s: float = 86_400.0) -> None:
        """Wait until the campaign is in that state."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        async with self.store("watcher") as store:
            while (await store.campaign(name)).state != state:
                if loop.time() > end:
                    raise AssertionError(f"not {state} within {limit_s:.0f} s, but {await store.counts(name)}")
                await asyncio.sleep(5.0)

    async def leads(self, name: str = "spring") -> list[Lead]:
        async with self.store("watcher") as store:
            return [lead async for lead in store.leads(name)]

    async def attempts(self, name: str = "spring") -> list[AttemptRow]:
        async with self.store("watcher") as store:
            found = [attempt async for attempt in store.attempts(name)]
        return sorted(found, key=lambda attempt: attempt.started_at)


class Killed(BaseException):
    """The process is gone: nothing that it was about to do happens."""


class Mortal:
    """A box that dies at the n-th thing that it does to the database: before it is done, or after, when it is done and
    nobody hears of it. From then on it neither writes nor calls."""

    def __init__(self, world: World, store: CampaignStore, steps: int | None) -> None:
        self.dead = asyncio.Event()
        self.steps = 0
        self._left = steps
        self._network = world.network
        self._store = store
        self.runner = world.runner(store, originator=self)
        self._connections: list[Any] = []
        engine = store._database.engine.sync_engine
        event.listen(engine, "connect", lambda connection, _: self._connections.append(connection.driver_connection))
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(engine, name, self._step)
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            commit(connection)
            self._step()

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign]

    def _step(self, *_: Any) -> None:
        self.steps += 1
        if self._left is not None and self.steps > self._left:
            self.dead.set()
        if self.dead.is_set():
            raise Killed

    def room(self, line: str = "", trunk: str = "") -> int:
        return self._network.room(line, trunk)

    async def call(self, order: OutgoingOrder, progress: Callable[[str, float], None]) -> OutgoingResult:
        if self.dead.is_set():
            raise Killed
        return await self._network.call(order, progress)

    async def live(self) -> None:
        """Call until it dies, or is cancelled."""
        await self._store._database.engine.dispose()  # from here on, it knows its connections
        running = asyncio.create_task(self.runner.run())
        try:
            await self.dead.wait()
        finally:
            self.dead.set()
            tasks = [running]
            for desk in self.runner._desks.values():
                tasks += [*desk._calls.values(), *([desk._loop] if desk._loop is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._store._database.engine.dispose()
            # What the kernel does for a process that is gone: its files are closed, and their locks with them.
            for connection in self._connections:
                connection.stop()
