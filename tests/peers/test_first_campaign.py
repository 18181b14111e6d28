"""docs/campaigns.md as a newcomer follows it: every command and every request on it, against a box and a softphone."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from appliance.cli.box import HOST, Box
from appliance.cli.main import main
from tests.bench.callees import FarmProcess
from tests.campaigns.test_campaigns_page import PAGE, blocks

pytestmark = [pytest.mark.peer, pytest.mark.slow]

TOKEN = "4f0c1d2e3b4a59687766554433221100ffeeddccbbaa9988"


def shell_lines(section: str) -> list[str]:
    """The lines of the shell in a section of the page."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line for block in text.split("```sh\n")[1:] for line in block.partition("```")[0].splitlines()]


class Newcomer:
    """Types what the page says into a terminal."""

    def __init__(self, box: Box, capsys: pytest.CaptureFixture[str]) -> None:
        self._box = box
        self._capsys = capsys

    def types(self, line: str) -> str:
        """What it says."""
        words = shlex.split(line.replace("$TOKEN", TOKEN).replace("127.0.0.1:8080", f"{HOST}:{self._box.http_port}"))
        if words[0] == "curl":
            return subprocess.run(words, capture_output=True, check=True, text=True, timeout=60).stdout
        self._capsys.readouterr()
        code = main(words[1:])
        said = self._capsys.readouterr()
        assert code in (0, 1), said.err
        return said.out


def test_a_newcomer_gets_a_campaign_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = blocks()
    with FarmProcess(tmp_path / "farm.jsonl") as softphone:
        shown["appliance.yaml"] = shown["appliance.yaml"].replace("5070", str(softphone.port))
        written = yaml.safe_load(shown["appliance.yaml"].replace("!secret ", ""))
        (tmp_path / "dialplans").mkdir()
        plans = {"dialplans.paths": [str(tmp_path / "dialplans")], "api.tokens": [TOKEN]}
        box = Box(tmp_path / "box", {"trunks": written["trunks"], **plans})
        shown["appliance.yaml"] += f"store: {{url: 'sqlite+aiosqlite:///{box.database}'}}\n"
        for name, text in shown.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / "never.csv").write_text("(202) 555-0198\n", encoding="utf-8")
        with box:
            newcomer = Newcomer(box, capsys)
            said = [newcomer.types(line) for line in shell_lines("A first campaign")]
            expected = PAGE.partition("```text\n")[2].partition("```")[0]
            assert said[2] == expected
            assert "2 of 2 leads would be called now" in said[4]
            assert "recall, finished" in said[6]
            with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
                results = list(csv.DictReader(file))
            assert [(row["reference"], row["disposition"], row["slot.wants_check"]) for row in results] == [
                ("1001", "completed", "yes"),
                ("1002", "completed", "yes"),
            ]
            numbers = [entry["number"] for entry in softphone.entries() if entry["event"] == "invite"]
            assert sorted(numbers) == ["+12025550140", "+12025550150"]

            listed = [newcomer.types(line) for line in shell_lines("Do not call")]
            assert "+12025550198" in listed[3]
            assert listed[4] == "1 removed\n"

            assert shutil.which("curl"), "curl is not installed"
            newcomer.types("appliance campaign delete recall -c appliance.yaml")
            answers = [newcomer.types(line) for line in shell_lines("Over HTTP")]
            assert not any('"error"' in answer for answer in answers), answers
            assert json.loads(answers[2])["dry_run"] is True
            assert json.loads(answers[3])["imported"] == 2
            assert json.loads(answers[8])["state"] == "stopped"
            assert [json.loads(line)["reference"] for line in answers[9].splitlines()] == ["1001", "1002"]
