"""Every plugin that comes with the appliance has a page, which has every value, and a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from appliance.plugins.declarative.loader import read_plugin
from appliance.plugins.discovery import Source, find_sources
from appliance.plugins.loading import load

ROOT = Path(__file__).parents[3]
SHIPPED = {name: source for name, source in find_sources([], installed=False).items() if source.shipped}
NAMES = {
    "business_hours", "calendar_ics", "crm_http", "knowledge", "mcp", "redact", "sms", "transfer", "voicemail",
}  # fmt: skip


def values_of(source: Source) -> type[BaseModel] | None:
    if source.python:
        return load(source).values
    plugin, mistakes = read_plugin(Path(source.where), lambda name: "is not needed here")
    assert plugin is not None or mistakes
    return plugin.values if plugin is not None else None


def test_these_plugins_come_with_the_appliance() -> None:
    assert set(SHIPPED) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_has_a_page_with_its_values_and_a_test(name: str) -> None:
    page = (ROOT / "docs" / "plugins" / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert (Path(__file__).parent / f"test_{name}.py").is_file()
    values = values_of(SHIPPED[name])
    missing = [field for field in (values.model_fields if values is not None else ()) if f"| `{field}` |" not in page]
    assert not missing, f"docs/plugins/{name}.md does not tell of {missing}"
    assert f"]({name}.md)" in (ROOT / "docs" / "plugins" / "README.md").read_text()
