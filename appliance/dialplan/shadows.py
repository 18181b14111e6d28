"""Lines that never answer, because one above takes every call that they would. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from appliance.dialplan.match import Match, Pattern
from appliance.dialplan.numbers import plain_number
from appliance.dialplan.schema import Line

_PLAIN_KEYS = frozenset({"trunk", "called", "calling"})
_ANYTHING = ("*",)


class Shadow(NamedTuple):
    """``line`` never answers: ``above`` takes its calls."""

    line: Line
    above: Line


def shadows(lines: Iterable[Line]) -> Iterator[Shadow]:
    """The lines below one that is certain to take all their calls.

    Certain is what can be told of trunks, numbers and prefixes alone; a line that asks for more shadows none.
    """
    filed: dict[tuple[str | None, str], list[Line]] = {}
    for line in lines:
        if (above := _above(line, filed)) is not None:
            yield Shadow(line, above)
        elif not line.match.anything and line.match.model_fields_set <= _PLAIN_KEYS:
            for pattern in _texts(line.match.called):
                filed.setdefault((line.region, plain_number(pattern)), []).append(line)


def _above(line: Line, filed: dict[tuple[str | None, str], list[Line]]) -> Line | None:
    if line.match.called is None:
        places = ["*"]
    else:
        first = line.match.called[0]
        if not isinstance(first, str):
            return None
        plain = plain_number(first)
        bare = plain.removesuffix("*")
        places = [plain, *(f"{bare[:length]}*" for length in range(len(bare) + 1))]
    for place in places:
        for other in filed.get((line.region, place), ()):
            if _covers(other.match, line.match):
                return other
    return None


def _covers(above: Match, below: Match) -> bool:
    """Whether every call that ``below`` fits has the trunk and the numbers that ``above`` asks for."""
    trunks = (
        above.trunk is None or "*" in above.trunk or (below.trunk is not None and set(below.trunk) <= set(above.trunk))
    )
    return (
        trunks and _all_within(below.called, _texts(above.called)) and _all_within(below.calling, _texts(above.calling))
    )


def _texts(patterns: tuple[Pattern, ...] | None) -> list[str]:
    return [pattern for pattern in (_ANYTHING if patterns is None else patterns) if isinstance(pattern, str)]


def _all_within(below: tuple[Pattern, ...] | None, above: list[str]) -> bool:
    wide = {plain_number(pattern) for pattern in above}
    if "*" in wide:
        return True
    return below is not None and all(
        isinstance(pattern, str) and _within(plain_number(pattern), wide) for pattern in below
    )


def _within(pattern: str, wide: set[str]) -> bool:
    bare = pattern.removesuffix("*")
    return pattern in wide or any(f"{bare[:length]}*" in wide for length in range(len(bare) + 1))
