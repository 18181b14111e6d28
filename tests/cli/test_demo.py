"""``appliance demo`` is what a newcomer runs first."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli import demo
from appliance.cli.box import BoxError
from appliance.cli.main import main


def test_a_demonstration_that_cannot_begin_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class NoBox(demo.Box):
        def start(self, timeout_s: float = 0.0) -> None:
            raise BoxError("there is no room for it")

    monkeypatch.setattr(demo, "Box", NoBox)
    assert main(["demo", "--directory", str(tmp_path / "demo")]) == 2
    assert "there is no room for it" in capsys.readouterr().err
