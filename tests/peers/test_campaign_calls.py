"""Campaigns of a whole box over SIP: people end as they should although the box is killed; two boxes share one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.box import Box
from appliance.store.campaigns import CampaignStore
from tests.bench import campaign_world as world
from tests.bench.callees import FarmProcess
from tests.bench.report import Bar
from tests.store.clusters import running_cluster
from tests.waiting import LIMIT_S, block_until

pytestmark = [pytest.mark.peer, pytest.mark.slow]

GAP_S = 4.0
PACING = {"max_calls": 8, "calls_per_s": 10, "ring_timeout_s": 5, "max_abandoned_percent": 100}


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[FarmProcess]:
    with FarmProcess(tmp_path / "farm.jsonl", keys=True) as farm:
        yield farm


def begin(url: str, wanted: list[str]) -> None:
    asyncio.run(world.begin(url, wanted, world.definition(gap_s=GAP_S, pacing=PACING)))


def finished(url: str) -> world.Found:
    asyncio.run(world.until_finished(url, 3 * LIMIT_S))
    return asyncio.run(world.found(url))


def judge(wanted: list[str], end: world.Found, farm: FarmProcess, *, exact: bool) -> None:
    bar = Bar("6.1", "a small campaign")
    world.judge(bar, "run", wanted, end, farm.entries(), GAP_S, exact=exact, also=() if exact else ("abandoned",))
    assert bar.failures == []


def begun(url: str) -> dict[str, int]:
    """How many calls each box has begun."""

    async def count() -> dict[str, int]:
        found: dict[str, int] = {}
        async with CampaignStore(url, box="operator") as store:
            async for attempt in store.attempts(world.NAME):
                found[attempt.box] = found.get(attempt.box, 0) + 1
        return found

    return asyncio.run(count())


def test_everybody_ends_as_they_should_although_control_is_killed(tmp_path: Path, farm: FarmProcess) -> None:
    wanted = world.numbers(8, "01234569")
    with Box(tmp_path / "box", world.settings(tmp_path, farm)) as box:
        url = f"sqlite+aiosqlite:///{box.database}"
        begin(url, wanted)
        block_until(lambda: any(entry["event"] == "answered" for entry in farm.entries()))
        os.kill(box.processes()["control"], signal.SIGKILL)
        end = finished(url)
    judge(wanted, end, farm, exact=False)


def test_two_boxes_share_a_campaign_and_call_nobody_twice(tmp_path: Path, farm: FarmProcess) -> None:
    wanted = world.numbers(12, "01")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())
        for name in ("north", "south"):
            shared = {"store.url": cluster.url, "store.box": name}
            stack.enter_context(Box(tmp_path / name, world.settings(tmp_path, farm, **shared)))
        begin(cluster.url, wanted)
        end = finished(cluster.url)
        assert set(begun(cluster.url)) == {"north", "south"}
    judge(wanted, end, farm, exact=True)
    assert [len(times) for times in world.invites(farm.entries()).values()] == [1] * len(wanted)
