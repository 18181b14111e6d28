"""``appliance campaign``, as an operator uses it, on a database of its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from appliance.cli.progress import ProgressBar, bar
from appliance.dialplan.loader import Dialplan
from appliance.dialplan.schema import Line

BOX = """\
state_dir: var
trunks:
  carrier:
    kind: sip
    proxy: sip:127.0.0.1:5099
    allow_prefixes: ["+1"]
    caller_ids: "+12025550100"
"""
RECALL = """\
name: recall
line: recall
trunk: carrier
caller_ids: "+12025550100"
owner: Acme Plumbing
region: US
consent: {required: false}
answering_machines: {on_machine: message, message: "Please call us, ${lead.first_name}."}
windows: {default: {days: mon-sun, hours: 00:00-24:00}}
dnc: {lists: never.csv}
"""
LEADS = """\
Phone,First Name,state
(212) 555-1234,Zoë,NY
212 555 1235,Max,
12,Eve,
2125559999,Ann,
+44 20 7946 0000,Bob,
"""


class Operator:
    """Runs commands in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main(["campaign", *words, "-c", "appliance.yaml"])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json")[1])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    line = Line.model_validate(
        {
            "name": "recall",
            "greeting": "Hello ${lead.first_name}, of ${lead.town}.",
            "flow": {"bye": {"hang_up": "Bye"}},
        }
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("appliance.cli.campaign.load_lines", lambda settings: Dialplan((line,), {}, ()))
    for name, text in (("appliance.yaml", BOX), ("recall.yaml", RECALL), ("leads.csv", LEADS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "never.csv").write_text("212-555-9999\n", encoding="utf-8")
    return Operator(tmp_path, capsys)


def test_a_campaign_from_its_definition_to_its_results(run: Operator) -> None:
    json_run = run.json
    assert run("check", "recall.yaml") == (0, "ok: recall.yaml\n", "")
    assert json_run("create", "recall.yaml")["dnc"] == [{"rows": 1, "added": 1, "errors": 0, "examples": []}]

    code, said, _ = run("import", "recall", "leads.csv", "--dry-run")
    assert code == 1
    assert "lead.first_name  from 'First Name' (guessed)" in said
    assert "3 leads would be imported" in said
    assert "note: the texts want town, which no column gives; --map town=COLUMN" in said
    assert json_run("status", "recall")["leads"] == 0

    found = json_run("import", "recall", "leads.csv")
    assert (found["imported"], found["errors_by_kind"]) == (3, {"number": 1, "do_not_call": 1})
    with (run.folder / found["error_file"]).open(encoding="utf-8-sig", newline="") as file:
        assert [row["error_line"] for row in csv.DictReader(file)] == ["4", "5"]

    code, said, _ = run("check", "recall")
    assert code == 0
    assert "2 of 3 leads would be called now (it is created), such as +12125551234" in said
    assert "1 may not be dialled by the trunk" in said
    assert json_run("check", "recall", "--limit", "1")["leads"] == 1

    code, said, _ = run("simulate", "recall", "--runs", "3", "--start", "2026-12-01T12:00-05:00")
    assert code == 0
    assert "3 leads from" in said
    assert "of a guess" in said
    (run.folder / "mix.yaml").write_text("outcomes: {completed: {share: 1, ring_s: 5, talk_s: 20}}\n", encoding="utf-8")
    assert json_run("simulate", "recall", "--mix", "mix.yaml", "--runs", "2")["leads"] == 3
    assert "is not a time" in run("simulate", "recall", "--start", "noon")[2]
    assert "there are no finished calls" in run("simulate", "recall", "--from", "recall")[2]

    assert "was created; it calls" in run("start", "recall")[1]
    assert "is running already" in run("start", "recall")[1]
    assert "is at revision 2" in run("set", "recall", "pacing.max_calls=20")[1]
    assert json_run("status", "recall")["definition"]["pacing"]["max_calls"] == 20
    assert json_run("pause", "recall", "--reason", "lunch")["state"] == "paused"
    assert "paused, lunch since" in run("status", "recall")[1]
    assert json_run("resume", "recall")["state"] == "running"
    assert json_run("drain", "recall")["state"] == "draining"
    assert json_run("stop", "recall")["state"] == "stopped"
    assert "recall  stopped  recall  3" in run("list")[1]
    assert run("status", "recall", "--follow")[0] == 0

    assert run("export", "recall", "-o", "out.csv")[1] == "out.csv: 3 leads\n"
    exported = list(csv.DictReader((run.folder / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["number"] for row in exported] == ["+12125551234", "+12125551235", "+442079460000"]
    lines = run("export", "recall", "--format", "jsonl")[1].splitlines()
    assert json.loads(lines[0])["variables"] == {"first_name": "Zoë"}
    assert run("export", "recall", "--attempts")[1].startswith("call_id,")
    assert json_run("delete", "recall")["leads"] == 3
    assert run("status", "recall")[0] == 2


def test_the_do_not_call_list(run: Operator) -> None:
    json_run = run.json
    run("create", "recall.yaml")
    assert run("dnc", "add", "(212) 555-0001", "--region", "US")[1] == "1 added\n"
    assert run("dnc", "list")[1].startswith("+12125550001 ")
    assert [one["number"] for one in json_run("dnc", "list", "--campaign", "recall")["numbers"]] == ["+12125559999"]
    assert json_run("dnc", "import", "leads.csv", "--campaign", "recall")["files"][0]["added"] == 3
    assert run("dnc", "remove", "+1 212 555 0001") == (0, "1 removed\n", "")
    assert run("dnc", "remove", "+1 212 555 0001")[0] == 1
    code, _, said = run("dnc", "add", "555")
    assert code == 2
    assert "write it with + and country code" in said
    assert run("dnc", "add")[0] == run("dnc", "list", "x")[0] == 2
    assert run("dnc", "list")[1] == "nobody is on it\n"


def test_what_cannot_be_done_is_said(run: Operator) -> None:
    json_run = run.json
    assert "there is no campaign 'recall'" in run("start", "recall")[2]
    run("create", "recall.yaml")
    assert "there is a campaign 'recall' already" in run("create", "recall.yaml")[2]
    assert "has no leads" in run("start", "recall")[2]
    assert "was not paused" in run("resume", "recall")[2]
    assert "did you mean 'max_calls'?" in run("set", "recall", "pacing.max_call=3")[2]
    assert "--map number=COLUMN" in run("import", "recall", "recall.yaml")[2]
    (run.folder / "wrong.yaml").write_text(RECALL.replace("line: recall", "line: recal"), encoding="utf-8")
    code, said, _ = run("check", "wrong.yaml")
    assert (code, "there is no line 'recal'; did you mean 'recall'?" in said) == (1, True)
    assert json_run("check", "wrong.yaml")["ok"] is False
    assert "there is no line 'recal'" in run("create", "wrong.yaml")[2]
    (run.folder / "lists.yaml").write_text(
        RECALL.replace("never.csv", "nothing.csv").replace("name: recall", "name: other"), encoding="utf-8"
    )
    assert "nothing.csv: cannot be read" in run("create", "lists.yaml")[2]
    assert run("status", "other")[0] == 2, "a campaign without its do-not-call list is none"


def test_a_bar_shows_how_far_it_is() -> None:
    assert bar("rows", 25, 100, 10.0) == "[######..................]  25%  25 of 100 rows, 30 s left"
    assert bar("rows", 0, 0, 0.0).startswith("[########################] 100%")


def test_a_bar_is_drawn_on_terminals_only() -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for to, drawn in ((Terminal(), True), (io.StringIO(), False)):
        with ProgressBar("rows", to=to) as progress:
            progress(1, 2)
            progress(2, 2)
        assert ("2 of 2 rows" in to.getvalue()) == drawn
