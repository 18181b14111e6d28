"""The page about YAML plugins is current, names every key, and what it shows is right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from appliance.config.reference import sections
from appliance.dialplan.loader import load_dialplans
from appliance.plugins.declarative.reference import SECTIONS, TARGET, updated
from appliance.plugins.declarative.schema import EVENTS, PluginFile
from appliance.plugins.declarative.source import Declarative
from tests.plugins.declarative.server import plugin_of
from tests.plugins.declarative.test_webhooks import machine, told
from tests.store import facts

PAGE = TARGET.read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SECRETS = {"shop_token": "t", "shop_hook_key": "0123456789abcdef"}


def test_the_tables_are_current() -> None:
    assert updated(PAGE) == PAGE, "run `python -m appliance.plugins.declarative.reference`"


def test_every_part_of_a_file_has_its_table() -> None:
    assert {model for _, model in SECTIONS} == {inner for _, inner in sections(PluginFile, "")}


@pytest.mark.parametrize("model", [model for _, model in SECTIONS], ids=lambda model: model.__name__)
def test_every_key_is_described(model: type[BaseModel]) -> None:
    for name, info in model.model_fields.items():
        assert info.description, f"{model.__name__}.{name} has no description"
        assert f"| `{name}` |" in PAGE


def test_the_example_works_on_the_line_that_it_shows(tmp_path: Path) -> None:
    plugin, line = BLOCKS
    table = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)[0]
    files = TARGET.parents[1] / "examples" / "plugins"
    assert [(files / name).read_text() for name in ("shop.yaml", "prices.csv")] == [plugin, table]
    (tmp_path / "prices.csv").write_text(table)
    shop = plugin_of(tmp_path, plugin, "shop", **SECRETS)
    (tmp_path / "dialplans").mkdir()
    (tmp_path / "dialplans" / "orders.yaml").write_text(line)
    values = load_dialplans([tmp_path / "dialplans"]).lines[0].plugins["shop"]
    assert values is not False
    source = Declarative({"shop": shop})
    tools = [tool for _, tool in source.tools_of("orders", {"shop": values})]
    assert [tool.name for tool in tools] == ["order_status", "cancel_order", "lookup_prices"]
    assert tools[1].confirm == "Shall I cancel order {number}?"
    (target,) = source.targets_of("orders", {"shop": values})
    assert target.url == "https://shop.example.com/api/calls"


def test_every_event_is_told_with_what_the_page_says() -> None:
    listed = dict(re.findall(r"^\| `([a-z.]+)` \| (.*?) \|$", PAGE, re.MULTILINE))
    assert set(EVENTS) <= set(listed) | {"call.answered"}
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    sent = {
        one["type"]: one for one in told(machine(), facts.started(), facts.answered(), facts.ended(), facts.recorded())
    }
    assert json.loads(shown).keys() == sent["call.ended"].keys()
    assert json.loads(shown)["data"].keys() == sent["call.ended"]["data"].keys()
    for name in ("call.started", "call.recorded"):
        own = sent[name]["data"].keys() - sent["call.answered"]["data"].keys()
        assert own == set(re.findall(r"`(\w+)`", listed[name]))
