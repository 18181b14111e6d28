"""Whole campaigns in virtual time: the database and the runner are real, the telephone network is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.calls.outgoing import OutgoingOrder, OutgoingResult
from appliance.campaigns.results import CAMPAIGNS
from appliance.conversation.answering import Verdict
from appliance.errors import StoreError
from appliance.store.campaign_leases import LeadQueue
from appliance.testing import run_virtual
from tests.campaigns.world import (
    Callee,
    Mortal,
    Network,
    World,
    WorldClock,
    definition,
    human,
    in_virtual_time,
    leads,
    refused,
)

Story = Callable[[World], Awaitable[None]]
Play = Callable[[Network, Story], World]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays a story in a world of its own."""
    in_virtual_time(monkeypatch)

    def play(network: Network, story: Story) -> World:
        async def run() -> World:
            world = World(tmp_path, network, WorldClock(asyncio.get_running_loop()))
            await story(world)
            return world

        return run_virtual(run())

    return play


async def whole(world: World) -> None:
    """From the start until everybody has been called."""
    async with world.box():
        await world.until("finished")


def test_everybody_is_called_once_and_written_down(play: Play) -> None:
    network = Network(lambda callee, order: human())

    async def story(world: World) -> None:
        await world.make(50)
        await whole(world)
        rows = await world.leads()
        assert {(lead.state, lead.disposition, lead.attempts) for lead in rows} == {("done", "completed", 1)}
        attempts = await world.attempts()
        assert [attempt.talk_s for attempt in attempts] == [20.0] * 50
        assert {attempt.verdict for attempt in attempts} == {"human"}
        for lead, attempt in zip(rows, sorted(attempts, key=lambda one: one.lead_id), strict=True):
            assert lead.call_id == attempt.call_id
            assert attempt.answered_at is not None
            assert abs((attempt.answered_at - attempt.started_at).total_seconds() - 4.0) < 0.1

    world = play(network, story)
    assert [len(callee.calls) for callee in network.callees.values()] == [1] * 50
    kinds = Counter(event.kind for event in world.told)
    assert kinds == {"dialled": 50, "reached": 50, "done": 50}
    assert network.peak == 20


def test_pace_and_capacity_are_never_exceeded_and_used(play: Play) -> None:
    network = Network(lambda callee, order: human(talk_s=30.0 + len(order.call_id) % 3), room_for=40)

    async def story(world: World) -> None:
        await world.make(250, pacing={"max_calls": 1000, "calls_per_s": 10})
        await whole(world)

    play(network, story)
    assert network.peak == 40
    assert network.most_in(1.0) <= 10
    ends = sorted(end for callee in network.callees.values() for _, end in callee.calls)
    full_from, full_until = network.began[39], network.began[-1]
    used = sum(
        max(0.0, min(end, full_until) - max(begin, full_from))
        for callee in network.callees.values()
        for begin, end in callee.calls
    )
    assert used / (40 * (full_until - full_from)) > 0.95
    assert len(ends) == 250


def outcomes(callee: Callee, order: OutgoingOrder) -> tuple[float | None, float, OutgoingResult]:
    """By the number's last digit."""
    machine = Verdict("machine", 0.9, 2.0, "long")
    match int(order.number[-1]):
        case 0:
            return refused(486)
        case 1:
            return refused(404)
        case 2:
            return refused(603)
        case 3:
            return refused(408, after_s=30.0)
        case 4:
            return human(opted_out=True, completed=False)
        case 5:
            return human(completed=False, verdict=machine)
        case 6:
            return human(message_left=True, verdict=machine)
        case 7:
            return human(transferred_to="+12025550199")
        case 8:
            return refused(486) if not callee.calls[1:] else human()
        case _:
            return human(slots={"day": "tuesday"})


def test_every_way_a_call_can_end_makes_the_lead_end_so(play: Play) -> None:
    network = Network(outcomes)

    async def story(world: World) -> None:
        rule = {"after_s": 60, "times": 1, "best_hour": False}
        await world.make(100, retry=dict.fromkeys(("busy", "no_answer", "machine", "rejected"), rule))
        await whole(world)
        by_digit = {int(lead.number[-1]): lead for lead in await world.leads()}
        told = [(digit, lead.disposition, lead.attempts) for digit, lead in sorted(by_digit.items())]
        assert told == [
            (0, "busy", 2),
            (1, "invalid", 1),
            (2, "rejected", 2),
            (3, "no_answer", 2),
            (4, "opted_out", 1),
            (5, "machine", 2),
            (6, "voicemail_left", 1),
            (7, "transferred", 1),
            (8, "completed", 2),
            (9, "completed", 1),
        ]
        assert by_digit[9].slots == {"day": "tuesday"}
        assert by_digit[0].sip_code == 486
        async with world.store() as store:
            assert len([entry async for entry in store.refused()]) == 10
            counts = await store.counts("spring")
            assert sum(counts.by_disposition.values()) == counts.done == counts.total == 100
            assert counts.attempts == 150

    play(network, story)
    assert min(network.gaps()) >= 60.0


def test_nobody_is_called_outside_the_hours_and_all_are_within_them(play: Play) -> None:
    network = Network(lambda callee, order: human())
    begun: list[str] = []

    async def story(world: World) -> None:
        # It is noon in New York.
        await world.make(30, windows={"default": {"days": "mon-fri", "hours": "12:10-12:30"}})
        async with world.box():
            await asyncio.sleep(590.0)
            assert network.began == []
            await world.until("finished")
        begun.extend(f"{attempt.started_at:%H:%M}" for attempt in await world.attempts())

    play(network, story)
    assert len(begun) == 30
    assert set(begun) == {"17:10"}


def test_who_may_never_be_called_is_done_with_and_says_why(play: Play) -> None:
    network = Network(lambda callee, order: human())

    async def story(world: World) -> None:
        await world.make(3, lead={"consent": None}, consent={"required": True})
        await whole(world)
        for lead in await world.leads():
            assert (lead.state, lead.disposition, lead.attempts) == ("done", "not_allowed", 0)
            assert "no evidence of consent" in lead.detail

    play(network, story)
    assert network.began == []


def test_a_number_on_a_list_is_not_called_whenever_it_was_put_there(play: Play) -> None:
    network = Network(lambda callee, order: human(talk_s=5.0))

    async def story(world: World) -> None:
        await world.make(30, pacing={"max_calls": 1, "calls_per_s": 10})
        async with world.box(), world.store("operator") as operator:
            await asyncio.sleep(20.0)
            called = set(network.callees)
            wish = next(lead.number for lead in leads(30) if lead.number not in called)
            await operator.refuse([wish], source="by telephone")
            await world.until("finished")
            assert wish not in network.callees
            by_number = {lead.number: lead for lead in await world.leads()}
            assert (by_number[wish].disposition, by_number[wish].state) == ("opted_out", "done")
            assert "do-not-call list: the box's (by telephone)" in by_number[wish].detail

    play(network, story)
    assert len(network.callees) == 29


def test_a_campaign_is_paused_changed_resumed_drained_and_stopped_while_it_runs(play: Play) -> None:
    network = Network(lambda callee, order: human(talk_s=60.0))

    async def story(world: World) -> None:
        await world.make(200, pacing={"max_calls": 5, "calls_per_s": 10})
        async with world.box() as box, world.store("operator") as operator:
            await asyncio.sleep(10.0)
            assert network.active == 5
            row = await operator.campaign("spring")
            await operator.edit(
                "spring", definition(pacing={"max_calls": 12, "calls_per_s": 10}), revision=row.revision
            )
            await asyncio.sleep(5.0)
            assert network.active == 12
            await operator.set_state("spring", "paused")
            await asyncio.sleep(100.0)
            assert (network.active, len(network.began)) == (0, 12)
            await operator.set_state("spring", "running")
            await asyncio.sleep(10.0)
            assert network.active == 12
            await operator.set_state("spring", "draining")
            await world.until("stopped")
            assert (network.active, len(network.began)) == (0, 24)
            await operator.set_state("spring", "running")
            await asyncio.sleep(10.0)
            await operator.set_state("spring", "stopped")
            await asyncio.sleep(5.0)
            assert (network.active, len(network.began)) == (0, 36)
            counts = await operator.counts("spring")
            assert (counts.claimed, counts.calling, counts.done, counts.waiting) == (0, 0, 24, 176)
            assert box.stats.unwritten == 0
            stopped = [lead for lead in await world.leads() if lead.disposition == "interrupted"]
            assert len(stopped) == 12

    play(network, story)


def test_people_left_without_an_agent_stop_the_campaign_and_it_says_why(play: Play) -> None:
    def late(callee: Callee, order: OutgoingOrder) -> tuple[float | None, float, OutgoingResult]:
        return human(completed=False, greeted_at=1e9, talk_s=3.0)

    network = Network(late)

    async def story(world: World) -> None:
        await world.make(200, pacing={"max_calls": 2, "calls_per_s": 10, "max_abandoned_percent": 3.0})
        async with world.box():
            await world.until("paused")
            async with world.store("operator") as operator:
                row = await operator.campaign("spring")
                assert "of the last" in row.state_reason
                assert "were abandoned" in row.state_reason
                before = len(network.began)
                assert before <= 4
                await operator.set_state("spring", "running")
                await asyncio.sleep(20.0)
                assert len(network.began) > before

    play(network, story)


def test_a_trunk_that_fails_is_left_alone_and_tried_again(play: Play) -> None:
    broken = [True]
    network = Network(lambda callee, order: refused(503) if broken[0] else human(talk_s=1.0))

    async def story(world: World) -> None:
        pacing = {"max_calls": 10, "calls_per_s": 10, "breaker": {"failures": 5, "of_last": 10, "pause_s": 60}}
        await world.make(100, pacing=pacing)
        async with world.box() as box:
            await asyncio.sleep(30.0)
            failed = len(network.began)
            assert failed < 20
            assert box.stats.open_breakers == {""}
            await asyncio.sleep(60.0)
            assert len(network.began) == failed + 1
            broken[0] = False
            await world.until("finished")
            assert {lead.disposition for lead in await world.leads()} == {"completed"}
            assert box.stats.open_breakers == set()

    play(network, story)


def test_a_callback_that_was_agreed_on_is_made_at_its_time(play: Play) -> None:
    def answer(callee: Callee, order: OutgoingOrder) -> tuple[float | None, float, OutgoingResult]:
        if len(callee.calls) > 1:
            return human()
        return human(callback_at=world_clock[0].utc() + timedelta(minutes=5))

    world_clock: list[WorldClock] = []
    network = Network(answer)

    async def story(world: World) -> None:
        world_clock.append(world.clock)
        await world.make(1, attempts={"per_lead": 5, "per_number_per_day": 5, "per_number_total": 9, "gap_s": 14400})
        await whole(world)
        (lead,) = await world.leads()
        assert (lead.state, lead.disposition, lead.attempts) == ("done", "completed", 2)

    play(network, story)
    assert [round(gap) for gap in network.gaps()] in ([300], [301], [302], [303], [304], [305], [306])


def test_a_database_that_is_away_stops_the_calls_and_loses_no_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(lambda callee, order: human(talk_s=30.0))
    away = [False]
    tried = LeadQueue.begin_attempt, LeadQueue.finish_attempt, LeadQueue.claim, LeadQueue.watched

    def flaky(method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def call(*arguments: object, **named: object) -> object:
            if away[0]:
                raise StoreError("the server has gone away")
            return await method(*arguments, **named)

        return call

    for method in tried:
        monkeypatch.setattr(LeadQueue, method.__name__, flaky(method))

    async def story(world: World) -> None:
        await world.make(60, pacing={"max_calls": 10, "calls_per_s": 10})
        async with world.box() as box:
            await asyncio.sleep(10.0)
            assert network.active == 10
            away[0] = True
            await asyncio.sleep(60.0)
            assert (network.active, len(network.began)) == (0, 10)
            assert box.stats.unwritten == 10
            assert "gone away" in box.stats.problem
            away[0] = False
            await world.until("finished")
            assert (box.stats.unwritten, box.stats.problem) == (0, "")
        assert {(lead.disposition, lead.attempts) for lead in await world.leads()} == {("completed", 1)}

    play(network, story)
    assert [len(callee.calls) for callee in network.callees.values()] == [1] * 60


def test_the_webhook_is_told_of_every_lead_once(play: Play) -> None:
    network = Network(outcomes)

    async def story(world: World) -> None:
        rule = {"after_s": 60, "times": 1, "best_hour": False}
        await world.make(
            20,
            retry=dict.fromkeys(("busy", "no_answer", "machine", "rejected"), rule),
            webhook={"url": "https://hooks.example.com/leads", "secret": "hook"},
        )
        await whole(world)

    world = play(network, story)
    assert {(event.plugin, event.event) for event in world.sent} == {(CAMPAIGNS, "campaign.lead")}
    assert len(world.sent) == len({event.body for event in world.sent}) == 20
    assert sum('"disposition":"busy"' in event.body for event in world.sent) == 2
    assert sum('"slots":{"day":"tuesday"}' in event.body for event in world.sent) == 2


@pytest.mark.parametrize("by_s", [7200.0, -7200.0, 90 * 86400.0, -90 * 86400.0])
def test_a_clock_that_is_set_neither_calls_within_the_gap_nor_strands_anybody(play: Play, by_s: float) -> None:
    network = Network(lambda callee, order: refused(486) if len(callee.calls) < 3 else human())

    async def story(world: World) -> None:
        await world.make(10, attempts={"per_lead": 9, "per_number_per_day": 9, "per_number_total": 9, "gap_s": 120})
        async with world.box():
            await asyncio.sleep(50.0)
            world.clock.step_s = by_s
            await world.until("finished", limit_s=1000.0)
        assert {lead.disposition for lead in await world.leads()} == {"completed"}

    play(network, story)
    assert min(network.gaps()) >= 120.0


def test_two_boxes_share_a_campaign_and_one_takes_over_when_the_other_dies(play: Play) -> None:
    network = Network(lambda callee, order: human(talk_s=10.0))

    async def story(world: World) -> None:
        await world.make(150, pacing={"max_calls": 20, "calls_per_s": 20})
        async with world.box("one"), world.store("two") as dying:
            dies = Mortal(world, dying, steps=None)
            living = asyncio.create_task(dies.live())
            await asyncio.sleep(30.0)
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            cut_off = [attempt for attempt in await world.attempts() if attempt.ended_at is None]
            assert {attempt.box for attempt in cut_off} == {"one", "two"}
            await world.until("finished")
        assert {(lead.state, lead.disposition) for lead in await world.leads()} == {("done", "completed")}
        assert "interrupted" in {attempt.disposition for attempt in await world.attempts()}

    play(network, story)
    assert len(network.callees) == 150
    assert min(network.gaps()) >= 60.0
    assert network.peak <= 20


class Slow(Network):
    """Calls take three seconds from their beginning to leave."""

    async def call(
        self, order: OutgoingOrder, progress: Callable[[str, float], None] = lambda what, at: None
    ) -> OutgoingResult:
        await asyncio.sleep(3.0)
        return await super().call(order, progress)


def test_nobody_is_called_after_the_hours_because_those_before_were_slow_to_leave(play: Play) -> None:
    network = Slow(lambda callee, order: human(talk_s=5.0))

    async def story(world: World) -> None:
        hours = {"default": {"days": "mon-sun", "hours": "09:00-12:02"}}
        await world.make(100, windows=hours, pacing={"max_calls": 100, "calls_per_s": 50})
        async with world.box():
            await asyncio.sleep(600.0)

    play(network, story)
    assert 10 < len(network.began) < 40
    assert max(network.began) - min(network.began) < 120.0


def test_a_campaign_that_is_stopped_and_started_at_once_tells_how_its_calls_end(play: Play) -> None:
    network = Network(lambda callee, order: refused(486, 20.0))

    async def story(world: World) -> None:
        await world.make(40, pacing={"max_calls": 5, "calls_per_s": 10})
        async with world.box() as box, world.store("operator") as operator:
            await asyncio.sleep(10.0)
            await operator.set_state("spring", "stopped")
            desk = next(iter(box._desks.values()))
            await box.look()
            assert desk._stopped
            await operator.set_state("spring", "running")
            await box.look()
            await asyncio.sleep(60.0)
        ended = Counter(attempt.disposition for attempt in await world.attempts() if attempt.ended_at is not None)
        assert ended["busy"] >= 10

    play(network, story)


def test_what_calls_came_to_is_written_however_long_it_takes_after_a_stop(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(lambda callee, order: human(talk_s=60.0))
    finish = LeadQueue.finish_attempt

    async def slow(*arguments: object, **named: object) -> object:
        await asyncio.sleep(5.0)
        return await finish(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(LeadQueue, "finish_attempt", slow)

    async def story(world: World) -> None:
        await world.make(20, pacing={"max_calls": 5, "calls_per_s": 10})
        async with world.box() as box, world.store("operator") as operator:
            await asyncio.sleep(10.0)
            await operator.set_state("spring", "stopped")
            await asyncio.sleep(15.0)
            assert {attempt.detail for attempt in await world.attempts()} == {"the campaign was stopped"}
            assert not box._desks

    play(network, story)
