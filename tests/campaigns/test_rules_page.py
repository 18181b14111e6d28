"""docs/campaign-rules.md says what holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from appliance.campaigns.mix import Mix
from appliance.campaigns.mix_files import read_mix
from appliance.campaigns.outcome import MEANINGS, Disposition
from appliance.campaigns.rules_reference import TARGET, updated
from appliance.errors import ConfigError

PAGE = TARGET.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_program() -> None:
    assert updated(PAGE) == PAGE, "run python -m appliance.campaigns.rules_reference"
    assert set(MEANINGS) == set(Disposition)


def test_the_mix_on_the_page_is_one(tmp_path: Path) -> None:
    written = re.findall(r"```yaml\n(outcomes:.*?)```", PAGE, re.DOTALL)
    assert len(written) == 1
    path = tmp_path / "mix.yaml"
    path.write_text(written[0])
    assert read_mix(path) == Mix.model_validate(yaml.safe_load(written[0]))


def test_mistakes_in_a_mix_are_told_at_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text("outcomes:\n  completed: {share: many}\n  bussy: {share: 1}\n")
    with pytest.raises(ConfigError) as refused:
        read_mix(path)
    told = [str(mistake) for mistake in refused.value.mistakes]
    assert [line.split(":")[1] for line in told] == ["2", "3"]
    assert "did you mean 'busy'?" in told[1]
