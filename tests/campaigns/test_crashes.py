"""A box that dies at any instant loses no lead, and calls nobody again within the gap: the callees say so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from appliance.calls.outgoing import OutgoingOrder, OutgoingResult
from appliance.testing import run_virtual
from tests.campaigns.world import Callee, Mortal, Network, World, WorldClock, human, in_virtual_time, refused

GAP_S = 10.0
LEADS = 6


def answer(callee: Callee, order: OutgoingOrder) -> tuple[float | None, float, OutgoingResult]:
    """Some are busy at first, some want never to be called again, most talk."""
    if order.number.endswith("1") and len(callee.calls) < 2:
        return refused(486)
    if order.number.endswith("2"):
        return human(talk_s=3.0, completed=False, opted_out=True)
    return human(talk_s=3.0, after_s=1.0)


async def through(world: World, lives: list[int]) -> int:
    """A campaign that is finished although its box dies after so many steps, again and again; how many steps the last
    box took."""
    rule = {"after_s": 1, "times": 50, "best_hour": False}
    await world.make(
        LEADS,
        attempts={"per_lead": 50, "per_number_per_day": 50, "per_number_total": 900, "gap_s": GAP_S},
        pacing={"max_calls": 3, "calls_per_s": 10},
        retry=dict.fromkeys(("busy", "no_answer", "machine", "rejected", "failed", "interrupted"), rule),
        webhook={"url": "https://hooks.example.com/leads", "secret": "hook"},
    )
    for steps in lives:
        async with world.store() as store:
            await Mortal(world, store, steps).live()
    async with world.store() as store:
        box = Mortal(world, store, None)
        living = asyncio.create_task(box.live())
        try:
            await world.until("finished", limit_s=3600.0)
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
    return box.steps


async def judge(world: World) -> None:
    """What must hold whatever has happened."""
    network = world.network
    rows = await world.leads()
    wanted = {number: "opted_out" if number.endswith("2") else "completed" for number in network.callees}
    assert {lead.number: lead.disposition for lead in rows} == wanted
    assert {lead.state for lead in rows} == {"done"}
    assert len(network.callees) == LEADS
    assert min(network.gaps(), default=GAP_S) >= GAP_S
    attempts = await world.attempts()
    ids = {attempt.call_id for attempt in attempts}
    # Whatever was heard of outside is on record; what is on record and was not heard of died before it left.
    assert {order.call_id for order in network.orders} <= ids
    assert all(attempt.ended_at is not None and attempt.disposition for attempt in attempts)
    unheard = [attempt for attempt in attempts if attempt.call_id not in {order.call_id for order in network.orders}]
    assert {attempt.disposition for attempt in unheard} <= {"interrupted"}
    assert all(lead.attempts == sum(lead.attempts_by.values()) for lead in rows)
    async with world.store() as store:
        counts = await store.counts("spring")
        contacts = await store.contacts([lead.number for lead in rows])
    assert counts.calling == 0
    assert sum(contact.total_attempts for contact in contacts.values()) == len(attempts) == counts.attempts


def die(folder: Path, lives: list[int]) -> int:
    async def run() -> int:
        world = World(folder, Network(answer), WorldClock(asyncio.get_running_loop()))
        steps = await through(world, lives)
        await judge(world)
        return steps

    return run_virtual(run())


@pytest.mark.parametrize("share", [i / 12 for i in range(12)])
def test_killed_at_any_step_it_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    in_virtual_time(monkeypatch)
    die(tmp_path, [int(4 + share * 420)])


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_it_is_finished_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    in_virtual_time(monkeypatch)
    chance = Random(seed)
    die(tmp_path, [chance.randrange(4, 120) for _ in range(12)])
