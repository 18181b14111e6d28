"""One task that writes the record: what is pending goes into one transaction.

A call never waits for it. What a call says is put in a queue; the task takes everything that is there, merges what
belongs to one row, and commits it at once. A write that fails because the disk is full, the database is locked or
its server is away is tried again, in order, until it succeeds; a row the database will never take is logged and
dropped alone, so that it cannot hold up the others.

The bound: when ``limit`` writes are pending, new calls are refused (the caller hears a busy signal rather than being
missing from the record); turns of running calls are taken up to ten times that many, and the end of a call always.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from appliance.clock import Clock
from appliance.errors import StoreError

log = logging.getLogger(__name__)

Row: TypeAlias = Mapping[str, Any]

_LOG_EVERY: Final = 20
"""What goes wrong again and again is reported the first time and every 20th."""


@dataclass(frozen=True, slots=True)
class NewCall:
    """Insert a call; ``row`` has a value for every column. ``committed`` is resolved when it is on disk."""

    row: Row
    committed: asyncio.Future[None] | None = None

    @property
    def call_id(self) -> str:
        return str(self.row["id"])


@dataclass(frozen=True, slots=True)
class ChangedCall:
    """Set some columns of a call that was inserted before."""

    call_id: str
    row: Row


@dataclass(frozen=True, slots=True)
class NewTurn:
    """Insert a turn; ``row`` has a value for every column."""

    row: Row

    @property
    def call_id(self) -> str:
        return str(self.row["call_id"])


@dataclass(frozen=True, slots=True)
class Mark:
    """Nothing to write: ``committed`` is resolved when all that was put before it is on disk."""

    call_id: str
    committed: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Insert an event for a webhook; ``row`` has a value for every column."""

    row: Row

    @property
    def call_id(self) -> str:
        return str(self.row["call_id"])


Write: TypeAlias = NewCall | ChangedCall | NewTurn | NewEvent | Mark


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes: each row once."""

    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    turns: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)


def merge(writes: list[Write]) -> Batch:
    """One row for everything said about it, the newest value winning."""
    batch = Batch()
    for write in writes:
        match write:
            case NewCall(row=row):
                batch.calls[write.call_id] = dict(row)
            case ChangedCall(call_id=call_id, row=row):
                target = batch.calls.get(call_id)
                if target is None:
                    target = batch.changes.setdefault(call_id, {})
                target.update(row)
            case NewTurn(row=row):
                batch.turns[write.call_id, int(row["number"])] = dict(row)
            case NewEvent(row=row):
                batch.events[str(row["id"])] = dict(row)
            case Mark():
                pass
    return batch


@dataclass(slots=True)
class WriterStats:
    """Counters of the writer, for /metrics. They only grow, except the two marked as states."""

    pending: int = 0
    """State: writes that are not committed."""
    failing: str = ""
    """State: why the last try failed, empty when it did not."""
    written: int = 0
    transactions: int = 0
    retries: int = 0
    refused: int = 0
    """New calls refused because too much was pending."""
    dropped: int = 0
    """Writes lost: rows the database refuses, turns beyond the bound, what was pending at a forced close."""
    busy_s: float = 0.0
    """Time spent in transactions."""


class Writer:
    """The queue and the task.

    Args:
        commit: writes one batch and commits it, or raises.
        clock: for ``busy_s``.
        linger_s: how long a write that nobody waits for may wait for company.
        limit: pending writes above which new calls are refused.
        batch: most writes of one transaction.
        retry_first_s, retry_max_s: back-off of a failing database, doubling.
    """

    def __init__(
        self,
        commit: Callable[[Batch], Awaitable[None]],
        clock: Clock,
        *,
        linger_s: float = 0.2,
        limit: int = 10_000,
        batch: int = 500,
        retry_first_s: float = 0.1,
        retry_max_s: float = 5.0,
    ) -> None:
        self._commit = commit
        self._clock = clock
        self._linger_s = linger_s
        self._limit = limit
        self._batch = batch
        self._retry_first_s = retry_first_s
        self._retry_max_s = retry_max_s
        self._queue: deque[Write] = deque()
        self._more = asyncio.Event()
        self._urgent = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.stats = WriterStats()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="store-writer")

    def put_call(self, row: Row) -> asyncio.Future[None]:
        """Queue a new call; the future is done when it is committed.

        Raises:
            StoreError: too much is pending, or the writer is closing.
        """
        if self._task is None or self._closing:
            raise StoreError("the call record is closed; no call can be taken")
        if len(self._queue) >= self._limit:
            self.stats.refused += 1
            raise StoreError(
                f"{len(self._queue)} writes of the call record are waiting; {self.stats.failing or 'the disk is slow'}"
            )
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(NewCall(row, committed))
        self._urgent.set()
        return committed

    def put(self, write: ChangedCall | NewTurn | NewEvent) -> None:
        """Queue a write nobody waits for. Never blocks, never raises."""
        if self._task is None or (isinstance(write, NewTurn | NewEvent) and len(self._queue) >= 10 * self._limit):
            self.stats.dropped += 1
            if self.stats.dropped % _LOG_EVERY == 1:
                log.error("call %s: a write of the record is lost: the queue is full or closed", write.call_id)
            return
        self._put(write)

    async def reached(self, call_id: str) -> None:
        """Wait until all that was put so far is on disk.

        Raises:
            StoreError: the writer is closed, or was before that.
        """
        if self._task is None:
            raise StoreError("the call record is closed")
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(Mark(call_id, committed))
        await committed

    async def flush(self) -> None:
        """Wait until all that was put is committed."""
        self._urgent.set()
        await self._idle.wait()

    async def close(self, deadline_s: float) -> None:
        """Commit what is pending, but give up after ``deadline_s``."""
        if self._task is None:
            return
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), deadline_s)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        if self._queue:
            self.stats.dropped += len(self._queue)
            log.error("closing with %d writes of the call record lost: %s", len(self._queue), self.stats.failing)
            for write in self._queue:
                if (waiting := _waits(write)) is not None:
                    waiting.set_exception(StoreError("the call record was closed before the call was in it"))
            self._queue.clear()

    def _put(self, write: Write) -> None:
        self._queue.append(write)
        self.stats.pending = len(self._queue)
        self._idle.clear()
        self._more.set()

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            if len(self._queue) < self._batch:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger_s):
                        await self._urgent.wait()
            self._urgent.clear()
            await self._write(min(len(self._queue), self._batch))
            if not self._queue:
                self._more.clear()
                self._idle.set()

    async def _write(self, count: int) -> None:
        """Commit the first ``count`` writes of the queue; they leave it only when they are on disk."""
        delay_s = self._retry_first_s
        failures = 0
        while True:
            writes = [self._queue[index] for index in range(count)]
            started = self._clock.monotonic()
            try:
                await self._commit(merge(writes))
            except Exception as error:
                self.stats.busy_s += self._clock.monotonic() - started
                if _is_hopeless(error):
                    if count == 1:
                        self._drop_first(error)
                        return
                    for _ in writes:
                        await self._write(1)
                    return
                failures += 1
                self.stats.retries += 1
                self.stats.failing = _reason(error)
                if failures % _LOG_EVERY == 1:
                    log.error(
                        "the call record cannot be written (%s); %d writes are waiting, trying again in %.1f s",
                        self.stats.failing,
                        len(self._queue),
                        delay_s,
                    )
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, self._retry_max_s)
                count = min(len(self._queue), self._batch) if count > 1 else count
                continue
            break
        self.stats.busy_s += self._clock.monotonic() - started
        self.stats.transactions += 1
        self.stats.written += count
        if self.stats.failing:
            log.warning("the call record is being written again")
            self.stats.failing = ""
        for _ in range(count):
            if (waiting := _waits(self._queue.popleft())) is not None:
                waiting.set_result(None)
        self.stats.pending = len(self._queue)

    def _drop_first(self, error: Exception) -> None:
        write = self._queue.popleft()
        self.stats.dropped += 1
        self.stats.pending = len(self._queue)
        log.error("call %s: the database refuses a row of the record: %s", write.call_id, _reason(error))
        if (waiting := _waits(write)) is not None:
            waiting.set_exception(StoreError(f"the call record refuses the call: {_reason(error)}"))


def _waits(write: Write) -> asyncio.Future[None] | None:
    """Who waits until ``write`` is on disk."""
    waiting = write.committed if isinstance(write, NewCall | Mark) else None
    return None if waiting is None or waiting.done() else waiting


def _is_hopeless(error: Exception) -> bool:
    """Would the same rows fail again on a healthy database?"""
    if isinstance(error, IntegrityError | DataError):
        return True
    if isinstance(error, DBAPIError):
        return False
    return isinstance(error, StatementError | ValueError | TypeError | OverflowError)


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return str(cause) or type(cause).__name__
