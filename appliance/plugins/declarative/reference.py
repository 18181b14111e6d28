"""The tables of keys in ``docs/plugins/yaml.md``: ``python -m appliance.plugins.declarative.reference`` writes them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from appliance.config.reference import with_keys
from appliance.plugins.declarative.schema import HttpTool, PluginFile, Response, Table, ValueSpec, Webhook

TARGET = Path(__file__).parents[3] / "docs" / "plugins" / "yaml.md"

_BEGIN = (
    "<!-- Keys: made by `python -m appliance.plugins.declarative.reference`; "
    "edit appliance/plugins/declarative/schema.py. -->"
)

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("A plugin", PluginFile),
    ("One of `values`", ValueSpec),
    ("One of `tools`", HttpTool),
    ("`response` of a tool", Response),
    ("One of `tables`", Table),
    ("One of `webhooks`", Webhook),
)


def updated(page: str) -> str:
    """``page`` with its part about the keys made anew."""
    return with_keys(page, _BEGIN, SECTIONS)


if __name__ == "__main__":
    TARGET.write_text(updated(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
