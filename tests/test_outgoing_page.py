"""The page on calls that the box places: its line is right, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from appliance.admin.calls_api import AnsweringRequest, CallRequest, result_told
from appliance.calls.orders import OutgoingResult
from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.steps import CallbackStep

PAGE = (Path(__file__).parents[1] / "docs" / "outgoing-calls.md").read_text(encoding="utf-8")


def _rows(after: str) -> set[str]:
    """The names in the first column of the table that follows ``after``."""
    table = PAGE.split(after, 1)[1].split("\n\n", 2)[1]
    return {name for row in re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_the_flow_agrees_on_a_time(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(flow:.*?)```", PAGE, re.DOTALL)
    assert example is not None
    (tmp_path / "recall.yaml").write_text("name: recall\n" + example[1])
    (line,) = load_dialplans([tmp_path]).lines
    assert isinstance(line.flow["agreed"], CallbackStep)


def test_every_key_of_the_request_is_there() -> None:
    listed = _rows('"answering": {"on_machine": "message", "message": "Please call us back."}}\'\n```')
    assert listed == set(CallRequest.model_fields)
    assert all(f"`{name}`" in PAGE or name in PAGE for name in AnsweringRequest.model_fields)


def test_every_key_of_the_result_is_there() -> None:
    assert _rows("The result:") == set(result_told(OutgoingResult(), 0.0))


def test_the_body_is_one_that_the_api_takes() -> None:
    body = re.search(r"-d '(\{.*?\})'\n```", PAGE, re.DOTALL)
    assert body is not None
    order = CallRequest.model_validate(yaml.safe_load(body[1])).order("call1")
    assert (order.line, order.variables) == ("recall", {"first_name": "Ann"})
