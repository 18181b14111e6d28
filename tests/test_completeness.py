"""Nothing without a test and a line of documentation: settings, keys of dialplans, commands and metrics.

Hooks have the same in ``tests/plugins/test_manual.py``. What counts as a test is that a test names it: that it says
something true is for its reviewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from appliance.admin.metrics import Metrics
from appliance.cli.commands_page import PAGE, command_names, document
from appliance.config.reference import sections
from appliance.config.settings import Settings
from appliance.dialplan.reference import SECTIONS
from appliance.plugins.declarative.schema import PluginFile

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).name


@cache
def text_of_tests() -> str:
    """The text of every test and of what tests are made of, benchmarks included."""
    files = sorted(path for path in (ROOT / "tests").rglob("*.py") if path.name != HERE)
    files += sorted((ROOT / "tests").rglob("*.yaml"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text_of_tests()))


@cache
def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def keys_of(found: Iterator[tuple[str, type[BaseModel]]]) -> list[tuple[str, str]]:
    """(section, key) each."""
    return [(title, info.alias or name) for title, model in found for name, info in model.model_fields.items()]


SETTINGS = keys_of(iter(sections(Settings, "Top level")))
DIALPLAN = keys_of(iter(SECTIONS))
PLUGIN_FILES = keys_of(iter(sections(PluginFile, "Top level")))


def metric_names(registry: CollectorRegistry) -> list[str]:
    return sorted({family.name for family in registry.collect()})


@pytest.mark.parametrize(("page_name", "keys"), [("configuration.md", SETTINGS), ("dialplans.md", DIALPLAN)])
def test_every_key_is_documented(page_name: str, keys: list[tuple[str, str]]) -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", page(page_name), re.MULTILINE))
    assert [f"{title}: {key}" for title, key in keys if key not in rows] == []


@pytest.mark.parametrize(("kind", "keys"), [("settings", SETTINGS), ("dialplans", DIALPLAN), ("plugins", PLUGIN_FILES)])
def test_every_key_is_named_in_a_test(kind: str, keys: list[tuple[str, str]]) -> None:
    assert [f"{title}: {key}" for title, key in keys if key not in words()] == []


@pytest.mark.parametrize("name", metric_names(Metrics().registry))
def test_every_metric_is_documented_and_in_a_test(name: str) -> None:
    assert f"`{name}`" in page("metrics.md")


def test_every_command_is_documented() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "python -m appliance.cli.commands_page writes it"


@pytest.mark.parametrize("command", command_names())
def test_every_command_is_used_in_a_test(command: tuple[str, ...]) -> None:
    """As arguments, one after the other, or as the action alone where a file is about the command."""
    pattern = r"[\"'],?\s*[\"']".join(map(re.escape, command))
    everywhere = re.search(rf"[\"']{pattern}[\"']|\bappliance {' '.join(command)}\b", text_of_tests())
    about = (ROOT / "tests").rglob(f"test_*{command[0].replace('-', '_')}*.py")
    action = re.compile(rf"run\([\"']{re.escape(command[-1])}[\"']")
    found = everywhere or any(action.search(path.read_text(encoding="utf-8")) for path in about)
    assert found, f"no test runs `appliance {' '.join(command)}`"
