"""The page about dialplans is current, names every key, and its example works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from appliance.config.reference import sections
from appliance.dialplan.flow import Flow, Heard, Key, Said
from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.reference import SECTIONS, TARGET, updated
from appliance.dialplan.schema import BUILTIN_TOOLS, Line
from appliance.dialplan.steps import STEP_KINDS
from appliance.dialplan.surroundings import Surroundings
from appliance.engines.lexicon import Lexicon

PAGE = TARGET.read_text()


def test_the_tables_are_current() -> None:
    assert updated(PAGE) == PAGE, "run `python -m appliance.dialplan.reference`"


def test_every_part_of_a_line_has_its_table() -> None:
    shown = {model for _, model in SECTIONS}
    inside = {inner for model in shown for _, inner in sections(model, "")}
    assert shown >= inside | set(STEP_KINDS) | {Line}


@pytest.mark.parametrize("model", [model for _, model in SECTIONS], ids=lambda model: model.__name__)
def test_every_key_is_described(model: type[BaseModel]) -> None:
    for name, info in model.model_fields.items():
        assert info.description, f"{model.__name__}.{name} has no description"
        assert f"| `{name}` |" in PAGE


def test_the_example_works(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    (tmp_path / "example.yaml").write_text(example[1])
    line = load_dialplans([tmp_path], Surroundings(missing_words=Lexicon().missing)).lines[0]
    flow = Flow(line)
    flow.start()
    flow.handle(Heard("an appointment"))
    for key in "12345":
        flow.handle(Key(key))
    actions = flow.handle(Key("#"))
    assert str(actions[1]).find("1 2 3 4 5") > 0
    assert flow.handle(Said())


def test_the_example_of_a_line_with_a_language_model_works(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", (TARGET.parent / "agents.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "example.yaml").write_text(example[1])
    line = load_dialplans([tmp_path]).lines[0]
    assert (line.agent, list(line.transfers), line.memory.days) == ("llm", ["desk"], 90)


def test_every_tool_of_the_box_is_documented() -> None:
    page = (TARGET.parent / "agents.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(BUILTIN_TOOLS)
