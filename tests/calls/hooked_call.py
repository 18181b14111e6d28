"""What the tests of plugins in whole calls share: ending a call, and one in which a plugin's tool is used."""

from __future__ import annotations

import json
from typing import Any

from appliance.ipc.messages import ToolCall
from appliance.plugins.hook_table import ToolOffer
from tests.calls.test_tool_calls import Script
from tests.calls.test_tool_calls import line as llm_line
from tests.calls.virtual_call import VirtualCall
from tests.plugins.spoken_hooks import SpokenHooks

ANY: dict[str, Any] = {"type": "object", "properties": {"count": {"type": "integer", "maximum": 9}}}


def offer(name: str, **more: Any) -> ToolOffer:
    settings: dict[str, Any] = {"description": name, "parameters": json.dumps(ANY), **more}
    return ToolOffer(name=name, **settings)


async def hang_up(made: VirtualCall) -> None:
    await made.until_quiet()
    made.hangs_up()
    await made.over()


def used_in(made: VirtualCall) -> list[Any]:
    return [tool for turn in made.log.turns for tool in turn.tools]


def one_tool(
    hooks: SpokenHooks,
    arguments: str = '{"count": 3}',
    answers: tuple[str, ...] = (),
    language: str = "en-us",
    **more: Any,
) -> tuple[VirtualCall, list[Any], Script]:
    """A call in which the model uses the tool ``book``, and what that has been run with; the caller answers so."""
    ran: list[Any] = []

    async def run(arguments: Any, call: Any) -> Any:
        ran.append(dict(arguments))
        return {"table": 4, "who": "Ann"}

    hooks.tools["book"] = run
    hooks._hooks["tools"] = [[offer("book", **more)]]
    made = VirtualCall(llm_line(turn={"speculate": 0}, language=language), llm=True, hooks=hooks)
    return made, ran, Script(made.engines, ToolCall("", "book", arguments), "That is what it is.")


async def use_it(made: VirtualCall) -> None:
    await made.until_quiet()
    made.speaks(0.8, "a table please")
    await made.until_says("That is what it is.")
    await hang_up(made)
