"""The tools of one call, of every source: the box's own, those of declarative plugins, those of the plugin host.

The sources within the control process are plugins like any other, registered through the same manager and asked by the
same hook; what they get as the call knows more about it (:class:`CallInBox`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any, Final, Protocol

import msgspec
import pluggy

from appliance import hookspecs
from appliance.conversation import manners
from appliance.conversation.hooked import HooksOfCall
from appliance.conversation.memory import CallerMemory
from appliance.conversation.private_numbers import NOTHING_PRIVATE, PrivateNumbers
from appliance.conversation.thinking import HandOver
from appliance.conversation.tools import ToolSet
from appliance.dialplan.schema import Line
from appliance.errors import EngineError
from appliance.hook_types import Call
from appliance.plugins.hook_table import ToolOffer
from appliance.tool_types import LEAVE, Arguments, OngoingCall, Tool

logger = logging.getLogger(__name__)

MAX_TOOLS: Final = 64
"""Tools of plugins that one call can have."""
MAX_TIMEOUT_S: Final = 120.0
"""So long a tool of a plugin may take at most, whatever it says."""


class DoNotCall(Protocol):
    """The list of numbers that are never to be called again."""

    async def refuse_calls(self, number: str, *, reason: str, call_id: str, line: str) -> None:
        """Put a number on it. Raises StoreError where it cannot be written."""
        ...


@dataclass(frozen=True)
class Callbacks:
    """What it takes to agree on a time to call again: the zone of the far end, and the time now."""

    zone: tzinfo
    utc: Callable[[], datetime]


@dataclass(frozen=True, kw_only=True)
class CallInBox(Call):
    """A call as plugins within the control process see it.

    Attributes:
        plan: the line, as it was when the call began.
        hand_overs: who the model may hand the caller on to, by name.
        memory: what is known of the caller; None for nothing.
        do_not_call: whom not to call; None where nothing is kept.
        private: what the caller has pressed without the model learning it.
        callbacks: for agreeing on a time to call again; None where nobody would call.
    """

    plan: Line
    hand_overs: Mapping[str, HandOver] = field(default_factory=dict)
    memory: CallerMemory | None = None
    do_not_call: DoNotCall | None = None
    private: PrivateNumbers = NOTHING_PRIVATE
    callbacks: Callbacks | None = None


@dataclass(frozen=True)
class Offered:
    """A tool, and the plugin that it is from."""

    plugin: str
    tool: Tool


class ToolSources:
    """Everybody in the control process who has tools.

    Args:
        plugins: (name, plugin object), in order of priority: the first to offer a name has it.

    Raises:
        EngineError: two plugins have one name, or one implements a hook that does not exist.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        self._names = [name for name, _ in plugins]
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        try:
            for name, plugin in plugins:
                self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise EngineError(f"a plugin cannot be registered: {error}", retryable=False) from error
        everybody = [plugin for _, plugin in plugins]
        self._ask = [
            self._manager.subset_hook_caller("appliance_tools", [other for other in everybody if other is not plugin])
            for plugin in everybody
        ]

    def tools_for(self, call: CallInBox, of_host: Sequence[Offered] = ()) -> ToolSet:
        """The tools of a call; what cannot be offered is left out and logged.

        Args:
            call: which call it is.
            of_host: what plugins in the plugin host offer; see :func:`host_tools`.
        """
        chosen: dict[str, Offered] = {}
        for offered in (*self._in_box(call), *of_host[:MAX_TOOLS]):
            name, plugin = offered.tool.name, offered.plugin
            if call.plan.tools is not None and name not in call.plan.tools and name != "hang_up":
                continue
            if name in chosen:
                has = chosen[name].plugin
                logger.warning("line %s: tool %r of plugin %s is left out: %s has one", call.line, name, plugin, has)
                continue
            if offered.tool.confirm and call.plan.agent == "realtime":
                logger.warning("line %s: tool %r of plugin %s is left out: it asks the caller", call.line, name, plugin)
                continue
            try:
                ToolSet([offered.tool])
            except ValueError as error:
                logger.error("line %s: a tool of plugin %s is left out: %s", call.line, plugin, error)
                continue
            chosen[name] = _asking(offered, call.plan.voice.language or call.language)
        sources = {name: offered.plugin for name, offered in chosen.items()}
        return ToolSet([offered.tool for offered in chosen.values()], sources, call.private)

    def _in_box(self, call: CallInBox) -> Iterator[Offered]:
        for name, ask in zip(self._names, self._ask, strict=True):
            try:
                for tools in ask(call=call):
                    yield from (tool if isinstance(tool, Offered) else Offered(name, tool) for tool in tools)
            except Exception:
                logger.exception("line %s: the tools of plugin %s are left out", call.line, name)


def _asking(offered: Offered, language: str) -> Offered:
    """The tool, which asks for leave in the line's language where its source has not said how."""
    if offered.tool.confirm != LEAVE:
        return offered
    return Offered(offered.plugin, replace(offered.tool, confirm=manners.leave(language)))


async def host_tools(hooks: HooksOfCall) -> list[Offered]:
    """What plugins in the plugin host offer for a call; they run there."""
    found: list[Offered] = []
    for plugin, offers in await hooks.tools():
        found += [Offered(plugin, _in_host(plugin, offer, hooks)) for offer in offers]
    return found


def _in_host(plugin: str, offer: ToolOffer, hooks: HooksOfCall) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        return await hooks.run_tool(plugin, offer.name, arguments, call)

    return Tool(
        name=offer.name,
        description=offer.description,
        parameters=msgspec.json.decode(offer.parameters),
        run=run,
        side_effects=offer.side_effects,
        cancellable=offer.cancellable,
        timeout_s=min(max(offer.timeout_s, 0.0), MAX_TIMEOUT_S),
        filler=offer.filler,
        confirm=offer.confirm,
    )
