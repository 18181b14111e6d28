"""A campaign in virtual time: what it would dial, whom it would reach, and when it would be done. PURE.

Rules, retries, pace and plan are those of the runner; only what becomes of a call is drawn (:mod:`.mix`). Ask as
``run(definition, leads, mix, start, seed)``.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

from appliance.campaigns.definition import Definition
from appliance.campaigns.mix import ANSWERED, ON_THE_LINE, Draws, Mix
from appliance.campaigns.outcome import Disposition
from appliance.campaigns.pacing import Abandonment, Breaker, Gate
from appliance.campaigns.plan_next import Room, plan_next
from appliance.campaigns.retries import Hours, next_call
from appliance.campaigns.rules import Allowed, LeadLike, Never, NotNow, Rules
from appliance.campaigns.windows import zone_named

LONGEST: Final = timedelta(days=366)
"""A campaign that is not done by then is given up."""
DEFAULT_RUNS: Final = 25
_MOST_LEADS: Final = 250_000
"""Of all runs together, unless a number of runs is asked for: runs of long lists hardly differ."""


@dataclass(frozen=True, slots=True)
class Box:
    """What the calls are placed with.

    Attributes:
        max_calls: that the boxes take at a time, all of them together.
        trunk_calls, trunk_per_s: of the trunk's settings; None for no limit.
    """

    max_calls: int = 400
    trunk_calls: int | None = None
    trunk_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run.

    Attributes:
        dials: calls placed.
        connects: of them, those that people answered.
        machines: of them, those that machines answered.
        abandoned: of the connects, those that were left without an agent.
        talk_s: seconds on the line after the answer, of all calls together.
        line_s: the same, ringing included.
        peak_calls: most calls at a time.
        first_at, done_at: the first call, and the end of the last one; None where there was none.
        leads: how many leads ended with each disposition; ``waiting`` are those that were left.
        stopped: why the campaign stopped before it was done; "" where it did not.
    """

    dials: int
    connects: int
    machines: int
    abandoned: int
    talk_s: float
    line_s: float
    peak_calls: int
    first_at: datetime | None
    done_at: datetime | None
    leads: Mapping[str, int]
    stopped: str = ""

    @property
    def abandoned_percent(self) -> float:
        """Of the calls that people answered."""
        return 100.0 * self.abandoned / self.connects if self.connects else 0.0

    @property
    def duration_s(self) -> float:
        """From the first call to the end of the last one."""
        if self.first_at is None or self.done_at is None:
            return 0.0
        return (self.done_at - self.first_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a quantity, and how it came out in a tenth, half and nine tenths of the runs."""

    name: str
    p10: float | datetime | None
    p50: float | datetime | None
    p90: float | datetime | None


@dataclass(frozen=True, slots=True)
class Simulation:
    """What came of all runs.

    Attributes:
        start: when the campaign was started.
        leads: how many there were.
        never: of them, how many no rule would ever let be called, by the reason's first words.
    """

    start: datetime
    leads: int
    runs: tuple[Run, ...]
    never: Mapping[str, int] = field(default_factory=dict)

    def quantile(self, quantity: Callable[[Run], Any], share: float) -> Any:
        """The value that ``share`` of the runs do not exceed; None sorts last."""
        found = sorted((quantity(run) for run in self.runs), key=lambda value: (value is None, value or 0))
        return found[min(len(found) - 1, max(0, math.ceil(share * len(found)) - 1))]

    def rows(self) -> list[Row]:
        """The table that is printed."""
        quantities: list[tuple[str, Callable[[Run], Any]]] = [
            ("dials", lambda run: run.dials),
            ("connects", lambda run: run.connects),
            ("answered by machines", lambda run: run.machines),
            ("talk time, hours", lambda run: run.talk_s / 3600),
            ("abandoned, % of connects", lambda run: run.abandoned_percent),
            ("most calls at a time", lambda run: run.peak_calls),
            ("time on the lines, hours", lambda run: run.line_s / 3600),
            ("finished", lambda run: run.done_at if not run.stopped else None),
        ]
        rows = [Row(name, *(self.quantile(of, share) for share in (0.1, 0.5, 0.9))) for name, of in quantities]
        names = sorted({name for run in self.runs for name in run.leads})
        for name in names:

            def count(run: Run, name: str = name) -> int:
                return run.leads.get(name, 0)

            rows.append(Row(f"leads: {name}", *(self.quantile(count, share) for share in (0.1, 0.5, 0.9))))
        return rows

    @property
    def stopped(self) -> str:
        """Why most runs stopped before they were done; "" where they did not."""
        reasons = Counter(run.stopped for run in self.runs)
        return reasons.most_common(1)[0][0] if reasons else ""

    def as_json(self) -> dict[str, Any]:
        """Plain data: the table, with times in ISO 8601."""

        def plain(value: Any) -> Any:
            if isinstance(value, datetime):
                return value.isoformat()
            return round(value, 3) if isinstance(value, float) else value

        return {
            "start": self.start.isoformat(),
            "leads": self.leads,
            "runs": len(self.runs),
            "never": dict(self.never),
            "stopped": self.stopped,
            "rows": [
                {"name": row.name, "p10": plain(row.p10), "p50": plain(row.p50), "p90": plain(row.p90)}
                for row in self.rows()
            ],
        }


def run(
    definition: Definition,
    leads: Iterable[LeadLike],
    mix: Mix,
    start: datetime,
    seed: int = 1,
    *,
    box: Box | None = None,
    runs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Run a campaign in virtual time.

    Args:
        definition: of the campaign.
        leads: those that are still to be called, as the store has them.
        mix: what becomes of calls.
        start: when it is started; aware.
        seed: of the draws: the same one gives the same result.
        box: what the calls are placed with.
        runs: how many times; None: DEFAULT_RUNS, and fewer of long lists.
        progress: told after each run how many of how many are done.
    """
    rules = Rules(definition)
    begin = start.astimezone(UTC)
    fit: list[_Lead] = []
    never: Counter[str] = Counter()
    for lead in leads:
        if isinstance(refused := rules.unfit(lead, begin), Never):
            never[refused.cause] += 1
            continue
        last_zone = zone_named(rules.schedule(lead).zones()[-1])
        assert last_zone is not None
        fit.append(_Lead.of(lead, begin, last_zone))
    wanted = runs if runs is not None else min(DEFAULT_RUNS, max(2, _MOST_LEADS // max(1, len(fit))))
    results = []
    for index in range(wanted):
        random = Random(f"{seed} {index}")
        results.append(_Campaign(rules, fit, mix, begin, random, box or Box(), sum(never.values())).run())
        if progress is not None:
            progress(index + 1, wanted)
    return Simulation(begin, len(fit) + sum(never.values()), tuple(results), dict(never))


@dataclass(slots=True)
class _Lead:
    """A lead of the simulation; what the rules read of leads and of contacts."""

    number: str
    zones: tuple[str, ...]
    address_zone: str
    region: str
    consent: Mapping[str, str] | None
    attempts: int
    next_at: datetime | None
    callback_at: datetime | None
    last_at: datetime | None
    zone: ZoneInfo
    disposition: str = ""
    ended: Counter[str] = field(default_factory=Counter)
    last_started_at: datetime | None = None
    day_attempts: int = 0
    total_attempts: int = 0
    day: str = ""

    @classmethod
    def of(cls, lead: LeadLike, begin: datetime, zone: ZoneInfo) -> _Lead:
        return cls(
            number=lead.number,
            zones=tuple(lead.zones),
            address_zone=lead.address_zone,
            region=lead.region,
            consent=lead.consent,
            attempts=lead.attempts,
            next_at=max(lead.next_at, begin) if lead.next_at is not None else begin,
            callback_at=lead.callback_at,
            last_at=lead.last_at,
            zone=zone,
            total_attempts=lead.attempts,
            last_started_at=lead.last_at,
        )


class _Campaign:
    """One run. Times are seconds since its beginning."""

    def __init__(
        self, rules: Rules, leads: Sequence[_Lead], mix: Mix, begin: datetime, random: Random, box: Box, never: int
    ) -> None:
        pacing = rules.definition.pacing
        self._rules, self._box, self._begin, self._mix = rules, box, begin, mix
        self._leads = [replace(lead, ended=Counter(lead.ended)) for lead in leads]
        self._draws = Draws(mix, random, pacing.ring_timeout_s)
        self._gates = (Gate(pacing.calls_per_s), Gate(box.trunk_per_s))
        self._breaker = Breaker(pacing.breaker)
        self._abandonment = Abandonment(pacing.max_abandoned_percent)
        self._hours = Hours([0] * 24, [0] * 24)
        self._now = 0.0
        # Callbacks first, as the store claims them; then by when they are due.
        self._due: list[tuple[float, int]] = []
        self._ready: list[tuple[int, float, int]] = []
        self._ends: list[tuple[float, int, Disposition, float]] = []
        self._active = 0
        self._dispositions: Counter[str] = Counter({Disposition.NOT_ALLOWED.value: never} if never else {})
        self._dials = self._connects = self._machines = self._abandoned = self._peak = 0
        self._talk_s = self._line_s = 0.0
        self._first_s: float | None = None
        self._last_s: float | None = None
        for index, lead in enumerate(self._leads):
            self._wait(index, lead)

    def run(self) -> Run:
        stopped, limit = "", LONGEST.total_seconds()
        while self._due or self._ready or self._ends:
            self._take_what_is_due()
            asked = None
            if self._ready:
                asked, stopped = self._start()
            moments = [self._ends[0][0]] if self._ends else []
            moments += [self._due[0][0]] if self._due else []
            moments += [asked] if asked is not None and self._ready else []
            if not moments or (stopped and not self._ends):
                break
            if min(moments) > limit:
                stopped = "it was not done within a year"
                break
            self._now = max(self._now, min(moments))
        left = len(self._due) + len(self._ready) + len(self._ends)
        if left:
            self._dispositions["waiting"] = left
        return Run(
            dials=self._dials,
            connects=self._connects,
            machines=self._machines,
            abandoned=self._abandoned,
            talk_s=self._talk_s,
            line_s=self._line_s,
            peak_calls=self._peak,
            first_at=self._moment(self._first_s),
            done_at=self._moment(self._last_s),
            leads=dict(self._dispositions),
            stopped=stopped,
        )

    def _moment(self, seconds: float | None) -> datetime | None:
        return self._begin + timedelta(seconds=seconds) if seconds is not None else None

    def _wait(self, index: int, lead: _Lead) -> None:
        assert lead.next_at is not None
        heapq.heappush(self._due, (max(self._now, (lead.next_at - self._begin).total_seconds()), index))

    def _take_what_is_due(self) -> None:
        while self._ends and self._ends[0][0] <= self._now:
            self._end(*heapq.heappop(self._ends))
        while self._due and self._due[0][0] <= self._now:
            due, index = heapq.heappop(self._due)
            priority = 0 if self._leads[index].callback_at is not None else 1
            heapq.heappush(self._ready, (priority, due, index))

    def _start(self) -> tuple[float | None, str]:
        """Place what may be placed now; when to ask again, and why the campaign is to be paused."""
        pacing = self._rules.definition.pacing
        while self._ready:
            trunk = self._box.trunk_calls - self._active if self._box.trunk_calls is not None else None
            room = Room("running", pacing.max_calls, self._active, self._box.max_calls - self._active, trunk)
            plan = plan_next(self._now, room, self._gates, self._breaker, self._abandonment)
            if plan.start == 0:
                return plan.again_at, plan.stop
            wait_s = max(gate.wait_s(self._now) for gate in self._gates)
            if wait_s > 0.0:
                return self._now + wait_s, ""
            self._place(heapq.heappop(self._ready)[2])
        return None, ""

    def _place(self, index: int) -> None:
        """Call a lead if the rules let it."""
        lead = self._leads[index]
        now = self._begin + timedelta(seconds=self._now)
        contact = lead if lead.last_started_at is not None else None
        limits = self._rules.definition.attempts
        if lead.attempts >= limits.per_lead or lead.total_attempts >= limits.per_number_total:
            self._dispositions[lead.disposition or Disposition.NOT_ALLOWED.value] += 1
            return
        match self._rules.when(lead, contact, self._rules.definition.caller_ids[0], now):
            case Never(disposition=never):
                self._dispositions[never or lead.disposition] += 1
            case NotNow(until=until):
                assert until is not None
                lead.next_at = until
                self._wait(index, lead)
            case Allowed(day=day):
                self._dial(index, lead, now, day)

    def _dial(self, index: int, lead: _Lead, now: datetime, day: str) -> None:
        for gate in self._gates:
            gate.left(self._now + self._mix.leaving_s)
        self._breaker.placed(self._now)
        lead.day_attempts = lead.day_attempts + 1 if lead.day == day else 1
        lead.day = day
        lead.attempts += 1
        lead.total_attempts += 1
        lead.last_at = lead.last_started_at = now
        lead.callback_at = None
        hour = now.astimezone(lead.zone).hour
        disposition, ring_s, talk_s = self._draws.draw(lead.disposition, hour)
        self._count(disposition, hour, ring_s, talk_s)
        self._active += 1
        self._peak = max(self._peak, self._active)
        self._first_s = self._now if self._first_s is None else self._first_s
        heapq.heappush(self._ends, (self._now + ring_s + talk_s, index, disposition, self._mix.turnaround_s))

    def _count(self, disposition: Disposition, hour: int, ring_s: float, talk_s: float) -> None:
        self._dials += 1
        self._line_s += ring_s + talk_s
        self._talk_s += talk_s
        self._connects += disposition in ANSWERED
        self._abandoned += disposition is Disposition.ABANDONED
        self._machines += disposition in ON_THE_LINE and disposition not in ANSWERED
        assert isinstance(self._hours.placed, list) and isinstance(self._hours.answered, list)
        self._hours.placed[hour] += 1
        self._hours.answered[hour] += disposition in ANSWERED

    def _end(self, moment: float, index: int, disposition: Disposition, turnaround_s: float) -> None:
        """The call of a lead is over; what it took up is free after the turnaround."""
        if turnaround_s > 0.0:
            self._last_s = max(self._last_s or 0.0, moment)
            heapq.heappush(self._ends, (moment + turnaround_s, index, disposition, 0.0))
            return
        self._active -= 1
        ended = moment - self._mix.turnaround_s
        self._last_s = max(self._last_s or 0.0, ended)
        self._breaker.ended(moment, failed=disposition is Disposition.FAILED)
        if disposition in ANSWERED:
            self._abandonment.answered(abandoned=disposition is Disposition.ABANDONED)
        lead = self._leads[index]
        lead.disposition = disposition.value
        lead.ended[disposition.value] += 1
        now = self._begin + timedelta(seconds=ended)
        again = next_call(self._rules, lead, lead.ended, disposition, now, hours=self._hours)
        if again.at is None:
            self._dispositions[disposition.value] += 1
            return
        lead.next_at, lead.callback_at = again.at, again.callback_at
        self._wait(index, lead)
