"""docs/campaigns.md says what holds; that its commands do what it says is in tests/peers/test_first_campaign.py."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from appliance.admin.campaigns_api import CampaignsApi
from appliance.campaigns.definition import Definition
from appliance.campaigns.definition_files import misfits, read_definition
from appliance.campaigns.reference import SECTIONS, TARGET, updated
from appliance.campaigns.results import lead_event
from appliance.config import Settings, load_settings
from appliance.config.reference import sections
from appliance.store.campaign_rows import AttemptEnd, LeadNext

PAGE = TARGET.read_text(encoding="utf-8")
EXAMPLES = Path(__file__).parents[2] / "dialplans" / "examples"
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))


def blocks() -> dict[str, str]:
    """The files that the page shows, by the name that each begins with."""
    found = re.findall(r"^```(?:yaml|csv)\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return dict(found)


def test_the_tables_are_those_of_the_program() -> None:
    assert updated(PAGE) == PAGE, "run python -m appliance.campaigns.reference"
    models = {model for _, model in sections(Definition, "A campaign")}
    assert {model for _, model in SECTIONS} == models


def test_every_key_of_a_campaign_is_in_a_test() -> None:
    keys = {name for _, model in SECTIONS for name in model.model_fields}
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", TESTS)] == []


def test_the_files_on_the_page_are_the_examples(tmp_path: Path) -> None:
    shown = blocks()
    line = (EXAMPLES / "recall.yaml").read_text(encoding="utf-8")
    assert line[line.index("name: ") :] == shown["dialplans/recall.yaml"]
    assert (EXAMPLES / "campaigns" / "recall.yaml").read_text(encoding="utf-8") == shown["recall.yaml"]
    assert (EXAMPLES / "campaigns" / "leads.csv").read_text(encoding="utf-8") == shown["leads.csv"]
    for name, text in shown.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    settings = load_settings(tmp_path / "appliance.yaml", [])
    assert list(misfits(read_definition(tmp_path / "recall.yaml"), settings, ["recall"])) == []


def test_the_result_on_the_page_is_what_a_webhook_is_told() -> None:
    shown = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])
    kept = yaml.safe_load(blocks()["recall.yaml"]) | {
        "webhook": {"url": "https://hooks.example.com/x", "secret": "key"}
    }
    now = datetime(2026, 12, 1, 15, tzinfo=UTC)
    end = AttemptEnd("completed", now, answered_at=now)
    number = "+12025550140"
    lead: Any = SimpleNamespace(id=1, campaign_id="c", reference="1001", number=number, attempts=1, slots={})
    (event,) = lead_event(Definition.of(kept), lead, LeadNext("completed"), end, "call", now, lambda: "evt")
    told = json.loads(event.body)
    assert (told["type"], list(told["data"])) == (shown["type"], list(shown["data"]))


def test_every_route_is_on_the_page() -> None:
    routes = CampaignsApi(Settings(), tuple).routes()
    shown = re.findall(r"`((?:GET|POST|PATCH|DELETE|, )+)[^`]*`", PAGE)
    assert {route.method for route in routes} <= set(" ".join(shown).split())
    for route in routes:
        path = route.path.removeprefix("/api/v1").split("{verb")[0]
        told = re.sub(r"\{(\w+)[^}]*\}+", lambda match: "ID" if match[1] == "id" else match[1].upper(), path)
        assert told.rstrip("/") in PAGE, told
