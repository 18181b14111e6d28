"""The tools of YAML plugins as one of the box's tool sources."""

from __future__ import annotations

from appliance.calls.tool_sources import CallInBox, Offered
from appliance.hookspecs import hookimpl
from appliance.plugins.declarative.source import Declarative
from appliance.plugins.plan import Chosen, effective


class DeclarativeTools:
    """Offers each line the tools of the YAML plugins that are enabled on it.

    Args:
        source: the plugins.
        enabled: those of the whole box, with their values.
    """

    def __init__(self, source: Declarative, enabled: Chosen) -> None:
        self._source = source
        self._enabled = enabled

    @hookimpl
    def appliance_tools(self, call: CallInBox) -> list[Offered]:
        chosen = effective(self._enabled, call.plan.plugins)
        return [Offered(plugin, tool) for plugin, tool in self._source.tools_of(call.line, chosen, call.lead)]
