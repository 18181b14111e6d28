"""Campaigns in the database: made, filled, claimed, called once and no more, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from appliance.campaigns.importer import CampaignLeads
from appliance.errors import StoreError
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.calls import CallStore
from appliance.store.campaign_database import CampaignDatabase
from appliance.store.campaign_rows import AttemptRow, CampaignState, Lead, LeadNext, NewLead, Refused
from appliance.store.campaigns import CampaignStore
from tests.store.campaign_facts import GAP_S, LEASE_S, HandClock, begin, ended_as, new_leads, numbers, running
from tests.store.clusters import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'campaigns.db'}"
    return await emptied(request.getfixturevalue("cluster"))


async def emptied(cluster: Cluster) -> str:
    """The URL of the cluster's database, with nothing in it."""
    engine = create_async_engine(cluster.url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("drop schema public cascade")
        await connection.exec_driver_sql("create schema public")
    await engine.dispose()
    return cluster.url


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, clock: HandClock) -> HandClock:
    """PostgreSQL's clock is moved by hand, too."""

    async def now_in(self: CampaignDatabase, connection: AsyncConnection) -> object:
        self._anchor = clock.utc(), clock.monotonic()
        return clock.utc()

    monkeypatch.setattr(CampaignDatabase, "now_in", now_in)
    return clock


@pytest.fixture
async def store(url: str, by_hand: HandClock) -> AsyncIterator[CampaignStore]:
    async with CampaignStore(url, box="one", clock=by_hand) as store:
        yield store


@pytest.fixture
async def other(url: str, by_hand: HandClock, store: CampaignStore) -> AsyncIterator[CampaignStore]:
    """The same database, as another box has it."""
    async with CampaignStore(url, box="two", clock=by_hand) as other:
        yield other


async def all_leads(store: CampaignStore, name: str = "spring") -> list[Lead]:
    return [lead async for lead in store.leads(name)]


async def all_attempts(store: CampaignStore, name: str = "spring") -> list[AttemptRow]:
    return [attempt async for attempt in store.attempts(name)]


# --- what operators do ------------------------------------------------------------------------------------------------


async def test_an_import_goes_to_either_database(store: CampaignStore) -> None:
    campaign_id = await store.create("spring", {})
    leads = CampaignLeads(store, campaign_id)
    rows = [NewLead(row=line, number=f"+1202555{line:04}") for line in range(2, 8)]
    await store.refuse([rows[0].number], source="test", campaign_id=campaign_id)
    assert await leads.insert(rows[:4]) == 4
    assert await leads.insert(rows[2:]) == 2
    assert set(await leads.listed([row.number for row in rows])) == {rows[0].number}
    assert set(await leads.known([rows[5].number, "+12025559999"])) == {rows[5].number}
    assert (await store.counts("spring")).total == 6


async def test_a_campaign_is_made_changed_and_deleted(store: CampaignStore) -> None:
    campaign_id = await store.create("spring", {"line": "recall"})
    with pytest.raises(StoreError, match="there is a campaign 'spring' already"):
        await store.create("spring", {})
    assert await store.definition_of("spring") == {"line": "recall"}
    assert await store.edit("spring", {"line": "other"}, revision=1) == 2
    with pytest.raises(StoreError, match="at revision 2, not 1; look at it again"):
        await store.edit("spring", {"line": "third"}, revision=1)
    (campaign,) = await store.campaigns()
    assert (campaign.id, campaign.definition, campaign.state) == (campaign_id, {"line": "other"}, "created")
    await store.insert_leads(campaign_id, new_leads(3))
    await store.set_state("spring", "running")
    with pytest.raises(StoreError, match="is running; stop it before"):
        await store.delete("spring")
    await store.set_state("spring", "stopped")
    assert await store.delete("spring") == 3
    with pytest.raises(StoreError, match="there is no campaign 'spring'; see `appliance campaign list`"):
        await store.campaign("spring")


async def test_states_follow_one_another_as_the_table_says(store: CampaignStore) -> None:
    await store.create("spring", {})
    with pytest.raises(StoreError, match="is created and cannot be paused next; it can be: running, stopped"):
        await store.set_state("spring", "paused")
    assert await store.set_state("spring", "running", "by hand") is CampaignState.CREATED
    assert await store.set_state("spring", "running") is CampaignState.RUNNING
    assert await store.set_state("spring", "paused", "too many abandoned") is CampaignState.RUNNING
    assert (await store.campaign("spring")).state_reason == "too many abandoned"


async def test_leads_are_added_once_a_number(store: CampaignStore) -> None:
    campaign_id = await store.create("spring", {})
    assert await store.insert_leads(campaign_id, new_leads(2500)) == (2500, [])
    assert await store.insert_leads(campaign_id, new_leads(3, first=2498)) == (1, [2500, 2501])
    twice = [NewLead(row=1, number="+12025559000"), NewLead(row=2, number="+12025559000")]
    assert await store.insert_leads(campaign_id, twice) == (1, [2])
    assert await store.known_numbers(campaign_id, ["+12025559000", "+12025559001"]) == {"+12025559000"}
    leads = await all_leads(store)
    assert [lead.row for lead in leads[:3]] == [2, 3, 4]
    assert len({lead.number for lead in leads}) == len(leads) == 2502
    counts = await store.counts("spring")
    assert (counts.total, counts.waiting, counts.attempts, counts.by_disposition) == (2502, 2502, 0, {})
    with pytest.raises(StoreError, match="there is no campaign 'nothing'"):
        await store.insert_leads("nothing", new_leads(1))


async def test_do_not_call_lists(store: CampaignStore) -> None:
    campaign_id = await store.create("spring", {})
    one, two, three = numbers(3)
    assert await store.refuse([one, one, two], source="registry") == 2
    assert await store.refuse([one, two, three], source="theirs.csv", campaign_id=campaign_id) == 3
    assert await store.refuse([one], source="again") == 0
    assert await store.on_lists(campaign_id, [one, two, three]) == {one, two, three}
    assert await store.on_lists("other", [one, two, three]) == {one, two}
    assert [entry[0] async for entry in store.refused()] == [one, two]
    assert [entry[2] async for entry in store.refused(campaign_id=campaign_id)] == ["theirs.csv"] * 3
    assert await store.allow(three, campaign_id=campaign_id)
    assert not await store.allow(three)
    with pytest.raises(StoreError, match="'nobody' is no number"):
        await store.refuse(["nobody"], source="")


# --- a lead from being claimed to being done --------------------------------------------------------------------------


async def test_a_lead_is_claimed_called_put_back_and_called_again_once_the_gap_is_over(
    store: CampaignStore, clock: HandClock
) -> None:
    queue = store.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 10, LEASE_S)
        assert (lead.state, lead.claimed_by, lead.attempts) == ("claimed", "one", 0)
        assert await queue.claim(campaign_id, 10, LEASE_S) == []
        begun = await begin(queue, lead, "c1")
        assert (begun.refused, begun.started_at) == (None, clock.utc())
        assert await queue.calling(campaign_id) == 1
        clock.forward(30)
        await queue.note("c1", ringing_at=clock.utc())
        end = ended_as("busy", clock.utc(), sip_code=486, sip_text="Busy Here")
        assert await queue.finish_attempt("c1", end, LeadNext("busy", clock.utc() + timedelta(seconds=1)))
        (lead,) = await all_leads(store)
        assert (lead.state, lead.disposition, lead.attempts, lead.attempts_by) == ("waiting", "busy", 1, {"busy": 1})
        assert (lead.sip_code, lead.call_id, lead.claimed_by, lead.claim_token) == (486, "c1", "", "")
        clock.forward(GAP_S - 31)
        assert await queue.claim(campaign_id, 10, LEASE_S) == []
        clock.forward(1)
        (lead,) = await queue.claim(campaign_id, 10, LEASE_S)
        assert (await begin(queue, lead, "c2")).refused is None
        end = ended_as("completed", clock.utc(), answered_at=clock.utc(), talk_s=12.5, slots={"day": "tuesday"})
        event = NewEvent("evt_1", "@campaigns", campaign_id, "recall", "c2", "campaign.lead", "{}", clock.utc())
        assert await queue.finish_attempt("c2", end, LeadNext("completed"), [event])
    counts = await store.counts("spring")
    assert (counts.done, counts.by_disposition, counts.answered) == (1, {"completed": 1}, 1)
    assert counts.talk_s == 12.5
    first, second = sorted(await all_attempts(store), key=lambda attempt: attempt.call_id)
    assert (first.disposition, first.sip_code, first.ringing_at) == ("busy", 486, first.ended_at)
    assert (second.disposition, second.box) == ("completed", "one")
    (lead,) = await all_leads(store)
    assert (lead.state, lead.slots, lead.attempts_by) == ("done", {"day": "tuesday"}, {"busy": 1, "completed": 1})
    assert await queue.settle(campaign_id) is CampaignState.FINISHED
    assert await queue.settle(campaign_id) is None


async def test_an_end_that_is_told_twice_changes_nothing_and_is_told_to_webhooks_once(
    store: CampaignStore, clock: HandClock, url: str
) -> None:
    queue = store.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 1, LEASE_S)
        await begin(queue, lead, "c1")
        event = NewEvent("evt_1", "@campaigns", campaign_id, "recall", "c1", "campaign.lead", "{}", clock.utc())
        again = NewEvent("evt_2", "@campaigns", campaign_id, "recall", "c1", "campaign.lead", "{}", clock.utc())
        end = ended_as("answered", clock.utc())
        assert await queue.finish_attempt("c1", end, LeadNext("answered"), [event])
        assert not await queue.finish_attempt("c1", ended_as("failed", clock.utc()), LeadNext("failed"), [again])
        assert not await queue.finish_attempt("unheard of", end, LeadNext("answered"))
    assert [lead.disposition for lead in await all_leads(store)] == ["answered"]
    async with CallStore(url, box="one") as calls:
        waiting = await calls.webhook_queue.waiting()
    assert [count for count, _ in waiting.values()] == [1]


async def test_an_attempt_begins_once_however_often_it_is_asked_for(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 1, LEASE_S)
        first = await begin(queue, lead, "c1")
        assert await begin(queue, lead, "c1") == first
        assert (await begin(queue, lead, "c2")).refused is Refused.GAP
    (lead,) = await all_leads(store)
    assert lead.attempts == 1
    assert (await store.contacts([lead.number]))[lead.number].total_attempts == 1


async def test_what_must_hold_is_looked_at_when_the_attempt_begins(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 5) as campaign_id:
        leads = await queue.claim(campaign_id, 5, LEASE_S)
        assert (await begin(queue, leads[0], "c0", spacing_s=0.5)).refused is None
        late = await begin(queue, leads[1], "c1")
        assert (late.refused, late.until) == (Refused.RATE, clock.utc() + timedelta(seconds=0.5))
        clock.forward(0.5)
        assert (await begin(queue, leads[1], "c1", max_calls=1)).refused is Refused.ROOM
        await store.refuse([leads[1].number], source="registry")
        assert (await begin(queue, leads[1], "c1")).refused is Refused.DO_NOT_CALL
        await store.refuse([leads[2].number], source="theirs", campaign_id=campaign_id)
        assert (await begin(queue, leads[2], "c2")).refused is Refused.DO_NOT_CALL
        assert (await begin(queue, leads[3], "c3", per_lead=0)).refused is Refused.LEAD
        assert (await begin(queue, leads[3], "c3", per_number=0)).refused is Refused.TOTAL
        assert (await begin(queue, leads[3], "c3", per_day=0)).refused is None  # the first of a day is looked at before
        await store.set_state("spring", "paused")
        assert (await begin(queue, leads[4], "c4")).refused is Refused.STATE
        await store.set_state("spring", "running")
        await queue.release([(leads[4], None, "not now")])
        assert (await begin(queue, leads[4], "c4")).refused is Refused.CLAIM
    assert sorted(attempt.call_id for attempt in await all_attempts(store)) == ["c0", "c3"]


async def test_the_budget_of_a_number_holds_over_all_campaigns(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 1, "spring") as spring, running(store, 1, "summer") as summer:
        (one,) = await queue.claim(spring, 1, LEASE_S)
        (two,) = await queue.claim(summer, 1, LEASE_S)
        assert (await begin(queue, one, "c1")).refused is None
        refused = await begin(queue, two, "c2")
        assert (refused.refused, refused.until) == (Refused.GAP, clock.utc() + timedelta(seconds=GAP_S))
        clock.forward(GAP_S)
        assert (await begin(queue, two, "c2", per_day=1)).refused is Refused.DAY
        assert (await begin(queue, two, "c2", per_day=1, day="2026-03-03")).refused is None
        contact = (await store.contacts([one.number]))[one.number]
        assert (contact.day, contact.day_attempts, contact.total_attempts) == ("2026-03-03", 1, 2)
        clock.forward(GAP_S)
        await queue.finish_attempt("c2", ended_as("busy", clock.utc()), LeadNext("busy", clock.utc()))
        (two,) = await queue.claim(summer, 1, LEASE_S)
        assert (await begin(queue, two, "c3", per_number=2)).refused is Refused.TOTAL


async def test_a_time_that_was_agreed_on_comes_first_and_may_lie_within_the_gap(
    store: CampaignStore, clock: HandClock
) -> None:
    queue = store.queue
    async with running(store, 3) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 1, LEASE_S)
        await begin(queue, lead, "c1")
        at = clock.utc() + timedelta(minutes=10)
        await queue.finish_attempt("c1", ended_as("answered", clock.utc()), LeadNext("answered", at, at))
        clock.forward(600)
        (again,) = await queue.claim(campaign_id, 1, LEASE_S)
        assert (again.id, again.callback_at) == (lead.id, at)
        assert (await begin(queue, again, "c2")).refused is Refused.GAP
        assert (await begin(queue, again, "c2", agreed=True)).refused is None
        # Should the box stop now, the person is not called again at once.
        assert await queue.recover() == 1
        clock.forward(GAP_S - 1)
        assert lead.id not in [one.id for one in await queue.claim(campaign_id, 10, LEASE_S)]


async def test_one_who_opts_out_is_done_with_in_every_campaign(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 2, "spring") as spring, running(store, 2, "summer") as summer:
        (calling, _) = await queue.claim(spring, 2, LEASE_S)
        await begin(queue, calling, "c1")
        told: list[int] = []

        def tell(lead: Lead) -> list[NewEvent]:
            told.append(lead.id)
            return [NewEvent("evt_1", "@campaigns", summer, "recall", "", "campaign.lead", "{}", clock.utc())]

        closed = await queue.opt_out(calling.number, reason="stop calling me", call_id="c1", tell=tell)
        assert [(lead.number, lead.campaign_id) for lead in closed] == [(calling.number, summer)]
        assert told == [closed[0].id]
        await queue.finish_attempt("c1", ended_as("opted_out", clock.utc()), LeadNext("opted_out"))
        counts = [(await store.counts(name)).by_disposition for name in ("spring", "summer")]
        assert counts == [{"opted_out": 1}, {"opted_out": 1}]
        with pytest.raises(StoreError, match="is no number"):
            await queue.opt_out("nobody", reason="")


async def test_who_is_never_to_be_called_is_done_with(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 1, LEASE_S)
        assert await queue.close(lead, LeadNext("refused", detail="no consent on record"))
        assert not await queue.close(lead, LeadNext("refused"))
        (lead,) = await all_leads(store)
        assert (lead.state, lead.disposition, lead.detail) == ("done", "refused", "no consent on record")
        assert await queue.settle(campaign_id) is CampaignState.FINISHED


async def test_a_drained_campaign_stops_when_its_last_call_is_over(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 2) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 1, LEASE_S)
        await begin(queue, lead, "c1")
        await store.set_state("spring", "draining")
        assert await queue.settle(campaign_id) is None
        assert [one.id for one in await queue.watched()] == [campaign_id]
        await queue.finish_attempt("c1", ended_as("completed", clock.utc()), LeadNext("completed"))
        assert await queue.settle(campaign_id) is CampaignState.STOPPED
        assert await queue.watched() == []
        assert [one.state for one in await queue.watched([campaign_id])] == ["stopped"]


# --- several boxes, and boxes that die --------------------------------------------------------------------------------


async def test_no_lead_is_claimed_by_two_boxes(store: CampaignStore, other: CampaignStore) -> None:
    async with running(store, 200) as campaign_id:
        claims = await asyncio.gather(
            *(queue.claim(campaign_id, 7, LEASE_S) for _ in range(20) for queue in (store.queue, other.queue))
        )
    ids = [lead.id for claim in claims for lead in claim]
    assert len(ids) == len(set(ids)) == 200


async def test_a_lease_that_is_over_gives_the_lead_to_another_box_behind_the_gap(
    store: CampaignStore, other: CampaignStore, clock: HandClock
) -> None:
    mine, theirs = store.queue, other.queue
    async with running(store, 2) as campaign_id:
        called, claimed = await mine.claim(campaign_id, 2, LEASE_S)
        await begin(mine, called, "c1")
        clock.forward(LEASE_S - 1)
        assert await mine.renew([called.id], LEASE_S) == 1
        clock.forward(2)
        assert await theirs.expire() == 1  # the one that was not renewed
        (taken,) = await theirs.claim(campaign_id, 5, LEASE_S)
        assert taken.id == claimed.id
        assert (await begin(mine, claimed, "c2")).refused is Refused.CLAIM
        assert await mine.renew([claimed.id], LEASE_S) == 0
        assert await mine.release([(claimed, None, "")]) == 0
        clock.forward(LEASE_S)
        assert await theirs.expire() == 1  # the other box has gone silent
        (attempt,) = await all_attempts(store)
        assert (attempt.disposition, attempt.detail) == ("interrupted", "box one stopped during the call")
        clock.forward(GAP_S - 2 * LEASE_S - 2)
        assert called.id not in [lead.id for lead in await theirs.claim(campaign_id, 5, LEASE_S)]
        clock.forward(LEASE_S)
        assert [lead.id for lead in await theirs.claim(campaign_id, 5, LEASE_S)] == [called.id]


async def test_the_end_of_a_call_counts_although_its_lease_was_taken_for_over(
    store: CampaignStore, other: CampaignStore, clock: HandClock
) -> None:
    mine = store.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await mine.claim(campaign_id, 1, LEASE_S)
        await begin(mine, lead, "c1")
        clock.forward(LEASE_S + 1)
        assert await other.queue.expire() == 1
        assert await mine.finish_attempt("c1", ended_as("completed", clock.utc()), LeadNext("completed"))
        (lead,) = await all_leads(store)
        assert (lead.state, lead.disposition, lead.attempts_by) == (
            "done",
            "completed",
            {"interrupted": 0, "completed": 1},
        )
        assert [attempt.disposition for attempt in await all_attempts(store)] == ["completed"]


async def test_an_end_that_comes_after_the_lead_was_called_again_leaves_the_lead_alone(
    store: CampaignStore, other: CampaignStore, clock: HandClock
) -> None:
    mine, theirs = store.queue, other.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await mine.claim(campaign_id, 1, LEASE_S)
        await begin(mine, lead, "c1")
        clock.forward(GAP_S + 1)
        await theirs.expire()
        (lead,) = await theirs.claim(campaign_id, 1, LEASE_S)
        await begin(theirs, lead, "c2")
        assert not await mine.finish_attempt("c1", ended_as("completed", clock.utc()), LeadNext("completed"))
        (lead,) = await all_leads(store)
        assert (lead.state, lead.call_id) == ("claimed", "c2")


async def test_a_box_takes_back_at_its_start_what_it_had_and_nobody_elses(
    store: CampaignStore, other: CampaignStore, clock: HandClock
) -> None:
    mine, theirs = store.queue, other.queue
    async with running(store, 4) as campaign_id:
        called, _claimed = await mine.claim(campaign_id, 2, LEASE_S)
        await begin(mine, called, "c1")
        (foreign,) = await theirs.claim(campaign_id, 1, LEASE_S)
        await begin(theirs, foreign, "c2")

        def decide(lead: Lead, attempt: AttemptRow) -> tuple[LeadNext, list[NewEvent]]:
            assert (lead.call_id, attempt.call_id) == ("c1", "c1")
            return LeadNext("interrupted", clock.utc() + timedelta(days=1), detail="cut off"), []

        assert await mine.open_attempts() == ["c1"]
        assert await mine.recover(decide) == 2
        assert await mine.open_attempts() == []
        assert await theirs.open_attempts() == ["c2"]
        states = {lead.id: lead for lead in await all_leads(store)}
        assert states[foreign.id].state == "claimed"
        assert (states[called.id].next_at, states[called.id].detail) == (clock.utc() + timedelta(days=1), "cut off")
        assert (states[called.id].attempts, states[called.id].attempts_by) == (1, {"interrupted": 1})
        assert await mine.recover(decide) == 0


async def test_calls_of_which_nothing_is_known_any_more_are_closed(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 2) as campaign_id:
        one, two = await queue.claim(campaign_id, 2, LEASE_S)
        await begin(queue, one, "c1")
        await begin(queue, two, "c2")
        assert await queue.interrupt([]) == 0
        assert await queue.interrupt(["c1"]) == 1
        assert await queue.open_attempts() == ["c2"]
        assert {lead.state for lead in await all_leads(store)} == {"waiting", "claimed"}


async def test_the_newest_attempts_are_told_newest_first(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 3) as campaign_id:
        for number, lead in enumerate(await queue.claim(campaign_id, 3, LEASE_S)):
            await begin(queue, lead, f"c{number}")
            clock.forward(1)
            at = clock.utc() if number else None
            end = ended_as("answered" if number else "busy", clock.utc(), answered_at=at, abandoned=number == 2)
            await queue.finish_attempt(f"c{number}", end, LeadNext(end.disposition))
        newest = await queue.last_attempts(campaign_id, 2)
    assert [(attempt.call_id, attempt.abandoned) for attempt in newest] == [("c2", True), ("c1", False)]


@pytest.mark.parametrize("by_s", [3600.0, -3600.0, -86400.0, 86400.0])
async def test_a_clock_that_was_wrong_at_start_frees_no_number_within_its_gap(tmp_path: Path, by_s: float) -> None:
    """Called before a restart; then the machine starts with a clock that is off, and sets it right."""
    url, clock = f"sqlite+aiosqlite:///{tmp_path / 'campaigns.db'}", HandClock()
    async with CampaignStore(url, box="one", clock=clock) as store, running(store, 1) as campaign_id:
        (lead,) = await store.queue.claim(campaign_id, 1, LEASE_S)
        assert (await begin(store.queue, lead, "call-1")).refused is None
    clock.forward(60.0)
    clock.step(-by_s)
    async with CampaignStore(url, box="one", clock=clock) as store:
        await store.queue.recover()
        clock.forward(5.0)
        clock.step(by_s)
        await store.now()
        await store.queue.clock_stepped(store.stepped_s())
        due = await store.queue.next_due(campaign_id)
        contact = (await store.contacts([lead.number]))[lead.number]
        assert contact.last_started_at is not None
        assert -90.0 < (contact.last_started_at - clock.utc()).total_seconds() <= 0.0
        assert due is not None and due - clock.utc() <= timedelta(seconds=GAP_S)


async def test_the_clock_is_set_in_one_go_however_many_leads_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, statements = HandClock(), 0
    async with CampaignStore(f"sqlite+aiosqlite:///{tmp_path / 'c.db'}", clock=clock) as store, running(store, 500):

        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        event.listen(store._database.engine.sync_engine, "before_cursor_execute", count)
        clock.step(7200.0)
        await store.queue.clock_stepped(7200.0)
    assert statements < 10


async def test_a_lead_is_not_given_back_whose_attempt_began_unheard(store: CampaignStore, clock: HandClock) -> None:
    queue = store.queue
    async with running(store, 1) as campaign_id:
        (lead,) = await queue.claim(campaign_id, 1, LEASE_S)
        await begin(queue, lead, "c1")
        assert await queue.release([(lead, None, "the database did not answer")]) == 0
        assert await queue.calling(campaign_id) == 1
        clock.forward(LEASE_S + 1)
        assert await queue.expire() == 1
        assert await queue.calling(campaign_id) == 0
        assert await queue.claim(campaign_id, 1, LEASE_S) == []


# --- clocks -----------------------------------------------------------------------------------------------------------


class SkewedClock:
    """A machine whose wall clock is wrong."""

    def __init__(self, by_s: float) -> None:
        self._by = timedelta(seconds=by_s)

    def utc(self) -> datetime:
        return datetime.now(UTC) + self._by

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.mark.peer
async def test_boxes_whose_clocks_differ_go_by_the_servers(cluster: Cluster) -> None:
    url = await emptied(cluster)
    behind, ahead = SkewedClock(-120.0), SkewedClock(120.0)
    async with (
        CampaignStore(url, box="behind", clock=behind) as one,
        CampaignStore(url, box="ahead", clock=ahead) as two,
        running(one, 2) as campaign_id,
    ):
        assert abs((await one.now() - await two.now()).total_seconds()) < 30
        (first,) = await one.queue.claim(campaign_id, 1, LEASE_S)
        assert (await begin(one.queue, first, "c1", gap_s=90.0)).refused is None
        end = ended_as("busy", one.time())
        await one.queue.finish_attempt("c1", end, LeadNext("busy", one.time()))
        # By its own clock, the gap has long been over.
        assert first.id not in [lead.id for lead in await two.queue.claim(campaign_id, 5, LEASE_S)]
        (claimed,) = [lead for lead in await all_leads(one) if lead.state == "claimed"]
        assert await two.queue.expire() == await one.queue.expire() == 0
        assert claimed.lease_until is not None
        assert 0 < (claimed.lease_until - await one.now()).total_seconds() <= LEASE_S


async def test_a_clock_that_was_set_back_while_the_box_was_down_strands_nobody(
    tmp_path: Path, clock: HandClock
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'campaigns.db'}"
    async with CampaignStore(url, box="one", clock=clock) as store, running(store, 1) as campaign_id:
        (lead,) = await store.queue.claim(campaign_id, 1, LEASE_S)
        await begin(store.queue, lead, "c1")
    clock.step(-30 * 86400.0)
    async with CampaignStore(url, box="one", clock=clock) as store:
        assert await store.queue.clock_was_ahead() == 30 * 86400.0
        assert await store.queue.clock_was_ahead() == 0.0
        assert await store.queue.recover() == 1
        clock.forward(GAP_S - 1)
        assert await store.queue.claim(campaign_id, 1, LEASE_S) == []
        clock.forward(1)
        assert len(await store.queue.claim(campaign_id, 1, LEASE_S)) == 1


@pytest.mark.parametrize("told", ["2025550000", "12025550000", "(202) 555-0000", "+1 202 555 0000"])
async def test_a_wish_is_kept_however_the_carrier_told_the_number(store: CampaignStore, told: str) -> None:
    async with running(store, 1) as campaign_id:
        (lead,) = await store.queue.claim(campaign_id, 1, LEASE_S)
        await store.refuse([told], source="said so in a call to us")
        assert (await begin(store.queue, lead, "call-1")).refused is Refused.DO_NOT_CALL
