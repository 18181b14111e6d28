"""The leads of campaigns as boxes call them: claimed for a while, called once, and put back or done with.

Every step is one transaction, and may be made twice. What holds at any instant, whoever dies then:

- An attempt is committed (:meth:`LeadQueue.begin_attempt`) before anything is sent. In the same transaction the
  number's budget is taken and the lead's next call is put behind the gap: so nobody calls it again within, whatever
  comes.
- A lead is ``waiting``, ``claimed`` until its lease is over, or ``done``. A lease that is over gives the lead back.
- A claim has a token. A box whose claim was taken from it cannot use it: it finds another token there.

docs/decisions/0026-leases.md has the reasons.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy import Table, and_, bindparam, case, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from appliance.errors import StoreError
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store import campaign_models  # noqa: F401  (its tables belong to the metadata)
from appliance.store.callers import plain_number
from appliance.store.campaign_database import STEP_S, CampaignDatabase
from appliance.store.campaign_rows import (
    AttemptEnd,
    AttemptLimits,
    AttemptRow,
    Begun,
    CampaignRow,
    CampaignState,
    Lead,
    LeadNext,
    Refused,
)
from appliance.store.campaign_sql import MAX_TEXT, UNCLAIMED, calling, claimed, ended, lead_of, moved, refuses, waiting
from appliance.store.models import Base
from appliance.store.webhooks import row_of

_tables = Base.metadata.tables
_campaigns: Table = _tables["campaigns"]
_leads: Table = _tables["leads"]
_attempts: Table = _tables["attempts"]
_contacts: Table = _tables["contacts"]
_everybody: Table = _tables["do_not_call"]
_of_campaign: Table = _tables["campaign_do_not_call"]
_events: Table = _tables["webhook_events"]

INTERRUPTED: Final = "interrupted"
OPTED_OUT: Final = "opted_out"
_PRIORITIES: Final = (0, 1, 2)
"""Of leads: a callback that was agreed on, called before, new."""
_TOGETHER: Final = 100

Decide: TypeAlias = Callable[[Lead, AttemptRow], tuple[LeadNext, Sequence[NewEvent]]]
"""What becomes of a lead whose attempt was cut off, and which webhooks are told; without side effects."""

Tell: TypeAlias = Callable[[Lead], Sequence[NewEvent]]
"""What webhooks are told of a lead that is done; without side effects."""


class LeadQueue:
    """Claims, calls and returns leads for one box. Made by ``CampaignStore.queue``.

    All methods raise StoreError where the database does not answer: then nothing is to be dialled.
    """

    def __init__(self, database: CampaignDatabase, box: str) -> None:
        self._database = database
        self._box = box

    @property
    def box(self) -> str:
        return self._box

    # --- looking --------------------------------------------------------------------------------------------------

    async def watched(self, also: Collection[str] = ()) -> list[CampaignRow]:
        """The campaigns that run or are being drained, and those of the ids in ``also``, the oldest first."""
        calling = (CampaignState.RUNNING.value, CampaignState.DRAINING.value)
        query = (
            select(_campaigns)
            .where(or_(_campaigns.c.state.in_(calling), _campaigns.c.id.in_(list(also))))
            .order_by(_campaigns.c.created_at, _campaigns.c.id)
        )
        rows = await self._database.rows(query)
        return [CampaignRow(**{**row._mapping, "state": CampaignState(row.state)}) for row in rows]

    async def open_attempts(self) -> list[str]:
        """Call ids of this box's attempts that have not been finished."""
        query = select(_attempts.c.call_id).where(_attempts.c.box == self._box, _attempts.c.ended_at.is_(None))
        return [row.call_id for row in await self._database.rows(query)]

    async def calling(self, campaign_id: str) -> int:
        """How many calls of the campaign go on now, over all boxes."""
        (row,) = await self._database.rows(select(calling(campaign_id).label("n")))
        return int(row.n)

    async def next_due(self, campaign_id: str) -> datetime | None:
        """When the first waiting lead is due; None where none waits."""
        due = func.min(_leads.c.next_at, type_=_leads.c.next_at.type)
        firsts = [select(due).where(waiting(campaign_id, one)).scalar_subquery() for one in _PRIORITIES]
        (row,) = await self._database.rows(select(*firsts))
        return min((at for at in row if at is not None), default=None)

    async def last_attempts(self, campaign_id: str, limit: int) -> list[AttemptRow]:
        """The newest attempts of the campaign that are over, the newest first."""
        query = (
            select(_attempts)
            .where(_attempts.c.campaign_id == campaign_id, _attempts.c.ended_at.is_not(None))
            .order_by(_attempts.c.started_at.desc())
            .limit(limit)
        )
        return [AttemptRow(**row._mapping) for row in await self._database.rows(query)]

    # --- the steps of a lead --------------------------------------------------------------------------------------

    async def claim(self, campaign_id: str, limit: int, lease_s: float) -> list[Lead]:
        """Take leads that are due; nobody else has them until the lease is over.

        Args:
            campaign_id: whose leads.
            limit: how many at most.
            lease_s: for how long, unless it is renewed.
        """
        token = f"clm_{uuid.uuid4().hex}"

        async def write(connection: AsyncConnection) -> list[Lead]:
            mine = select(_leads).where(_leads.c.state == "claimed", _leads.c.claim_token == token)
            order = _leads.c.priority, _leads.c.next_at, _leads.c.id
            # The answer to an earlier commit may have been lost: then they have been claimed already.
            if rows := (await connection.execute(mine.order_by(*order))).all():
                return [lead_of(row) for row in rows]
            now = await self._database.now_in(connection)
            ids: list[int] = []
            for priority in _PRIORITIES:  # each by itself: the index then leads to those that are due, past the others
                due = (
                    select(_leads.c.id)
                    .where(waiting(campaign_id, priority), _leads.c.next_at <= now)
                    .order_by(_leads.c.next_at, _leads.c.id)
                    .limit(limit - len(ids))
                    .with_for_update(skip_locked=True)
                )
                ids += [row.id for row in await connection.execute(due)]
                if len(ids) >= limit:
                    break
            if not ids:
                return []
            claim = {
                "state": "claimed",
                "claimed_by": self._box,
                "claim_token": token,
                "lease_until": now + timedelta(seconds=lease_s),
            }
            await connection.execute(update(_leads).where(_leads.c.id.in_(ids)).values(claim))
            return [lead_of(row) for row in await connection.execute(mine.order_by(*order))]

        return await self._database.run(write)

    async def begin_attempt(
        self, lead: Lead, call_id: str, limits: AttemptLimits, *, lease_s: float, trunk: str = "", caller_id: str = ""
    ) -> Begun:
        """Commit that a lead is about to be called. Only after that may an INVITE leave.

        Everything that was looked at before is looked at again, and taken, in the same transaction: the claim, the
        campaign's state, the do-not-call lists, the number's budget and gap over all campaigns, and the campaign's
        calls at a time and per second over all boxes.
        """

        async def write(connection: AsyncConnection) -> Begun:
            there = select(_attempts.c.started_at).where(_attempts.c.call_id == call_id)
            if (row := (await connection.execute(there)).first()) is not None:
                return Begun(started_at=row.started_at)
            # Boxes queue here: what the campaign has at a time and per second is counted by one at a time.
            locked = select(_campaigns).where(_campaigns.c.id == lead.campaign_id).with_for_update(key_share=True)
            campaign = (await connection.execute(locked)).first()
            if campaign is None or campaign.state != CampaignState.RUNNING.value:
                return Begun(Refused.STATE)
            now = await self._database.now_in(connection)
            mine = select(_leads).where(claimed(lead)).with_for_update()
            current = (await connection.execute(mine)).first()
            if current is None:
                return Begun(Refused.CLAIM)
            if current.attempts >= limits.per_lead:
                return Begun(Refused.LEAD)
            if (await connection.execute(refuses(lead.campaign_id, lead.number))).scalar():
                return Begun(Refused.DO_NOT_CALL)
            if campaign.next_call_at is not None and campaign.next_call_at > now:
                return Begun(Refused.RATE, campaign.next_call_at)
            if (await connection.execute(select(calling(lead.campaign_id)))).scalar_one() >= limits.max_calls:
                return Begun(Refused.ROOM)
            refused = await self._take(connection, lead.number, limits, now)
            if refused is not None:
                return refused
            attempt = {
                "call_id": call_id,
                "lead_id": lead.id,
                "campaign_id": lead.campaign_id,
                "number": lead.number,
                "box": self._box,
                "trunk": trunk,
                "caller_id": caller_id,
                "started_at": now,
            }
            await connection.execute(_attempts.insert().values(attempt))
            change = {
                "attempts": current.attempts + 1,
                "last_at": now,
                "next_at": now + timedelta(seconds=limits.gap_s),
                "priority": 1,
                "callback_at": None,
                "lease_until": now + timedelta(seconds=lease_s),
                "call_id": call_id,
            }
            await connection.execute(update(_leads).where(_leads.c.id == lead.id).values(change))
            spaced = {"next_call_at": now + timedelta(seconds=limits.spacing_s)}
            await connection.execute(update(_campaigns).where(_campaigns.c.id == lead.campaign_id).values(spaced))
            return Begun(started_at=now)

        return await self._database.run(write)

    async def _take(
        self, connection: AsyncConnection, number: str, limits: AttemptLimits, now: datetime
    ) -> Begun | None:
        """Take one attempt out of the budget of a number, which all campaigns share; or why there is none."""
        empty = {"number": number, "day": "", "day_attempts": 0, "total_attempts": 0}
        await connection.execute(self._database.insert(_contacts).values(empty).on_conflict_do_nothing())
        c = _contacts.c
        gap = timedelta(seconds=limits.gap_s)
        today = c.day == limits.day
        free = [c.total_attempts < limits.per_number, or_(c.day != limits.day, c.day_attempts < limits.per_day)]
        if not limits.agreed:
            free.append(or_(c.last_started_at.is_(None), c.last_started_at <= now - gap))
        taken = {
            "last_started_at": now,
            "day": limits.day,
            "day_attempts": case((today, c.day_attempts + 1), else_=1),
            "total_attempts": c.total_attempts + 1,
        }
        statement = update(_contacts).where(c.number == number, *free).values(taken)
        if (await connection.execute(statement)).rowcount:
            return None
        row = (await connection.execute(select(_contacts).where(c.number == number))).one()
        if row.total_attempts >= limits.per_number:
            return Begun(Refused.TOTAL)
        if row.day == limits.day and row.day_attempts >= limits.per_day:
            return Begun(Refused.DAY)
        return Begun(Refused.GAP, row.last_started_at + gap)

    async def note(self, call_id: str, **what: Any) -> None:
        """Keep what is known of an attempt while it goes on: ``ringing_at``, ``answered_at``, ``verdict`` and its
        like."""
        statement = update(_attempts).where(_attempts.c.call_id == call_id, _attempts.c.ended_at.is_(None)).values(what)
        await self._database.run(lambda connection: connection.execute(statement))

    async def finish_attempt(
        self, call_id: str, end: AttemptEnd, after: LeadNext, events: Sequence[NewEvent] = ()
    ) -> bool:
        """Close an attempt, put its lead back or be done with it, and queue what webhooks are told of it.

        Returns:
            Whether anything changed: an end that is told twice, or after somebody else has called the lead again, does
            not.
        """

        async def write(connection: AsyncConnection) -> bool:
            query = select(_attempts).where(_attempts.c.call_id == call_id).with_for_update()
            attempt = (await connection.execute(query)).first()
            if attempt is None:
                return False
            lead = await self._lead_for_update(connection, attempt.lead_id)
            # An attempt that was taken for interrupted while its box could not be asked may still tell its end, as long
            # as nothing has come of that.
            taken_back = attempt.disposition == INTERRUPTED and lead.state == "waiting" and lead.call_id == call_id
            if attempt.ended_at is not None and not taken_back:
                return False
            await connection.execute(
                update(_attempts).where(_attempts.c.call_id == call_id).values(ended(attempt, end))
            )
            if lead.call_id == call_id and lead.state != "done":
                counted = dict(lead.attempts_by)
                if taken_back:
                    counted[INTERRUPTED] = max(0, counted.get(INTERRUPTED, 0) - 1)
                await self._put(connection, lead, end, after, events, counted)
            return True

        return await self._database.run(write)

    async def release(self, leads: Iterable[tuple[Lead, datetime | None, str]]) -> int:
        """Give back leads that have not been called: each with when it is due (None: as before), and why.

        Returns:
            How many were still this box's.
        """
        rows = [
            {
                "the_id": lead.id,
                "the_token": lead.claim_token,
                "the_call": lead.call_id,
                "next_at": next_at or lead.next_at,
                "detail": why[:MAX_TEXT],
            }
            for lead, next_at, why in leads
        ]
        if not rows:
            return 0
        statement = (
            update(_leads)
            .where(
                _leads.c.id == bindparam("the_id"),
                _leads.c.claim_token == bindparam("the_token"),
                # Another call: an attempt began whose commit was not heard of. Its lease, or its end, gives it back.
                _leads.c.call_id == bindparam("the_call"),
                _leads.c.state == "claimed",
            )
            .values(next_at=bindparam("next_at"), detail=bindparam("detail"), **UNCLAIMED)
        )

        async def write(connection: AsyncConnection) -> int:
            return sum([(await connection.execute(statement, row)).rowcount for row in rows])

        return await self._database.run(write)

    async def close(self, lead: Lead, after: LeadNext, events: Sequence[NewEvent] = ()) -> bool:
        """Be done with a lead that this box has claimed and is never to call; gives whether it was still its own."""

        async def write(connection: AsyncConnection) -> bool:
            now = await self._database.now_in(connection)
            done = {
                "state": "done",
                "disposition": after.disposition,
                "detail": after.detail[:MAX_TEXT],
                "done_at": now,
            }
            released = {name: value for name, value in UNCLAIMED.items() if name != "state"}
            statement = update(_leads).where(claimed(lead)).values(**released, **done)
            changed = (await connection.execute(statement)).rowcount > 0
            if changed:
                await self._tell(connection, events)
            return changed

        return await self._database.run(write)

    # --- leases ---------------------------------------------------------------------------------------------------

    async def renew(self, lead_ids: Collection[int], lease_s: float) -> int:
        """Hold on to leads that this box has; gives how many it still has."""
        if not lead_ids:
            return 0

        async def write(connection: AsyncConnection) -> int:
            until = await self._database.now_in(connection) + timedelta(seconds=lease_s)
            statement = (
                update(_leads)
                .where(_leads.c.id.in_(list(lead_ids)), _leads.c.claimed_by == self._box, _leads.c.state == "claimed")
                .values(lease_until=until)
            )
            return (await connection.execute(statement)).rowcount

        return await self._database.run(write)

    async def recover(self, decide: Decide | None = None) -> int:
        """Take back everything that this box had when it was last stopped; gives how many leads. Run at start.

        Attempts that were going on are closed as interrupted, and their leads are called again as ``decide`` says;
        where it is None, once the gap is over.
        """
        mine = and_(_leads.c.state == "claimed", _leads.c.claimed_by == self._box)
        count = await self._take_back(lambda now: mine, decide)
        orphaned = and_(_attempts.c.box == self._box, _attempts.c.ended_at.is_(None))
        await self._close_orphans(orphaned)
        return count

    async def expire(self, decide: Decide | None = None) -> int:
        """Take back leads whose lease is over, whichever box had them; gives how many."""
        count = await self._take_back(lambda now: and_(_leads.c.state == "claimed", _leads.c.lease_until < now), decide)
        theirs = exists().where(
            _leads.c.id == _attempts.c.lead_id, _leads.c.state == "claimed", _leads.c.call_id == _attempts.c.call_id
        )
        await self._close_orphans(and_(_attempts.c.ended_at.is_(None), ~theirs))
        return count

    async def interrupt(self, call_ids: Collection[str], decide: Decide | None = None) -> int:
        """Close attempts of this box of which nothing is known any more; gives how many leads they had."""
        if not call_ids:
            return 0
        theirs = and_(
            _leads.c.state == "claimed", _leads.c.claimed_by == self._box, _leads.c.call_id.in_(list(call_ids))
        )
        count = await self._take_back(lambda now: theirs, decide)
        await self._close_orphans(
            and_(_attempts.c.box == self._box, _attempts.c.ended_at.is_(None), _attempts.c.call_id.in_(list(call_ids)))
        )
        return count

    async def _take_back(self, which: Callable[[datetime], Any], decide: Decide | None) -> int:
        async def write(connection: AsyncConnection) -> int:
            now = await self._database.now_in(connection)
            query = select(_leads).where(which(now)).limit(_TOGETHER).with_for_update(skip_locked=True)
            leads = [lead_of(row) for row in await connection.execute(query)]
            for lead in leads:
                await self._interrupt(connection, lead, now, decide)
            return len(leads)

        total = 0
        while count := await self._database.run(write):
            total += count
        return total

    async def _interrupt(self, connection: AsyncConnection, lead: Lead, now: datetime, decide: Decide | None) -> None:
        query = select(_attempts).where(_attempts.c.call_id == lead.call_id, _attempts.c.ended_at.is_(None))
        row = (await connection.execute(query)).first() if lead.call_id else None
        if row is None:
            await connection.execute(update(_leads).where(_leads.c.id == lead.id).values(**UNCLAIMED))
            return
        attempt = AttemptRow(**row._mapping)
        default = LeadNext(INTERRUPTED, lead.next_at, detail=f"box {lead.claimed_by} stopped during the call")
        after, events = decide(lead, attempt) if decide is not None else (default, ())
        end = AttemptEnd(INTERRUPTED, now, detail=default.detail)
        await connection.execute(
            update(_attempts).where(_attempts.c.call_id == attempt.call_id).values(ended(attempt, end))
        )
        await self._put(connection, lead, end, after, events, dict(lead.attempts_by))

    async def _close_orphans(self, which: Any) -> None:
        """Close attempts whose leads have gone on without them."""

        async def write(connection: AsyncConnection) -> None:
            now = await self._database.now_in(connection)
            change = {"ended_at": now, "disposition": INTERRUPTED, "detail": "the box stopped during the call"}
            await connection.execute(update(_attempts).where(which).values(change))

        await self._database.run(write)

    # --- beside the calls -----------------------------------------------------------------------------------------

    async def opt_out(
        self, number: str, *, reason: str, call_id: str = "", line: str = "", tell: Tell | None = None
    ) -> list[Lead]:
        """Never have ``number`` called again: it goes on the list of all, and what waits for it in any campaign is done
        with. Gives those leads.

        Raises:
            StoreError: it is no number.
        """
        known = plain_number(number)
        if not known:
            raise StoreError(f"{number!r} is no number that could be kept from being called")

        async def write(connection: AsyncConnection) -> list[Lead]:
            now = await self._database.now_in(connection)
            row = {"number": known, "added_at": now, "reason": reason, "call_id": call_id, "line": line}
            await connection.execute(self._database.insert(_everybody).values(row).on_conflict_do_nothing())
            query = select(_leads).where(_leads.c.number == known, _leads.c.state == "waiting").with_for_update()
            leads = [lead_of(found) for found in await connection.execute(query)]
            change = {"state": "done", "disposition": OPTED_OUT, "detail": reason[:MAX_TEXT], "done_at": now}
            for lead in leads:
                await connection.execute(update(_leads).where(_leads.c.id == lead.id).values(change))
                if tell is not None:
                    await self._tell(connection, tell(lead))
            return leads

        return await self._database.run(write)

    async def settle(self, campaign_id: str) -> CampaignState | None:
        """Finish a running campaign that has nobody left to call, and stop a drained one whose calls are over; gives
        the new state, None where nothing changed."""

        async def write(connection: AsyncConnection) -> CampaignState | None:
            query = select(_campaigns).where(_campaigns.c.id == campaign_id).with_for_update()
            campaign = (await connection.execute(query)).first()
            if campaign is None:
                return None
            left = ("claimed",) if campaign.state == CampaignState.DRAINING.value else ("waiting", "claimed")
            there = exists().where(_leads.c.campaign_id == campaign_id, _leads.c.state.in_(left))
            if (await connection.execute(select(there))).scalar():
                return None
            match campaign.state:
                case CampaignState.RUNNING.value:
                    state, reason = CampaignState.FINISHED, "everybody has been called"
                case CampaignState.DRAINING.value:
                    state, reason = CampaignState.STOPPED, "drained"
                case _:
                    return None
            now = await self._database.now_in(connection)
            change = {"state": state.value, "state_reason": reason, "state_at": now}
            await connection.execute(update(_campaigns).where(_campaigns.c.id == campaign_id).values(change))
            return state

        return await self._database.run(write)

    async def clock_stepped(self, by_s: float) -> None:
        """This machine's clock was set: move the times that gaps and retries are counted from, then go by it.

        Only where the clock is this machine's (SQLite). What was called an hour ago stays so, and is due again in the
        same time as before; what has not been called is looked at again at once. Of calls from before this process it
        is not known by which clock they were written: their time is left, or moved, so that it is never earlier than
        it was, unless it would be one to come.
        """
        if self._database.shared:
            return
        by = timedelta(seconds=by_s)

        async def write(connection: AsyncConnection) -> None:
            now, since = self._database.time(), self._database.since

            def ours(column: Any) -> Any:
                return column <= now if by_s > 0 else or_(column >= since, column > now + by)

            last = _contacts.c.last_started_at
            await connection.execute(update(_contacts).where(ours(last)).values(last_started_at=moved(by_s, last)))
            c = _leads.c
            # next_at first: what is moved with it is told by last_at as it was.
            called = update(_leads).where(c.state != "done", c.callback_at.is_(None), c.last_at.is_not(None))
            called = called.where(c.last_at <= now) if by_s > 0 else called
            await connection.execute(called.values(next_at=moved(by_s, c.next_at)))
            uncalled = and_(c.last_at.is_(None), c.callback_at.is_(None), c.next_at > min(now, now + by))
            await connection.execute(update(_leads).where(c.state != "done", uncalled).values(next_at=now + by))
            there = update(_leads).where(c.state != "done", ours(c.last_at))
            await connection.execute(there.values(last_at=moved(by_s, c.last_at)))
            claimed = update(_leads).where(c.state == "claimed", c.lease_until.is_not(None))
            await connection.execute(claimed.values(lease_until=moved(by_s, c.lease_until)))
            await connection.execute(update(_campaigns).values(next_call_at=None))

        await self._database.run(write)
        self._database.step(by_s)

    async def clock_was_ahead(self) -> float:
        """Whether this machine's clock was set back while the box was down, which calls in the future tell of; takes
        the last of them for one made now. Gives by how many seconds, 0.0 where nothing tells of it."""
        if self._database.shared:
            return 0.0
        (row,) = await self._database.rows(
            select(func.max(_contacts.c.last_started_at, type_=_contacts.c.last_started_at.type).label("last"))
        )
        now = self._database.time()
        ahead_s = 0.0 if row.last is None else (row.last - now).total_seconds()
        if ahead_s < STEP_S:
            return 0.0

        async def write(connection: AsyncConnection) -> None:
            last, c = _contacts.c.last_started_at, _leads.c
            to_come = update(_contacts).where(last > now)
            await connection.execute(to_come.values(last_started_at=moved(-ahead_s, last)))
            waiting = update(_leads).where(c.state != "done", c.callback_at.is_(None))
            called = waiting.where(c.last_at > now)
            await connection.execute(
                called.values(next_at=moved(-ahead_s, c.next_at), last_at=moved(-ahead_s, c.last_at))
            )
            await connection.execute(waiting.where(c.last_at.is_(None), c.next_at > now).values(next_at=now))
            await connection.execute(update(_campaigns).values(next_call_at=None))

        await self._database.run(write)
        return ahead_s

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _lead_for_update(self, connection: AsyncConnection, lead_id: int) -> Lead:
        query = select(_leads).where(_leads.c.id == lead_id).with_for_update()
        return lead_of((await connection.execute(query)).one())

    async def _put(
        self,
        connection: AsyncConnection,
        lead: Lead,
        end: AttemptEnd,
        after: LeadNext,
        events: Sequence[NewEvent],
        counted: dict[str, int],
    ) -> None:
        """What becomes of a lead whose attempt is over."""
        counted[end.disposition] = counted.get(end.disposition, 0) + 1
        change: dict[str, Any] = {
            **UNCLAIMED,
            "disposition": after.disposition,
            "detail": (after.detail or end.detail)[:MAX_TEXT],
            "sip_code": end.sip_code,
            "attempts_by": counted,
            "slots": {**lead.slots, **end.slots},
        }
        if after.next_at is None:
            change |= {"state": "done", "done_at": end.ended_at, "callback_at": None}
        elif after.callback_at is not None:
            change |= {"next_at": after.next_at, "callback_at": after.callback_at, "priority": 0}
        else:
            # The lead's own next_at is the end of the gap: begin_attempt has put it there.
            change |= {"next_at": max(after.next_at, lead.next_at), "callback_at": None, "priority": 1}
        await connection.execute(update(_leads).where(_leads.c.id == lead.id).values(change))
        await self._tell(connection, events)

    async def _tell(self, connection: AsyncConnection, events: Sequence[NewEvent]) -> None:
        if events:
            rows = [row_of(event, self._box) for event in events]
            await connection.execute(self._database.insert(_events).on_conflict_do_nothing(), rows)
