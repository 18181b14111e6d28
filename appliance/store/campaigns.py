"""Campaigns as operators handle them: made, changed, filled with leads, watched and exported.

The half that calls is :class:`~appliance.store.campaign_leases.LeadQueue` (:meth:`CampaignStore.queue`). Any number of
processes may have the database open at once.
"""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Table, case, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from appliance.clock import Clock, SystemClock
from appliance.errors import StoreError
from appliance.store import campaign_models  # noqa: F401  (its tables belong to the metadata)
from appliance.store.callers import plain_number
from appliance.store.campaign_database import CampaignDatabase
from appliance.store.campaign_leases import LeadQueue
from appliance.store.campaign_rows import (
    TRANSITIONS,
    AttemptRow,
    CampaignRow,
    CampaignState,
    Contact,
    Counts,
    Lead,
    NewLead,
)
from appliance.store.campaign_sql import lead_of
from appliance.store.models import Base

_tables = Base.metadata.tables
_campaigns: Table = _tables["campaigns"]
_leads: Table = _tables["leads"]
_attempts: Table = _tables["attempts"]
_contacts: Table = _tables["contacts"]
_everybody: Table = _tables["do_not_call"]
_of_campaign: Table = _tables["campaign_do_not_call"]

BATCH: Final = 1000
"""So many leads are written or read at a time: a statement of SQLite takes 32,766 values."""
_MAX_NAME: Final = 64
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class CampaignStore:
    """The campaigns of a database. Open it before use; every method raises StoreError where the database does not
    answer.

    Args:
        url: of the call record: ``sqlite+aiosqlite:///...`` or ``postgresql+asyncpg://...``.
        box: the name of this box among those that share the database; the host's where it is None.
        clock: of this machine.
    """

    def __init__(self, url: str, *, box: str | None = None, clock: Clock | None = None) -> None:
        self._database = CampaignDatabase(url, clock or SystemClock())
        self._box = box or socket.gethostname()

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises:
            StoreError: the database cannot be opened, or belongs to a newer version.
        """
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def queue(self) -> LeadQueue:
        """The leads as this box calls them."""
        return LeadQueue(self._database, self._box)

    def time(self) -> datetime:
        """The campaigns' clock: on PostgreSQL the server's, so that all boxes go by one."""
        return self._database.time()

    async def now(self) -> datetime:
        """The same, asked of the database."""
        return await self._database.now()

    def stepped_s(self) -> float:
        """By how much this machine's clock was set, where the campaigns go by it and have not moved with it; else
        0.0."""
        return self._database.stepped_s()

    # --- campaigns ------------------------------------------------------------------------------------------------

    async def create(self, name: str, definition: Mapping[str, Any]) -> str:
        """Make a campaign, and give its id.

        Raises:
            StoreError: there is one of that name.
        """
        if not 0 < len(name) <= _MAX_NAME:
            raise StoreError(f"{name!r} cannot be a campaign's name; take 1 to {_MAX_NAME} characters")
        campaign_id = f"cmp_{uuid.uuid4().hex}"

        async def write(connection: AsyncConnection) -> None:
            now = await self._database.now_in(connection)
            row = {
                "id": campaign_id,
                "name": name,
                "definition": dict(definition),
                "revision": 1,
                "state": CampaignState.CREATED.value,
                "state_reason": "",
                "created_at": now,
                "state_at": now,
            }
            statement = self._database.insert(_campaigns).values(row).on_conflict_do_nothing()
            await connection.execute(statement)
            found = (await connection.execute(select(_campaigns.c.id).where(_campaigns.c.name == name))).scalar()
            if found != campaign_id:
                raise StoreError(
                    f"there is a campaign {name!r} already; give this one another name, or change that one"
                )

        await self._database.run(write)
        return campaign_id

    async def campaigns(self) -> list[CampaignRow]:
        """All campaigns, in the order in which they were made."""
        rows = await self._database.rows(select(_campaigns).order_by(_campaigns.c.created_at, _campaigns.c.name))
        return [_campaign(row) for row in rows]

    async def find(self, name: str) -> CampaignRow | None:
        """The campaign of that name, or of that id."""
        rows = await self._database.rows(
            select(_campaigns).where((_campaigns.c.name == name) | (_campaigns.c.id == name)).limit(1)
        )
        return _campaign(rows[0]) if rows else None

    async def campaign(self, name: str) -> CampaignRow:
        """The campaign of that name, or of that id.

        Raises:
            StoreError: there is none.
        """
        found = await self.find(name)
        if found is None:
            raise _none(name)
        return found

    async def definition_of(self, name: str) -> Mapping[str, Any]:
        """What the campaign of that name is to do.

        Raises:
            StoreError: there is none.
        """
        return (await self.campaign(name)).definition

    async def edit(self, name: str, definition: Mapping[str, Any], *, revision: int) -> int:
        """Put another definition in place of the one of ``revision``; gives the new revision. Holds from the next call
        on.

        Raises:
            StoreError: there is no such campaign, or somebody else has changed it meanwhile.
        """

        async def write(connection: AsyncConnection) -> int:
            row = await _locked(connection, name)
            if row.revision != revision:
                raise StoreError(
                    f"campaign {name!r} was changed meanwhile: it is at revision {row.revision}, not {revision}; "
                    "look at it again"
                )
            change = {"definition": dict(definition), "revision": revision + 1}
            await connection.execute(update(_campaigns).where(_campaigns.c.id == row.id).values(change))
            return revision + 1

        return await self._database.run(write)

    async def set_state(self, name: str, state: str, reason: str = "") -> CampaignState:
        """Start, pause, drain or stop a campaign; gives the state that it was in. The same state again changes nothing.

        Raises:
            StoreError: there is no such campaign, or it cannot go from its state to that one.
        """
        wanted = CampaignState(state)

        async def write(connection: AsyncConnection) -> CampaignState:
            row = await _locked(connection, name)
            before = CampaignState(row.state)
            if before is wanted:
                return before
            if wanted not in TRANSITIONS[before]:
                may = ", ".join(sorted(TRANSITIONS[before]))
                raise StoreError(f"campaign {name!r} is {before} and cannot be {wanted} next; it can be: {may}")
            now = await self._database.now_in(connection)
            change = {"state": wanted.value, "state_reason": _clean(reason), "state_at": now}
            await connection.execute(update(_campaigns).where(_campaigns.c.id == row.id).values(change))
            return before

        return await self._database.run(write)

    async def delete(self, name: str) -> int:
        """Erase a campaign with its leads, attempts and do-not-call list; gives how many leads it had. How often
        numbers were called stays known.

        Raises:
            StoreError: there is no such campaign, or it calls.
        """

        async def write(connection: AsyncConnection) -> int:
            row = await _locked(connection, name)
            if row.state in (CampaignState.RUNNING, CampaignState.DRAINING):
                raise StoreError(f"campaign {name!r} is {row.state}; stop it before it is deleted")
            open_calls = select(_attempts.c.call_id).where(
                _attempts.c.campaign_id == row.id, _attempts.c.ended_at.is_(None)
            )
            if (await connection.execute(open_calls.limit(1))).first() is not None:
                raise StoreError(f"campaign {name!r} has calls that go on; wait until they are over")
            leads = int((await connection.execute(delete(_leads).where(_leads.c.campaign_id == row.id))).rowcount)
            await connection.execute(delete(_campaigns).where(_campaigns.c.id == row.id))
            return leads

        return await self._database.run(write)

    async def counts(self, name: str) -> Counts:
        """Where its leads are.

        Raises:
            StoreError: there is no such campaign.
        """
        campaign_id = (await self.campaign(name)).id
        due = func.min(_leads.c.next_at, type_=_leads.c.next_at.type)
        by_state = (
            select(_leads.c.state, _leads.c.disposition, func.count().label("n"), due.label("due"))
            .where(_leads.c.campaign_id == campaign_id)
            .group_by(_leads.c.state, _leads.c.disposition)
        )
        of_attempts = select(
            func.count().label("attempts"),
            func.count(_attempts.c.answered_at).label("answered"),
            func.coalesce(func.sum(case((_attempts.c.abandoned, 1), else_=0)), 0).label("abandoned"),
            (func.count() - func.count(_attempts.c.ended_at)).label("calling"),
            func.coalesce(func.sum(_attempts.c.talk_s), 0.0).label("talk_s"),
        ).where(_attempts.c.campaign_id == campaign_id)

        async def read(connection: AsyncConnection) -> tuple[Sequence[Any], Any]:
            states = (await connection.execute(by_state)).all()
            return states, (await connection.execute(of_attempts)).one()

        states, attempts = await self._database.read(read)
        totals = {"waiting": 0, "claimed": 0, "done": 0}
        for row in states:
            totals[row.state] += row.n
        return Counts(
            total=sum(totals.values()),
            **totals,
            by_disposition={row.disposition: row.n for row in states if row.state == "done"},
            attempts=attempts.attempts,
            answered=attempts.answered,
            abandoned=attempts.abandoned,
            calling=attempts.calling,
            talk_s=float(attempts.talk_s),
            next_at=min((row.due for row in states if row.state == "waiting"), default=None),
        )

    # --- leads ----------------------------------------------------------------------------------------------------

    async def insert_leads(self, campaign_id: str, leads: Iterable[NewLead]) -> tuple[int, list[int]]:
        """Add leads, in one transaction for every ``BATCH`` of them; they are due at once.

        Returns:
            How many were added, and the rows (``NewLead.row``) of those whose number the campaign has already.

        Raises:
            StoreError: there is no such campaign.
        """
        added = 0
        known: list[int] = []
        batch: list[NewLead] = []
        for lead in leads:
            batch.append(lead)
            if len(batch) == BATCH:
                more, twice = await self._insert_batch(campaign_id, batch)
                added, known, batch = added + more, known + twice, []
        if batch:
            more, twice = await self._insert_batch(campaign_id, batch)
            added, known = added + more, known + twice
        return added, known

    async def _insert_batch(self, campaign_id: str, batch: list[NewLead]) -> tuple[int, list[int]]:
        firsts: dict[str, NewLead] = {}
        for lead in batch:
            firsts.setdefault(lead.number, lead)
        written: set[int] = set()

        async def write(connection: AsyncConnection) -> None:
            now = await self._database.now_in(connection)
            query = select(_leads.c.number, _leads.c.row).where(
                _leads.c.campaign_id == campaign_id, _leads.c.number.in_(list(firsts))
            )
            there = {row.number for row in await connection.execute(query)}
            new = [lead for number, lead in firsts.items() if number not in there]
            if new:
                rows = [_lead_row(campaign_id, lead, now) for lead in new]
                await connection.execute(insert(_leads), rows)
            written.clear()
            written.update(lead.row for lead in new)

        try:
            await self._database.run(write)
        except StoreError as error:
            if isinstance(error.__cause__, IntegrityError) and await self.find(campaign_id) is None:
                raise _none(campaign_id) from error
            raise
        return len(written), [lead.row for lead in batch if lead.row not in written]

    async def count_leads_anew(self) -> None:
        """Have PostgreSQL look at how the leads are spread: until it has, it reads all leads of a campaign that has
        just been imported for every question about a few of them. SQLite has no need of it."""
        if self._database.shared:

            async def analyse(connection: AsyncConnection) -> None:
                await connection.execute(text("ANALYZE leads"))

            await self._database.run(analyse)

    async def known_numbers(self, campaign_id: str, numbers: Collection[str]) -> set[str]:
        """Those of the numbers that the campaign has already; ask for at most ``BATCH`` at a time."""
        query = select(_leads.c.number).where(_leads.c.campaign_id == campaign_id, _leads.c.number.in_(list(numbers)))
        return {row.number for row in await self._database.rows(query)}

    async def leads(self, name: str, *, states: Collection[str] = ()) -> AsyncIterator[Lead]:
        """The leads of a campaign in the order in which they were added; a few at a time are in memory.

        Args:
            name: of the campaign.
            states: only those in one of these; all where it is empty.

        Raises:
            StoreError: there is no such campaign.
        """
        query = select(_leads).where(_leads.c.campaign_id == (await self.campaign(name)).id)
        if states:
            query = query.where(_leads.c.state.in_(list(states)))
        async for row in self._database.pages(query, _leads.c.id, BATCH):
            yield lead_of(row)

    async def attempts(self, name: str) -> AsyncIterator[AttemptRow]:
        """The calls of a campaign, in no order; a few at a time are in memory.

        Raises:
            StoreError: there is no such campaign.
        """
        query = select(_attempts).where(_attempts.c.campaign_id == (await self.campaign(name)).id)
        async for row in self._database.pages(query, _attempts.c.call_id, BATCH):
            yield AttemptRow(**row._mapping)

    async def contacts(self, numbers: Collection[str]) -> dict[str, Contact]:
        """How often the numbers were called; those that never were are missing. At most ``BATCH`` at a time."""
        query = select(_contacts).where(_contacts.c.number.in_(list(numbers)))
        return {row.number: Contact(**row._mapping) for row in await self._database.rows(query)}

    # --- do not call ----------------------------------------------------------------------------------------------

    async def refuse(self, numbers: Iterable[str], *, source: str, campaign_id: str = "") -> int:
        """Put numbers on the list of a campaign, or on that of all; gives how many were new.

        Raises:
            StoreError: one of them is no number.
        """
        wanted: dict[str, None] = {}
        for number in numbers:
            known = plain_number(number)
            if not known:
                raise StoreError(f"{number!r} is no number that could be kept from being called")
            wanted[known] = None
        added = 0
        everything = list(wanted)
        for start in range(0, len(everything), BATCH):
            added += await self._refuse_batch(everything[start : start + BATCH], _clean(source), campaign_id)
        return added

    async def _refuse_batch(self, numbers: list[str], source: str, campaign_id: str) -> int:
        async def write(connection: AsyncConnection) -> int:
            now = await self._database.now_in(connection)
            if campaign_id:
                of_campaign = {"campaign_id": campaign_id, "added_at": now, "source": source}
                rows: list[dict[str, Any]] = [{"number": number, **of_campaign} for number in numbers]
                table = _of_campaign
            else:
                of_all = {"added_at": now, "reason": source, "call_id": "", "line": ""}
                rows = [{"number": number, **of_all} for number in numbers]
                table = _everybody
            there = await _on(connection, table, numbers, campaign_id)
            new = [row for row in rows if row["number"] not in there]
            if new:
                await connection.execute(self._database.insert(table).on_conflict_do_nothing(), new)
            return len(new)

        return await self._database.run(write)

    async def allow(self, number: str, *, campaign_id: str = "") -> bool:
        """Take a number off a campaign's list, or off that of all; gives whether it was there."""
        table = _of_campaign if campaign_id else _everybody
        statement = delete(table).where(table.c.number == plain_number(number))
        if campaign_id:
            statement = statement.where(_of_campaign.c.campaign_id == campaign_id)

        async def write(connection: AsyncConnection) -> bool:
            return (await connection.execute(statement)).rowcount > 0

        return await self._database.run(write)

    async def refused(self, *, campaign_id: str = "") -> AsyncIterator[tuple[str, datetime, str]]:
        """A campaign's list, or that of all: number, since when, and why or whence."""
        table = _of_campaign if campaign_id else _everybody
        why = _of_campaign.c.source if campaign_id else _everybody.c.reason
        query = select(table.c.number, table.c.added_at, why)
        if campaign_id:
            query = query.where(_of_campaign.c.campaign_id == campaign_id)
        async for row in self._database.pages(query, table.c.number, BATCH):
            yield row[0], row[1], row[2]

    async def lists_of(self, campaign_id: str, numbers: Collection[str]) -> dict[str, tuple[str, ...]]:
        """On which lists the numbers are that are on any, in words. At most ``BATCH`` at a time."""
        wanted = list(numbers)
        everybody = select(_everybody.c.number, _everybody.c.reason).where(_everybody.c.number.in_(wanted))
        theirs = select(_of_campaign.c.number, _of_campaign.c.source).where(
            _of_campaign.c.number.in_(wanted), _of_campaign.c.campaign_id == campaign_id
        )
        found: dict[str, tuple[str, ...]] = {}
        for query, name in ((everybody, "the box's"), (theirs, "the campaign's")):
            for number, why in await self._database.rows(query):
                found[number] = (*found.get(number, ()), f"{name} ({why})" if why else name)
        return found

    async def on_lists(self, campaign_id: str, numbers: Collection[str]) -> set[str]:
        """Those of the numbers that are on the list of all or on the campaign's. At most ``BATCH`` at a time."""
        return set(await self.lists_of(campaign_id, numbers))


def _campaign(row: Any) -> CampaignRow:
    values = dict(row._mapping)
    return CampaignRow(**{**values, "state": CampaignState(values["state"])})


async def _locked(connection: AsyncConnection, name: str) -> Any:
    """The row of a campaign, which nobody else changes until the transaction is over."""
    query = select(_campaigns).where((_campaigns.c.name == name) | (_campaigns.c.id == name)).with_for_update()
    row = (await connection.execute(query)).first()
    if row is None:
        raise _none(name)
    return row


async def _on(connection: AsyncConnection, table: Table, numbers: list[str], campaign_id: str = "") -> set[str]:
    query = select(table.c.number).where(table.c.number.in_(numbers))
    if table is _of_campaign:
        query = query.where(table.c.campaign_id == campaign_id)
    return {row.number for row in await connection.execute(query)}


def _lead_row(campaign_id: str, lead: NewLead, now: datetime) -> dict[str, Any]:
    return {
        "campaign_id": campaign_id,
        "row": lead.row,
        "reference": _clean(lead.reference),
        "number": lead.number,
        "zones": list(lead.zones),
        "address_zone": lead.address_zone,
        "region": lead.region,
        "variables": {_clean(name): _clean(value) for name, value in lead.variables.items()},
        "consent": None if lead.consent is None else {k: _clean(v) for k, v in lead.consent.items()},
        "next_at": now,
    }


def _clean(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", text)


def _none(name: str) -> StoreError:
    return StoreError(f"there is no campaign {name!r}; see `appliance campaign list`")
