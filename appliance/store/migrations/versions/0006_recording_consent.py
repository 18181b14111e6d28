"""What callers said about being recorded, what of a recording is silence, and when it is deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NAMES = ("recording_consent", "recording_paused", "recording_delete_at")


def upgrade() -> None:
    op.add_column("calls", sa.Column("recording_consent", sa.String(16), nullable=False, server_default=""))
    op.add_column("calls", sa.Column("recording_paused", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("calls", sa.Column("recording_delete_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    with op.batch_alter_table("calls") as table:
        for name in _NAMES:
            table.drop_column(name)
