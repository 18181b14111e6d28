"""By which number each line of the dialplan can be reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.dialplan.matcher import match
from appliance.dialplan.schema import Line

_USUAL = ("100", "200", "300", "0")


@dataclass(frozen=True)
class Reach:
    """How a line is reached: by ``number``, or not at all, and ``why``."""

    line: Line
    number: str
    why: str = ""


def reaches(lines: Sequence[Line], trunk: str, calling: str) -> list[Reach]:
    """Of each line, a number that a call of ``calling`` on ``trunk`` reaches it by."""
    return [_reach(lines, line, trunk, calling) for line in lines]


def _reach(lines: Sequence[Line], line: Line, trunk: str, calling: str) -> Reach:
    found = why = ""
    for number in _numbers(line):
        answering, reasons = match(lines, trunk, number, calling)
        if answering is line:
            return Reach(line, number)
        prefix = f"line {line.name!r}: "
        own = next((reason.removeprefix(prefix) for reason in reasons if reason.startswith(prefix)), "")
        found = own or found
        why = f"line {answering.name!r} answers first" if answering is not None else ""
    return Reach(line, "", found or why)


def _numbers(line: Line) -> Iterator[str]:
    """Numbers that may reach the line, the likeliest first."""
    patterns = line.match.called or ("*",)
    for pattern in patterns:
        if not pattern.endswith("*"):
            yield pattern
    for pattern in patterns:
        if pattern == "*":
            yield from _USUAL
            yield line.name
        elif pattern.endswith("*"):
            yield from (pattern[:-1] + more for more in ("", "1", "100", "1000000"))
