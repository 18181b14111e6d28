"""The example lines that come with the appliance have no mistakes, and do not answer unless they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.surroundings import Surroundings

DIALPLANS = Path(__file__).parents[2] / "dialplans"
FILES = sorted((DIALPLANS / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_right_and_has_a_number_of_its_own(path: Path) -> None:
    plan = load_dialplans(
        [path], Surroundings(tools=lambda line: [*(line.tools or ())], secrets=lambda name: SecretStr("x"))
    )
    numbers = {str(line.match.called) for line in plan.lines}
    assert len(numbers) == 1
    assert "None" not in numbers
    assert f"`{path.name}`" in (DIALPLANS / "examples" / "README.md").read_text()


def test_they_are_not_loaded_unless_they_are_named() -> None:
    names = [line.name for line in load_dialplans([DIALPLANS]).lines]
    assert names == ["reception"]
    assert len(FILES) == 7
