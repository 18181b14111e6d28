"""Alembic runs this file for every upgrade, on the connection that :mod:`appliance.store.schema` opened."""

from __future__ import annotations

from alembic import context

from appliance.store import campaign_models  # noqa: F401  (its tables belong to the metadata)
from appliance.store.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
