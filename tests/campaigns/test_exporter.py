"""Results as CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.campaigns.exporter import LEAD_COLUMNS, defused, export
from appliance.store.campaign_rows import NewLead
from appliance.store.campaigns import CampaignStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CampaignStore]:
    async with CampaignStore(f"sqlite+aiosqlite:///{tmp_path}/box.db") as opened:
        campaign_id = await opened.create("recall", {})
        leads = [
            NewLead(2, "+12125551234", reference="=1+2", variables={"name": '=HYPERLINK("http://x")', "sum": "-5"}),
            NewLead(3, "+12125551235", variables={"name": "Zoë\n", "city": "@SUM(A1)"}),
        ]
        await opened.insert_leads(campaign_id, leads)
        yield opened


async def test_csv_has_a_column_for_every_variable_and_no_formulas(store: CampaignStore) -> None:
    to = io.StringIO(newline="")
    assert await export(store, "recall", to, what="leads", format="csv") == 2
    rows = list(csv.DictReader(io.StringIO(to.getvalue(), newline="")))
    assert list(rows[0]) == [*LEAD_COLUMNS, "lead.name", "lead.sum", "lead.city"]
    assert rows[0]["number"] == "+12125551234"
    assert rows[0]["reference"] == "'=1+2"
    assert rows[0]["lead.name"].startswith("'=HYPERLINK")
    assert rows[0]["lead.sum"] == "-5"
    assert (rows[1]["lead.name"], rows[1]["lead.city"]) == ("Zoë\n", "'@SUM(A1)")


async def test_json_lines_hold_everything_as_it_is(store: CampaignStore) -> None:
    to = io.StringIO()
    assert await export(store, "recall", to, what="leads", format="jsonl") == 2
    rows = [json.loads(line) for line in to.getvalue().splitlines()]
    assert rows[0]["variables"] == {"name": '=HYPERLINK("http://x")', "sum": "-5"}
    assert (rows[0]["state"], rows[0]["slots"], rows[0]["attempts"]) == ("waiting", {}, 0)


async def test_calls_are_exported_too(store: CampaignStore) -> None:
    to = io.StringIO(newline="")
    assert await export(store, "recall", to, what="attempts", format="csv") == 0
    assert to.getvalue().startswith("call_id,lead_id,")


@pytest.mark.parametrize("cell", ["=1", "+1+2", "-a", "@x", "\t=1", "\r=1", "＝1", "+1 2", "-1e5|x"])
def test_what_a_spreadsheet_would_calculate_is_text(cell: str) -> None:
    assert defused(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "+12125551234", "-5", "-5.25", "a=1", "12", "'=1"])
def test_numbers_and_words_stay(cell: str) -> None:
    assert defused(cell) == cell
