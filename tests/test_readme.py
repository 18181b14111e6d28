"""What the README shows is true."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.cli.check import examine
from appliance.cli.main import COMMANDS
from appliance.config import load_settings
from appliance.dialplan.loader import load_lines
from appliance.signalling.builtin_carriers import carrier_registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_dialplan_in_ten_lines_is_one(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert found is not None
    (tmp_path / "bakery.yaml").write_text(found.group(1))
    plan = load_lines(load_settings(None, [f"dialplans.paths=[{tmp_path}]"]))
    assert [line.name for line in plan.lines] == ["bakery"]
    assert [warning.what for warning in plan.warnings] == ["no line answers every call; others are refused with 404"]


def test_the_trunk_is_one(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(listen:.*?)```", README, re.DOTALL)
    assert found is not None
    path = tmp_path / "appliance.yaml"
    path.write_text(found.group(1))
    (tmp_path / "secrets.yaml").write_text("carrier_password: x\n")
    settings = load_settings(path, [])
    assert settings.trunks["carrier"].register_
    assert settings.routes[0].trunks == ("carrier",)


def test_the_commands_it_names_exist() -> None:
    named = set(re.findall(r"appliance ([a-z]+(?:-[a-z]+)*)\b", README))
    assert named & set(COMMANDS) == named - {"runs"}, named - set(COMMANDS)


def test_the_make_targets_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`?", README)) <= targets


def test_the_files_it_links_to_exist() -> None:
    missing = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not (ROOT / link).exists()]
    assert missing == []


def test_the_trunks_of_carriers_are_right(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(trunks:.*?)```", README, re.DOTALL)
    assert found is not None
    path = tmp_path / "appliance.yaml"
    path.write_text(found.group(1).replace("ACxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "AC" + "0" * 32))
    (tmp_path / "secrets.yaml").write_text("twilio: x\n")
    report = examine(path, [])
    assert report.mistakes == ()
    assert report.settings is not None
    kinds = carrier_registry().kinds
    assert {trunk.kind for trunk in report.settings.trunks.values()} <= set(kinds)
    assert [kind for kind in ("sip", *kinds) if f"| `{kind}` |" not in README] == []
