"""The newcomer's page, done word for word: its files are written, its commands run, and its tool works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins" / "first-plugin.md").read_text()


def files() -> dict[str, str]:
    """Path to content, of every block that begins with a path."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```python") + PAGE.count("```yaml")
    return dict(blocks)


def commands() -> list[str]:
    consoles = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [line.removeprefix("$ ") for console in consoles for line in console.splitlines()]


def write_page(folder: Path) -> None:
    """All files of the page, below ``folder``."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_newcomer_gets_a_working_tool_in_fewer_than_25_lines(tmp_path: Path) -> None:
    write_page(tmp_path)
    needed = [text for name, text in files().items() if not name.startswith("test_")]
    assert sum(1 for text in needed for line in text.splitlines() if line.strip()) < 25
    programs = {"appliance": [sys.executable, "-m", "appliance.cli.main"], "python": [sys.executable]}
    # As in an environment that the appliance has been installed into.
    environment = {**os.environ, "PYTEST_PLUGINS": "appliance.testing.plugin", "PYTHONPATH": str(ROOT)}
    said = []
    for command in commands():
        program, *words = shlex.split(command)
        run = subprocess.run(
            [*programs[program], *words], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == 0, f"{command}\n{run.stdout}{run.stderr}"
        said.append(run.stdout)
    assert len(said) == 3
    assert "Tells callers the weather." in said[1]
    assert "1 passed" in said[2]
