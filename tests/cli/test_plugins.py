"""``appliance plugins``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.main import main

CRM = '''
"""Knows customers."""

from pydantic import Field, SecretStr

from appliance.api import Command, HttpResponse, PluginValues, Route, hookimpl

VERSION = "2.1"


class Values(PluginValues):
    url: str = Field(description="Where the customers are.")
    key: SecretStr = SecretStr("")


@hookimpl
def appliance_answered(call):
    pass


@hookimpl
def appliance_http_routes():
    return [Route("POST", "/changed", lambda request: HttpResponse())]


@hookimpl
async def appliance_cli_commands():
    def arguments(parser):
        parser.add_argument("--times", type=int, default=1)

    def count(args):
        print("counted " * args.times)
        return 3

    return [Command("count", "count customers", count, arguments)]
'''


@pytest.fixture
def config(tmp_path: Path) -> str:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "crm.py").write_text(CRM)
    (plugins / "broken.py").write_text("import nothing_of_this_name\n")
    path = tmp_path / "appliance.yaml"
    path.write_text("plugins: {paths: [plugins], enabled: {crm: {url: https://crm.example.com}}}\n")
    return str(path)


def test_list_says_of_each_whether_it_can_be_used(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list", "-c", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    broken = next(number for number, line in enumerate(lines) if line.startswith("broken"))
    assert lines[broken].split()[1] == "unusable"
    assert "needs the Python package 'nothing_of_this_name'" in lines[broken + 1]
    crm = next(line for line in lines if line.startswith("crm"))
    assert crm.split()[1:] == ["enabled", "file", "Knows", "customers."]


def test_list_fails_where_an_enabled_one_cannot_be_used(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list", "-c", config, "--set", "plugins.enabled=[broken]", "--json"]) == 1
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["broken"]["state"] == "unusable"
    assert listed["crm"]["state"] == "available"


def test_show_tells_all_of_one(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "crm", "-c", config]) == 0
    told = capsys.readouterr().out
    for words in (
        "enabled on every line",
        "2.1",
        "Knows customers.",
        "answered, http_routes, cli_commands",
        "POST /plugins/crm/changed",
        "count (count customers)",
        "url (string, required) Where the customers are.",
    ):
        assert words in told, told


def test_show_tells_all_of_one_as_json(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "crm", "-c", config, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["values"]["required"] == ["url"]
    assert told["hooks"] == ["answered", "http_routes", "cli_commands"]
    assert told["commands"] == [{"name": "count", "summary": "count customers"}]


def test_show_of_what_is_not_there_says_what_is(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "cmr", "-c", config]) == 2
    assert "there is no plugin 'cmr'; did you mean 'crm'?" in capsys.readouterr().err


def test_run_runs_a_command_of_a_plugin(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "run", "-c", config, "crm", "count", "--times", "2"]) == 3
    assert capsys.readouterr().out == "counted counted \n"


def test_new_writes_a_plugin_whose_test_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "plugins"
    assert main(["plugins", "new", "hours", "--directory", str(where)]) == 0
    told = capsys.readouterr().out
    assert "enable it" in told
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "appliance.testing.plugin"]
    command.append(str(where / "test_hours.py"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["plugins", "show", "hours", "--set", f"plugins.paths=[{where}]"]) == 0
    assert "tools" in capsys.readouterr().out


def test_new_writes_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_hours.py").write_text("mine")
    assert main(["plugins", "new", "hours", "--directory", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "test_hours.py").read_text() == "mine"
    assert not (tmp_path / "hours.py").exists()


@pytest.mark.parametrize("name", ["Hours", "1st", "my-plugin", "class", "json", "test_me", "../x", ""])
def test_new_refuses_what_cannot_be_a_name(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", name, "--directory", str(tmp_path)]) == 2
    assert "name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
