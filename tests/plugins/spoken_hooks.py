"""Hooks without a plugin host: functions of the test in place of plugins, in this process."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from appliance.errors import ToolError
from appliance.hook_types import Blocked, Denied
from appliance.ipc.hook_messages import HookCall
from appliance.plugins.hook_table import HOOKS, Rule
from appliance.plugins.hooks import Hooks
from appliance.tool_types import OngoingCall


class SpokenHooks(Hooks):
    """What plugins of every line say.

    Args:
        delay_s: how long each answer takes.
        hooks: name of a hook to what a plugin does: ``(call, **arguments)``; a list where there are several plugins.

    Attributes:
        told: hook to the arguments of each time that it was called.
        calls: hook to the call it was about, the last time.
        tools: name of a tool to what it does: ``(arguments, call)``.
    """

    def __init__(self, delay_s: float = 0.0, **hooks: Any) -> None:
        super().__init__()
        self._delay_s = delay_s
        self._hooks = {name: one if isinstance(one, list) else [one] for name, one in hooks.items()}
        self.told: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.calls: dict[str, HookCall | None] = {}
        self.tools: dict[str, Callable[[Mapping[str, Any], OngoingCall], Any]] = {}
        self.ended: list[str] = []

    def wanted(self, hook: str, line: str = "") -> bool:
        assert hook in HOOKS
        return hook in self._hooks

    async def first(self, hook: str, call: HookCall, **arguments: Any) -> Any:
        assert HOOKS[hook].rule is Rule.FIRST
        for plugin in self._hooks.get(hook, []):
            result = await self._ask(plugin, hook, call, arguments)
            if result is not None:
                return result
        return None

    async def collect(self, hook: str, call: HookCall, **arguments: Any) -> list[tuple[str, Any]]:
        assert HOOKS[hook].rule is Rule.COLLECTED
        results = [await self._ask(plugin, hook, call, arguments) for plugin in self._hooks.get(hook, [])]
        return [(f"plugin{number}", result) for number, result in enumerate(results) if result is not None]

    async def chain(self, hook: str, call: HookCall, value: Any, **arguments: Any) -> Any:
        assert HOOKS[hook].rule is Rule.CHAINED
        for plugin in self._hooks.get(hook, []):
            result = await self._ask(plugin, hook, call, {**arguments, HOOKS[hook].value: value})
            value = value if result is None else result
            if isinstance(value, Blocked | Denied):
                break
        return value

    def tell(self, hook: str, call: HookCall | None, **arguments: Any) -> None:
        assert HOOKS[hook].rule is Rule.TOLD
        self.told[hook].append(arguments)
        self.calls[hook] = call

    async def run_tool(
        self, plugin: str, tool: str, call: HookCall, arguments: Mapping[str, Any], ongoing: OngoingCall
    ) -> Any:
        if tool not in self.tools:
            raise ToolError("the tool is not available now")
        return await self.tools[tool](arguments, ongoing)

    def over(self, call_id: str) -> None:
        self.ended.append(call_id)

    async def _ask(self, plugin: Any, hook: str, call: HookCall, arguments: dict[str, Any]) -> Any:
        self.told[hook].append(arguments)
        self.calls[hook] = call
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if not callable(plugin):
            return plugin
        result = plugin(**arguments)
        return await result if inspect.isawaitable(result) else result
