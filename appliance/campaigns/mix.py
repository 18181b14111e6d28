"""What becomes of calls, as shares and lengths: what a simulated campaign draws from. PURE.

An operator writes it, or it is measured from the calls of an earlier campaign (:func:`measured`).
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate, pairwise
from random import Random
from statistics import fmean
from typing import Annotated, Any, Final, Protocol, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from appliance.campaigns.outcome import Disposition
from appliance.config.validation import Section, fault, nearest, short_form

QUANTILES: Final = 41
"""Lengths that were measured are kept as so many numbers, evenly spaced from the shortest to the longest."""

_DRAWN: Final = tuple(one.value for one in Disposition if one is not Disposition.NOT_ALLOWED)
_ASSUMED_CALLS: Final = 1.0
"""With so much of a call that comes to what first calls do, what follows on a disposition is mixed: a few calls say
little, and never that something cannot happen."""
_FEWEST_DELAYS: Final = 10
_LONGEST_DELAY_S: Final = 10.0
_HOURS: Final = 24


def _disposition(value: str) -> str:
    if value not in _DRAWN:
        raise fault(f"{value!r} is nothing that a call may come to", nearest(value, _DRAWN))
    return value


@short_form({"type": "number"}, {"type": "array"})
def _seconds(value: Any) -> Any:
    return {"quantiles": value if isinstance(value, list | tuple) else [value]} if _is_plain(value) else value


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | list | tuple) and not isinstance(value, bool)


class Lengths(Section):
    """How long something takes. A number stands for exactly so long, a list for ``quantiles``."""

    quantiles: tuple[Annotated[float, Field(ge=0, le=86400)], ...] = Field(
        default=(),
        max_length=1000,
        description="Seconds, from the shortest to the longest, as many below each as between: `[20, 45, 180]` is 45 "
        "in the middle.",
    )
    median: float = Field(default=0.0, ge=0, le=86400, description="Instead: half take less, in seconds,")
    p90: float = Field(default=0.0, ge=0, le=86400, description="and nine of ten take less than this.")

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Lengths:
        if bool(self.quantiles) == bool(self.median):
            raise fault(
                "needs either quantiles or median and p90", "write a number of seconds, or {median: 40, p90: 90}"
            )
        if self.median and self.p90 < self.median:
            raise fault(f"p90 {self.p90:g} is less than the median {self.median:g}", "set p90 above median")
        if list(self.quantiles) != sorted(self.quantiles):
            raise fault("the quantiles do not rise", "write them from the shortest to the longest")
        return self

    def draw(self, random: Random) -> float:
        """Seconds; between quantiles evenly, of median and p90 as a logarithmic normal distribution."""
        if self.median:
            sigma = math.log(self.p90 / self.median) / 1.2816
            return self.median * math.exp(random.gauss(0.0, sigma))
        place = random.random() * (len(self.quantiles) - 1)
        low = int(place)
        high = min(low + 1, len(self.quantiles) - 1)
        return self.quantiles[low] + (place - low) * (self.quantiles[high] - self.quantiles[low])


Seconds: TypeAlias = Annotated[Lengths, BeforeValidator(_seconds)]


class Outcome(Section):
    """How often calls come to something, and how long they take then."""

    share: float = Field(ge=0, description="Of all calls; the shares are taken in proportion to their sum.")
    ring_s: Seconds | None = Field(
        default=None,
        description="From the beginning of the call to its answer, or to its end where nobody answers: a number of "
        "seconds, a list of quantiles or `{median, p90}`. Without it, 12 s, or the ring time-out for `no_answer`.",
    )
    talk_s: Seconds | None = Field(
        default=None, description="From the answer to the end, likewise; only of what was answered. Without it, 30 s."
    )


Share: TypeAlias = Annotated[float, Field(ge=0)]
DispositionName: TypeAlias = Annotated[str, AfterValidator(_disposition)]


class Mix(Section):
    """What becomes of the calls of a campaign."""

    outcomes: dict[DispositionName, Outcome] = Field(
        min_length=1, description="Disposition, such as `completed` or `busy`, to its share and lengths."
    )
    after: dict[DispositionName, dict[DispositionName, Share]] = Field(
        default={},
        description="What a lead's call comes to whose last call came to this: disposition to share. Without it, as "
        "`outcomes` say.",
    )
    answered_by_hour: dict[Annotated[int, Field(ge=0, lt=_HOURS)], Share] = Field(
        default={},
        description="Hour of the called party's day to how many times as often somebody answers then: `{18: 1.4}`. "
        "Without it, 1.",
    )
    turnaround_s: float = Field(
        default=0.1,
        ge=0,
        le=60,
        description="From the end of a call to the beginning of the one in its place, where leads wait, in seconds.",
    )
    leaving_s: float = Field(
        default=0.02,
        ge=0,
        le=60,
        description="How much longer than `calls_per_s` asks for it takes from one call to the next, in seconds.",
    )

    @model_validator(mode="after")
    def _has_lengths(self) -> Mix:
        if not sum(outcome.share for outcome in self.outcomes.values()):
            raise fault("every share is 0", "give the outcomes their shares, such as 0.3")
        for before, shares in self.after.items():
            for name in shares:
                if name not in self.outcomes:
                    raise fault(f"after.{before} names {name}, which outcomes has not", f"add outcomes.{name}")
        return self


ANSWERED: Final = frozenset({"answered", "completed", "transferred", "opted_out", "abandoned"})
"""What a person who answers makes of a call."""
ON_THE_LINE: Final = ANSWERED | {"voicemail_left", "machine", "interrupted"}
"""What has a time after the answer."""

ASSUMED: Final = Mix.model_validate(
    {
        "outcomes": {
            "completed": {"share": 0.13, "ring_s": {"median": 12, "p90": 21}, "talk_s": {"median": 60, "p90": 150}},
            "answered": {"share": 0.10, "ring_s": {"median": 12, "p90": 21}, "talk_s": {"median": 9, "p90": 30}},
            "opted_out": {"share": 0.01, "ring_s": {"median": 12, "p90": 21}, "talk_s": {"median": 12, "p90": 25}},
            "machine": {"share": 0.42, "ring_s": {"median": 18, "p90": 26}, "talk_s": {"median": 4, "p90": 8}},
            "no_answer": {"share": 0.22},
            "busy": {"share": 0.04, "ring_s": 3},
            "rejected": {"share": 0.04, "ring_s": {"median": 5, "p90": 14}},
            "invalid": {"share": 0.03, "ring_s": 3},
            "failed": {"share": 0.01, "ring_s": 3},
        }
    }
)
"""Where nobody says anything else; no more than a guess, that a list of cold numbers would be like this."""


class Draws:
    """Draws what becomes of calls, for one run of a simulation."""

    def __init__(self, mix: Mix, random: Random, ring_timeout_s: float) -> None:
        self._mix = mix
        self._random = random
        self._timeout_s = ring_timeout_s
        shares = {name: outcome.share for name, outcome in mix.outcomes.items()}
        self._first = _Choice(shares, mix.answered_by_hour)
        self._after = {
            before: _Choice(shares, mix.answered_by_hour)
            for before, shares in mix.after.items()
            if sum(shares.values())
        }

    def draw(self, before: str, hour: int) -> tuple[Disposition, float, float]:
        """A call's disposition, seconds until its answer or its end without one, and seconds from the answer on.

        Args:
            before: what the lead's last call came to; "" where this is the first.
            hour: of the called party's day.
        """
        name = self._after.get(before, self._first).draw(hour, self._random)
        outcome = self._mix.outcomes[name]
        default_s = self._timeout_s if name == "no_answer" else 12.0
        ring_s = outcome.ring_s.draw(self._random) if outcome.ring_s is not None else default_s
        if ring_s >= self._timeout_s:
            return Disposition.NO_ANSWER, self._timeout_s, 0.0
        if name not in ON_THE_LINE:
            return Disposition(name), ring_s, 0.0
        return Disposition(name), ring_s, outcome.talk_s.draw(self._random) if outcome.talk_s is not None else 30.0


class _Choice:
    """Draws a name by its share, which may depend on the hour."""

    def __init__(self, shares: Mapping[str, float], by_hour: Mapping[int, float]) -> None:
        self._names = tuple(shares)
        self._by_hour = [tuple(accumulate(_at_hour(shares, by_hour.get(hour, 1.0)))) for hour in range(_HOURS)]

    def draw(self, hour: int, random: Random) -> str:
        sums = self._by_hour[hour]
        return self._names[min(bisect(sums, random.random() * sums[-1]), len(self._names) - 1)]


def _at_hour(shares: Mapping[str, float], factor: float) -> Iterable[float]:
    """The shares where so many times as many people answer: of those who do not, more or fewer let it ring."""
    moved = sum(share for name, share in shares.items() if name in ANSWERED) * (1.0 - factor)
    for name, share in shares.items():
        if name in ANSWERED:
            yield share * factor
        else:
            yield max(0.0, share + moved) if name == Disposition.NO_ANSWER else share


class AttemptLike(Protocol):
    """A call of an earlier campaign; :class:`appliance.store.campaign_rows.AttemptRow` is one."""

    @property
    def lead_id(self) -> int: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def answered_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def disposition(self) -> str: ...


class Measuring:
    """Makes a mix of the calls of an earlier campaign, told one by one and in any order.

    What is kept of a call is a few numbers, so that hundreds of thousands may be told.

    Args:
        distance_s: at which its calls left at least, by its ``calls_per_s``; None where that is not known.
    """

    def __init__(self, distance_s: float | None = None) -> None:
        self._distance_s = distance_s
        self._events: list[tuple[float, int]] = []
        """Moments at which a call began (1) or ended (-1)."""
        self._calls: defaultdict[int, list[tuple[datetime, str]]] = defaultdict(list)
        self._ring_s: defaultdict[str, list[float]] = defaultdict(list)
        self._talk_s: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, attempt: AttemptLike) -> None:
        """Tell of a call; one that goes on, or was cut off with its box, tells nothing of the people called."""
        name, ended = attempt.disposition, attempt.ended_at
        if ended is None or name not in _DRAWN or name == Disposition.INTERRUPTED:
            return
        self._calls[attempt.lead_id].append((attempt.started_at, name))
        self._events += [(attempt.started_at.timestamp(), 1), (ended.timestamp(), -1)]
        answered = attempt.answered_at
        self._ring_s[name].append(max(0.0, ((answered or ended) - attempt.started_at).total_seconds()))
        if answered is not None and name in ON_THE_LINE:
            self._talk_s[name].append(max(0.0, (ended - answered).total_seconds()))

    def mix(self) -> Mix:
        """What was told, as shares and lengths.

        Raises:
            ValueError: no call was told of.
        """
        if not self._calls:
            raise ValueError("there are no finished calls to measure; take a campaign that has called, or write a mix")
        first: Counter[str] = Counter()
        after: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for calls in self._calls.values():
            names = [name for _, name in sorted(calls)]
            first[names[0]] += 1
            for before, name in pairwise(names):
                after[before][name] += 1
        outcomes: dict[str, dict[str, Any]] = {}
        for name, ring_s in sorted(self._ring_s.items()):
            outcomes[name] = {"share": float(first[name]), "ring_s": _quantiles(ring_s)}
            if self._talk_s[name]:
                outcomes[name]["talk_s"] = _quantiles(self._talk_s[name])
        learnt = {
            before: {
                name: round(found[name] + _ASSUMED_CALLS * first[name] / first.total(), 4)
                for name in outcomes
                if found[name] or first[name]
            }
            for before, found in after.items()
        }
        return Mix.model_validate({"outcomes": outcomes, "after": learnt, **self._delays()})

    def _delays(self) -> dict[str, float]:
        """``turnaround_s`` and ``leaving_s``, as far as there was a time at which they could be seen."""
        self._events.sort()
        most, active = 0, 0
        for _, step in self._events:
            active += step
            most = max(most, active)
        # As long as leads are called for the first time, others wait: what is not held up by a place that is taken is
        # held up by the box.
        backlog_until = max(min(calls)[0] for calls in self._calls.values()).timestamp()
        turnarounds, distances = [], []
        active, ended_at, started_at = 0, 0.0, 0.0
        full = True
        for moment, step in self._events:
            if step > 0 and moment <= backlog_until:
                if active == most - 1 and full:
                    turnarounds.append(moment - ended_at)
                elif not full:
                    distances.append(moment - started_at)
            active += step
            if step > 0:
                started_at, full = moment, active == most
            else:
                ended_at = moment
        found = {}
        if len(turnarounds) >= _FEWEST_DELAYS:
            found["turnaround_s"] = _usual(turnarounds)
        if len(distances) >= _FEWEST_DELAYS and self._distance_s is not None:
            found["leaving_s"] = _usual([distance_s - self._distance_s for distance_s in distances])
        return found


def _usual(delays: Sequence[float]) -> float:
    """Their mean; a night, or a campaign that was paused, is none of them."""
    return round(max(0.0, fmean(delay for delay in delays if delay <= max(_LONGEST_DELAY_S, min(delays)))), 3)


def measured(attempts: Iterable[AttemptLike], distance_s: float | None = None) -> Mix:
    """The mix of the calls of an earlier campaign; ``distance_s`` as of :class:`Measuring`.

    Raises:
        ValueError: none of them is over.
    """
    measuring = Measuring(distance_s)
    for attempt in attempts:
        measuring.add(attempt)
    return measuring.mix()


def _quantiles(values: Sequence[float]) -> list[float]:
    """At most QUANTILES of them, the first the smallest and the last the largest, each rounded to a millisecond."""
    ordered = sorted(values)
    if len(ordered) <= QUANTILES:
        return [round(value, 3) for value in ordered]
    step = (len(ordered) - 1) / (QUANTILES - 1)
    places = [index * step for index in range(QUANTILES)]
    found = []
    for place in places:
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        found.append(round(ordered[low] + (place - low) * (ordered[high] - ordered[low]), 3))
    return found
