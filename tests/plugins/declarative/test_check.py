"""``appliance check`` and ``appliance plugins`` on YAML plugins: every mistake where it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli.main import main
from tests.config_files import write

SHOP = """
summary: The shop.
values: {branch: {choices: [north, south], default: north}, key: {secret: true}}
tools:
  order_status:
    description: The state of an order.
    url: https://${values.branch}.example.com/
webhooks:
  crm: {url: "https://hooks.example.com/", secret: !secret hook_key}
"""
BOX = """
engines: {llm: {provider: fake, text: hello}, asr: {provider: fake, text: hello}}
plugins:
  paths: [plugins]
  enabled:
    shop: {key: !secret shop_key}
dialplans: {paths: [dialplans]}
"""
LINE = """
name: desk
agent: llm
prompt: You are the desk.
tools: [order_status]
plugins:
  shop: {branch: south}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(SHOP, "plugins/shop.yaml")
    write("tool: x\n", "plugins/unused.yaml")
    write(BOX)
    write(LINE, "dialplans/desk.yaml")
    write("hook_key: 0123456789abcdef\nshop_key: k\n", "secrets.yaml")


def check(capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(["check", "-c", "appliance.yaml", "--json"])
    found = json.loads(capsys.readouterr().out)["mistakes"]
    return [f"{one['file']}:{one['line']}: {one['key']}: {one['what']}; {one['hint']}" for one in found]


def test_what_is_right_is_right_and_a_file_that_nobody_uses_may_be_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys) == []


def test_wrong_values_unknown_plugins_and_tools_are_told_at_the_line_that_names_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(
        LINE.replace("south", "west").replace("[order_status]", "[order_stats]") + "  shp: {}\n", "dialplans/desk.yaml"
    )
    assert check(capsys) == [
        "dialplans/desk.yaml:5: tools.0: there is no tool 'order_stats'; did you mean 'order_status'?",
        "dialplans/desk.yaml:7: plugins.shop.branch: must be one of north, south, not 'west'; ",
        "dialplans/desk.yaml:8: plugins.shp: there is no plugin 'shp'; did you mean 'shop'?",
    ]


def test_mistakes_in_a_file_that_is_used_are_told_there(capsys: pytest.CaptureFixture[str]) -> None:
    write(SHOP.replace("url: https", "retries: 9\n    url: https"), "plugins/shop.yaml")
    found = check(capsys)
    assert "plugins/shop.yaml:7: tools.order_status.retries: must be at most 5, not 9; " in found
    assert any(one.startswith("appliance.yaml:6: plugins.enabled.shop: plugin 'shop' has mistakes") for one in found)


def test_values_of_the_box_are_told_in_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    write(BOX.replace("!secret shop_key", "plain"))
    assert "appliance.yaml:6: plugins.enabled.shop.key: is written out" in check(capsys)[0]


def test_list_and_show_tell_what_it_offers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plugins", "show", "shop", "-c", "appliance.yaml", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["state"], shown["summary"]) == ("yaml", "enabled", "The shop.")
    assert (shown["tools"], shown["webhooks"]) == (["order_status"], ["crm"])
    assert set(shown["values"]["properties"]) == {"branch", "key"}
