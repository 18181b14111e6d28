"""What the pages about plugins show is true, and shipped plugins keep to what every plugin must."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import appliance.api
from appliance.cli.check import examine
from appliance.config.settings import Plugins
from appliance.errors import PluginError
from appliance.plugins.describe import PluginChecker
from appliance.plugins.discovery import find_sources
from appliance.plugins.host.watch import MAX_WAITING
from appliance.plugins.http_limits import HANDLER_S, MAX_BODY
from appliance.plugins.loading import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins" / "README.md").read_text(encoding="utf-8")
SHIPPED = sorted(path for path in (ROOT / "plugins").rglob("*.py") if not path.name.startswith("test_"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_a_plugin_and_its_values_are_right(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "regulars.py").write_text(blocks("python")[0])
    for other in ("opening", "crm"):
        text = "from appliance.api import PluginValues\nclass Values(PluginValues):\n    url: str = ''\n"
        (tmp_path / "plugins" / f"{other}.py").write_text(text + "    key: object = ''\n")
    plan = tmp_path / "desk.yaml"
    plan.write_text("name: desk\nflow: {bye: {hang_up: Bye.}}\n" + blocks("yaml")[1])
    (tmp_path / "secrets.yaml").write_text("crm_key: sesame\n")
    config = tmp_path / "appliance.yaml"
    config.write_text(blocks("yaml")[0] + f"dialplans: {{paths: [{plan}]}}\n")
    assert [str(mistake) for mistake in examine(config, []).mistakes] == []


def test_the_figures_are_those_of_the_program() -> None:
    assert f"in {MAX_WAITING + 1} threads" in PAGE
    assert MAX_BODY == 1_000_000 and "up to 1 MB" in PAGE
    assert HANDLER_S == 10.0 and "ten seconds" in PAGE


def test_all_that_the_interface_exports_is_there() -> None:
    assert [name for name in appliance.api.__all__ if not hasattr(appliance.api, name)] == []
    undocumented = [
        name
        for name in appliance.api.__all__
        if isinstance(value := getattr(appliance.api, name), type) and not value.__doc__
    ]
    assert undocumented == []


def wrong_imports(path: Path) -> list[str]:
    """What a plugin imports of the box beside its interface."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found += [
            name
            for name in names
            if f"{name}.".startswith("appliance.") and not f"{name}.".startswith("appliance.api.")
        ]
    return found


def test_shipped_plugins_import_nothing_of_the_box_but_its_interface(tmp_path: Path) -> None:
    assert {path.name: wrong for path in SHIPPED if (wrong := wrong_imports(path))} == {}
    bad = tmp_path / "bad.py"
    fine = "import json\nfrom appliance.api import Call\nfrom appliance.api.hours import Days\n"
    bad.write_text(fine + "from appliance.store import calls\n")
    assert wrong_imports(bad) == ["appliance.store"]


def test_shipped_plugins_can_be_used_and_say_what_they_are() -> None:
    checker = PluginChecker(Plugins())
    try:
        infos = [checker.info(name) for name, source in find_sources([]).items() if source.shipped]
        assert [info.problem for info in infos if info is not None and info.problem] == []
        assert [info.name for info in infos if info is not None and not info.summary] == []
    finally:
        checker.close()


def test_a_plugin_for_a_later_interface_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("API = 2\n")
    with pytest.raises(PluginError, match="needs version 2 of the plugin interface, and this appliance has 1; install"):
        load(find_sources([tmp_path])["later"])
