from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from appliance.cli.calls import describe
from appliance.errors import StoreError
from appliance.store import campaign_models, schema
from appliance.store.calls import CallStore
from appliance.store.models import Base
from tests.store.old_record import upgrade_a_call_of_before


def test_an_empty_database_gets_exactly_the_tables_of_the_models(tmp_path: Path) -> None:
    assert campaign_models.Lead.__tablename__ in Base.metadata.tables
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.begin() as connection:
        schema.upgrade(connection)
    with engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version", *Base.metadata.tables}
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        schema.check(connection)
    engine.dispose()


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    for _ in range(2):
        with engine.begin() as connection:
            schema.upgrade(connection)
    engine.dispose()


def test_calls_of_the_first_version_are_kept_and_know_nothing_of_their_line(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = [column["name"] for column in inspect(connection).get_columns("calls")]
        given = {"id": "old", "started_at": "2026-03-02 12:00:00", "slots": "{}", "hangup_code": 0}
        row = {name: given.get(name, "" if name not in ("recording_frames",) else None) for name in columns}
        names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
        connection.execute(text(f"insert into calls ({names}) values ({values})"), row)
        schema.upgrade(connection)
        assert connection.execute(text("select id, mos, round_trip_ms from calls")).all() == [("old", None, None)]
    engine.dispose()


async def test_a_turn_of_an_earlier_version_is_read_as_one_of_which_less_is_known(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.begin() as connection:
        upgrade_a_call_of_before(connection)
    engine.dispose()
    async with CallStore(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
        call = await store.get("old")
        assert call is not None
        assert [(turn.tools, turn.speculation, turn.pauses, turn.asked) for turn in call.turns] == [([], {}, 0, "")]
        await store.callers.keep("+15551234567", "desk", "likes tea", days=1)
        assert await store.callers.recall("+15551234567", "desk") == "likes tea"
        assert describe(call)


@pytest.mark.parametrize("step", [schema.upgrade, schema.check])
def test_a_database_of_a_newer_version_is_refused_with_the_remedy(tmp_path: Path, step: object) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.begin() as connection:
        schema.upgrade(connection)
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with (
        engine.connect() as connection,
        pytest.raises(StoreError, match=r"newer version .* schema is 9999, this version knows up to 0007"),
    ):
        assert callable(step)
        step(connection)
    engine.dispose()


def test_reading_what_is_no_call_record_says_so(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection, pytest.raises(StoreError, match="holds no call record"):
        schema.check(connection)
    engine.dispose()


async def test_an_upgrade_that_is_cut_off_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"
    upgrade = schema.upgrade

    def cut_off(connection: Connection) -> None:
        upgrade(connection)
        raise OSError("killed")

    monkeypatch.setattr(schema, "upgrade", cut_off)
    with pytest.raises(StoreError, match="killed"):
        await CallStore(url).open()
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    monkeypatch.undo()
    async with CallStore(url) as store:
        assert await store.recent() == []
