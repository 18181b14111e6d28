"""Sees to it that each use of a tool is on record, in one turn and once."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Final

from appliance.events import ToolRun

_MAX_UNTOLD: Final = 256


class ToolAudit:
    """The uses of tools in one call that no turn has told of yet.

    Most are told of by the reply that they were for. What was looked up for a reply that was then thrown away, stopped
    half-way, or finished after the last reply, is told of by the turn that ends next.
    """

    def __init__(self) -> None:
        self._untold: dict[tuple[str, float], ToolRun] = {}
        self._before: set[tuple[str, float]] = set()

    def ran(self, run: ToolRun) -> None:
        """A tool has run, to its end or not."""
        self._untold[run.key, run.start_at] = run
        if len(self._untold) > _MAX_UNTOLD:
            del self._untold[next(iter(self._untold))]

    def settle(self, tools: MutableSequence[ToolRun]) -> None:
        """A turn is over that tells of ``tools``: add those that nobody else will tell of.

        A reply begun in advance may still tell of what it has used, but in the next turn at the latest.
        """
        for run in tools:
            self._untold.pop((run.key, run.start_at), None)
        tools.extend(self._untold.pop(one) for one in list(self._untold) if one in self._before)
        self._before = set(self._untold)

    def rest(self) -> list[ToolRun]:
        """The call is over: what is left."""
        left, self._untold = list(self._untold.values()), {}
        return left
