"""The plugins that the host has imported, and the plans that calls go by."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.api import Box, HttpRequest, HttpResponse
from appliance.errors import PluginError
from appliance.plugins.discovery import Source
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.host.describing import describe
from appliance.plugins.loading import Plugin, load, unload
from appliance.plugins.plan import BOX, Manifest, PluginInfo, PluginPlan, Unusable, revealed

logger = logging.getLogger(__name__)

Invoke = Callable[[str, Plugin, str, Mapping[str, Any], float], Awaitable[Any]]
"""Calls one hook of one plugin, (hook, plugin, line, arguments, budget in seconds), in a thread or on the loop.

Raises what the plugin raises, and TimeoutError.
"""
InThread = Callable[[str, str, Callable[[], Any], float], Awaitable[Any]]
"""Calls a function in a thread: (plugin, what, function, budget in seconds)."""
Handler = Callable[[HttpRequest], Awaitable[HttpResponse] | HttpResponse]

_IMPORT_S: Final = 20.0


@dataclass
class Installed:
    """A plan at work.

    Attributes:
        plugins: by name, in the state of their programs that the plan was made with.
        values: by line and plugin, the values that its hooks see.
    """

    plugins: dict[str, Plugin] = field(default_factory=dict)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, line: str, plugin: str) -> Any:
        """Values of a plugin on a line; None where it has none, or is not on it."""
        return self.values.get(line, {}).get(plugin)

    def lines_of(self, plugin: str) -> tuple[str, ...]:
        """Names of the lines that a plugin is on."""
        return tuple(line for line, plugins in self.values.items() if plugin in plugins and line != BOX)


class Plugins:
    """All plugins of the host.

    Args:
        invoke, in_thread: how plugins' code is run.
        version: of the appliance, for plugins to know.
        state_dir: the box's; each plugin has a folder below it.
    """

    def __init__(self, invoke: Invoke, in_thread: InThread, version: str, state_dir: Path) -> None:
        self._invoke = invoke
        self._in_thread = in_thread
        self._version = version
        self._state_dir = state_dir
        self._loaded: dict[Source, Plugin | PluginError] = {}
        self._infos: dict[Source, PluginInfo] = {}
        self._configured: dict[tuple[Source, str], tuple[bytes, Any, str]] = {}
        self._started: dict[Source, Plugin] = {}
        self._handlers: dict[Source, dict[tuple[str, str], Handler]] = {}
        self.plans: dict[int, Installed] = {}

    async def set_up(self, number: int, plan: PluginPlan) -> Manifest:
        """Import, configure and start what is new in the plan. Never raises because of a plugin."""
        unusable: list[Unusable] = []
        installed = Installed()
        sources = {source.name: source for source in plan.sources}
        for source in plan.sources:
            plugin = await self._load(source)
            if plugin is not None:
                installed.plugins[source.name] = plugin
        box = next((one.plugins for one in plan.sets if BOX in one.lines), {})
        for one in plan.sets:
            for name, written in one.plugins.items():
                plugin = installed.plugins.get(name)
                if plugin is None:
                    unusable.append(Unusable(name, one.lines, self._infos[sources[name]].problem))
                    continue
                shared = BOX not in one.lines and box.get(name) == written
                why = await self._configure(plugin, one.lines, written, installed, shared)
                unusable += why
        off_everywhere = {entry.plugin for entry in unusable if BOX in entry.lines}
        for plugin in installed.plugins.values():
            if plugin.name not in off_everywhere:
                await self._start(plugin, installed.lines_of(plugin.name))
        self.plans[number] = installed
        return Manifest(tuple(self._infos[source] for source in plan.sources), tuple(unusable))

    async def stop(self) -> None:
        """Tell every plugin that the box stops."""
        for plugin in list(self._started.values()):
            await self._told("stopping", plugin, BOX, {})

    async def retire(self) -> None:
        """Stop and forget programs that no plan has any more: calls go by another state of them, or by none."""
        kept = {plugin.source for installed in self.plans.values() for plugin in installed.plugins.values()}
        for source, plugin in [one for one in self._loaded.items() if one[0] not in kept]:
            del self._loaded[source]
            self._infos.pop(source, None)
            self._handlers.pop(source, None)
            for key in [key for key in self._configured if key[0] == source]:
                del self._configured[key]
            if self._started.pop(source, None) is not None and isinstance(plugin, Plugin):
                await self._told("stopping", plugin, BOX, {})
            if isinstance(plugin, Plugin):
                unload(plugin)

    def handler(self, plugin: str, method: str, path: str) -> Handler | None:
        """Who answers a request to a plugin's route, by the latest plan that has the plugin."""
        found = self.latest(plugin)
        return self._handlers.get(found.source, {}).get((method, path)) if found is not None else None

    def latest(self, name: str) -> Plugin | None:
        """The plugin as the latest plan has it that has it at all."""
        plans = reversed(self.plans.values())
        return next((installed.plugins[name] for installed in plans if name in installed.plugins), None)

    async def _load(self, source: Source) -> Plugin | None:
        known = self._loaded.get(source)
        if known is not None:
            return known if isinstance(known, Plugin) else None
        try:
            loaded: Plugin | PluginError = await self._in_thread(source.name, "import", lambda: load(source), _IMPORT_S)
        except PluginError as error:
            loaded = error
        except TimeoutError:
            loaded = PluginError(f"plugin {source.name!r} cannot be imported: it takes longer than {_IMPORT_S:g} s")
        self._loaded[source] = loaded
        if isinstance(loaded, PluginError):
            logger.error("%s", loaded)
            self._infos[source] = PluginInfo(name=source.name, source=source, problem=str(loaded))
            return None
        plugin = loaded
        try:
            self._infos[source] = await self._in_thread(
                source.name, "describe", lambda: self._described(plugin), _IMPORT_S
            )
        except Exception as error:
            logger.exception("plugin %s cannot be described", source.name)
            why = f"plugin {source.name!r} cannot be described: {type(error).__name__}: {error}"
            self._infos[source] = PluginInfo(name=source.name, source=source, problem=why)
        return plugin

    def _described(self, plugin: Plugin) -> PluginInfo:
        listed = describe(plugin)
        handlers = self._handlers.setdefault(plugin.source, {})
        for route in listed.routes:
            handlers.setdefault((route.method.upper(), route.path), route.handler)
        return listed.info

    async def _configure(
        self, plugin: Plugin, lines: tuple[str, ...], written: Mapping[str, Any], installed: Installed, shared: bool
    ) -> list[Unusable]:
        """Give each of the lines the plugin's values. ``shared``: they are the box's own, which it has been told."""
        try:
            values = plugin.validated(revealed(written))
        except Exception as error:
            words = _wrong_values(plugin, written, error)
            return [Unusable(plugin.name, lines, f"plugin {plugin.name!r}: its values are wrong: {words}")]
        key = msgspec.json.encode(written)
        unusable: list[Unusable] = []
        first = BOX if BOX in lines else lines[0]
        told = () if "configure" not in plugin.hooks or shared else (BOX,) if first == BOX else lines
        for line in told:
            before = self._configured.get((plugin.source, line))
            if before is not None and before[0] == key:
                values, why = before[1], before[2]
            else:
                why = await self._told("configure", plugin, line, {"values": values, "line": line})
                self._configured[(plugin.source, line)] = (key, values, why)
            if why:
                off = lines if line == BOX else (line,)
                unusable.append(Unusable(plugin.name, off, f"plugin {plugin.name!r} cannot be configured: {why}"))
        off_lines = {line for entry in unusable for line in entry.lines}
        for line in lines:
            if line not in off_lines:
                installed.values.setdefault(line, {})[plugin.name] = values
        return unusable

    async def _start(self, plugin: Plugin, lines: tuple[str, ...]) -> None:
        if plugin.source in self._started:
            return
        self._started[plugin.source] = plugin
        if "started" not in plugin.hooks:
            return
        folder = self._state_dir / "plugins" / plugin.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            logger.error("plugin %s has no folder of its own: %s", plugin.name, error)
        box = Box(self._version, lines, str(folder))
        await self._told("started", plugin, BOX, {"box": box})

    async def _told(self, hook: str, plugin: Plugin, line: str, arguments: Mapping[str, Any]) -> str:
        """Call a hook that the host waits for: "" or what went wrong."""
        if hook not in plugin.hooks:
            return ""
        budget_s = HOOKS[hook].budget_s
        try:
            await self._invoke(hook, plugin, line, arguments, budget_s)
        except TimeoutError:
            why = f"appliance_{hook} takes longer than {budget_s:g} s"
        except Exception as error:
            logger.exception("plugin %s: appliance_%s failed", plugin.name, hook)
            return f"{type(error).__name__}: {error}"
        else:
            return ""
        logger.error("plugin %s: %s", plugin.name, why)
        return why


def _wrong_values(plugin: Plugin, written: Mapping[str, Any], error: Exception) -> str:
    """What is wrong with values, in words; a plugin's own validators may fail at saying so."""
    try:
        found = plugin.value_problems(written)
    except Exception:
        found = []
    return (
        "; ".join(f"{'.'.join(map(str, path))}: {what}" for path, what, _ in found)
        or f"{type(error).__name__}: {error}"
    )
