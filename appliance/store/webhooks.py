"""The durable queue of webhooks: events stay in the record's database until they have been delivered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.plugins.declarative.delivery import Key, Waiting
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.attempts import Attempts
from appliance.store.models import Base

_events: Table = Base.metadata.tables["webhook_events"]

_MAX_PROBLEM: Final = 500


def row_of(event: NewEvent, box: str) -> dict[str, Any]:
    """A new event as a row."""
    return {
        "id": event.id,
        "box": box,
        "plugin": event.plugin,
        "webhook": event.webhook,
        "line": event.line,
        "call_id": event.call_id,
        "event": event.event,
        "body": event.body,
        "created_at": event.created_at,
        "attempts": 0,
        "next_at": event.created_at,
        "problem": "",
        "given_up_at": None,
    }


class WebhookQueue:
    """The events of this box that are to be delivered; new ones come with the record (``CallStore.keep_events``).

    Args:
        engine: of the record; stays with whoever made it.
        box: the name of this box.
    """

    def __init__(self, engine: AsyncEngine, box: str) -> None:
        self._attempts = Attempts(engine, "the queue of webhooks")
        self._box = box

    async def waiting(self) -> Mapping[Key, tuple[int, datetime]]:
        """How many events wait for each (plugin, webhook), and when the first is due."""
        columns = _events.c.plugin, _events.c.webhook
        first = func.min(_events.c.next_at, type_=_events.c.next_at.type)
        query = (
            select(*columns, func.count(), first)
            .where(_events.c.box == self._box, _events.c.given_up_at.is_(None))
            .group_by(*columns)
        )

        async def read(connection: AsyncConnection) -> Mapping[Key, tuple[int, datetime]]:
            return {(row[0], row[1]): (row[2], row[3]) for row in await connection.execute(query)}

        return await self._attempts.run(read)

    async def due(self, key: Key, now: datetime, limit: int, without: Collection[str]) -> Sequence[Waiting]:
        """Events whose time has come, the longest due first."""
        query = (
            select(*(_events.c[name] for name in ("id", "line", "call_id", "event", "body", "attempts")))
            .where(
                _events.c.box == self._box,
                _events.c.plugin == key[0],
                _events.c.webhook == key[1],
                _events.c.given_up_at.is_(None),
                _events.c.next_at <= now,
                _events.c.id.not_in(list(without)),
            )
            .order_by(_events.c.next_at, _events.c.id)
            .limit(limit)
        )

        async def read(connection: AsyncConnection) -> Sequence[Waiting]:
            return [Waiting(*row) for row in await connection.execute(query)]

        return await self._attempts.run(read)

    async def delivered(self, event_ids: Collection[str]) -> None:
        """Forget them."""
        await self._attempts.execute(delete(_events).where(_events.c.id.in_(list(event_ids))))

    async def failed(self, event_id: str, attempts: int, again_at: datetime, problem: str) -> None:
        """Keep it for another attempt."""
        await self._change(event_id, attempts=attempts, next_at=again_at, problem=problem[:_MAX_PROBLEM])

    async def give_up(self, event_id: str, attempts: int, now: datetime, problem: str) -> None:
        """Keep it as undeliverable."""
        await self._change(event_id, attempts=attempts, given_up_at=now, problem=problem[:_MAX_PROBLEM])

    async def expire(self, before: datetime) -> int:
        """Delete what was given up before then; how many."""
        return await self._attempts.execute(
            delete(_events).where(_events.c.box == self._box, _events.c.given_up_at < before)
        )

    async def _change(self, event_id: str, **values: Any) -> None:
        await self._attempts.execute(update(_events).where(_events.c.id == event_id).values(**values))
