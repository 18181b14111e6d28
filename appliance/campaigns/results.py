"""What one call comes to in the database, in the eyes of those who judge the campaign, and to its webhook. PURE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from appliance.calls.outgoing import OutgoingOrder, OutgoingResult
from appliance.campaigns.definition import Definition
from appliance.campaigns.outcome import Disposition, disposition
from appliance.campaigns.pacing import ABANDONED_AFTER_S
from appliance.campaigns.retries import Hours, Next, next_call
from appliance.campaigns.rules import Rules
from appliance.conversation.answering import Answering
from appliance.dialplan.text import render
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.campaign_rows import AttemptEnd, Lead, LeadNext

CAMPAIGNS: Final = "@campaigns"
"""In the queue of webhooks, where a plugin's name would be: no plugin can be called so."""

LEAD_DONE: Final = "campaign.lead"
NOBODY: Final = ("machine", "fax")
"""Verdicts on what is no person."""
_MAX_BODY: Final = 200_000
_REACHED: Final = frozenset(
    {
        Disposition.ANSWERED,
        Disposition.COMPLETED,
        Disposition.OPTED_OUT,
        Disposition.TRANSFERRED,
        Disposition.ABANDONED,
    }
)


@dataclass(frozen=True, slots=True)
class Moment:
    """The campaigns' clock and the monotonic one at the same moment, so that the one tells the other."""

    utc: datetime
    monotonic: float

    def at(self, monotonic: float | None) -> datetime | None:
        """That moment by the campaigns' clock."""
        return None if monotonic is None else self.utc + timedelta(seconds=monotonic - self.monotonic)


def was_abandoned(result: OutgoingResult) -> bool:
    """Whether a person answered and did not hear the agent in time. Who hangs up before that was not abandoned."""
    if result.answered_at is None or result.message_left or _is_machine(result):
        return False
    if result.greeted_at is not None:
        return result.greeted_at - result.answered_at > ABANDONED_AFTER_S
    return result.talk_s > ABANDONED_AFTER_S


def by_a_person(result: OutgoingResult) -> bool:
    """Whether the call counts among those that people answered."""
    return result.answered_at is not None and not _is_machine(result)


def reached(outcome: Disposition) -> bool:
    """Whether somebody was spoken with."""
    return outcome in _REACHED


def end_of(result: OutgoingResult, now: Moment, *, stopped: bool) -> AttemptEnd:
    """The result as the database keeps it.

    Args:
        result: of the call.
        now: to tell its times by the campaigns' clock.
        stopped: the campaign or the box has ended the call.
    """
    abandoned = was_abandoned(result)
    verdict = result.verdict
    return AttemptEnd(
        disposition=disposition(result, abandoned=abandoned, stopped=stopped).value,
        ended_at=now.at(result.ended_at) or now.utc,
        sip_code=result.sip_code,
        sip_text=result.sip_text,
        ringing_at=now.at(result.ringing_at),
        answered_at=now.at(result.answered_at),
        verdict="" if verdict is None else verdict.kind,
        verdict_confidence=None if verdict is None else round(verdict.confidence, 3),
        verdict_ms=None if verdict is None else round(verdict.at_s * 1000.0, 1),
        abandoned=abandoned,
        talk_s=round(result.talk_s, 3),
        detail=result.problem or result.reason or result.sip_text,
        slots=result.slots,
    )


def after(
    rules: Rules, lead: Lead, end: AttemptEnd, *, callback_at: datetime | None = None, hours: Hours | None = None
) -> LeadNext:
    """What becomes of a lead whose attempt is over.

    Args:
        rules: of the campaign.
        lead: as it was claimed: this attempt is not counted yet.
        end: of the attempt.
        callback_at: agreed on in the call.
        hours: when the campaign's calls were answered so far.
    """
    counted = {**lead.attempts_by, end.disposition: lead.attempts_by.get(end.disposition, 0) + 1}
    outcome = Disposition(end.disposition)
    found: Next = next_call(rules, lead, counted, outcome, end.ended_at, callback_at=callback_at, hours=hours)
    detail = end.detail if found.at is None else found.why
    return LeadNext(end.disposition, found.at, found.callback_at, detail)


def begun(lead: Lead, started_at: datetime) -> Lead:
    """The lead as the database has it once its attempt has begun."""
    return replace(lead, attempts=lead.attempts + 1, last_at=started_at, callback_at=None)


def order_for(definition: Definition, lead: Lead, call_id: str, caller_id: str) -> OutgoingOrder:
    """The call that a lead is to get."""
    machines = definition.answering_machines
    values = {f"lead.{name}": value for name, value in lead.variables.items()}
    texts = {**values, "campaign.owner": definition.owner, "campaign.name": definition.name}
    message = render(machines.message, texts) if machines.message else ""
    zone = lead.address_zone.split()[0] if lead.address_zone else (lead.zones[0] if len(lead.zones) == 1 else "")
    return OutgoingOrder(
        call_id=call_id,
        number=lead.number,
        line=definition.line,
        trunk=definition.trunk,
        caller_id=caller_id,
        ring_timeout_s=definition.pacing.ring_timeout_s,
        variables=lead.variables,
        campaign=definition.name,
        owner=definition.owner,
        zone=zone,
        opt_out_key=definition.opt_out_key,
        answering=Answering(
            detect=machines.detect,
            on_machine=machines.on_machine,
            message=message,
            on_screening=machines.on_screening,
        ),
    )


def lead_event(
    definition: Definition,
    lead: Lead,
    outcome: LeadNext,
    end: AttemptEnd | None,
    call_id: str,
    at: datetime,
    new_id: Callable[[], str],
) -> list[NewEvent]:
    """What the campaign's webhook is told of a lead that is done; nothing where it has none.

    Args:
        lead: as it was before its last attempt ended, which is counted in ``attempts``.
        outcome: what became of it.
        end: of that attempt; None where it was never called.
        call_id: of it, or "".
        at: now.
        new_id: a new id for an event.
    """
    if not definition.webhook.url:
        return []
    told: dict[str, Any] = {
        "campaign": definition.name,
        "lead": lead.id,
        "reference": lead.reference,
        "number": lead.number,
        "disposition": outcome.disposition,
        "detail": outcome.detail,
        "attempts": lead.attempts,
        "call_id": call_id,
    }
    if end is not None:
        told |= {
            "sip_code": end.sip_code,
            "answered_at": None if end.answered_at is None else end.answered_at.isoformat(),
            "ended_at": end.ended_at.isoformat(),
            "talk_s": end.talk_s,
            "verdict": end.verdict,
        }
    told["slots"] = {**lead.slots, **(end.slots if end is not None else {})}
    body = _encoded({"type": LEAD_DONE, "timestamp": at.isoformat(), "data": told})
    if len(body) > _MAX_BODY:
        body = _encoded({"type": LEAD_DONE, "timestamp": at.isoformat(), "data": {**told, "slots": {}}})
    return [
        NewEvent(new_id(), CAMPAIGNS, lead.campaign_id, definition.line, call_id, LEAD_DONE, body.decode(), at),
    ]


def _encoded(told: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(told)
    except UnicodeEncodeError:  # half a character, from a slot
        return msgspec.json.encode({**told, "data": {**told["data"], "slots": {}}})


def _is_machine(result: OutgoingResult) -> bool:
    return result.verdict is not None and result.verdict.kind in NOBODY
