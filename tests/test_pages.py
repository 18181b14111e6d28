"""What the pages below ``docs/`` name is there: other pages and their sections, files, commands and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from appliance.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The sections of a page, as links name them."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, section = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (section and section not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def named_modules(text: str) -> Iterator[str]:
    yield from re.findall(r"python -m ((?:tests|appliance)\.[\w.]+)", text)


@each_page
def test_modules_that_are_to_be_run_exist(page: Path) -> None:
    assert [name for name in named_modules(page.read_text(encoding="utf-8")) if find_spec(name) is None] == []


@each_page
def test_commands_exist(page: Path) -> None:
    named = set(re.findall(r"`(?:\.venv/bin/)?appliance ([a-z]+(?:-[a-z]+)*)\b", page.read_text(encoding="utf-8")))
    assert named - set(COMMANDS) == set()


@each_page
def test_files_of_the_project_exist(page: Path) -> None:
    named = re.findall(r"`((?:appliance|tests|systemd)/[\w./-]+\.\w+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
