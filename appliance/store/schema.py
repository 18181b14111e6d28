"""Brings a database to the schema this version of the appliance knows."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url

from appliance.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Run every migration the database has not had, in one transaction of ``connection``.

    Raises:
        StoreError: the database was written by a newer version.
    """
    config = _config()
    if _revision(connection, config) == ScriptDirectory.from_config(config).get_current_head():
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check(connection: Connection) -> None:
    """Refuse to read a database whose schema is not the one this version knows.

    Raises:
        StoreError: it is older, newer, or no call record at all.
    """
    config = _config()
    head = ScriptDirectory.from_config(config).get_current_head()
    revision = _revision(connection, config)
    if revision is None:
        raise StoreError(f"{_name(connection)} holds no call record; start the appliance once to create it")
    if revision != head:
        raise StoreError(
            f"{_name(connection)} has schema {revision}, this version of the appliance reads {head}; "
            "start the appliance once to upgrade it"
        )


def _revision(connection: Connection, config: Config) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]
    if revision is not None and revision not in known:
        raise StoreError(
            f"{_name(connection)} was written by a newer version of the appliance: its schema is {revision}, "
            f"this version knows up to {known[0]}. Install the newer version again, or point store.url at another "
            "database"
        )
    return revision


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _name(connection: Connection) -> str:
    return make_url(connection.engine.url).render_as_string(hide_password=True)
