"""The same record on PostgreSQL, in a cluster of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from appliance.store.calls import CallStore
from tests.store.clusters import running_cluster
from tests.store.facts import after, answered, ended, recorded, recording, ringing, started, turn
from tests.store.old_record import upgrade_a_call_of_before
from tests.store.test_webhooks import use_the_queue

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The URL of an empty database on a Unix socket."""
    with running_cluster() as cluster:
        yield cluster.url


async def test_a_call_is_kept_as_in_sqlite(cluster: str) -> None:
    async with CallStore(cluster, box="here") as store:
        await store.call_started(started(calling_name="a\x00b\ud800"))
        for event in (ringing(), answered(), recording(), turn(), turn(number=2), ended(), recorded()):
            store.observe(event)
        await store.flush()
        call = await store.get("c1")
        assert call is not None
        assert (call.started_at, call.ended_at, call.disposition) == (after(0), after(20), "completed")
        assert call.slots == {"day": "tuesday", "count": 3}
        assert [t.latency_ms for t in call.turns] == [600.0, 600.0]
        assert call.turns[0].waterfall["asr"] == [100.0, 200.0]
    async with CallStore(cluster) as again:
        assert len(await again.recent()) == 1
    reader = await CallStore.open_read_only(cluster)
    assert await reader.find("c") == ["c1"]
    await reader.close()


async def test_one_box_does_not_end_the_calls_of_another(cluster: str) -> None:
    async with CallStore(cluster, box="a") as first, CallStore(cluster, box="b") as second:
        await asyncio.gather(*(first.call_started(started(f"a{n}")) for n in range(200)))
        await second.call_started(started("b0"))
        assert await second.interrupt_open_calls("restart") == 1
        assert await first.interrupt_open_calls("restart") == 200


async def test_a_row_that_breaks_a_rule_is_dropped_alone(cluster: str, caplog: pytest.LogCaptureFixture) -> None:
    async with CallStore(cluster, box="here") as store:
        store.turn(turn("nobody"))
        await store.call_started(started("somebody"))
        assert await store.get("somebody") is not None
        assert store.stats.dropped == 1
    assert "call nobody: the database refuses a row" in caplog.text


async def test_a_lost_connection_is_made_again(cluster: str) -> None:
    async with CallStore(cluster, box="here", retry_first_s=0.01) as store:
        await store.call_started(started("before"))
        async with CallStore(cluster, box="other") as killer, killer._require_engine().connect() as connection:
            await connection.exec_driver_sql(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                "and datname is not null"
            )
        await store.call_started(started("after"))
        assert await store.get("after") is not None


async def test_a_record_of_an_earlier_version_is_brought_up_to_date(cluster: str) -> None:
    engine = create_async_engine(cluster, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("create database earlier"))
    await engine.dispose()
    url = cluster.replace("/postgres?", "/earlier?")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(upgrade_a_call_of_before)
    await engine.dispose()
    async with CallStore(url) as store:
        call = await store.get("old")
        assert call is not None
        assert [(turn.tools, turn.speculation, turn.pauses, turn.asked) for turn in call.turns] == [([], {}, 0, "")]
        await store.callers.keep("+15551234567", "desk", "likes tea", days=1)
        await store.callers.keep("+15551234567", "desk", "likes coffee", days=1)
        assert await store.callers.recall("+15551234567", "desk") == "likes coffee"
        assert await store.callers.forget("+15551234567") == 1


async def test_the_queue_of_webhooks(cluster: str) -> None:
    async with CallStore(cluster) as store:
        await use_the_queue(store)
