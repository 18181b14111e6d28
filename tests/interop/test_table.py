"""docs/sip.md claims no more than the tests declare."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.interop import table
from tests.interop.claims import CLAIMS, proves


def declared() -> dict[str, tuple[str, ...]]:
    """The claims of each interop test, by ``file::test``."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.interop.{path.stem}")
        holders = [("", module), *((f"{n}::", c) for n, c in vars(module).items() if n.startswith("Test"))]
        for prefix, holder in holders:
            for name, test in vars(holder).items():
                if name.startswith("test_") and hasattr(test, "__proves__"):
                    found[f"{path.name}::{prefix}{name}"] = test.__proves__
    return found


def test_the_page_names_only_tests_that_declare_the_line() -> None:
    tests = declared()
    chapter = ""
    wrong: list[str] = []
    for line in table.PAGE.read_text().splitlines():
        if line.startswith("## "):
            chapter = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if chapter in CLAIMS and len(cells) == 2 and cells[0] not in ("what", "---"):
            claim = f"{chapter}: {cells[0]}"
            wrong += [
                f"{claim}: {test}" for test in re.findall(r"`([^`]+)`", cells[1]) if claim not in tests.get(test, ())
            ]
    assert wrong == [], "run python -m tests.interop.table"


def test_a_line_is_proven_by_tests_that_ran_and_passed_alone() -> None:
    run = table.Run(
        outcomes={"t.py::good": "passed", "t.py::gone": "skipped"},
        claims={"t.py::good": ("Media: PCMU", "Media: PCMA"), "t.py::gone": ("Media: PCMA",)},
    )
    text = table.page(run)
    assert "| PCMU | `t.py::good` |" in text
    assert "| PCMA | **not proven**: `t.py::gone` skipped |" in text
    assert "| G.722 | **no test** |" in text


def test_a_line_that_is_not_on_the_list_cannot_be_claimed() -> None:
    with pytest.raises(ValueError, match="among the lines"):
        proves("Media: everything")
