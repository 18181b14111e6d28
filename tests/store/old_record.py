"""A record that an earlier version of the appliance has written."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Column, Connection, MetaData

from appliance.store import schema
from tests.store.facts import after


def upgrade_a_call_of_before(connection: Connection) -> None:
    """A call with a turn, written under the schema 0002, brought to the one of today."""
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "0002")
    metadata = MetaData()
    metadata.reflect(connection, only=["calls", "turns"])
    for name in ("calls", "turns"):
        table = metadata.tables[name]
        connection.execute(table.insert().values({c.name: _value(c) for c in table.columns if not c.nullable}))
    schema.upgrade(connection)


def _value(column: Column[Any]) -> Any:
    """ "old" for what names the call, 12:00 for times, else nothing."""
    if column.name in ("id", "call_id"):
        return "old"
    if isinstance(column.type, JSON):
        return {}
    return after(0) if column.type.python_type is datetime else column.type.python_type()
