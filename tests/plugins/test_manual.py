"""The manual in ``hookspecs.py`` says of each hook what the box does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from appliance import hookspecs
from appliance.plugins.hook_table import HOOKS, Rule
from appliance.plugins.manual import PAGE, document, sections

TESTS = Path(__file__).parents[1]
ENGINES = {"denoise", "vad", "turn", "asr", "llm", "tts", "speech", "stream", "carrier"}
SPECS = {
    name.removeprefix("appliance_"): function
    for name, function in vars(hookspecs).items()
    if name.startswith("appliance_") and inspect.isfunction(function)
}
WORDS = {Rule.FIRST: "first", Rule.COLLECTED: "collected", Rule.CHAINED: "chained", Rule.TOLD: "told"}


def said(hook: str, title: str) -> str:
    text = inspect.getdoc(SPECS[hook]) or ""
    found = re.search(rf"^\* {title}: (.*?)(?=^\* |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"appliance_{hook} does not say its {title.lower()}"
    return " ".join(found[1].split())


def test_every_hook_is_a_provider_hook_or_runs_in_the_plugin_host() -> None:
    assert {f"{kind}_providers" for kind in ENGINES} | set(HOOKS) == set(SPECS)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_manual_says_when_how_long_and_what_becomes_of_it(hook: str) -> None:
    rule = HOOKS[hook]
    assert said(hook, "When") and said(hook, "Failure") and said(hook, "Process")
    assert re.match(WORDS[rule.rule], said(hook, "Result"))
    budget = f"{rule.budget_s:g} s" if rule.budget_s >= 1 else f"{rule.budget_s * 1000:g} ms"
    assert said(hook, "Budget").startswith(budget), f"the budget of {hook} is {budget}"
    assert rule.closed == said(hook, "Failure").startswith("**closed**")
    if rule.box_wide and hook != "verify_identity":
        assert "enabled for the whole box" in said(hook, "When").replace("\n", " ")


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if HOOKS[hook].value])
def test_what_is_chained_is_an_argument(hook: str) -> None:
    assert HOOKS[hook].value in inspect.signature(SPECS[hook]).parameters


def test_the_page_is_what_the_manual_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "python -m appliance.plugins.manual writes it"


@pytest.mark.parametrize("hook", SPECS)
def test_every_hook_has_a_section(hook: str) -> None:
    assert f"### `appliance_{hook}(" in PAGE.read_text(encoding="utf-8")


def test_every_hook_is_under_a_title() -> None:
    assert [name for _, hooks in sections() for name in hooks] == [f"appliance_{hook}" for hook in SPECS]


@pytest.mark.parametrize("hook", SPECS)
def test_every_hook_is_named_in_a_test(hook: str) -> None:
    """By its name in a test, beside the tests that go through all of them."""
    pattern = re.compile(rf"\b(appliance_{hook}\b|[\"']{hook}[\"'])")
    files = (path for path in TESTS.rglob("test_*.py") if path.name != Path(__file__).name)
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in files), f"no test names {hook}"
