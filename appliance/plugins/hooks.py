"""The one way in which the box calls a hook of a plugin.

Whoever has something to say to plugins asks :meth:`Hooks.wanted` first, which costs next to nothing, and builds the
arguments only where somebody is there to take them::

    if hooks.wanted("final_transcript", call.line):
        text = await hooks.chain("final_transcript", call, text)

No method raises, whatever a plugin does: where there is no result, the hook's default is taken, and the failure goes
into the metrics, the log and the call's record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.errors import ToolError
from appliance.ipc.hook_messages import HookCall, HookOutcome
from appliance.plugins.hook_table import HOOKS, Rule
from appliance.tool_types import OngoingCall

__all__ = ["NO_HOOKS", "HookCall", "Hooks"]


class Hooks:
    """Calls the hooks of the plugins that are enabled, each on the lines that it is enabled on.

    Made without arguments it has no plugins: nothing is wanted, and every hook has its default.

    Attributes:
        on_trouble: called with (call id, hook, how a plugin did) for everything that is no success, for the record.
    """

    def __init__(self) -> None:
        self.on_trouble: Callable[[str, str, HookOutcome], None] = lambda call_id, hook, outcome: None

    def wanted(self, hook: str, line: str = "") -> bool:
        """Whether a plugin implements ``hook`` on ``line``; "" asks for the box as a whole (``admit``, ``route``)."""
        return False

    async def first(self, hook: str, call: HookCall, **arguments: Any) -> Any:
        """The first result that is not None, in the order of the plugins; None where there is none."""
        _has_rule(hook, Rule.FIRST)
        return None

    async def collect(self, hook: str, call: HookCall, **arguments: Any) -> list[tuple[str, Any]]:
        """The results of all plugins that are not None, as (plugin, result), in their order."""
        _has_rule(hook, Rule.COLLECTED)
        return []

    async def chain(self, hook: str, call: HookCall, value: Any, **arguments: Any) -> Any:
        """What the plugins make of ``value``, one after the other. None from a plugin leaves it as it is.

        ``value`` itself where nothing changes it; ``Blocked`` and ``Denied``, where the hook has them, end the chain.
        """
        _has_rule(hook, Rule.CHAINED)
        return value

    def tell(self, hook: str, call: HookCall | None, **arguments: Any) -> None:
        """Let the plugins know. What is told of one call is heard in that order."""
        _has_rule(hook, Rule.TOLD)

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
        raise ToolError("the tool is not available now")

    def over(self, call_id: str) -> None:
        """Nothing more will be asked or told of this call; what plugins still do for it is finished first."""


def _has_rule(hook: str, rule: Rule) -> None:
    assert HOOKS[hook].rule is rule, f"hook {hook} is {HOOKS[hook].rule}"


NO_HOOKS: Final = Hooks()
"""For a box without plugins."""
