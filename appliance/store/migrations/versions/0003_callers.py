"""What is remembered of callers, and who is not to be called."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "caller_memory",
        sa.Column("number", sa.String(64), primary_key=True),
        sa.Column("line", sa.String(255), primary_key=True),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_caller_memory_expires_at", "caller_memory", ["expires_at"])
    op.create_table(
        "do_not_call",
        sa.Column("number", sa.String(64), primary_key=True),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("line", sa.String(255), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("do_not_call")
    op.drop_index("ix_caller_memory_expires_at", "caller_memory")
    op.drop_table("caller_memory")
