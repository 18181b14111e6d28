"""One campaign that calls: it claims leads as there is room, has each called, and writes down what came of it.

The order is what keeps leads safe (docs/decisions/0026-leases.md): claim, rules, pace, commit the attempt, and only
then the call; at its end one transaction for everything. Where the database does not answer, nothing is dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from appliance.calls.outgoing import OutgoingResult
from appliance.campaigns.around import Around, Call, TrunkPace
from appliance.campaigns.definition import Definition
from appliance.campaigns.outcome import Disposition, fails_the_trunk
from appliance.campaigns.pacing import Abandonment, BreakerState, Gate
from appliance.campaigns.plan_next import Plan, Room, plan_next
from appliance.campaigns.results import (
    NOBODY,
    after,
    begun,
    by_a_person,
    end_of,
    lead_event,
    order_for,
    reached,
    was_abandoned,
)
from appliance.campaigns.retries import Hours
from appliance.campaigns.rules import LAST_MOMENTS, Allowed, Never, NotNow, Rules, Surroundings
from appliance.campaigns.windows import zone_named, zones_of_number
from appliance.errors import StoreError
from appliance.hook_types import CampaignEvent
from appliance.plugins.declarative.webhooks import NewEvent
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

logger = logging.getLogger(__name__)

LEASE_S: Final = 60.0
"""How long a lead is this box's without a sign of life."""
_LOOK_S: Final = 5.0
"""So often at least a campaign is looked at that has nothing to do."""
_STORE_AWAY_S: Final = 2.0
_EARLY_S: Final = 0.05
"""So long before its turn an attempt is committed, which takes a while."""
_LEAVING_S: Final = 3.0
"""So long the next call waits for the one before to leave."""
_CLAIM: Final = 100
"""So many leads are claimed at once where most of them may not be called now."""
_ROUNDS: Final = 20
_AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before the end of a call is written once more."""
_NO_DATE_S: Final = 60.0
"""A lead that may not be called until somebody changes something is looked at again after this."""
_HISTORY: Final = 2000


class Desk:
    """Calls the leads of one campaign until it is closed.

    Args:
        row: the campaign, which runs.
        around: what it calls with.

    Raises:
        ValueError: its definition is not one that this version understands.
    """

    def __init__(self, row: CampaignRow, around: Around) -> None:
        self._around = around
        self._row = row
        self._definition = Definition.of(row.definition)
        self._rules = Rules(self._definition)
        self._gate = Gate(self._definition.pacing.calls_per_s)
        self._abandonment = Abandonment(self._definition.pacing.max_abandoned_percent)
        self._placed, self._answered = [0] * 24, [0] * 24
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._placing: set[str] = set()
        """Calls whose end has not been told yet."""
        self._held: dict[int, str] = {}
        """Leads that this box has claimed and not given back, by id, with their claim."""
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._stopped = False
        self._given_up = False

    # --- what the runner asks -------------------------------------------------------------------------------------

    @property
    def row(self) -> CampaignRow:
        """The campaign as it was last seen."""
        return self._row

    @property
    def definition(self) -> Definition:
        """What it is to do."""
        return self._definition

    @property
    def call_ids(self) -> AbstractSet[str]:
        """Calls that go on, or whose end is still to be written."""
        return self._calls.keys()

    @property
    def held(self) -> AbstractSet[int]:
        """Leads that are this box's."""
        return self._held.keys()

    @property
    def busy(self) -> bool:
        """Whether anything goes on still."""
        return bool(self._calls) or self._loop is not None

    def open(self) -> None:
        """Begin to call."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name=f"campaign {self._row.name}")

    def take(self, row: CampaignRow) -> None:
        """The campaign as it is now: another state, another definition.

        Raises:
            ValueError: the definition is not one that this version understands; the one before goes on.
        """
        changed, resumed = row.revision != self._row.revision, row.state_at != self._row.state_at
        if row.state is not self._row.state or changed:
            self._wake.set()
        if resumed and row.state is CampaignState.RUNNING:
            self._abandonment.forgive()
        if changed:
            definition = Definition.of(row.definition)
            self._definition, self._rules = definition, Rules(definition)
            self._gate.set_rate(definition.pacing.calls_per_s)
            self._abandonment.max_percent = definition.pacing.max_abandoned_percent
        self._row = row
        if row.state is CampaignState.STOPPED:
            self.hang_up()
        elif row.state is CampaignState.RUNNING:
            self._stopped = False

    async def wind_down(self) -> None:
        """Begin no call any more; those that go on are ended by the box."""
        self._stopped = True
        await self.close()

    def hang_up(self) -> None:
        """End the calls that go on; what they came to so far is kept."""
        self._stopped = True
        while self._placing:  # once for each call: what it came to is written down undisturbed
            self._calls[self._placing.pop()].cancel()

    async def close(self) -> None:
        """Call nobody any more. Calls go on, and are written down."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None

    async def done(self) -> None:
        """Wait until the calls are over and written down."""
        while self._calls:
            await asyncio.wait(list(self._calls.values()))

    async def give_up(self) -> None:
        """Write down nothing more: the box stops. The next start takes what is left for interrupted."""
        self._given_up = True
        for task in self._calls.values():
            task.cancel()
        await asyncio.gather(*self._calls.values(), return_exceptions=True)

    # --- the loop -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        remembered = False
        while True:
            self._wake.clear()
            try:
                if not remembered:
                    await self._remember()
                    remembered = True
                wait_s = await self._round()
                if not self._around.stats.unwritten:
                    self._around.stats.problem = ""
            except StoreError as error:
                self._around.stats.problem = str(error)
                logger.error("campaign %s: nothing is dialled while %s", self._row.name, error)
                wait_s = _STORE_AWAY_S
            except Exception:
                # Whatever one lead is like: the others are still to be called.
                logger.exception("campaign %s: cannot go on; again in %d s", self._row.name, _LOOK_S)
                wait_s = _LOOK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s)):
                    await self._wake.wait()

    async def _remember(self) -> None:
        """Take up what the campaign has learnt: whom it abandoned since it was started, and when people answer."""
        answers = await self._around.queue.last_attempts(self._row.id, _HISTORY)
        for attempt in reversed(answers):
            self._count_hour(attempt.number, attempt.started_at, answered=reached_by(attempt))
            since = attempt.started_at >= self._row.state_at
            if since and attempt.answered_at is not None and attempt.verdict not in NOBODY:
                self._abandonment.answered(abandoned=attempt.abandoned)

    async def _round(self) -> float:
        """Call whom there is room for; how long until there is something to do, in seconds."""
        row, around = self._row, self._around
        now = around.clock.monotonic()
        plan = await self._plan()
        around.stats.why[row.name] = plan.why
        if plan.stop:
            logger.error("campaign %s is paused: %s", row.name, plan.stop)
            await around.store.set_state(row.id, CampaignState.PAUSED, plan.stop)
            return _LOOK_S
        if plan.start == 0:
            if row.state is not CampaignState.RUNNING and not self._calls:
                await around.queue.settle(row.id)
            return _LOOK_S if plan.again_at is None else min(plan.again_at - now, _LOOK_S)
        if not around.has_line(self._definition.line):
            around.stats.why[row.name] = f"there is no line {self._definition.line!r}"
            return _LOOK_S
        if not around.owned(self._definition.trunk) & set(self._definition.caller_ids):
            around.stats.why[row.name] = "no trunk owns any of its caller_ids"
            return _LOOK_S
        wanted, limit = plan.start, plan.start
        for _ in range(_ROUNDS):
            leads = await self._claim(limit)
            if not leads:
                return await self._nothing_due()
            wanted -= await self._work(leads, wanted)
            if wanted <= 0 or self._row.state is not CampaignState.RUNNING:
                break
            limit = _CLAIM
        return 0.0

    async def _plan(self) -> Plan:
        pacing, trunk = self._definition.pacing, self._pace()
        everywhere = await self._around.queue.calling(self._row.id)
        room = Room(
            state=self._row.state.value,
            max_calls=pacing.max_calls,
            active=max(len(self._calls), everywhere),
            box=self._around.originator.room(self._definition.line, self._definition.trunk),
        )
        gates = self._gate, trunk.gate
        plan = plan_next(self._around.clock.monotonic(), room, gates, trunk.breaker, self._abandonment)
        self._around.stats.abandoned_percent[self._row.name] = self._abandonment.percent
        return plan

    def _pace(self) -> TrunkPace:
        return self._around.pace_of(self._definition.trunk, self._definition.pacing.breaker)

    async def _claim(self, limit: int) -> list[Lead]:
        leads = await self._around.queue.claim(self._row.id, limit, LEASE_S)
        self._held.update((lead.id, lead.claim_token) for lead in leads)
        return leads

    async def _nothing_due(self) -> float:
        due = await self._around.queue.next_due(self._row.id)
        if due is None:
            if not self._calls and await self._around.queue.settle(self._row.id) is not None:
                logger.info("campaign %s is finished: everybody has been called", self._row.name)
            return _LOOK_S
        self._around.stats.why[self._row.name] = f"nobody is due before {due:%Y-%m-%d %H:%M:%S} UTC"
        # Never at once: another box may be looking at the same lead.
        return min(max((due - self._around.store.time()).total_seconds(), 0.1), _LOOK_S)

    async def _work(self, leads: list[Lead], wanted: int) -> int:
        """Call those of the leads that may be called now, at most ``wanted``, and give back the others; how many calls
        were begun."""
        started = 0
        back: list[tuple[Lead, datetime | None, str]] = []
        left = {lead.id: lead for lead in leads}
        try:
            decisions = await self._decide(leads)
            for lead in leads:
                match decisions[lead.id]:
                    case Never() as never:
                        await self._give_up(lead, never)
                    case NotNow() as later:
                        self._around.stats.held_back[self._row.name, later.cause] += 1
                        back.append((lead, self._until(later), later.why))
                    case Allowed() as allowed if started < wanted:
                        turned = await self._start(lead, allowed)
                        if turned is None:
                            started += 1
                        elif not turned.over:
                            back.append((lead, turned.until, turned.why))
                        if turned is not None and turned.full:
                            wanted = started
                    case Allowed():
                        continue
                del left[lead.id]
        finally:
            # Also those that there was no room for, or nobody has looked at because something failed.
            await self._release([*back, *((lead, None, lead.detail) for lead in left.values())])
        return started

    async def _decide(self, leads: Sequence[Lead]) -> dict[int, Allowed | NotNow | Never]:
        """What the rules say of each lead, by its id."""
        numbers = [lead.number for lead in leads]
        store, now = self._around.store, self._around.store.time()
        contacts = await store.contacts(numbers)
        listed = await store.lists_of(self._row.id, numbers)
        owned = self._around.owned(self._definition.trunk)
        found: dict[int, Allowed | NotNow | Never] = {}
        for lead in leads:
            surroundings = Surroundings(
                state=self._row.state.value,
                listed=listed.get(lead.number, ()),
                owned=owned,
                trunk_refuses=self._around.refuses(lead.number, self._definition.trunk),
            )
            found[lead.id] = self._rules.may_dial(lead, contacts.get(lead.number), surroundings, now)
        return found

    def _until(self, later: NotNow) -> datetime:
        return later.until or self._around.store.time() + timedelta(seconds=_NO_DATE_S)

    async def _give_up(self, lead: Lead, never: Never, call_id: str = "") -> None:
        """Be done with a lead that is never to be called."""
        outcome = LeadNext(never.disposition or lead.disposition or Disposition.NOT_ALLOWED.value, detail=never.why)
        at = self._around.store.time()
        events = lead_event(self._definition, lead, outcome, None, lead.call_id, at, _new_event_id)
        if await self._around.queue.close(lead, outcome, events):
            self._lead_done(lead, outcome, events)
        self._held.pop(lead.id, None)

    async def _release(self, back: Sequence[tuple[Lead, datetime | None, str]]) -> None:
        for lead, _, _ in back:
            self._held.pop(lead.id, None)  # should this fail, the lease gives them back
        await self._around.queue.release(back)

    # --- one call -------------------------------------------------------------------------------------------------

    async def _start(self, lead: Lead, allowed: Allowed) -> _Turned | None:
        """Have a lead called once its turn has come; None where the call was begun."""
        around, definition = self._around, self._definition
        trunk = self._pace()
        async with trunk.leaving:
            await asyncio.sleep(self._wait_s(trunk) - _EARLY_S)
            if not self._may_call(lead, trunk):
                return _Turned(full=True, why=lead.detail)
            probes = trunk.breaker.state is BreakerState.OPEN  # it may be opened by another call meanwhile
            call_id = f"out_{uuid.uuid4().hex}"
            limits = self._rules.limits(allowed, self._gate.distance_s)
            committed = await self._commit(lead, call_id, limits, allowed.caller_id, trunk)
            if committed.refused is not None:
                return await self._turned(lead, committed)
            assert committed.started_at is not None
            now = around.clock.monotonic()
            leave_at = now + self._wait_s(trunk)
            self._gate.left(leave_at)
            trunk.gate.left(leave_at)
            if probes:
                trunk.breaker.placed(now, definition.pacing.ring_timeout_s + 30.0)
            call = Call(lead, begun(lead, committed.started_at), call_id, allowed.caller_id, definition)
            # Between the commit and here nothing is awaited: an attempt has its call, or dies with the process.
            self._calls[call_id] = asyncio.create_task(
                self._call(call, trunk, leave_at), name=f"campaign call {call_id}"
            )
            around.stats.calls[self._row.name] = len(self._calls)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING_S):
                    await call.left.wait()
            if call.left_at is not None:
                # A call that leaves late delays the next one: what the network sees is what counts.
                self._gate.left(call.left_at)
                trunk.gate.left(call.left_at)
        return None

    def _may_call(self, lead: Lead, trunk: TrunkPace) -> bool:
        """Whether what held when the lead was chosen still does: others may have left before it for minutes."""
        open_still = self._rules.schedule(lead).is_open_for(self._around.store.time(), LAST_MOMENTS)
        room = self._around.originator.room(self._definition.line, self._definition.trunk)
        broken = trunk.breaker.room(self._around.clock.monotonic()) == 0
        return self._row.state is CampaignState.RUNNING and open_still and room > 0 and not broken

    def _wait_s(self, trunk: TrunkPace) -> float:
        """How long until another call may leave."""
        now = self._around.clock.monotonic()
        return max(gate.wait_s(now) for gate in (self._gate, trunk.gate))

    async def _commit(self, lead: Lead, call_id: str, limits: AttemptLimits, caller_id: str, trunk: TrunkPace) -> Begun:
        """Begin the attempt; other boxes' calls of the campaign are waited for."""
        while True:
            begun = await self._around.queue.begin_attempt(
                lead, call_id, limits, lease_s=LEASE_S, trunk=self._definition.trunk, caller_id=caller_id
            )
            if begun.refused is not Refused.RATE or begun.until is None:
                return begun
            wait_s = (begun.until - self._around.store.time()).total_seconds()
            if wait_s > _LEAVING_S:
                return begun
            await asyncio.sleep(max(wait_s, 0.01))
            if not self._may_call(lead, trunk):
                return begun

    async def _turned(self, lead: Lead, begun: Begun) -> _Turned:
        """What follows where an attempt may not begin after all."""
        self._around.stats.held_back[self._row.name, str(begun.refused)] += 1
        match begun.refused:
            case Refused.CLAIM:
                self._held.pop(lead.id, None)
                return _Turned(over=True)
            case Refused.DO_NOT_CALL:
                why = f"{lead.number} is on a do-not-call list"
                await self._give_up(lead, Never("do_not_call", why, Disposition.OPTED_OUT))
                return _Turned(over=True)
            case Refused.TOTAL | Refused.LEAD:
                why = "the number, or the lead, has been called as often as it may be"
                await self._give_up(lead, Never("total", why, ""))
                return _Turned(over=True)
            case Refused.GAP | Refused.DAY:
                # The rules know when, once they see who has called it meanwhile.
                soon = self._around.store.time() + timedelta(seconds=_LOOK_S)
                return _Turned(until=begun.until or soon, why=f"called meanwhile ({begun.refused})")
            case _:
                return _Turned(full=True, until=begun.until, why=lead.detail)

    async def _call(self, call: Call, trunk: TrunkPace, leave_at: float) -> None:
        """One call from beginning to end, not before ``leave_at``. It is not lost sight of before its end is in the
        database."""
        around, lead = self._around, call.lead
        notes: set[asyncio.Task[None]] = set()
        self._tell("dialled", lead, call.call_id)
        stopped = False
        try:
            if self._stopped:  # since the attempt began
                raise asyncio.CancelledError
            self._placing.add(call.call_id)
            await asyncio.sleep(leave_at - around.clock.monotonic())
            order = order_for(call.definition, lead, call.call_id, call.caller_id)
            result = await around.originator.call(order, partial(self._progress, call, notes))
        except asyncio.CancelledError:
            stopped = True
            result = call.seen(around.clock.monotonic())
        except Exception:
            logger.exception("call %s to lead %d cannot be placed", call.call_id, lead.id)
            result = OutgoingResult(problem="a fault of the box", ended_at=around.clock.monotonic())
        finally:
            self._placing.discard(call.call_id)
            call.left.set()
        try:
            trunk.breaker.ended(around.clock.monotonic(), failed=fails_the_trunk(result) and not stopped)
            end = end_of(result, around.now(), stopped=stopped or self._stopped)
            if by_a_person(result):
                self._abandonment.answered(abandoned=was_abandoned(result))
            await asyncio.gather(*notes, return_exceptions=True)
            await self._finish(call, end, result)
        finally:
            self._held.pop(lead.id, None)
            self._calls.pop(call.call_id, None)
            around.stats.calls[self._row.name] = len(self._calls)
            self._wake.set()

    def _progress(self, call: Call, notes: set[asyncio.Task[None]], what: str, at: float) -> None:
        call.progress.setdefault(what, at)
        if what == "dialling" and call.left_at is None:
            call.left_at = at
            call.left.set()
        column = {"ringing": "ringing_at", "answered": "answered_at"}.get(what)
        if column is not None:
            moment = self._around.now().at(at)
            task = asyncio.create_task(self._note(call.call_id, {column: moment}), name=f"note {call.call_id}")
            notes.add(task)
            task.add_done_callback(notes.discard)

    async def _note(self, call_id: str, what: Mapping[str, Any]) -> None:
        with contextlib.suppress(StoreError):  # its end says so, too
            await self._around.queue.note(call_id, **what)

    async def _finish(self, call: Call, end: AttemptEnd, result: OutgoingResult) -> None:
        """Write down what a call came to, however long the database is away."""
        around, lead = self._around, call.lead
        outcome = after(self._rules, call.begun, end, callback_at=result.callback_at, hours=self._hours)
        at = around.store.time()
        events: list[NewEvent] = []
        if outcome.next_at is None:
            events = lead_event(self._definition, call.begun, outcome, end, call.call_id, at, _new_event_id)
        tries = 0
        while True:
            try:
                if result.opted_out:
                    reason, tell = "said so in a call", partial(self._opted_out_elsewhere, lead)
                    await around.queue.opt_out(
                        lead.number, reason=reason, call_id=call.call_id, line=call.definition.line, tell=tell
                    )
                changed = await around.queue.finish_attempt(call.call_id, end, outcome, events)
                break
            except StoreError as error:
                around.stats.unwritten += tries == 0
                around.stats.problem = str(error)
                logger.error("call %s: what it came to is not written yet: %s", call.call_id, error)
                pause_s = _AGAIN_S[min(tries, len(_AGAIN_S) - 1)]
                tries += 1
                try:
                    await asyncio.sleep(pause_s)
                except asyncio.CancelledError:
                    # What it came to is not given up because the campaign is stopped, only with the box.
                    if self._given_up:
                        raise
        around.stats.unwritten -= tries > 0
        if not changed:
            return
        disposition = Disposition(end.disposition)
        around.stats.attempts[self._row.name, end.disposition] += 1
        self._count_hour(lead.number, call.begun.last_at or at, answered=reached(disposition))
        self._tell("reached" if reached(disposition) else "failed", lead, call.call_id, disposition=end.disposition)
        if outcome.next_at is None:
            self._lead_done(lead, outcome, events)

    def _opted_out_elsewhere(self, caller: Lead, lead: Lead) -> list[NewEvent]:
        """For leads of this campaign; another's webhook is told by the rule that finds the number on the list."""
        if lead.campaign_id != self._row.id or lead.id == caller.id:
            return []
        outcome = LeadNext(Disposition.OPTED_OUT.value, detail="said so in another call")
        return lead_event(self._definition, lead, outcome, None, lead.call_id, self._around.store.time(), _new_event_id)

    # --- telling --------------------------------------------------------------------------------------------------

    @property
    def _hours(self) -> Hours:
        return Hours(tuple(self._placed), tuple(self._answered))

    def _count_hour(self, number: str, at: datetime, *, answered: bool) -> None:
        zones = zones_of_number(number)
        zone = zone_named(zones[-1]) if zones else None
        if zone is not None:
            hour = at.astimezone(zone).hour
            self._placed[hour] += 1
            self._answered[hour] += answered

    def _lead_done(self, lead: Lead, outcome: LeadNext, events: Sequence[NewEvent]) -> None:
        self._around.stats.leads_done[self._row.name, outcome.disposition] += 1
        self._tell("done", lead, lead.call_id, disposition=outcome.disposition, detail=outcome.detail)
        if events:
            self._around.sent(events)

    def _tell(self, kind: str, lead: Lead, call_id: str, **details: str) -> None:
        told = {"number": lead.number, "reference": lead.reference, "call_id": call_id, **details}
        self._around.tell(CampaignEvent(self._row.name, str(lead.id), kind, self._around.store.time(), told))


@dataclass(frozen=True)
class _Turned:
    """A lead that was not called after all: given back until then, or already dealt with (``over``). ``full``: nobody
    else can be called now, either."""

    over: bool = False
    full: bool = False
    until: datetime | None = None
    why: str = ""


def reached_by(attempt: AttemptRow) -> bool:
    """Whether somebody was spoken with in an attempt that is over."""
    return attempt.disposition in set(Disposition) and reached(Disposition(attempt.disposition))


def _new_event_id() -> str:
    return f"evt_{uuid.uuid4().hex}"
