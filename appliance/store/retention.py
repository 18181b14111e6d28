"""Forgetting: records and recordings older than the operator keeps them are deleted."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.store.callers import CallerStore
from appliance.store.database import open_engine
from appliance.store.models import Call, Turn
from appliance.store.webhooks import WebhookQueue

logger = logging.getLogger(__name__)

EVERY_S: Final = 3600.0
_AT_ONCE: Final = 500
"""Calls deleted in one transaction: the writer waits no longer than that takes."""


async def expire(url: str, before: datetime, *, box: str | None = None) -> int:
    """Delete every call that started before ``before``: first its recording, then its turns and itself.

    Only calls of ``box`` (this machine's name unless given): of a shared database, the others have their own files. A
    recording that cannot be deleted keeps its record, so that the next run tries again.

    Returns:
        How many calls were deleted.

    Raises:
        StoreError: the database cannot be read or written.
    """
    engine = open_engine(url)
    name = socket.gethostname() if box is None else box
    deleted = 0
    try:
        while True:
            query = select(Call.id, Call.recording_path).where(
                Call.box == name, Call.started_at < before, Call.ended_at.is_not(None)
            )
            async with engine.connect() as connection:
                rows = (await connection.execute(query.order_by(Call.started_at).limit(_AT_ONCE))).all()
            gone = await asyncio.to_thread(_unlink, [(row.id, row.recording_path) for row in rows])
            if gone:
                async with engine.begin() as connection:
                    await connection.execute(delete(Turn).where(Turn.call_id.in_(gone)))
                    await connection.execute(delete(Call).where(Call.id.in_(gone)))
            deleted += len(gone)
            if len(gone) < _AT_ONCE:
                return deleted
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"old calls cannot be deleted from the record: {error}") from error
    finally:
        await engine.dispose()


async def expire_recordings(url: str, now: datetime, *, box: str | None = None) -> int:
    """Delete the recordings whose line keeps them no longer than until ``now``; the calls stay on record.

    Returns:
        How many files were deleted.

    Raises:
        StoreError: the database cannot be read or written.
    """
    engine = open_engine(url)
    name = socket.gethostname() if box is None else box
    due = (Call.box == name, Call.recording_delete_at <= now, Call.recording_path.is_not(None))
    deleted = 0
    try:
        while True:
            query = select(Call.id, Call.recording_path).where(*due, Call.ended_at.is_not(None)).limit(_AT_ONCE)
            async with engine.connect() as connection:
                rows = (await connection.execute(query)).all()
            gone = await asyncio.to_thread(_unlink, [(row.id, row.recording_path) for row in rows])
            if gone:
                async with engine.begin() as connection:
                    await connection.execute(update(Call).where(Call.id.in_(gone)).values(recording_path=None))
            deleted += len(gone)
            if len(gone) < _AT_ONCE:
                return deleted
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"old recordings cannot be deleted: {error}") from error
    finally:
        await engine.dispose()


async def forget_callers(url: str, clock: Clock) -> int:
    """Erase what was remembered of callers who have not called for as long as their line keeps it; how many notes.

    Raises:
        StoreError: the database cannot be written.
    """
    engine = open_engine(url)
    try:
        return await CallerStore(engine, clock).forget_expired()
    finally:
        await engine.dispose()


async def forget_undelivered(url: str, before: datetime, *, box: str | None = None) -> int:
    """Delete events that were given up before then (``webhook_events``); how many.

    Raises:
        StoreError: the database cannot be written.
    """
    engine = open_engine(url)
    try:
        return await WebhookQueue(engine, socket.gethostname() if box is None else box).expire(before)
    finally:
        await engine.dispose()


async def keep_expiring(url: str, retention_days: int, clock: Clock, box: str | None = None) -> None:
    """Expire once an hour, until cancelled; a failure is logged and tried again an hour later."""
    while True:
        try:
            await forget_callers(url, clock)
            recordings = await expire_recordings(url, clock.utc(), box=box)
            if recordings:
                logger.info("%d recordings deleted, which their lines keep no longer", recordings)
            before = clock.utc() - timedelta(days=retention_days)
            await forget_undelivered(url, before, box=box)
            deleted = await expire(url, before, box=box)
        except StoreError as error:
            logger.error("%s", error)
        else:
            if deleted:
                logger.info("%d calls older than %d days deleted, with their recordings", deleted, retention_days)
        await asyncio.sleep(EVERY_S)


def _unlink(calls: Iterable[tuple[str, str | None]]) -> list[str]:
    """Delete the recordings; the calls whose recording is gone."""
    gone = []
    for call_id, path in calls:
        try:
            if path:
                Path(path).unlink(missing_ok=True)
        except OSError as error:
            logger.error("recording %s cannot be deleted: %s", path, error.strerror)
        else:
            gone.append(call_id)
    return gone
