"""Calls and their turns."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(name: str, kind: sa.types.TypeEngine[str]) -> sa.Column[str]:
    return sa.Column(name, kind, nullable=False)


def _time(name: str, *, nullable: bool = True) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.String(64), primary_key=True),
        _text("box", sa.String(255)),
        _text("protocol", sa.String(32)),
        _text("protocol_call_id", sa.Text()),
        _text("trunk", sa.String(255)),
        _text("line", sa.String(255)),
        _text("called", sa.Text()),
        _text("calling", sa.Text()),
        _text("calling_name", sa.Text()),
        _text("direction", sa.String(16)),
        _time("started_at", nullable=False),
        _time("ringing_at"),
        _time("answered_at"),
        _time("ended_at"),
        _text("disposition", sa.String(16)),
        _text("hangup_by", sa.String(16)),
        sa.Column("hangup_code", sa.Integer(), nullable=False),
        _text("hangup_text", sa.Text()),
        sa.Column("slots", sa.JSON(), nullable=False),
        sa.Column("recording_path", sa.Text()),
        sa.Column("recording_started_frame", sa.Integer()),
        sa.Column("recording_frames", sa.Integer()),
        _text("recording_problem", sa.Text()),
    )
    op.create_index("ix_calls_started_at", "calls", ["started_at"])
    op.create_index("ix_calls_open", "calls", ["disposition", "box"])
    op.create_table(
        "turns",
        sa.Column("call_id", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        _time("finished_at", nullable=False),
        _text("by", sa.String(8)),
        _text("caller_text", sa.Text()),
        sa.Column("confidence", sa.Float()),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        _text("agent_text", sa.Text()),
        _text("heard_text", sa.Text()),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("speech_start_s", sa.Float()),
        sa.Column("speech_end_s", sa.Float()),
        sa.Column("latency_ms", sa.Float()),
        sa.Column("waterfall", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("turns")
    op.drop_index("ix_calls_open", "calls")
    op.drop_index("ix_calls_started_at", "calls")
    op.drop_table("calls")
