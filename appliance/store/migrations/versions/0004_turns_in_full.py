"""How each turn came about: why it ended, what was begun in advance, tools, the model; and the SIP of each call."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TEXTS = ("ended_by", "asked", "server", "problem")


def upgrade() -> None:
    for name in _TEXTS:
        op.add_column("turns", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("turns", sa.Column("probability", sa.Float()))
    op.add_column("turns", sa.Column("pauses", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("turns", sa.Column("speculation", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("turns", sa.Column("tools", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("calls", sa.Column("trace", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    with op.batch_alter_table("calls") as table:
        table.drop_column("trace")
    with op.batch_alter_table("turns") as table:
        for name in (*_TEXTS, "probability", "pauses", "speculation", "tools"):
            table.drop_column(name)
