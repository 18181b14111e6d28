"""The one way in which the box calls a hook of a plugin.

Whoever has something to say to plugins asks :meth:`Hooks.wanted` first, which costs next to nothing, and builds the
arguments only where somebody is there to take them::

    if hooks.wanted("final_transcript", call.line):
        text = await hooks.chain("final_transcript", call, text)

No method raises, whatever a plugin does: where there is no result, the hook's default is taken, and the failure goes
into the metrics, the log and the call's record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from appliance.errors import ToolError
from appliance.ipc.hook_messages import HookCall, HookDone, HookOutcome
from appliance.plugins.hook_table import HOOKS, HookRule, Rule
from appliance.plugins.plan import BOX, Manifest, PluginPlan
from appliance.plugins.tool_calls import NOT_AVAILABLE
from appliance.tool_types import OngoingCall

__all__ = ["NO_HOOKS", "HookCall", "HookHost", "HookRun", "Hooks", "Table", "make_table"]

Table = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Line to hook to the plugins that implement it there, in order."""

_NOTHING: Final[Mapping[str, tuple[str, ...]]] = {}


@dataclass(frozen=True)
class HookRun:
    """A hook that was asked or told; ``began_at`` and ``ended_at`` are CLOCK_MONOTONIC."""

    call_id: str
    hook: str
    began_at: float
    ended_at: float
    outcomes: Sequence[HookOutcome]


class HookHost(Protocol):
    """Where hooks run: the link to the plugin host."""

    async def run(
        self, plan: int, hook: str, plugins: tuple[str, ...], call: HookCall | None, arguments: bytes
    ) -> HookDone | None:
        """Run a hook; None where no plugin could. Never raises; what goes wrong has been told."""
        ...

    def tell(self, plan: int, hook: str, plugins: tuple[str, ...], call: HookCall | None, arguments: bytes) -> None: ...
    def closed(self, plugin: str, hook: str, line: str) -> bool:
        """Whether the plugin's hook is not switched off on the line."""
        ...

    def trouble(self, call_id: str, hook: str, outcome: HookOutcome) -> None:
        """A hook has not done its work in a call."""
        ...

    async def run_tool(
        self, plan: int, plugin: str, tool: str, call: HookCall, arguments: Mapping[str, Any], ongoing: OngoingCall
    ) -> Any: ...
    def over(self, call_id: str) -> None: ...


class Hooks:
    """Calls the hooks of the plugins that are enabled, each on the lines that it is enabled on.

    It is one plan's, and does not change: a call holds on to the one that it began with, whatever is reloaded
    meanwhile. Made without arguments it has no plugins: nothing is wanted, and every hook has its default.
    """

    def __init__(self, host: HookHost | None = None, table: Table | None = None, plan: int = 0) -> None:
        self._host = host
        self._table: Table = table or {}
        self._plan = plan

    def wanted(self, hook: str, line: str = BOX) -> bool:
        """Whether a plugin implements ``hook`` on ``line``; "" asks for the box as a whole (``admit``, ``route``)."""
        return hook in self._table.get(line, _NOTHING)

    async def first(self, hook: str, call: HookCall, **arguments: Any) -> Any:
        """The first result that is not None, in the order of the plugins; None where there is none."""
        done = await self._run(hook, Rule.FIRST, call, arguments)
        return None if done is None else _decoded(_VALUES[hook], done.value)

    async def collect(self, hook: str, call: HookCall, **arguments: Any) -> list[tuple[str, Any]]:
        """The results of all plugins that are not None, as (plugin, result), in their order."""
        done = await self._run(hook, Rule.COLLECTED, call, arguments)
        return [] if done is None else _decoded(_LISTS[hook], done.value) or []

    async def chain(self, hook: str, call: HookCall, value: Any, **arguments: Any) -> Any:
        """What the plugins make of ``value``, one after the other. None from a plugin leaves it as it is.

        ``value`` itself where nothing changes it; ``Blocked`` and ``Denied``, where the hook has them, end the chain.
        """
        rule = HOOKS[hook]
        names = self._names(hook, call.line)
        if not names:
            return value
        done = await self._run(hook, Rule.CHAINED, call, {**arguments, rule.value: value})
        if rule.closed and (failed := _failed(names, done)):
            return [f"[withheld: {failed} failed]"] * len(value)
        made = None if done is None else _decoded(_VALUES[hook], done.value)
        return value if made is None else made

    def tell(self, hook: str, call: HookCall | None, **arguments: Any) -> None:
        """Let the plugins know. What is told of one call is heard in that order."""
        rule = _checked(hook, Rule.TOLD)
        names = self._usable(hook, rule, call)
        if names and self._host is not None and (data := self._encoded(hook, names, call, arguments)) is not None:
            self._host.tell(self._plan, hook, names, call, data)

    async def run_tool(
        self, plugin: str, tool: str, call: HookCall, arguments: Mapping[str, Any], ongoing: OngoingCall
    ) -> Any:
        """Run a tool that ``plugin`` has offered for this call; ``ongoing`` is what it may do with the call.

        Cancelled, the tool is cancelled in the plugin host, too. The time-out is the caller's to keep.

        Returns:
            What the tool returned: a JSON value.

        Raises:
            ToolError: what the tool raised, or that its plugin is not there; the model may be told it.
        """
        if self._host is None:
            raise ToolError(NOT_AVAILABLE)
        return await self._host.run_tool(self._plan, plugin, tool, call, arguments, ongoing)

    def over(self, call_id: str) -> None:
        """Nothing more will be asked or told of this call; what plugins still do for it is finished first."""
        if self._host is not None and self._table:
            self._host.over(call_id)

    async def _run(self, hook: str, rule: Rule, call: HookCall, arguments: Mapping[str, Any]) -> HookDone | None:
        names = self._usable(hook, _checked(hook, rule), call)
        if not names or self._host is None:
            return None
        data = self._encoded(hook, names, call, arguments)
        return None if data is None else await self._host.run(self._plan, hook, names, call, data)

    def _encoded(
        self, hook: str, names: tuple[str, ...], call: HookCall | None, arguments: Mapping[str, Any]
    ) -> bytes | None:
        """The arguments as a message has them; None where it cannot, as with a number of a tool beyond 64 bits."""
        try:
            return msgspec.msgpack.encode(arguments)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            if self._host is not None:
                why = HookOutcome(names[0], "failed", 0.0, f"it cannot be told: {error}")
                self._host.trouble("" if call is None else call.call_id, hook, why)
            return None

    def _names(self, hook: str, line: str) -> tuple[str, ...]:
        return self._table.get(line, _NOTHING).get(hook, ())

    def _usable(self, hook: str, rule: HookRule, call: HookCall | None) -> tuple[str, ...]:
        """The plugins to run, without those that are switched off; none of them where one of a closed hook is."""
        line = BOX if call is None or rule.box_wide else call.line
        names = self._names(hook, line)
        if not names or self._host is None:
            return ()
        usable = tuple(name for name in names if self._host.closed(name, hook, line))
        if len(usable) == len(names):
            return names
        for name in names:
            if name not in usable and call is not None:
                off = HookOutcome(name, "switched_off", 0.0, "it failed too often")
                self._host.trouble(call.call_id, hook, off)
        return () if rule.closed else usable


def make_table(plan: PluginPlan, manifest: Manifest) -> dict[str, dict[str, tuple[str, ...]]]:
    """Who implements what on which line. Lines of the same plugins share one entry."""
    hooks = {info.name: [hook for hook in info.hooks if hook in HOOKS] for info in manifest.plugins}
    off: dict[str, set[str]] = {}
    for entry in manifest.unusable:
        for line in entry.lines:
            off.setdefault(line, set()).add(entry.plugin)
    everywhere = off.get(BOX, set())
    table: dict[str, dict[str, tuple[str, ...]]] = {}

    def of(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name in names:
            for hook in hooks.get(name, ()):
                if not HOOKS[hook].lifecycle:
                    found.setdefault(hook, []).append(name)
        return {hook: tuple(plugins) for hook, plugins in found.items()}

    for one in plan.sets:
        shared = of(tuple(name for name in one.plugins if name not in everywhere))
        for line in one.lines:
            gone = off.get(line, set()) - everywhere
            usable = of(tuple(name for name in one.plugins if name not in everywhere | gone)) if gone else shared
            if usable:
                table[line] = usable
    return table


def _checked(hook: str, rule: Rule) -> HookRule:
    found = HOOKS[hook]
    assert found.rule is rule, f"hook {hook} is {found.rule}"
    return found


def _failed(names: tuple[str, ...], done: HookDone | None) -> str:
    """The plugin that has not done its work; "" where all have."""
    if done is None:
        return names[0]
    return next((one.plugin or names[0] for one in done.outcomes if one.outcome != "ok"), "")


def _decoded(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    """The value; None where it is not of the hook's type, which the host has checked."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        return None


def _decoders(rules: Mapping[str, HookRule]) -> tuple[dict[str, Any], dict[str, Any]]:
    values: dict[str, Any] = {}
    lists: dict[str, Any] = {}
    for hook, rule in rules.items():
        kind: Any = Any if rule.result is None else rule.result
        values[hook] = msgspec.msgpack.Decoder(kind if kind is Any else kind | None)
        lists[hook] = msgspec.msgpack.Decoder(list[tuple[str, kind]])
    return values, lists


_VALUES, _LISTS = _decoders(HOOKS)

NO_HOOKS: Final = Hooks()
"""For a box without plugins."""
