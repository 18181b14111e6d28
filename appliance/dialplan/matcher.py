"""Which line answers a call. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from appliance.dialplan.schema import Line

_SEPARATORS = str.maketrans("", "", " -()./\t")


def plain_number(number: str) -> str:
    """A telephone number without its separators; any other user name (``alice``, ``john.doe``) as it is."""
    bare = number.translate(_SEPARATORS)
    return bare if bare.lstrip("+").rstrip("*").isdecimal() else number


@dataclass(frozen=True)
class Circumstances:
    """What a call brings beside its numbers: whom it was meant for before, the verdict on its number, its headers."""

    diverted: tuple[str, ...] = ()
    verstat: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def match(
    lines: Sequence[Line], trunk: str, called: str, calling: str, beside: Circumstances | None = None
) -> tuple[Line | None, tuple[str, ...]]:
    """The first line that answers a call on ``trunk`` from ``calling`` to ``called``, and why those before it do not.

    Separators in numbers do not count; user names are compared as they are (RFC 3261 §19.1.4).
    """
    beside = beside or Circumstances()
    reasons: list[str] = []
    for line in lines:
        problem = _mismatch(line, trunk, called, calling) or _unlike(line, beside)
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


def _unlike(line: Line, beside: Circumstances) -> str | None:
    wanted = line.match
    if wanted.verstat is not None and beside.verstat not in wanted.verstat:
        return f"verstat {beside.verstat!r} is not {' or '.join(map(repr, wanted.verstat))}"
    if wanted.diverted is not None and not any(
        _fits(number, pattern) for number in beside.diverted for pattern in wanted.diverted
    ):
        return f"not diverted from {' or '.join(wanted.diverted)}"
    given = {name.lower(): value for name, value in beside.headers.items()}
    for name, patterns in wanted.headers.items():
        value = given.get(name.lower())
        if value is None or not any(_fits(value, pattern) for pattern in patterns):
            return f"header {name} is {value!r}, not {' or '.join(patterns)}"
    return None


def _fits(number: str, pattern: str) -> bool:
    number, pattern = plain_number(number), plain_number(pattern)
    return number.startswith(pattern[:-1]) if pattern.endswith("*") else number == pattern
