"""Events of calls through the real record to a real server, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import create_engine, text

from appliance.clock import SystemClock
from appliance.plugins.declarative.http_client import HttpClient
from appliance.plugins.declarative.loader import DeclarativePlugin
from appliance.plugins.declarative.source import Declarative
from appliance.server.webhooks import Webhooks
from appliance.store.calls import CallStore
from tests.plugins.declarative.server import HttpServer, hang, plugin_of
from tests.store import facts
from tests.waiting import LIMIT_S, eventually

KEY = "0123456789abcdef0123"
HOOK = """
allow_hosts: [127.0.0.1]
values: {room: main}
webhooks:
  calls:
    url: URL/hooks/${values.room}
    events: [call.started, call.ended]
    secret: !secret key
"""


class Later(SystemClock):
    """The time of day, with what a test adds to it."""

    ahead_s = 0.0

    def utc(self) -> datetime:
        return super().utc() + timedelta(seconds=self.ahead_s)


class Running:
    """The webhooks of a control process over the database in ``folder``."""

    def __init__(self, folder: Path, plugins: dict[str, DeclarativePlugin]) -> None:
        self.clock = Later()
        self.source = Declarative(plugins)
        self.store = CallStore(f"sqlite+aiosqlite:///{folder / 'calls.db'}", linger_s=0.01)
        self.webhooks = Webhooks(self.source, lambda line: {name: {} for name in plugins}, self.store, self.clock)

    def one_call(self, call_id: str = "c1") -> None:
        for event in (facts.started(call_id), facts.answered(call_id), facts.ended(call_id)):
            self.webhooks.observe(event)
            if event.__class__.__name__ == "CallStarted":
                self.store.call_started(event)  # type: ignore[arg-type]
            else:
                self.store.observe(event)

    def outcome(self, name: str) -> int:
        return self.webhooks.stats.outcomes[name]


@asynccontextmanager
async def running(folder: Path, plugins: dict[str, DeclarativePlugin]) -> AsyncIterator[Running]:
    box = Running(folder, plugins)
    await box.store.open()
    box.webhooks.open()
    task = asyncio.create_task(box.webhooks.run())
    try:
        yield box
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await box.source.close()
        await box.store.close()


def hook(folder: Path, server: HttpServer, more: str = "") -> dict[str, DeclarativePlugin]:
    return {"crm": plugin_of(folder, (HOOK + more).replace("URL", server.url), "crm", key=KEY)}


def rows(folder: Path) -> list[dict[str, Any]]:
    engine = create_engine(f"sqlite:///{folder / 'calls.db'}")
    try:
        with engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(text("select * from webhook_events"))]
    finally:
        engine.dispose()


async def test_events_are_delivered_signed_and_then_forgotten(tmp_path: Path) -> None:
    async with HttpServer() as server, running(tmp_path, hook(tmp_path, server)) as box:
        box.one_call()
        await eventually(lambda: box.outcome("delivered") == 2)
        await eventually(lambda: rows(tmp_path) == [])
        assert {json.loads(one.body)["type"] for one in server.asked} == {"call.started", "call.ended"}
        assert all(
            one.path == "/hooks/main" and one.headers["webhook-signature"].startswith("v1,") for one in server.asked
        )
        assert len({one.headers["webhook-id"] for one in server.asked}) == 2


async def test_what_fails_comes_again_under_the_same_id_and_is_given_up_in_the_end(tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    plugins_text = "    attempts: 3\n"
    async with HttpServer(refuse) as server, running(tmp_path, hook(tmp_path, server, plugins_text)) as box:
        box.one_call()
        for attempt in (1, 2):
            await eventually(lambda attempt=attempt: box.outcome("failed") == 2 * attempt)
            await eventually(lambda attempt=attempt: {row["attempts"] for row in rows(tmp_path)} == {attempt})
            box.clock.ahead_s += 3600
        await eventually(lambda: box.outcome("given_up") == 2)
        await eventually(lambda: all(row["given_up_at"] for row in rows(tmp_path)))
        assert {row["problem"] for row in rows(tmp_path)} == {"answered 500"}
        assert set(Counter(one.headers["webhook-id"] for one in server.asked).values()) == {3}
        assert await box.store.webhook_queue.expire(box.clock.utc() + timedelta(days=1)) == 2


async def test_an_attempt_that_nobody_thought_of_is_counted_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of the blue")

    monkeypatch.setattr(HttpClient, "ask", broken)
    async with HttpServer() as server, running(tmp_path, hook(tmp_path, server, "    attempts: 2\n")) as box:
        box.one_call()
        await eventually(lambda: box.outcome("failed") == 2)
        await eventually(lambda: {row["attempts"] for row in rows(tmp_path)} == {1})
        box.clock.ahead_s += 3600
        await eventually(lambda: box.outcome("given_up") == 2)
        await eventually(lambda: {row["problem"] for row in rows(tmp_path)} == {"cannot be sent: RuntimeError"})


async def test_a_server_that_wants_no_more_is_told_no_more(tmp_path: Path) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        return web.Response(status=410)

    async with HttpServer(gone) as server, running(tmp_path, hook(tmp_path, server)) as box:
        box.one_call()
        await eventually(lambda: box.outcome("given_up") == 2)
        assert len(server.asked) == 2


async def test_so_many_at_a_time_and_a_slow_one_holds_up_no_other(tmp_path: Path) -> None:
    async with HttpServer(hang) as slow, HttpServer() as quick:
        plugins = {
            "slow": plugin_of(tmp_path, (HOOK + "    concurrency: 3\n").replace("URL", slow.url), "slow", key=KEY),
            "quick": plugin_of(tmp_path, HOOK.replace("URL", quick.url), "quick", key=KEY),
        }
        async with running(tmp_path, plugins) as box:
            for number in range(10):
                box.one_call(f"c{number}")
            await eventually(lambda: len(quick.asked) == 20)
            await eventually(lambda: slow.most_at_once == 3)
            assert len(slow.asked) == 3
            assert quick.most_at_once <= 2


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    async with HttpServer(hang) as server, running(tmp_path, hook(tmp_path, server, "    max_waiting: 5\n")) as box:
        for number in range(10):
            box.one_call(f"c{number}")
        assert box.outcome("dropped") == 15
        await box.store.flush()
        assert len(rows(tmp_path)) == 5


async def test_what_waits_for_a_webhook_that_is_gone_is_given_up(tmp_path: Path) -> None:
    async with HttpServer(hang) as server:
        async with running(tmp_path, hook(tmp_path, server)) as box:
            box.one_call()
            await eventually(lambda: len(server.asked) == 2)
        async with running(tmp_path, {}) as box:
            await eventually(lambda: box.outcome("given_up") == 2)


async def test_a_call_that_was_cut_off_is_told_at_the_next_start(tmp_path: Path) -> None:
    async with HttpServer() as server:
        plugins = hook(tmp_path, server)
        before = Running(tmp_path, plugins)
        async with before.store:
            await before.store.call_started(facts.started())
        box = Running(tmp_path, plugins)
        await box.store.open()
        assert await box.store.interrupt_open_calls("it stopped", box.webhooks.interrupted) == 1
        await box.store.close()
        async with running(tmp_path, plugins):
            await eventually(lambda: len(server.asked) == 1)
        assert json.loads(server.asked[0].body)["data"]["disposition"] == "interrupted"


async def test_nothing_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """Killed at some moment while it delivers; a second one goes on. What is on record is delivered, at least once."""
    calls = 40
    seen: Counter[str] = Counter()

    async def note(request: web.Request) -> web.StreamResponse:
        seen[request.headers["webhook-id"]] += 1
        return web.Response(status=500 if len(seen) % 3 == 0 and seen[request.headers["webhook-id"]] == 1 else 200)

    async with HttpServer(note) as server:
        hook(tmp_path, server)
        command = [sys.executable, "-m", "tests.server.test_webhooks", str(tmp_path), str(calls)]
        child = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            assert await asyncio.to_thread(child.stdout.readline) == b"put\n"
            await eventually(lambda: len(seen) >= 10)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            await asyncio.to_thread(child.communicate)
        kept = {row["id"] for row in rows(tmp_path)}
        assert kept
        assert len(kept | set(seen)) == 2 * calls
        async with running(tmp_path, hook(tmp_path, server)) as box:
            box.clock.ahead_s = 3600
            await eventually(lambda: rows(tmp_path) == [])
        assert kept <= set(seen)
        assert len(seen) == 2 * calls


async def _put_and_deliver(folder: Path, calls: int) -> None:
    path = folder / "crm.yaml"
    plugin = plugin_of(folder, path.read_text(), "crm", key=KEY)
    async with running(folder, {"crm": plugin}) as box:
        for number in range(calls):
            box.one_call(f"c{number}")
        await box.store.flush()
        print("put", flush=True)
        await asyncio.sleep(LIMIT_S)


if __name__ == "__main__":
    asyncio.run(_put_and_deliver(Path(sys.argv[1]), int(sys.argv[2])))
