"""What docs/realtime.md shows is true."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.calls.builtin_tools import tool_names
from appliance.cli.check import examine
from appliance.dialplan.loader import load_dialplans
from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions

PAGE = (Path(__file__).parents[1] / "docs" / "realtime.md").read_text()
SETTINGS, LINE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_settings_are_right(tmp_path: Path) -> None:
    (tmp_path / "appliance.yaml").write_text(SETTINGS)
    (tmp_path / "secrets.yaml").write_text("openai: x\n")
    assert [str(mistake) for mistake in examine(tmp_path / "appliance.yaml", []).mistakes] == []


def test_the_line_is_right_and_has_the_tools_that_are_listed(tmp_path: Path) -> None:
    (tmp_path / "desk.yaml").write_text(LINE)
    (line,) = load_dialplans([tmp_path]).lines
    listed = re.search(r"only the box: (.*?)\.", PAGE)
    assert listed is not None
    assert {f"`{name}`" for name in tool_names(line)} <= set(listed[1].split(", "))


def test_the_keys_it_names_are_those_there_are() -> None:
    for name in ("dialect", "turn_detection", "connections", "audio", "connect_s", "first_audio_s", "stall_s"):
        assert f"`{name}" in PAGE
        assert name in OpenAiRealtimeOptions.model_fields
