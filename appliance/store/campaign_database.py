"""The connection that campaigns have to the database: transactions that are tried again, and one clock.

**Transactions.** On SQLite each takes the write lock when it begins (``BEGIN IMMEDIATE``), so that none fails half-way,
and is on the disk when it returns (``synchronous=FULL``): an attempt that has begun is known even after a loss of
power.

**The clock.** Gaps and leases of several boxes go by one clock. On PostgreSQL that is the server's. On SQLite it is
this machine's, but held steady: once read it goes on with the monotonic clock, and a step of the wall clock is taken
over only by :meth:`CampaignDatabase.step`, together with the times that are on record (docs/decisions/0026-leases.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.store import schema
from appliance.store.database import open_engine

_TRIES: Final = 3
_AGAIN_S: Final = 0.2
_TIMEOUT_S: Final = 15.0
_READS: Final = "appliance_reads"
STEP_S: Final = 2.0
"""The wall clock is slewed by less between two looks at it; more is a step."""

T = TypeVar("T")


class CampaignDatabase:
    """Runs each piece of work in a transaction of its own, up to three times.

    Args:
        url: of the call record.
        clock: of this machine.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._engine: AsyncEngine | None = None
        self._since = datetime.min.replace(tzinfo=UTC)
        self._anchor: tuple[datetime, float] | None = None
        """The campaigns' clock, and the monotonic one, at one moment."""

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises:
            StoreError: the database cannot be opened, or belongs to a newer version.
        """
        engine = open_engine(self._url)
        if engine.dialect.name == "sqlite":
            _lock_first(engine)
        self._engine = engine
        try:
            await self.run(lambda connection: connection.run_sync(schema.upgrade))
            await self.now()
        except StoreError:
            await self.close()
            raise

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    @property
    def shared(self) -> bool:
        """Whether the clock is a server's, which other boxes go by as well."""
        return self.engine.dialect.name == "postgresql"

    @property
    def engine(self) -> AsyncEngine:
        """Raises StoreError where it is not open."""
        if self._engine is None:
            raise StoreError("the campaigns' database is not open; await open() first")
        return self._engine

    def insert(self, table: Any) -> Any:
        """An INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
        return postgresql.insert(table) if self.shared else sqlite.insert(table)

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What ``work`` gives. It may be run again although it was committed, where the answer to the commit was lost.

        Raises:
            StoreError: it has failed each time.
        """
        return await self._tried(work, self.engine.begin)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The same without a lock; ``work`` changes nothing."""
        return await self._tried(work, self.engine.execution_options(**{_READS: True}).begin)

    async def rows(self, query: Any) -> list[Any]:
        """All rows of a query.

        Raises:
            StoreError: it has failed each time.
        """

        async def read(connection: AsyncConnection) -> list[Any]:
            return list((await connection.execute(query)).all())

        return await self.read(read)

    async def pages(self, query: Any, key: Any, size: int) -> AsyncIterator[Any]:
        """The rows of a query in order of ``key``, a unique column of it, read ``size`` at a time: in bounded memory,
        and without a lock or a transaction that lasts.

        Raises:
            StoreError: a page cannot be read.
        """
        after: Any = None
        while True:
            page = query.order_by(key).limit(size)
            rows = await self.rows(page if after is None else page.where(key > after))
            for row in rows:
                yield row
            if len(rows) < size:
                return
            after = rows[-1]._mapping[key]

    # --- the clock ------------------------------------------------------------------------------------------------

    def time(self) -> datetime:
        """The campaigns' clock, without asking anybody: it may be some milliseconds off."""
        if self._anchor is None:
            raise StoreError("the campaigns' database is not open; await open() first")
        at, monotonic = self._anchor
        return at + timedelta(seconds=self._clock.monotonic() - monotonic)

    async def now(self) -> datetime:
        """The campaigns' clock, asked of the database where that has one; :meth:`time` goes on from there.

        Raises:
            StoreError: the database does not answer.
        """
        if self.shared:
            return await self.read(self.now_in)
        wall, monotonic = self._clock.utc(), self._clock.monotonic()
        if self._anchor is None:
            self._since = wall
        if self._anchor is None or abs((wall - self.time()).total_seconds()) < STEP_S:
            self._anchor = wall, monotonic
        return self.time()

    async def now_in(self, connection: AsyncConnection) -> datetime:
        """The campaigns' clock inside a transaction."""
        if not self.shared:
            return self.time()
        before = self._clock.monotonic()
        at: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        self._anchor = at, (before + self._clock.monotonic()) / 2
        return at

    def stepped_s(self) -> float:
        """By how much the wall clock is ahead of the campaigns' clock where it was set; 0.0 where it was not, or where
        the clock is a server's."""
        if self.shared or self._anchor is None:
            return 0.0
        off = (self._clock.utc() - self.time()).total_seconds()
        return off if abs(off) >= STEP_S else 0.0

    def step(self, seconds: float) -> None:
        """Take a step of the wall clock over."""
        if self._anchor is not None:
            at, monotonic = self._anchor
            self._anchor = at + timedelta(seconds=seconds), monotonic
            self._since += timedelta(seconds=seconds)

    @property
    def since(self) -> datetime:
        """When this process began to go by the campaigns' clock."""
        return self._since

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _tried(self, work: Callable[[AsyncConnection], Awaitable[T]], begin: Callable[[], Any]) -> T:
        for attempt in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(_TIMEOUT_S), begin() as connection:
                    return await work(connection)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                if attempt == _TRIES:
                    cause = getattr(error, "orig", None) or error
                    raise StoreError(
                        f"campaigns cannot be read or written: {str(cause) or type(cause).__name__}; check store.url "
                        "and its disk or server"
                    ) from error
                await asyncio.sleep(_AGAIN_S)
        raise AssertionError("unreachable")


def _lock_first(engine: AsyncEngine) -> None:
    """Have SQLite's transactions begin with the write lock, those that read without one, and commit to the disk."""

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
