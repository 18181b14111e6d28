"""Alembic's environment; :mod:`appliance.store.schema` runs it."""
