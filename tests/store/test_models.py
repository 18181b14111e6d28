from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite

from appliance.events import Disposition
from appliance.store import campaign_models
from appliance.store.models import Base, UtcDateTime

DOCUMENT = Path(__file__).parents[2] / "docs" / "records.md"


assert campaign_models.Base is Base  # its tables are among those below


@pytest.mark.parametrize("table", list(Base.metadata.tables))
def test_every_column_is_documented(table: str) -> None:
    section = DOCUMENT.read_text().split(f"## Table `{table}`")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.M)
    assert documented == [column.name for column in Base.metadata.tables[table].columns]


def test_every_disposition_is_documented() -> None:
    for disposition in Disposition:
        assert f"`{disposition.value}`" in DOCUMENT.read_text()


def test_a_time_without_a_zone_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="timezone-aware"):
        UtcDateTime().process_bind_param(datetime(2026, 3, 2), sqlite.dialect())  # noqa: DTZ001
