"""What docs/llm.md shows is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.cli.check import examine
from appliance.dialplan.loader import load_dialplans
from appliance.engines.openai_llm_options import LlmServer, OpenAiLlmOptions

PAGE = (Path(__file__).parents[1] / "docs" / "llm.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "engines:" in block])
def test_the_settings_are_right(block: str, tmp_path: Path) -> None:
    (tmp_path / "appliance.yaml").write_text(block)
    (tmp_path / "secrets.yaml").write_text("llm_key: x\n")
    assert [str(mistake) for mistake in examine(tmp_path / "appliance.yaml", []).mistakes] == []


def test_the_line_is_right(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "agent:" in block]
    (tmp_path / "desk.yaml").write_text(block)
    plan = load_dialplans([tmp_path])
    fallback = plan.lines[0].on_engine_failure
    assert fallback is not None
    assert fallback.transfer is not None


def test_the_keys_and_defaults_it_names_are_those_there_are() -> None:
    known = {**LlmServer.model_fields, **OpenAiLlmOptions.model_fields}
    named = re.findall(r"`([a-z_]+)` \(([0-9.]+) s\)", PAGE)
    assert {name for name, _ in named} == {"hedge_after_s", "first_token_s", "stall_s"}
    assert all(known[name].default == float(value) for name, value in named)
