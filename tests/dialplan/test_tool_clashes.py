"""Two tools of one name on a line are a mistake, said where the second one's plugin is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.config import Settings
from appliance.dialplan.loader import load_lines
from appliance.errors import ConfigError

TOOL = """
from appliance.api import Tool, hookimpl

API = 1


async def run(arguments, call):
    return 1


@hookimpl
def appliance_tools(call):
    return [Tool(name=name, description="x", parameters={"type": "object"}, run=run) for name in NAMES]
"""


@pytest.fixture
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugins").mkdir()
    for name, tools in (("first", ["book"]), ("second", ["cook", "book"]), ("own", ["transfer"])):
        Path(f"plugins/{name}.py").write_text(f"NAMES = {tools!r}\n{TOOL}")


def mistakes(line: dict[str, Any], enabled: dict[str, Any] | None = None) -> list[str]:
    written = {"name": "desk", **({} if "flow" in line else {"agent": "llm", "prompt": "x"}), **line}
    Path("desk.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    settings = Settings.model_validate(
        {
            "dialplans": {"paths": ["desk.yaml"]},
            "plugins": {"paths": ["plugins"], "enabled": enabled or {}},
            "engines": {"llm": {"provider": "fake"}, "asr": {"provider": "fake"}},
        }
    )
    try:
        load_lines(settings)
    except ConfigError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


@pytest.mark.usefixtures("_plugins")
def test_two_tools_of_one_name_are_a_mistake() -> None:
    assert mistakes({"plugins": ["first"], "tools": ["book"]}) == []
    (clash,) = mistakes({"plugins": ["first", "second"]})
    assert clash.startswith("desk.yaml:6: ")
    assert "has a tool 'book', and plugin 'first' has one, too" in clash
    assert "switch the plugin off here: `second: false`" in clash
    assert mistakes({"plugins": ["first", "second"], "tools": ["cook"]}) == []
    (clash,) = mistakes({"plugins": {"own": {}}}, {"first": {}})
    assert "has a tool 'transfer', and the box has one, too" in clash
    assert mistakes({"plugins": {"first": False}}, {"first": {}, "second": {}}) == []
    assert mistakes({"flow": {"bye": {"hang_up": "Bye."}}, "plugins": ["own"]}) == []
