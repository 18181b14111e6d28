"""Outbound campaigns: their leads, every attempt to call one, and who is not to be called."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_AT = sa.DateTime(timezone=True)


def _of_campaign(*, primary_key: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey("campaigns.id", ondelete="CASCADE")
    return sa.Column("campaign_id", sa.String(64), key, nullable=False, primary_key=primary_key)


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("state_at", _AT, nullable=False),
        sa.Column("next_call_at", _AT),
    )
    op.create_table(
        "leads",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _of_campaign(),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("number", sa.String(64), nullable=False),
        sa.Column("zones", sa.JSON(), nullable=False),
        sa.Column("address_zone", sa.Text(), nullable=False),
        sa.Column("region", sa.String(16), nullable=False),
        sa.Column("variables", sa.JSON(), nullable=False),
        sa.Column("consent", sa.JSON(none_as_null=True)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("sip_code", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempts_by", sa.JSON(), nullable=False),
        sa.Column("next_at", _AT, nullable=False),
        sa.Column("callback_at", _AT),
        sa.Column("claimed_by", sa.String(255), nullable=False),
        sa.Column("claim_token", sa.String(64), nullable=False),
        sa.Column("lease_until", _AT),
        sa.Column("last_at", _AT),
        sa.Column("done_at", _AT),
        sa.Column("slots", sa.JSON(), nullable=False),
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.UniqueConstraint("campaign_id", "number", name="uq_leads_campaign_number"),
    )
    op.create_index("ix_leads_due", "leads", ["campaign_id", "state", "priority", "next_at"])
    op.create_index("ix_leads_number", "leads", ["number"])
    op.create_index("ix_leads_lease", "leads", ["state", "lease_until"])
    op.create_index("ix_leads_disposition", "leads", ["campaign_id", "state", "disposition"])
    op.create_table(
        "attempts",
        sa.Column("call_id", sa.String(64), primary_key=True),
        sa.Column("lead_id", _BIG, sa.ForeignKey("leads.id", ondelete="CASCADE"), nullable=False),
        _of_campaign(),
        sa.Column("number", sa.String(64), nullable=False),
        sa.Column("box", sa.String(255), nullable=False),
        sa.Column("trunk", sa.String(255), nullable=False),
        sa.Column("caller_id", sa.String(64), nullable=False),
        sa.Column("started_at", _AT, nullable=False),
        sa.Column("ringing_at", _AT),
        sa.Column("answered_at", _AT),
        sa.Column("ended_at", _AT),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("sip_code", sa.Integer(), nullable=False),
        sa.Column("sip_text", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("verdict_confidence", sa.Float()),
        sa.Column("verdict_ms", sa.Float()),
        sa.Column("abandoned", sa.Boolean(), nullable=False),
        sa.Column("talk_s", sa.Float(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_index("ix_attempts_number", "attempts", ["number", "started_at"])
    op.create_index("ix_attempts_campaign", "attempts", ["campaign_id", "started_at"])
    op.create_index("ix_attempts_open", "attempts", ["box", "ended_at"])
    op.create_index("ix_attempts_campaign_open", "attempts", ["campaign_id", "ended_at"])
    op.create_index("ix_attempts_lead", "attempts", ["lead_id"])
    op.create_table(
        "contacts",
        sa.Column("number", sa.String(64), primary_key=True),
        sa.Column("last_started_at", _AT),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("day_attempts", sa.Integer(), nullable=False),
        sa.Column("total_attempts", sa.Integer(), nullable=False),
    )
    op.create_table(
        "campaign_do_not_call",
        _of_campaign(primary_key=True),
        sa.Column("number", sa.String(64), primary_key=True),
        sa.Column("added_at", _AT, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    for table in ("campaign_do_not_call", "contacts", "attempts", "leads", "campaigns"):
        op.drop_table(table)
