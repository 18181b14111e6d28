"""The plugin ``mcp``: the tools of a real MCP server in a real plugin host, and its page."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from pydantic import SecretStr

from appliance.cli.box import free_port
from appliance.config import Settings, examine_settings
from appliance.errors import ToolError
from appliance.plugins.describe import PluginChecker
from appliance.plugins.hook_table import ToolOffer
from appliance.plugins.hooks import Hooks
from appliance.plugins.mcp_tools import _ALIVE_EVERY_S, _LONGEST_PAUSE_S, _MAX_TEXT, Values
from tests.config_files import load, mistakes
from tests.plugins.declarative.server import FakeCall
from tests.plugins.real_host import RealHost, call
from tests.waiting import LIMIT_S

ROOT = str(Path(__file__).parents[3])
COMMAND = [sys.executable, "-m", "tests.plugins.mcp_server"]
KITCHEN: dict[str, Any] = {
    "command": COMMAND,
    "environment": {"PYTHONPATH": ROOT, "KITCHEN_KEY": "salt"},
    "tools": ["add", "secret", "fail", "huge", "slow", "die", "fly"],
    "confirm": ["die"],
    "read_only": ["add"],
    "timeout_s": 20,
}


def chosen(**servers: Any) -> dict[str, Any]:
    return Settings.model_validate({"plugins": {"mcp": servers}}).plugins.chosen


class Kitchen:
    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks

    async def offers(self, line: str = "a") -> dict[str, ToolOffer]:
        found = await self.hooks.collect("tools", call(line=line))
        return {offer.name: offer for _, offers in found for offer in offers}

    async def use(self, tool: str, **arguments: Any) -> Any:
        return await self.hooks.run_tool("mcp", f"kitchen_{tool}", call(), arguments, FakeCall())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kitchen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kitchen]:
    host = RealHost(tmp_path_factory.mktemp("mcp"))
    async with host.running():
        hooks = await host.hooks(chosen(kitchen=KITCHEN), {"a": {}, "b": {"mcp": {"only": []}}, "c": {"mcp": False}})
        found = Kitchen(hooks)

        async def there() -> bool:
            return bool(await found.offers())

        await become(there)
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_line_is_offered_the_tools_that_are_listed_and_no_others(kitchen: Kitchen) -> None:
    offers = await kitchen.offers()
    assert list(offers) == [f"kitchen_{name}" for name in ("add", "secret", "fail", "huge", "slow", "die")]
    assert offers["kitchen_add"].description == "Adds two numbers. "
    assert not offers["kitchen_add"].side_effects
    assert offers["kitchen_secret"].side_effects
    assert offers["kitchen_die"].confirm
    assert not offers["kitchen_add"].confirm
    assert await kitchen.offers("b") == {}
    assert await kitchen.offers("c") == {}


async def test_what_a_tool_answers_is_told_and_cut(kitchen: Kitchen) -> None:
    assert await kitchen.use("add", a=2, b=3) == {"result": 5}
    assert await kitchen.use("secret") == {"result": f"salt {ROOT}"}
    told = await kitchen.use("huge")
    assert len(told["text"]) < 4000
    assert told["text"].endswith("...")


async def test_what_fails_is_told_as_a_failure(kitchen: Kitchen) -> None:
    with pytest.raises(ToolError, match="the oven is off"):
        await kitchen.use("fail")
    with pytest.raises(ToolError):
        await kitchen.use("add", a="no number")
    with pytest.raises(ToolError):
        await kitchen.use("hidden")


async def test_a_server_that_ends_is_started_again(kitchen: Kitchen) -> None:
    with pytest.raises(ToolError, match="server of this tool"):
        await kitchen.use("die")

    async def back() -> bool:
        try:
            return bool(await kitchen.use("add", a=1, b=1) == {"result": 2})
        except ToolError:
            return False

    await become(back)


async def become(met: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(LIMIT_S):
        while not await met():
            await asyncio.sleep(0.05)


async def test_a_server_by_http_is_asked_the_same_way(tmp_path: Path) -> None:
    port = free_port()
    server = subprocess.Popen([*COMMAND, str(port)], env={"PYTHONPATH": ROOT, "PATH": ""}, stderr=subprocess.DEVNULL)
    host = RealHost(tmp_path)
    try:
        async with host.running():
            url = f"http://127.0.0.1:{port}/mcp"
            web = Kitchen(await host.hooks(chosen(kitchen={"url": url, "tools": ["add"], "headers": {"X-Key": "k"}})))

            async def there() -> bool:
                return bool(await web.offers())

            await become(there)
            assert await web.use("add", a=20, b=22) == {"result": 42}
    finally:
        server.kill()
        server.wait()


async def test_check_knows_the_names_of_tools_without_asking_a_server(tmp_path: Path) -> None:
    settings = Settings.model_validate({"plugins": {"paths": [str(tmp_path)], "mcp": {"kitchen": KITCHEN}}})
    checker = PluginChecker(settings.plugins)
    try:
        assert checker.box_problems() == []
        assert "kitchen_add" in checker.tools_of("desk", {})
        assert checker.tools_of("desk", {"mcp": False}) == ()
        ((path, what, _),) = checker.line_problems({"mcp": {"olny": []}})
        assert (path, what) == (("mcp", "olny"), "unknown key")
    finally:
        checker.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{tools: [a]}",
            "plugins.mcp.kitchen: needs either command or url; write command: [program, argument]",
        ),
        ("{command: [x], url: 'https://a.example', tools: [a]}", "plugins.mcp.kitchen: needs either command or url"),
        ("{command: [x]}", "plugins.mcp.kitchen.tools: is missing; add 'tools:'"),
        (
            "{command: [x], tools: [a], confirm: [b]}",
            "plugins.mcp.kitchen: confirm names 'b', which is not among",
        ),
        ("{url: 'ftp://x', tools: [a]}", "plugins.mcp.kitchen.url: 'ftp://x' is not the address of an MCP server"),
    ],
)
async def test_a_mistake_is_told(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert any(said in one for one in mistakes(f"plugins:\n  mcp:\n    kitchen: {text}\n"))


async def test_a_server_by_http_is_held_to_egress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "plugins: {mcp: {kitchen: {url: 'https://tools.example.com/mcp', tools: [a]}}}\n"
    assert load(text)
    assert (
        "plugins.mcp.kitchen.url: is at tools.example.com, which egress does not list"
        in mistakes(f"egress: []\n{text}")[0]
    )


async def test_the_page_shows_settings_and_figures_that_are_right(tmp_path: Path) -> None:
    page = (Path(ROOT) / "docs" / "plugins" / "mcp.md").read_text(encoding="utf-8")
    box, line = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "appliance.yaml").write_text(box)
    settings, wrong = examine_settings(tmp_path / "appliance.yaml", [], environ={"APPLIANCE_SECRET_KITCHEN_KEY": "k"})
    assert wrong == []
    assert settings is not None
    assert settings.plugins.mcp["kitchen"].environment == {"KITCHEN_KEY": SecretStr("k")}
    values = Values.model_validate(yaml.safe_load(line)["plugins"]["mcp"])
    assert values.only == ("kitchen",)
    assert f"cut at {_MAX_TEXT:,} characters" in page
    assert f"every {_ALIVE_EVERY_S:.0f} s" in page
    assert f"1 to {_LONGEST_PAUSE_S:.0f} s" in page
