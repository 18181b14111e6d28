"""The tables of outbound campaigns, beside those of the call record. docs/records.md says what each column means.

Times are UTC and, of a campaign, always the database's own clock (``CampaignStore.time``): boxes whose clocks differ
share one without dialling early.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from appliance.store.models import Base, UtcDateTime

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts only columns of type INTEGER up by itself."""


class Campaign(Base):
    """One row per campaign: what it is to do, and whether it does."""

    __tablename__ = "campaigns"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)
    revision: Mapped[int] = mapped_column(Integer, default=1)
    state: Mapped[str] = mapped_column(String(16), default="created")
    state_reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_call_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Lead(Base):
    """Somebody whom a campaign is to call."""

    __tablename__ = "leads"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    campaign_id: Mapped[str] = mapped_column(String(64), ForeignKey("campaigns.id", ondelete="CASCADE"))
    row: Mapped[int] = mapped_column(Integer, default=0)
    reference: Mapped[str] = mapped_column(Text, default="")
    number: Mapped[str] = mapped_column(String(64))
    zones: Mapped[list[str]] = mapped_column(JSON, default=list)
    address_zone: Mapped[str] = mapped_column(Text, default="")
    region: Mapped[str] = mapped_column(String(16), default="")
    variables: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    consent: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    priority: Mapped[int] = mapped_column(Integer, default=2)
    disposition: Mapped[str] = mapped_column(String(16), default="")
    detail: Mapped[str] = mapped_column(Text, default="")
    sip_code: Mapped[int] = mapped_column(Integer, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    attempts_by: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    callback_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claimed_by: Mapped[str] = mapped_column(String(255), default="")
    claim_token: Mapped[str] = mapped_column(String(64), default="")
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    done_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    slots: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    call_id: Mapped[str] = mapped_column(String(64), default="")

    __table_args__ = (
        UniqueConstraint("campaign_id", "number", name="uq_leads_campaign_number"),
        Index("ix_leads_due", "campaign_id", "state", "priority", "next_at"),
        Index("ix_leads_number", "number"),
        Index("ix_leads_lease", "state", "lease_until"),
        Index("ix_leads_disposition", "campaign_id", "state", "disposition"),
    )


class Attempt(Base):
    """One row per call that a campaign was about to place: it is there before the INVITE leaves."""

    __tablename__ = "attempts"

    call_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    lead_id: Mapped[int] = mapped_column(BigId, ForeignKey("leads.id", ondelete="CASCADE"))
    campaign_id: Mapped[str] = mapped_column(String(64), ForeignKey("campaigns.id", ondelete="CASCADE"))
    number: Mapped[str] = mapped_column(String(64))
    box: Mapped[str] = mapped_column(String(255))
    trunk: Mapped[str] = mapped_column(String(255), default="")
    caller_id: Mapped[str] = mapped_column(String(64), default="")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ringing_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disposition: Mapped[str] = mapped_column(String(16), default="")
    sip_code: Mapped[int] = mapped_column(Integer, default=0)
    sip_text: Mapped[str] = mapped_column(Text, default="")
    verdict: Mapped[str] = mapped_column(String(16), default="")
    verdict_confidence: Mapped[float | None] = mapped_column(Float)
    verdict_ms: Mapped[float | None] = mapped_column(Float)
    abandoned: Mapped[bool] = mapped_column(default=False)
    talk_s: Mapped[float] = mapped_column(Float, default=0.0)
    detail: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = (
        Index("ix_attempts_number", "number", "started_at"),
        Index("ix_attempts_campaign", "campaign_id", "started_at"),
        Index("ix_attempts_open", "box", "ended_at"),
        Index("ix_attempts_campaign_open", "campaign_id", "ended_at"),
        Index("ix_attempts_lead", "lead_id"),
    )


class Contact(Base):
    """How often a number was called, by all campaigns together."""

    __tablename__ = "contacts"

    number: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    day: Mapped[str] = mapped_column(String(10), default="")
    day_attempts: Mapped[int] = mapped_column(Integer, default=0)
    total_attempts: Mapped[int] = mapped_column(Integer, default=0)


class CampaignDoNotCall(Base):
    """A number that one campaign is not to call."""

    __tablename__ = "campaign_do_not_call"

    campaign_id: Mapped[str] = mapped_column(
        String(64), ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[str] = mapped_column(String(64), primary_key=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    source: Mapped[str] = mapped_column(Text, default="")
