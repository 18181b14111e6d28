"""Events that webhooks have still to be told of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("box", sa.String(255), nullable=False),
        sa.Column("plugin", sa.String(64), nullable=False),
        sa.Column("webhook", sa.String(64), nullable=False),
        sa.Column("line", sa.String(255), nullable=False),
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("given_up_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_webhook_events_next", "webhook_events", ["box", "plugin", "webhook", "given_up_at", "next_at"])


def downgrade() -> None:
    op.drop_index("ix_webhook_events_next", "webhook_events")
    op.drop_table("webhook_events")
