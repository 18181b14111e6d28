"""What a line's ``match`` asks of a call, one criterion at a time. PURE.

:class:`appliance.dialplan.routing.Routing` puts the lines together; this module knows one line at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from appliance.api.hours import Opening
from appliance.dialplan.languages import preferred, speaks, spoken_in
from appliance.dialplan.match import NumbersFrom, Pattern, Program, Regex
from appliance.dialplan.numbers import NumberSet, plain_number, region_of, spellings
from appliance.dialplan.schema import Line

_SHOWN: Final = 4
_MAX_TEXT: Final = 1000
"""No more of a header's value is compared."""

ListKey: TypeAlias = tuple[str, str, str]
"""A file of numbers as a line names it: (name of the line, file, column)."""
Lists: TypeAlias = Mapping[ListKey, NumberSet]


@dataclass(frozen=True)
class Arrival:
    """A call as it arrives: all that choosing a line may look at.

    Attributes:
        trunk: the trunk's name.
        called, calling: as the trunk brings them.
        at: when, with the time zone that lines without a ``timezone`` are in.
        diverted: the numbers it was sent on from.
        verstat: the network's verdict on ``calling``; "" for none.
        headers: those that the trunk's ``headers_in`` lists.
        accept_language: the value of that header; "" without one.
        on_line: calls that each line has now; lines without any may be missing.
        load: calls on the box now, in percent of what it takes.
    """

    trunk: str
    called: str
    calling: str
    at: datetime
    diverted: tuple[str, ...] = ()
    verstat: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    accept_language: str = ""
    on_line: Mapping[str, int] = field(default_factory=dict)
    load: float = 0.0

    def to(self, called: str) -> Arrival:
        """The same call to another number."""
        return replace(self, called=called)


class Facts:
    """An :class:`Arrival`, with what is worked out of it on the way, once.

    Args:
        arrival: the call.
        region: where its numbers without country code are from, on lines that do not say; "" where that is not known.
        language: what callers of its trunk speak; "" where that is not known.
    """

    def __init__(self, arrival: Arrival, region: str, language: str) -> None:
        self.arrival = arrival
        self._region = region
        self._language = language
        self._local: dict[tzinfo | None, datetime] = {None: arrival.at}
        self._headers: dict[str, str] | None = None
        self._stated: tuple[str, ...] | None = None

    def spellings(self, number: str, region: str) -> tuple[str, ...]:
        """Every way in which patterns of a line of ``region`` ("" for one that does not say) may write ``number``."""
        return spellings(number, region or self._region)

    def local(self, zone: tzinfo | None) -> datetime:
        """The time of the call in ``zone``; None for where the box is."""
        if zone not in self._local:
            self._local[zone] = self.arrival.at.astimezone(zone)
        return self._local[zone]

    def header(self, name: str) -> str | None:
        """The header's value, whatever the case of its name; ``name`` in lower case."""
        if self._headers is None:
            self._headers = {key.lower(): value[:_MAX_TEXT] for key, value in self.arrival.headers.items()}
        return self._headers.get(name)

    def languages(self, region: str) -> tuple[str, ...]:
        """What the call asks to be spoken, in lower case; ``region``: where national numbers are from."""
        if self._stated is None:
            self._stated = preferred(self.arrival.accept_language)
            if not self._stated and self._language:
                self._stated = (self._language,)
        return self._stated or spoken_in(region_of(self.arrival.calling, region or self._region))


class Criterion(Protocol):
    """One key of a line's ``match``."""

    @property
    def key(self) -> str:
        """The key, ``headers.X-Account`` for one of the headers."""
        ...

    def fits(self, facts: Facts) -> bool:
        """Whether the call is as the key asks."""
        ...

    def why_not(self, facts: Facts) -> str:
        """Why it is not, for the operator."""
        ...


class Patterns:
    """The patterns of one key, any of which may fit."""

    __slots__ = ("_lists", "_numbers", "_regexes", "_texts", "any")

    def __init__(self, patterns: tuple[Pattern, ...], line: str, lists: Lists) -> None:
        self._texts = patterns
        texts = [pattern for pattern in patterns if isinstance(pattern, str)]
        self._numbers = NumberSet(texts)
        self._regexes = tuple(Program(pattern.regex) for pattern in patterns if isinstance(pattern, Regex))
        self._lists = tuple(
            lists.get((line, pattern.file, pattern.column), NumberSet(()))
            for pattern in patterns
            if isinstance(pattern, NumbersFrom)
        )
        self.any = "*" in texts

    def fit(self, spelt: tuple[str, ...]) -> bool:
        """Whether one of the spellings fits."""
        if self.any:
            return True
        for text in spelt:
            if self._numbers.holds(text) or any(numbers.holds(text) for numbers in self._lists):
                return True
            if self._regexes and any(regex.fits(text) for regex in self._regexes):
                return True
        return False

    def __str__(self) -> str:
        shown = [_shown(pattern) for pattern in self._texts[:_SHOWN]]
        more = len(self._texts) - len(shown)
        return " or ".join(shown) + (f" or one of {more} more" if more else "")


def _shown(pattern: Pattern) -> str:
    if isinstance(pattern, str):
        return pattern
    return f"/{pattern.regex}/" if isinstance(pattern, Regex) else f"in {pattern.file}"


class _Trunk(NamedTuple):
    names: tuple[str, ...]
    key: str = "trunk"

    def fits(self, facts: Facts) -> bool:
        return facts.arrival.trunk in self.names

    def why_not(self, facts: Facts) -> str:
        return f"trunk {facts.arrival.trunk!r} is not {' or '.join(self.names)}"


class _Number(NamedTuple):
    key: Literal["called", "calling"]
    patterns: Patterns
    region: str

    def fits(self, facts: Facts) -> bool:
        return self.patterns.fit(facts.spellings(getattr(facts.arrival, self.key), self.region))

    def why_not(self, facts: Facts) -> str:
        number = getattr(facts.arrival, self.key)
        other = [spelt for spelt in facts.spellings(number, self.region)[1:] if spelt != number]
        also = f" ({', '.join(other)})" if other else ""
        return f"{self.key} {number!r}{also} is not {self.patterns}"


class _Diverted(NamedTuple):
    patterns: Patterns
    region: str
    key: str = "diverted"

    def fits(self, facts: Facts) -> bool:
        return any(self.patterns.fit(facts.spellings(number, self.region)) for number in facts.arrival.diverted)

    def why_not(self, facts: Facts) -> str:
        return f"not diverted from {self.patterns}"


class _Verstat(NamedTuple):
    verdicts: tuple[str, ...]
    key: str = "verstat"

    def fits(self, facts: Facts) -> bool:
        return facts.arrival.verstat in self.verdicts

    def why_not(self, facts: Facts) -> str:
        return f"verstat {facts.arrival.verstat!r} is not {' or '.join(map(repr, self.verdicts))}"


class _Header(NamedTuple):
    name: str
    patterns: Patterns

    @property
    def key(self) -> str:
        return f"headers.{self.name}"

    def fits(self, facts: Facts) -> bool:
        value = facts.header(self.name.lower())
        return value is not None and self.patterns.fit((value, plain_number(value)))

    def why_not(self, facts: Facts) -> str:
        value = facts.header(self.name.lower())
        return f"header {self.name} is {'missing' if value is None else repr(value)}, not {self.patterns}"


class _Language(NamedTuple):
    wanted: tuple[str, ...]
    region: str
    key: str = "language"

    def fits(self, facts: Facts) -> bool:
        return any(speaks(one, spoken) for spoken in facts.languages(self.region) for one in self.wanted)

    def why_not(self, facts: Facts) -> str:
        asked = facts.languages(self.region)
        wanted = " or ".join(self.wanted)
        return f"language {' or '.join(asked)} is not {wanted}" if asked else f"no language is known, so not {wanted}"


class Open(NamedTuple):
    """Whether hours and holidays say open, or with ``closed`` the opposite; ``zone`` None is the box's own."""

    opening: Opening
    closed: bool
    zone: tzinfo | None
    hours: Mapping[str, tuple[str, ...]] | None

    @classmethod
    def of(
        cls,
        hours: Mapping[str, tuple[str, ...]] | None,
        holidays: tuple[str, ...],
        timezone: str | None,
        *,
        closed: bool = False,
    ) -> Open:
        """Of keys that the schema has let through."""
        return cls(Opening.of(hours, holidays), closed, ZoneInfo(timezone) if timezone else None, hours)

    @property
    def key(self) -> str:
        return "holidays" if self.hours is None else "hours"

    def fits(self, facts: Facts) -> bool:
        return self.opening.is_open(facts.local(self.zone)) is not self.closed

    def why_not(self, facts: Facts) -> str:
        local = facts.local(self.zone)
        when = f"{local:%a %Y-%m-%d %H:%M} ({self.zone or local.tzname()})"
        day_off = self.opening.day_off(local.date())
        if self.closed:
            return f"{when} is open, and it answers when closed"
        if day_off:
            return f"{when} is a holiday ({day_off})"
        hours = ", ".join(f"{days} {' and '.join(spans)}" for days, spans in (self.hours or {}).items())
        return f"{when} is not within {hours or 'an open day'}"


class _CallsBelow(NamedTuple):
    name: str
    limit: int
    key: str = "calls_below"

    def fits(self, facts: Facts) -> bool:
        return facts.arrival.on_line.get(self.name, 0) < self.limit

    def why_not(self, facts: Facts) -> str:
        return f"it has {facts.arrival.on_line.get(self.name, 0)} calls, not fewer than {self.limit}"


class _LoadBelow(NamedTuple):
    percent: float
    key: str = "load_below"

    def fits(self, facts: Facts) -> bool:
        return facts.arrival.load < self.percent

    def why_not(self, facts: Facts) -> str:
        return f"{facts.arrival.load:.3g} % of the box's calls are on, not less than {self.percent:g} %"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a line asks of a call: every criterion has to fit. ``region`` is the line's own, "" without one."""

    line: Line
    region: str
    criteria: tuple[Criterion, ...]

    @classmethod
    def of(cls, line: Line, lists: Lists) -> Rule:
        """Of a line that the loader has let through, and the files of numbers that it names."""
        region = line.region or ""
        return cls(line, region, tuple(_criteria(line, region, lists)))

    def fits(self, facts: Facts) -> bool:
        """Whether the line answers the call."""
        return all(criterion.fits(facts) for criterion in self.criteria)

    def unmet(self, facts: Facts) -> list[Criterion]:
        """What does not fit, in the order in which it is looked at."""
        return [criterion for criterion in self.criteria if not criterion.fits(facts)]


def _criteria(line: Line, region: str, lists: Lists) -> list[Criterion]:
    """The criteria of a line, the cheapest first."""
    match = line.match
    found: list[Criterion] = []
    if match.anything:
        return []

    def patterns(given: tuple[Any, ...]) -> Patterns:
        return Patterns(given, line.name, lists)

    if match.trunk is not None and "*" not in match.trunk:
        found.append(_Trunk(match.trunk))
    if match.called is not None and "*" not in match.called:
        found.append(_Number("called", patterns(match.called), region))
    if match.calling is not None and "*" not in match.calling:
        found.append(_Number("calling", patterns(match.calling), region))
    if match.verstat is not None:
        found.append(_Verstat(match.verstat))
    if match.diverted is not None:
        found.append(_Diverted(patterns(match.diverted), region))
    found += [_Header(name, patterns(given)) for name, given in match.headers.items()]
    if match.language is not None:
        found.append(_Language(match.language, region))
    if match.hours is not None or match.holidays:
        found.append(Open.of(match.hours, match.holidays, line.timezone, closed=match.closed))
    if match.calls_below is not None:
        found.append(_CallsBelow(line.name, match.calls_below))
    if match.load_below is not None:
        found.append(_LoadBelow(match.load_below))
    return found
