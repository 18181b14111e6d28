"""Numbers that callers have pressed, and that nobody learns but the tools that are given them. PURE.

The model knows a number by a placeholder. Where it passes that on to a tool that may have the number, the tool gets the
number; everywhere else, in what tools return too, the placeholder stands in its place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from appliance.tool_types import ToolError

_PLACEHOLDER: Final = re.compile(r"\[private ([A-Za-z0-9_-]{1,64})\]")


class PrivateNumbers:
    """Those of one call.

    Args:
        given_to: name of a number to the names of the tools that are given it.
    """

    def __init__(self, given_to: Mapping[str, Collection[str]]) -> None:
        self._given_to = {name: frozenset(tools) for name, tools in given_to.items()}
        self._held: dict[str, str] = {}

    def keep(self, name: str, digits: str) -> str:
        """Remember the number until the end of the call; returns what stands for it."""
        self._held[name] = digits
        return f"[private {name}]"

    def revealed(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as ``tool`` is given them.

        Raises:
            ToolError: one of them stands for a number that the caller has not given yet.
        """
        return {key: self._value(tool, value) for key, value in arguments.items()} if self._given_to else arguments

    def hidden(self, text: str) -> str:
        """``text`` without the numbers."""
        for name, digits in self._held.items():
            text = re.sub(rf"(?<!\d){digits}(?!\d)", f"[private {name}]", text)
        return text

    def _value(self, tool: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._value(tool, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(tool, item) for item in value]
        found = _PLACEHOLDER.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None or tool not in self._given_to.get(found[1], ()):
            return value
        if found[1] not in self._held:
            raise ToolError(f"the caller has not given {found[1]} yet: use collect_private first")
        return self._held[found[1]]


NOTHING_PRIVATE: Final = PrivateNumbers({})
