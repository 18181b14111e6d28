"""Imports go downwards only; the contract itself stands in pyproject.toml."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_go_downwards_only() -> None:
    command = Path(sysconfig.get_path("scripts")) / "lint-imports"
    assert command.exists(), "import-linter is not installed; make setup-dev installs it"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
