"""``appliance demo`` is what a newcomer runs first."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.main import main


@pytest.mark.peer
def test_the_demonstration_is_a_whole_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--directory", str(tmp_path / "demo")]) == 0
    assert "book a table" in capsys.readouterr().out
