"""Rows and conditions that the steps of leads share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Table, and_, exists, func, or_, select

from appliance.store import campaign_models  # noqa: F401  (its tables belong to the metadata)
from appliance.store.callers import spellings
from appliance.store.campaign_rows import AttemptEnd, Lead
from appliance.store.models import Base

_tables = Base.metadata.tables
_leads: Table = _tables["leads"]
_attempts: Table = _tables["attempts"]
_everybody: Table = _tables["do_not_call"]
_of_campaign: Table = _tables["campaign_do_not_call"]

MAX_TEXT: Final = 1000

UNCLAIMED: Final[Mapping[str, Any]] = {
    "state": "waiting",
    "claimed_by": "",
    "claim_token": "",
    "lease_until": None,
}


def lead_of(row: Any) -> Lead:
    """A row of ``leads``."""
    values = dict(row._mapping)
    return Lead(**{**values, "zones": tuple(values["zones"])})


def claimed(lead: Lead) -> Any:
    return and_(_leads.c.id == lead.id, _leads.c.claim_token == lead.claim_token, _leads.c.state == "claimed")


def waiting(campaign_id: str, priority: int) -> Any:
    return and_(_leads.c.campaign_id == campaign_id, _leads.c.state == "waiting", _leads.c.priority == priority)


def calling(campaign_id: str) -> Any:
    query = select(func.count()).where(_attempts.c.campaign_id == campaign_id, _attempts.c.ended_at.is_(None))
    return query.scalar_subquery()


def refuses(campaign_id: str, number: str) -> Any:
    everybody = exists().where(_everybody.c.number.in_(spellings(number)))
    theirs = exists().where(_of_campaign.c.campaign_id == campaign_id, _of_campaign.c.number == number)
    return select(or_(everybody, theirs))


def ended(attempt: Any, end: AttemptEnd) -> dict[str, Any]:
    """The columns of an attempt that is over; what was noted of it while it went on stays where its end does not
    say."""
    return {
        "ringing_at": end.ringing_at or attempt.ringing_at,
        "answered_at": end.answered_at or attempt.answered_at,
        "ended_at": end.ended_at,
        "disposition": end.disposition,
        "sip_code": end.sip_code,
        "sip_text": end.sip_text[:MAX_TEXT],
        "verdict": end.verdict or attempt.verdict,
        "verdict_confidence": end.verdict_confidence,
        "verdict_ms": end.verdict_ms,
        "abandoned": end.abandoned,
        "talk_s": end.talk_s,
        "detail": end.detail[:MAX_TEXT],
    }


def moved(by_s: float, column: Any) -> Any:
    """A time in SQLite, moved where it is: a list has up to a million leads, and nobody is called meanwhile."""
    return func.strftime("%Y-%m-%d %H:%M:%f", column, f"{by_s:+.3f} seconds").concat("000")
