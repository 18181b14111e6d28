"""How the line of a call was: the E-model's scores, loss, jitter and round trip."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = ("mos", "mos_far", "loss_percent", "jitter_ms", "round_trip_ms")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("calls", sa.Column(name, sa.Float()))


def downgrade() -> None:
    with op.batch_alter_table("calls") as table:
        for name in _COLUMNS:
            table.drop_column(name)
