"""The campaigns of a box: which of them call now, the leases they hold, and what is taken back from boxes that died.

One of these runs in control. It looks at the database once a second, so that whoever changes a campaign there, from the
command line or from another box, is obeyed soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from appliance.calls.outgoing import Originator
from appliance.campaigns.around import Around, TrunkPace
from appliance.campaigns.definition import Breaker as BreakerSettings
from appliance.campaigns.definition import Definition
from appliance.campaigns.desk import LEASE_S, Desk
from appliance.campaigns.outcome import Disposition
from appliance.campaigns.pacing import Breaker, BreakerState, Gate
from appliance.campaigns.results import after, lead_event
from appliance.campaigns.rules import Rules
from appliance.campaigns.stats import CampaignStats
from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.hook_types import CampaignEvent
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.campaign_rows import AttemptEnd, AttemptRow, CampaignRow, CampaignState, Lead, LeadNext
from appliance.store.campaigns import CampaignStore

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
_RENEW_S: Final = LEASE_S / 4
_EXPIRE_S: Final = 10.0
_WATCH_S: Final = 30.0
_AWAY_S: Final = 5.0
_CLOSE_S: Final = 8.0


class CampaignRunner:
    """Runs the campaigns of a database on this box.

    Args:
        store: open.
        originator: places calls.
        clock: of this machine.
        owned: the numbers that may be shown on a trunk, or on any ("").
        refuses: why a number may not be dialled by a trunk ("" where the routes choose), in words; "" where it may.
        has_line: whether the dialplan has a line of that name.
        trunk_cps: how many calls per second a trunk takes; None for no limit.
        tell: tells plugins.
        sent: events for webhooks have been queued.
        poll_s: how often the database is looked at.
    """

    def __init__(
        self,
        store: CampaignStore,
        originator: Originator,
        clock: Clock,
        *,
        owned: Callable[[str], AbstractSet[str]],
        refuses: Callable[[str, str], str] = lambda number, trunk: "",
        has_line: Callable[[str], bool] = lambda line: True,
        trunk_cps: Callable[[str], float | None] = lambda trunk: None,
        tell: Callable[[CampaignEvent], None] = lambda event: None,
        sent: Callable[[Sequence[NewEvent]], None] = lambda events: None,
        poll_s: float = POLL_S,
    ) -> None:
        self.stats = CampaignStats()
        self._store = store
        self._queue = store.queue
        self._clock = clock
        self._trunk_cps = trunk_cps
        self._poll_s = poll_s
        self._trunks: dict[str, TrunkPace] = {}
        self._desks: dict[str, Desk] = {}
        self._definitions: dict[str, Definition] = {}
        self._recovered = False
        self._due = {"renew": 0.0, "expire": 0.0, "watch": 0.0}
        self._missing: set[str] = set()
        """Attempts of this box, at the last look, of which nobody here knows."""
        self._around = Around(
            store=store,
            queue=self._queue,
            originator=originator,
            clock=clock,
            pace_of=self._pace_of,
            owned=owned,
            refuses=refuses,
            has_line=has_line,
            tell=tell,
            sent=sent,
            stats=self.stats,
        )

    async def run(self) -> None:
        """Call until cancelled; then :meth:`close` has to be awaited."""
        while True:
            wait_s = self._poll_s
            try:
                await self.look()
                if not any(desk.busy for desk in self._desks.values()):
                    self.stats.problem = ""
            except StoreError as error:
                if not self.stats.problem:
                    logger.error("campaigns call nobody while %s", error)
                self.stats.problem = str(error)
                wait_s = _AWAY_S
            except Exception:
                logger.exception("campaigns cannot be looked at; again in %d s", _AWAY_S)
                wait_s = _AWAY_S
            await asyncio.sleep(wait_s)

    def definition(self, campaign_id: str) -> Definition | None:
        """What a campaign is to do, whether it runs or not; None where it is not known."""
        return self._definitions.get(campaign_id)

    async def know(self) -> None:
        """Read what the campaigns are to do.

        Raises:
            StoreError: the database does not answer.
        """
        definitions: dict[str, Definition] = {}
        for row in await self._store.campaigns():
            with contextlib.suppress(ValueError):
                definitions[row.id] = Definition.of(row.definition)
        self._definitions = definitions

    async def wind_down(self) -> None:
        """Begin no call any more; those that go on are ended by the box."""
        await asyncio.gather(*(desk.wind_down() for desk in self._desks.values()))

    async def close(self, deadline_s: float = _CLOSE_S) -> None:
        """Call nobody any more, hang up, and write down what the calls came to."""
        desks = list(self._desks.values())
        await asyncio.gather(*(desk.close() for desk in desks))
        for desk in desks:
            desk.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await asyncio.gather(*(desk.done() for desk in desks))
        left = sum(len(desk.call_ids) for desk in desks)
        if left:
            logger.error("%d calls of campaigns are not written down; the next start takes them for interrupted", left)
        await asyncio.gather(*(desk.give_up() for desk in desks))

    # --- once a second --------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Do what the database asks for now.

        Raises:
            StoreError: it does not answer.
        """
        await self._mind_the_clock()
        if not self._recovered:
            ahead_s = await self._queue.clock_was_ahead()
            if ahead_s:
                logger.warning("the clock was set back by %.0f s or more; the times of campaigns are moved", ahead_s)
            self._count_taken_back(await self._queue.recover(await self._decider()), "when this box was last stopped")
            self._recovered = True
        rows = await self._queue.watched(self._desks.keys())
        await self._attend(rows)
        await self._keep_leases()

    async def _mind_the_clock(self) -> None:
        """A clock that was set moves the times with it that gaps are counted from."""
        await self._store.now()
        by_s = self._store.stepped_s()
        if by_s:
            logger.warning("the clock was set by %.0f s; the times of campaigns are moved with it", by_s)
            await self._queue.clock_stepped(by_s)

    async def _attend(self, rows: Sequence[CampaignRow]) -> None:
        there = {row.id for row in rows}
        for row in rows:
            desk = self._desks.get(row.id)
            try:
                if desk is not None:
                    desk.take(row)
                elif row.state is CampaignState.RUNNING:
                    desk = self._desks[row.id] = Desk(row, self._around)
                    self._definitions[row.id] = desk.definition
                    desk.open()
                elif row.state is CampaignState.DRAINING:
                    await self._queue.settle(row.id)
            except ValueError as error:
                logger.error("campaign %s cannot be run: %s", row.name, error)
                if row.state is CampaignState.RUNNING:
                    why = f"its definition is not one that this version understands: {str(error)[:500]}"
                    await self._store.set_state(row.id, CampaignState.PAUSED, why)
        for campaign_id, desk in list(self._desks.items()):
            gone = campaign_id not in there
            if gone:
                desk.hang_up()
            calling = desk.row.state in (CampaignState.RUNNING, CampaignState.DRAINING)
            if (gone or not calling) and not desk.call_ids:
                await desk.close()
                del self._desks[campaign_id]
                self.stats.forget(desk.row.name)
        self.stats.open_breakers = {
            name for name, pace in self._trunks.items() if pace.breaker.state is not BreakerState.CLOSED
        }

    async def _keep_leases(self) -> None:
        now = self._clock.monotonic()
        if self._is_due("renew", now, _RENEW_S):
            held = [lead for desk in self._desks.values() for lead in desk.held]
            if await self._queue.renew(held, LEASE_S) < len(held):
                logger.warning("another box has taken leads that this one held; was the database away?")
        if self._is_due("expire", now, _EXPIRE_S):
            self._count_taken_back(await self._queue.expire(await self._decider()), "whose box has gone silent")
        if self._is_due("watch", now, _WATCH_S):
            known = {call_id for desk in self._desks.values() for call_id in desk.call_ids}
            missing = set(await self._queue.open_attempts()) - known
            lost = missing & self._missing
            self._missing = missing - lost
            if lost:
                self._count_taken_back(await self._queue.interrupt(lost, await self._decider()), "whose call is gone")

    def _is_due(self, what: str, now: float, every_s: float) -> bool:
        if now < self._due[what]:
            return False
        self._due[what] = now + every_s
        return True

    def _count_taken_back(self, count: int, which: str) -> None:
        self.stats.taken_back += count
        if count:
            logger.warning("%d leads are taken back %s", count, which)

    async def _decider(self) -> Callable[[Lead, AttemptRow], tuple[LeadNext, Sequence[NewEvent]]]:
        """What becomes of leads whose calls were cut off: as the rules of their campaigns say."""
        await self.know()
        return Decider(self._definitions)

    def _pace_of(self, trunk: str, settings: BreakerSettings) -> TrunkPace:
        pace = self._trunks.get(trunk)
        if pace is None or pace.settings != settings:
            gate = pace.gate if pace is not None else Gate(self._trunk_cps(trunk))
            pace = self._trunks[trunk] = TrunkPace(gate, Breaker(settings), settings)
        return pace


class Decider:
    """What becomes of a lead whose call was cut off with its box: what the campaign says of ``interrupted``.

    Args:
        definitions: of the campaigns, by id.
    """

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self._rules = {campaign_id: Rules(definition) for campaign_id, definition in definitions.items()}

    def __call__(self, lead: Lead, attempt: AttemptRow) -> tuple[LeadNext, Sequence[NewEvent]]:
        detail = f"box {attempt.box} stopped during the call"
        rules = self._rules.get(lead.campaign_id)
        if rules is None:
            return LeadNext(Disposition.INTERRUPTED.value, lead.next_at, detail=detail), ()
        # From its beginning: when it ended is not known.
        end = AttemptEnd(Disposition.INTERRUPTED.value, attempt.started_at, detail=detail)
        outcome = after(rules, lead, end)
        if outcome.next_at is not None:
            return outcome, ()
        events = lead_event(
            rules.definition, lead, outcome, end, attempt.call_id, attempt.started_at, lambda: f"evt_{uuid.uuid4().hex}"
        )
        return outcome, events
