"""What ``appliance plugins new`` writes: a plugin that gives a line a tool, and a test of it that passes."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError

_PLUGIN: Final = '''\
"""NAME: says when we are open."""

from appliance.api import Arguments, Call, OngoingCall, PluginValues, Tool, ToolError, hookimpl

API = 1


class Values(PluginValues):
    """What an operator may write below the plugin's name."""

    hours: dict[str, str] = {"monday": "9 to 17"}


@hookimpl
def appliance_tools(call: Call) -> list[Tool]:
    """The model of every line that has this plugin may look up when we are open."""

    async def opening_hours(arguments: Arguments, ongoing: OngoingCall) -> dict[str, str]:
        day = arguments["day"].lower()
        if day not in call.values.hours:
            raise ToolError(f"we are closed on {day}")
        return {"day": day, "open": call.values.hours[day]}

    return [
        Tool(
            name="opening_hours",
            description="When we are open on a day of the week.",
            parameters={"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]},
            run=opening_hours,
            side_effects=False,
        )
    ]
'''

_TEST: Final = '''\
"""NAME does what it says, in whole calls. Run me: python -m pytest PATH"""

from pathlib import Path

from appliance.testing import uses

HERE = Path(__file__).parent


async def test_it_knows_when_we_are_open(scripted_call) -> None:
    call = await scripted_call(
        plugins={"NAME": {"hours": {"monday": "9 to 17"}}},
        paths=[HERE],
        model={"monday": [uses("opening_hours", day="Monday"), "From nine to five."]},
    )
    await call.says("when are you open on monday")
    assert call.tool("opening_hours").result == {"day": "monday", "open": "9 to 17"}
    assert call.heard("From nine to five.")


async def test_it_says_when_we_are_closed(scripted_call) -> None:
    call = await scripted_call(
        plugins={"NAME": {}},
        paths=[HERE],
        model={"sunday": [uses("opening_hours", day="Sunday"), "We are closed then."]},
    )
    await call.says("and on sunday")
    assert "closed on sunday" in call.tool("opening_hours").problem
'''


class NewPluginError(ApplianceError):
    """The plugin cannot be written; says why."""


def write_plugin(name: str, directory: Path) -> tuple[Path, Path]:
    """Write ``NAME.py`` and ``test_NAME.py``, and nothing over what is there.

    Returns:
        The paths of both.

    Raises:
        NewPluginError: the name cannot be one, or a file is in the way.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise NewPluginError(f"{name!r} cannot be a plugin's name; use small letters, digits and _, a letter first")
    if name in sys.stdlib_module_names or name in ("appliance", "pytest") or name.startswith("test_"):
        raise NewPluginError(f"{name!r} is what a Python module is called already; choose another name")
    plugin, test = directory / f"{name}.py", directory / f"test_{name}.py"
    for path in (plugin, test):
        if path.exists():
            raise NewPluginError(f"{path} is there already; choose another name, or another --directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in ((plugin, _PLUGIN), (test, _TEST)):
            with path.open("x", encoding="utf-8") as file:
                file.write(text.replace("NAME", name).replace("PATH", str(test)))
    except OSError as error:
        raise NewPluginError(f"{directory} cannot be written: {error.strerror}; check its permissions") from error
    return plugin, test
