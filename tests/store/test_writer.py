from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from appliance.clock import SystemClock
from appliance.errors import StoreError
from appliance.store.writer import Batch, ChangedCall, NewCall, NewTurn, Writer, merge


def full_disk() -> OperationalError:
    return OperationalError("INSERT", {}, Exception("database or disk is full"))


class FakeDatabase:
    """Keeps committed batches; ``faults`` are raised first, one per try."""

    def __init__(self, *faults: Exception) -> None:
        self.batches: list[Batch] = []
        self.faults = list(faults)
        self.refuses: Callable[[Batch], bool] = lambda batch: False
        self.open = asyncio.Event()
        self.open.set()

    async def commit(self, batch: Batch) -> None:
        await self.open.wait()
        if self.faults:
            raise self.faults.pop(0)
        if self.refuses(batch):
            raise IntegrityError("INSERT", {}, Exception("FOREIGN KEY constraint failed"))
        self.batches.append(batch)


@asynccontextmanager
async def writing(database: FakeDatabase, **options: Any) -> AsyncIterator[Writer]:
    writer = Writer(database.commit, SystemClock(), **{"linger_s": 0.0, "retry_first_s": 0.001, **options})
    writer.start()
    try:
        yield writer
    finally:
        await writer.close(1.0)


def turn(call_id: str, number: int) -> NewTurn:
    return NewTurn({"call_id": call_id, "number": number})


def test_everything_said_about_a_row_becomes_one_row() -> None:
    batch = merge(
        [
            NewCall({"id": "a", "answered_at": None}),
            ChangedCall("a", {"answered_at": 1}),
            ChangedCall("b", {"answered_at": 2}),
            ChangedCall("b", {"ended_at": 3, "answered_at": 4}),
            turn("a", 1),
            turn("a", 1),
        ]
    )
    assert batch.calls == {"a": {"id": "a", "answered_at": 1}}
    assert batch.changes == {"b": {"answered_at": 4, "ended_at": 3}}
    assert list(batch.turns) == [("a", 1)]


async def test_a_call_is_durable_when_the_future_is_done() -> None:
    database = FakeDatabase()
    async with writing(database) as writer:
        await writer.put_call({"id": "a"})
        assert list(database.batches[0].calls) == ["a"]


async def test_what_comes_while_a_transaction_runs_goes_into_the_next_together() -> None:
    database = FakeDatabase()
    database.open.clear()
    async with writing(database, linger_s=0.2) as writer:
        first = writer.put_call({"id": "a"})
        await asyncio.sleep(0)
        for number in range(50):
            writer.put(turn("a", number))
        database.open.set()
        await first
        await writer.flush()
        assert len(database.batches) == 2
        assert writer.stats.written == 51
        assert writer.stats.pending == 0


async def test_nothing_is_lost_and_order_is_kept_when_the_disk_is_full_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = FakeDatabase(*[full_disk() for _ in range(4)])
    async with writing(database) as writer:
        with caplog.at_level(logging.WARNING):
            first = writer.put_call({"id": "a"})
            writer.put(ChangedCall("a", {"x": 1}))
            writer.put(ChangedCall("a", {"x": 2}))
            await first
            await writer.flush()
        assert database.batches[0].calls["a"] == {"id": "a", "x": 2}
        assert (writer.stats.retries, writer.stats.failing, writer.stats.dropped) == (4, "", 0)
    assert "database or disk is full" in caplog.text
    assert "written again" in caplog.text


async def test_one_impossible_row_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    database = FakeDatabase()
    database.refuses = lambda batch: ("ghost", 1) in batch.turns
    async with writing(database) as writer:
        writer.put(turn("a", 1))
        writer.put(turn("ghost", 1))
        writer.put(turn("b", 1))
        await writer.flush()
        assert [list(batch.turns) for batch in database.batches] == [[("a", 1)], [("b", 1)]]
        assert writer.stats.dropped == 1
    assert "call ghost: the database refuses a row" in caplog.text


async def test_an_impossible_call_is_told_to_who_waits_for_it() -> None:
    database = FakeDatabase()
    database.refuses = lambda batch: "a" in batch.calls
    async with writing(database) as writer:
        with pytest.raises(StoreError, match="refuses the call"):
            await writer.put_call({"id": "a"})


async def test_new_calls_are_refused_when_too_much_is_pending_but_running_calls_still_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = FakeDatabase()
    database.open.clear()
    async with writing(database, limit=3) as writer:
        waits = [writer.put_call({"id": name}) for name in "abc"]
        with pytest.raises(StoreError, match="3 writes of the call record are waiting"):
            writer.put_call({"id": "d"})
        for number in range(40):
            writer.put(turn("a", number))
        writer.put(ChangedCall("a", {"ended_at": 1}))
        assert writer.stats.refused == 1
        assert writer.stats.dropped == 13
        database.open.set()
        await asyncio.gather(*waits)
        await writer.flush()
        assert database.batches[-1].calls["a"] == {"id": "a", "ended_at": 1}
    assert "the queue is full" in caplog.text


async def test_closing_on_a_dead_database_gives_up_and_says_what_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    database = FakeDatabase(*[full_disk() for _ in range(10_000)])
    writer = Writer(database.commit, SystemClock(), linger_s=0.0, retry_first_s=0.001, retry_max_s=0.001)
    writer.start()
    waiting = writer.put_call({"id": "a"})
    await writer.close(0.02)
    with pytest.raises(StoreError, match="closed before"):
        await waiting
    assert "closing with 1 writes of the call record lost: database or disk is full" in caplog.text
    with pytest.raises(StoreError, match="closed"):
        writer.put_call({"id": "b"})


async def test_a_caller_that_stopped_waiting_disturbs_nothing() -> None:
    database = FakeDatabase()
    database.open.clear()
    async with writing(database) as writer:
        writer.put_call({"id": "a"}).cancel()
        database.open.set()
        await writer.flush()
        assert list(database.batches[0].calls) == ["a"]
