"""By which number each line of the dialplan can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from appliance.dialplan.matcher import Arrival
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line

MAX_LINES: Final = 500
"""No page shows more."""

_USUAL = ("100", "200", "300", "0")


@dataclass(frozen=True)
class Reach:
    """How a line is reached: by ``number``, or not at all, and ``why``."""

    line: Line
    number: str
    why: str = ""


def reaches(routing: Routing, trunk: str, calling: str, at: datetime) -> list[Reach]:
    """Of each line that answers, a number that a call of ``calling`` on ``trunk`` reaches it by at the time ``at``."""
    lines = islice((line for line in routing.lines if line.refuse is None), MAX_LINES)
    return [_reach(routing, line, Arrival(trunk, "", calling, at)) for line in lines]


def _reach(routing: Routing, line: Line, arrival: Arrival) -> Reach:
    found = why = ""
    for number in _numbers(line):
        call = arrival.to(number)
        answering = routing.decide(call)
        if answering is line:
            return Reach(line, number)
        found = "; ".join(routing.why_not(line, call)) or found
        why = f"line {answering.name!r} answers first" if answering is not None else ""
    return Reach(line, "", found or why)


def _numbers(line: Line) -> Iterator[str]:
    """Numbers that may reach the line, the likeliest first."""
    wanted = line.match.called
    patterns = [pattern for pattern in wanted if isinstance(pattern, str)] if wanted is not None else ["*"]
    for pattern in patterns:
        if not pattern.endswith("*"):
            yield pattern
    for pattern in patterns:
        if pattern == "*":
            yield from _USUAL
            yield line.name
        elif pattern.endswith("*"):
            yield from (pattern[:-1] + more for more in ("", "1", "100", "1000000"))
