"""Opens the database of the call record: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from appliance.errors import StoreError

BUSY_TIMEOUT_S: Final = 2.0
"""How long SQLite waits for another writer before the write is retried later."""

_POSTGRES_POOL: Final = 4


def open_engine(url: str, *, read_only: bool = False) -> AsyncEngine:
    """An engine for ``url``; nothing is connected yet.

    SQLite runs in WAL mode with ``synchronous=NORMAL``: a commit survives ``kill -9`` of the process, and a loss of
    power costs the last moments but never the file. ``read_only`` opens a database that another process is writing.

    Raises:
        StoreError: the URL is not one of a database the appliance can use.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _create(parsed, pool_size=_POSTGRES_POOL, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        path = Path(parsed.database)
        if read_only:
            if not path.exists():
                raise StoreError(f"there is no call record at {path}; it is created when the appliance first starts")
            quoted = str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            parsed = parsed.set(database=f"file:{quoted}", query={"mode": "ro", "uri": "true"})
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"cannot create the folder {path.parent} of the call record: {error.strerror}; "
                    "create it for the appliance's user, or point store.url elsewhere"
                ) from error
    engine = _create(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
    _prepare_sqlite(engine.sync_engine, read_only)
    return engine


def open_sqlite_in_thread(url: str) -> Engine:
    """A blocking engine for the same SQLite file, for one thread that does nothing else.

    The async driver crosses to its thread and back for every cursor, statement and commit: thirteen times for one
    transaction of the record, which costs several times the work itself.
    """
    parsed = parse_url(url).set(drivername="sqlite+pysqlite")
    engine = create_engine(parsed, poolclass=StaticPool, connect_args={"timeout": BUSY_TIMEOUT_S})
    _prepare_sqlite(engine, read_only=False)
    return engine


def _prepare_sqlite(engine: Engine, read_only: bool) -> None:
    # Records are written once and seldom read: the cache of 2 MB a connection would only fill up over the days.
    pragmas = ["PRAGMA foreign_keys=ON", "PRAGMA cache_size=-256"]
    if not read_only:
        pragmas += ["PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"]

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()


def parse_url(url: str) -> URL:
    """The URL with an async driver filled in (``sqlite:`` and ``postgresql:`` may be written without one).

    Raises:
        StoreError: it is not a database URL, or not one of SQLite or PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f"store.url: {url!r} is not a database URL; write sqlite+aiosqlite:///var/appliance.db"
        ) from error
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    backend = parsed.get_backend_name()
    if backend not in drivers:
        raise StoreError(f"store.url: {backend} is not supported; use sqlite+aiosqlite:/// or postgresql+asyncpg://")
    return parsed.set(drivername=drivers[backend])


def _create(url: URL, **options: Any) -> AsyncEngine:
    try:
        return create_async_engine(url, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"store.url: the driver for {url.drivername} is not installed; pip install 'appliance[postgres]'"
        ) from error
