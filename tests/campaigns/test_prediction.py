"""A simulation tells what the runner then does: both in virtual time, the one by an earlier campaign's calls."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.calls.outgoing import OutgoingOrder, OutgoingResult
from appliance.campaigns.definition import Definition
from appliance.campaigns.mix_files import mix_of_campaign
from appliance.campaigns.simulate import Box, Simulation, run
from appliance.conversation.answering import Verdict
from appliance.store.campaigns import CampaignStore
from appliance.testing import run_virtual
from tests.campaigns.world import Callee, Network, World, WorldClock, definition, human, in_virtual_time, refused

PILOT, LEADS = 60, 60
KEYS = {
    "attempts": {"per_lead": 3, "per_number_per_day": 20, "per_number_total": 50, "gap_s": 60},
    "pacing": {"max_calls": 6, "calls_per_s": 2},
    "retry": {
        "busy": {"after_s": 60, "times": 1},
        "no_answer": {"after_s": 60, "times": 1, "best_hour": False},
        "machine": {"after_s": 60, "times": 1, "best_hour": False},
        "failed": {"after_s": 60, "times": 2, "backoff": 2.0},
    },
}


def answer(callee: Callee, order: OutgoingOrder) -> tuple[float | None, float, OutgoingResult]:
    """What becomes of a call, by the number and how often it was called: the shares are the same in every 60 leads."""
    index = int(callee.number[-4:])
    share, length = index * 37 % 60 / 60, index * 23 % 59 / 59
    count = len(callee.calls)
    if share < 0.35:
        return human(talk_s=10 + 60 * length**2, after_s=3 + 9 * length)
    if share < 0.6:
        machine = Verdict("machine", 0.9, 2.0, "long")
        return human(talk_s=4 + 3 * length, after_s=15.0, completed=False, verdict=machine)
    if share < 0.85:
        return refused(408, 30.0) if count < 2 or length < 0.5 else human(talk_s=20.0)
    return refused(486, 1.0) if share < 0.97 or count > 1 else refused(404, 0.3)


def test_the_simulation_of_a_campaign_tells_how_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_virtual_time(monkeypatch)

    async def play() -> None:
        world = World(tmp_path, Network(answer), WorldClock(asyncio.get_running_loop()))
        async with world.box(poll_s=10.0):
            await world.make(PILOT, "pilot", **KEYS)
            await world.until("finished", "pilot")
            world.network.callees.clear()
            await asyncio.sleep(120)
            await world.make(LEADS, "spring", **KEYS)
            async with world.store() as store:
                predicted = await _predicted(world, store)
            await world.until("finished", "spring")
        found = await world.attempts("spring")
        ended = max(attempt.ended_at for attempt in found if attempt.ended_at is not None)
        took_s = (ended - found[0].started_at).total_seconds()
        connects = sum(attempt.disposition == "completed" for attempt in found)
        assert predicted.quantile(lambda one: one.duration_s, 0.5) == pytest.approx(took_s, rel=0.1)
        assert predicted.quantile(lambda one: one.connects, 0.5) == pytest.approx(connects, rel=0.1)
        assert predicted.quantile(lambda one: one.dials, 0.5) == pytest.approx(len(found), rel=0.1)

    async def _predicted(world: World, store: CampaignStore) -> Simulation:
        mix = await mix_of_campaign(store, "pilot")
        waiting = [lead async for lead in store.leads("spring")]
        begin = world.clock.utc() + timedelta(seconds=1)
        return run(Definition.of(definition("spring", **KEYS)), waiting, mix, begin, 1, box=Box(1000), runs=9)

    run_virtual(play())
