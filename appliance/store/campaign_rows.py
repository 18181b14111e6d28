"""Campaigns, leads and attempts as they are read and written; docs/records.md says what each field means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class CampaignState(StrEnum):
    """Whether a campaign calls."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPED = "stopped"
    FINISHED = "finished"


TRANSITIONS: Final[Mapping[CampaignState, frozenset[CampaignState]]] = {
    CampaignState.CREATED: frozenset({CampaignState.RUNNING, CampaignState.STOPPED}),
    CampaignState.RUNNING: frozenset(
        {CampaignState.PAUSED, CampaignState.DRAINING, CampaignState.STOPPED, CampaignState.FINISHED}
    ),
    CampaignState.PAUSED: frozenset({CampaignState.RUNNING, CampaignState.DRAINING, CampaignState.STOPPED}),
    CampaignState.DRAINING: frozenset({CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.STOPPED}),
    CampaignState.STOPPED: frozenset({CampaignState.RUNNING}),
    CampaignState.FINISHED: frozenset({CampaignState.RUNNING}),
}
"""Which state may follow which. A campaign that is stopped or finished may be started again."""


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign. ``definition`` is JSON as :mod:`appliance.campaigns.definition` writes it."""

    id: str
    name: str
    definition: Mapping[str, Any]
    revision: int
    state: CampaignState
    state_reason: str
    created_at: datetime
    state_at: datetime
    next_call_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewLead:
    """A lead as it is imported. ``number`` is E.164, ``row`` the line of the operator's file."""

    row: int
    number: str
    reference: str = ""
    zones: tuple[str, ...] = ()
    address_zone: str = ""
    region: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    consent: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead, with everything that is known of it."""

    id: int
    campaign_id: str
    row: int
    reference: str
    number: str
    zones: tuple[str, ...]
    address_zone: str
    region: str
    variables: Mapping[str, str]
    consent: Mapping[str, str] | None
    state: str
    priority: int
    disposition: str
    detail: str
    sip_code: int
    attempts: int
    attempts_by: Mapping[str, int]
    next_at: datetime
    callback_at: datetime | None
    claimed_by: str
    claim_token: str
    lease_until: datetime | None
    last_at: datetime | None
    done_at: datetime | None
    slots: Mapping[str, Any]
    call_id: str


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One call of a campaign. ``ended_at`` is None while it goes on."""

    call_id: str
    lead_id: int
    campaign_id: str
    number: str
    box: str
    trunk: str
    caller_id: str
    started_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    disposition: str
    sip_code: int
    sip_text: str
    verdict: str
    verdict_confidence: float | None
    verdict_ms: float | None
    abandoned: bool
    talk_s: float
    detail: str


@dataclass(frozen=True, slots=True)
class Contact:
    """How often all campaigns have called a number. ``day`` is its own local day, as ``2026-11-22``."""

    number: str
    last_started_at: datetime | None = None
    day: str = ""
    day_attempts: int = 0
    total_attempts: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the leads of a campaign are; ``waiting + claimed + done == total``."""

    total: int = 0
    waiting: int = 0
    claimed: int = 0
    done: int = 0
    by_disposition: Mapping[str, int] = field(default_factory=dict)
    """Of the leads that are done."""
    attempts: int = 0
    answered: int = 0
    abandoned: int = 0
    calling: int = 0
    """Attempts that go on now, on all boxes."""
    talk_s: float = 0.0
    next_at: datetime | None = None
    """When the first waiting lead is due."""


class Refused(StrEnum):
    """Why an attempt may not begin, whatever was thought before."""

    CLAIM = "claim"  # the lead is no longer this box's
    STATE = "state"  # the campaign does not run any more
    DO_NOT_CALL = "do_not_call"
    GAP = "gap"  # the number was called too short a time ago, by whichever campaign
    DAY = "day"  # as often as it may be on one day
    TOTAL = "total"  # as often as it may be at all
    LEAD = "lead"  # as often as this campaign may
    ROOM = "room"  # as many calls of the campaign go on, over all boxes, as may
    RATE = "rate"  # the campaign's last call, of whichever box, began too short a time ago


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """What must hold at the moment an attempt begins, over all campaigns and boxes.

    ``day`` is the called party's local day, as ``2026-11-22``; ``spacing_s`` the least time between the beginnings of
    two calls of the campaign. ``agreed``: the time was agreed on with the person, so that the gap before it does not
    hold; the one after it does.
    """

    day: str
    gap_s: float
    per_day: int
    per_number: int
    per_lead: int
    max_calls: int
    spacing_s: float = 0.0
    agreed: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether an attempt may go on; ``until`` says when to ask again, where time alone helps."""

    refused: Refused | None = None
    until: datetime | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """What an attempt came to."""

    disposition: str
    ended_at: datetime
    sip_code: int = 0
    sip_text: str = ""
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    verdict: str = ""
    verdict_confidence: float | None = None
    verdict_ms: float | None = None
    abandoned: bool = False
    talk_s: float = 0.0
    detail: str = ""
    slots: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeadNext:
    """What becomes of a lead: called again at ``next_at``, or done where that is None.

    It is never called within the gap after its last attempt, whatever ``next_at`` says, but at a time that was agreed
    on (``callback_at``).
    """

    disposition: str
    next_at: datetime | None = None
    callback_at: datetime | None = None
    detail: str = ""
