"""A plugin whose program has changed: calls keep the one that they began with."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.plugins.discovery import Source, stamped
from appliance.plugins.hook_table import HOOKS
from tests.plugins.real_host import QUICK, RealHost, call
from tests.waiting import eventually

PLUGIN = """
from pathlib import Path

from appliance.api import HttpResponse, Route, hookimpl

SEEN = Path({seen!r})


def note(word):
    with SEEN.open("a") as file:
        file.write(word + "{number}\\n")


@hookimpl
def appliance_configure():
    note("configure")


@hookimpl
def appliance_started():
    note("started")


@hookimpl
def appliance_stopping():
    note("stopping")


@hookimpl
def appliance_final_transcript(text):
    return text + " {number}"


@hookimpl
def appliance_http_routes():
    return [Route("GET", "/number", lambda request: HttpResponse("{number}"))]
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets that a loaded machine keeps, too, at both ends."""
    monkeypatch.setenv("HOOK_BUDGET_S", "20")
    for hook, rule in HOOKS.items():
        monkeypatch.setitem(HOOKS, hook, replace(rule, budget_s=20.0))


async def test_calls_in_progress_keep_the_program_and_later_ones_have_the_new_one(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    seen = tmp_path / "seen"
    real.write("changes", PLUGIN.format(seen=str(seen), number=1))
    async with real.running():
        first = await real.hooks({"changes": {}})
        assert await first.chain("final_transcript", call("old"), "x") == "x 1"
        real.write("changes", PLUGIN.format(seen=str(seen), number=2))
        second = await real.hooks({"changes": {}})
        assert await second.chain("final_transcript", call("new"), "x") == "x 2"
        assert await first.chain("final_transcript", call("old"), "x") == "x 1"
        assert seen.read_text().split() == ["configure1", "started1", "configure2", "started2"]
        same = await real.hooks({"changes": {}})
        assert seen.read_text().split()[-1] == "started2", "what has not changed is not begun again"
        del first
        gc.collect()
        await eventually(lambda: seen.read_text().split()[-1] == "stopping1", "the old one was not told")
        del same
        gc.collect()
        assert await second.chain("final_transcript", call("new"), "x") == "x 2"
        assert "stopping2" not in seen.read_text()


async def test_a_mended_program_is_asked_again_at_once(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    failing = "from appliance.api import hookimpl\n\n\n@hookimpl\ndef appliance_final_transcript(text):\n    return 1\n"
    real.write("changes", failing)
    async with real.running():
        hooks = await real.hooks({"changes": {}})
        for _ in range(5):
            assert await hooks.chain("final_transcript", call("a"), "x") == "x"
        assert not real.link.closed("changes", "final_transcript", "a")
        real.write("changes", failing.replace("return 1", "return text + '!'"))
        hooks = await real.hooks({"changes": {}})
        assert await hooks.chain("final_transcript", call("b"), "x") == "x!"


async def test_a_call_that_a_later_plan_asks_about_finds_plugins_that_came_with_it(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    for name in ("one", "two"):
        real.write(name, PLUGIN.format(seen=str(tmp_path / "seen"), number=name))
    async with real.running():
        first = await real.hooks({"one": {}})
        assert await first.chain("final_transcript", call("same"), "x") == "x one"
        second = await real.hooks({"one": {}, "two": {}})
        assert await second.chain("final_transcript", call("same"), "x") == "x one two"


async def test_a_new_program_that_does_not_work_leaves_the_old_one_to_its_calls(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    real.write("changes", PLUGIN.format(seen=str(tmp_path / "seen"), number=1))
    async with real.running():
        first = await real.hooks({"changes": {}})
        real.write("changes", "import nothing_of_the_kind\n")
        second = await real.hooks({"changes": {}})
        assert not second.wanted("final_transcript", "a")
        assert "nothing_of_the_kind" in real.link.manifest.unusable[0].why
        assert await first.chain("final_transcript", call("old"), "x") == "x 1"
        real.write("changes", PLUGIN.format(seen=str(tmp_path / "seen"), number=3))
        third = await real.hooks({"changes": {}})
        assert await third.chain("final_transcript", call("third"), "x") == "x 3"


async def test_all_of_a_package_is_imported_anew(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    folder = real.plugins / "folder"
    folder.mkdir()
    (folder / "plugin.py").write_text(
        "from appliance.api import hookimpl\nfrom .words import WORD\n\n\n"
        "@hookimpl\ndef appliance_final_transcript(text):\n    from .words import WORD as late\n\n"
        "    return f'{text} {WORD} {late}'\n"
    )
    (folder / "words.py").write_text("WORD = 1\n")
    async with real.running():
        first = await real.hooks({"folder": {}})
        (folder / "words.py").write_text("WORD = 2\n")
        second = await real.hooks({"folder": {}})
        assert await second.chain("final_transcript", call("new"), "x") == "x 2 2"
        assert await first.chain("final_transcript", call("old"), "x") == "x 1 1"


def test_what_tells_one_state_of_a_program_from_another(tmp_path: Path) -> None:
    file = tmp_path / "p.py"
    source = Source("p", "file", str(file))
    missing = stamped(source).code
    file.write_text("a = 1\n")
    once = stamped(source).code
    assert once == stamped(source).code != missing
    file.write_text("a = 22\n")
    assert stamped(source).code != once
    assert stamped(Source("p", "entry_point", "p")).code == ""
