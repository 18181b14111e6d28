"""Which line answers a call: the first whose rule fits, found by an index. PURE.

Every line is filed under the one criterion that leaves fewest lines beside it: its trunks, its called or its calling
numbers and prefixes. A call is then held against the lines filed under what it brings, and against those that cannot
be filed, in the order of the dialplan: the answer is that of trying all lines one after the other.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from appliance.api.hours import calendar
from appliance.dialplan.closing import Closing
from appliance.dialplan.match import Pattern, Program, Regex
from appliance.dialplan.matcher import Arrival, Criterion, Facts, Lists, Rule
from appliance.dialplan.numbers import plain_number
from appliance.dialplan.schema import Line

_Which: TypeAlias = Literal["trunk", "called", "calling"]
_NEAREST: Final = 5
_KEPT: Final = 1000
"""Rules that are kept after they were last used, beside those that every call needs."""


class Passed(NamedTuple):
    """A line that does not answer, and everything about the call that it does not fit."""

    line: Line
    unmet: tuple[Criterion, ...]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.line.name!r}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Explanation:
    """Why a line answers, or none.

    Attributes:
        line: the one that answers; None for none.
        tried: how many lines stand before it, or how many there are.
        nearest: those that came closest, the closest first: the fewest things unmet, then the longest common
            beginning of the numbers.
        counts: of all tried, how many failed first at each key.
    """

    line: Line | None
    tried: int
    nearest: tuple[Passed, ...]
    counts: Mapping[str, int]


class InForce(NamedTuple):
    """A line as it answers at some time; ``closed``: why it is not as it is while it is open, "" where it is."""

    line: Line
    closed: str = ""


class Routing:
    """The lines of a dialplan, ready to choose from. It never changes: a new dialplan makes a new one.

    Args:
        lines: in order. They are looked at one by one, when a call may be theirs.
        lists: the files of numbers that lines name.
        region: where numbers without country code are from (``DE``), where neither the line nor the trunk says.
        trunk_regions: where those of a trunk are from, by its name.
        trunk_languages: what the callers of a trunk speak, by its name.
        index: of the lines, where it has been made already.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        *,
        lists: Lists | None = None,
        region: str = "",
        trunk_regions: Mapping[str, str] | None = None,
        trunk_languages: Mapping[str, str] | None = None,
        index: RoutingIndex | None = None,
    ) -> None:
        self.lines = lines
        self._region = region
        self._regions = dict(trunk_regions or {})
        self._languages = dict(trunk_languages or {})
        self._index = index or RoutingIndex.of(lines, lists or {})
        self._rule = _rules(lines, lists or {}, _KEPT + len(self._index.rest))
        self._closing = lru_cache(maxsize=_KEPT)(lambda number: Closing.of(lines[number]))

    def line(self, name: str) -> Line | None:
        """The line of that name; None where there is none."""
        number = self._index.numbers.get(name)
        return None if number is None else self.lines[number]

    def decide(self, arrival: Arrival) -> Line | None:
        """The line that answers; None where none does."""
        facts = self._facts(arrival)
        for number in self._index.candidates(facts):
            rule = self._rule(number)
            if rule.fits(facts):
                return rule.line
        return None

    def in_force(self, line: Line, arrival: Arrival) -> InForce:
        """What ``line``, which is to answer, is at the time of the call: itself, or what it is while it is closed."""
        if line.closed is None:
            return InForce(line)
        closing = self._closing(self._index.numbers[line.name])
        facts = self._facts(arrival)
        if closing is None or closing.hours.fits(facts):
            return InForce(line)
        other = self.line(line.closed.line) if line.closed.line is not None else closing.line
        return InForce(other or line, closing.hours.why_not(facts))

    def candidates(self, arrival: Arrival) -> int:
        """How many lines :meth:`decide` would have to look at, at most."""
        return sum(1 for _ in self._index.candidates(self._facts(arrival)))

    def decide_in_order(self, arrival: Arrival) -> Line | None:
        """The same by trying every line: what :meth:`decide` is held to."""
        facts = self._facts(arrival)
        rules = map(self._rule, range(len(self.lines)))
        return next((rule.line for rule in rules if rule.fits(facts)), None)

    def explain(self, arrival: Arrival, *, nearest: int = _NEAREST) -> Explanation:
        """Which line answers, and why those before it do not. Tries them all: not for every call."""
        facts = self._facts(arrival)
        counts: Counter[str] = Counter()
        close: list[tuple[int, int, int]] = []
        answering = None
        for number in range(len(self.lines)):
            rule = self._rule(number)
            unmet = rule.unmet(facts)
            if not unmet:
                answering = rule.line
                break
            counts[unmet[0].key] += 1
            close.append((len(unmet), -_shared(rule, facts), number))
        passed = [self._passed(number, facts) for _, _, number in heapq.nsmallest(nearest, close)]
        return Explanation(answering, len(close), tuple(passed), dict(counts.most_common()))

    def passed_over(self, arrival: Arrival, limit: int) -> list[Passed]:
        """The first ``limit`` lines, with why each does not answer; fewer where one answers before."""
        facts = self._facts(arrival)
        found: list[Passed] = []
        for number in range(min(limit, len(self.lines))):
            passed = self._passed(number, facts)
            if not passed.unmet:
                break
            found.append(passed)
        return found

    def why_not(self, line: Line, arrival: Arrival) -> tuple[str, ...]:
        """What the call does not fit of one of the lines; () where it fits."""
        return self._passed(self._index.numbers[line.name], self._facts(arrival)).reasons

    def prepare(self, at: datetime) -> None:
        """Work out the holidays of the year of ``at`` and of the next, so that no call waits for it."""
        for code in self._index.holidays:
            for year in (at.year, at.year + 1):
                calendar(code, year)

    def _facts(self, arrival: Arrival) -> Facts:
        region = self._regions.get(arrival.trunk) or self._region
        return Facts(arrival, region, self._languages.get(arrival.trunk, ""))

    def _passed(self, number: int, facts: Facts) -> Passed:
        rule = self._rule(number)
        unmet = tuple(rule.unmet(facts))
        return Passed(rule.line, unmet, tuple(criterion.why_not(facts) for criterion in unmet))


def _shared(rule: Rule, facts: Facts) -> int:
    """How many characters the number dialled has in common with the beginning of a pattern of the line."""
    patterns = [pattern for pattern in rule.line.match.called or () if isinstance(pattern, str)]
    spelt = facts.spellings(facts.arrival.called, rule.region)
    return max((_common(plain_number(pattern), number) for pattern in patterns for number in spelt), default=0)


def _common(first: str, second: str) -> int:
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return at
    return min(len(first), len(second))


class _Key(NamedTuple):
    """One entry of the index: a text that has to be equal, or the beginning of it."""

    text: str
    prefix: bool


def _rules(lines: Sequence[Line], lists: Lists, kept: int) -> Callable[[int], Rule]:
    """The rule of each line by its number, made when it is asked for."""

    @lru_cache(maxsize=kept)
    def rule(number: int) -> Rule:
        return Rule.of(lines[number], lists)

    return rule


class RoutingIndex:
    """Finds the few lines that a call may belong to. It holds no line, only their numbers.

    Attributes:
        numbers: where each line stands, by its name.
        rest: the lines that every call has to be held against.
        holidays: the calendars that lines go by.
    """

    @classmethod
    def of(cls, lines: Sequence[Line], lists: Lists) -> RoutingIndex:
        """Of lines, and the files of numbers that they name."""
        return cls([Rule.of(line, lists) for line in lines])

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.numbers = {rule.line.name: number for number, rule in enumerate(rules)}
        self.holidays = frozenset(
            entry
            for rule in rules
            for entry in (*rule.line.match.holidays, *rule.line.holidays)
            if not entry[:1].isdecimal()
        )
        filed: list[dict[_Which, list[_Key]]] = [_keys(rule) for rule in rules]
        size: Counter[tuple[_Which, str, _Key]] = Counter(
            (which, rule.region, key)
            for rule, ways in zip(rules, filed, strict=True)
            for which, keys in ways.items()
            for key in keys
        )
        self._shelves: dict[tuple[_Which, str], _Shelf] = {}
        rest: list[int] = []
        for number, (rule, ways) in enumerate(zip(rules, filed, strict=True)):
            if not ways:
                rest.append(number)
                continue
            which = min(ways, key=lambda way: max(size[way, rule.region, key] for key in ways[way]))
            region = "" if which == "trunk" else rule.region
            shelf = self._shelves.setdefault((which, region), _Shelf())
            for key in ways[which]:
                shelf.add(key, number)
        for shelf in self._shelves.values():
            shelf.close()
        self.rest = tuple(rest)

    def candidates(self, facts: Facts) -> Iterator[int]:
        """The numbers of the lines that may answer, in order."""
        arrival = facts.arrival
        runs: list[Sequence[int]] = [self.rest] if self.rest else []
        for (which, region), shelf in self._shelves.items():
            if which == "trunk":
                shelf.find((arrival.trunk,), runs)
            else:
                called_or_calling = arrival.called if which == "called" else arrival.calling
                shelf.find(facts.spellings(called_or_calling, region), runs)
        if len(runs) == 1:
            yield from runs[0]
            return
        last = -1
        for number in heapq.merge(*runs):
            if number != last:
                yield number
                last = number


class _Shelf:
    """Line numbers by exact text and by prefix."""

    def __init__(self) -> None:
        self._exact: dict[str, Sequence[int]] = {}
        self._prefixes: dict[str, Sequence[int]] = {}
        self._lengths: tuple[int, ...] = ()

    def add(self, key: _Key, number: int) -> None:
        runs = self._prefixes if key.prefix else self._exact
        run = runs.setdefault(key.text, [])
        if isinstance(run, list) and (not run or run[-1] != number):
            run.append(number)

    def close(self) -> None:
        """Nothing more is added."""
        for runs in (self._exact, self._prefixes):
            runs.update({text: tuple(run) for text, run in runs.items()})
        self._lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}))

    def find(self, texts: Iterable[str], runs: list[Sequence[int]]) -> None:
        """Add the runs of numbers, each in order, that a call with one of ``texts`` may belong to."""
        for text in texts:
            if found := self._exact.get(text):
                runs.append(found)
            for length in self._lengths:
                if length > len(text):
                    break
                if found := self._prefixes.get(text[:length]):
                    runs.append(found)


def _keys(rule: Rule) -> dict[_Which, list[_Key]]:
    """The ways in which a line can be filed: by each criterion of which every pattern has a beginning that is known."""
    match = rule.line.match
    found: dict[_Which, list[_Key]] = {}
    if match.trunk is not None and "*" not in match.trunk:
        found["trunk"] = [_Key(name, False) for name in match.trunk]
    numbers: tuple[tuple[_Which, tuple[Pattern, ...] | None], ...] = (
        ("called", match.called),
        ("calling", match.calling),
    )
    for which, patterns in numbers:
        keys = [key for pattern in patterns or () if (key := _beginning(pattern)) is not None]
        if patterns is not None and len(keys) == len(patterns):
            found[which] = keys
    return found


def _beginning(pattern: Pattern) -> _Key | None:
    """The text or prefix that everything ``pattern`` fits equals or begins with; None where there is none."""
    if isinstance(pattern, str) and not pattern.endswith("*"):
        return _Key(plain_number(pattern), False)
    text = ""
    if isinstance(pattern, str):
        text = plain_number(pattern)[:-1]
    elif isinstance(pattern, Regex):
        text = Program(pattern.regex).beginning()
    return _Key(text, True) if text else None
