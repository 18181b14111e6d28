"""Which line answers a call. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.dialplan.schema import Line

_SEPARATORS = str.maketrans("", "", " -()./\t")


def plain_number(number: str) -> str:
    """A telephone number without its separators; any other user name (``alice``, ``john.doe``) as it is."""
    bare = number.translate(_SEPARATORS)
    return bare if bare.lstrip("+").rstrip("*").isdecimal() else number


def match(lines: Sequence[Line], trunk: str, called: str, calling: str) -> tuple[Line | None, tuple[str, ...]]:
    """The first line that answers a call on ``trunk`` from ``calling`` to ``called``, and why those before it do not.

    Separators in numbers do not count; user names are compared as they are (RFC 3261 §19.1.4).
    """
    reasons: list[str] = []
    for line in lines:
        problem = _mismatch(line, trunk, called, calling)
        if problem is None:
            return line, tuple(reasons)
        reasons.append(f"line {line.name!r}: {problem}")
    return None, tuple(reasons)


def _mismatch(line: Line, trunk: str, called: str, calling: str) -> str | None:
    wanted = line.match
    if wanted.trunk is not None and trunk not in wanted.trunk and "*" not in wanted.trunk:
        return f"trunk {trunk!r} is not {' or '.join(wanted.trunk)}"
    for what, number, patterns in (("called", called, wanted.called), ("calling", calling, wanted.calling)):
        if patterns is not None and not any(_fits(number, pattern) for pattern in patterns):
            return f"{what} {number!r} is not {' or '.join(patterns)}"
    return None


def _fits(number: str, pattern: str) -> bool:
    number, pattern = plain_number(number), plain_number(pattern)
    return number.startswith(pattern[:-1]) if pattern.endswith("*") else number == pattern
