"""When a lead is called again, if at all. PURE."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from appliance.campaigns.outcome import Disposition
from appliance.campaigns.rules import LeadLike, Rules
from appliance.campaigns.windows import Schedule, zone_named

LONGEST_WAIT: Final = timedelta(days=30)
"""However often the back-off has multiplied it."""

_CHOICE: Final = timedelta(hours=24)
"""The best hour is chosen among those of so long a time."""
_HOUR: Final = timedelta(hours=1)
_CALLBACK_LATEST: Final = timedelta(days=60)
_ASSUMED_CALLS: Final = 20.0
"""With how many calls at the average rate an hour's own rate is mixed: a few answers by chance are no best hour."""


@dataclass(frozen=True, slots=True)
class Hours:
    """How many calls were placed, and how many of them people answered, in each hour of the called parties' day.

    Attributes:
        placed, answered: 24 numbers each.
    """

    placed: Sequence[int] = field(default=(0,) * 24)
    answered: Sequence[int] = field(default=(0,) * 24)

    def rate(self, hour: int) -> float:
        """What share is likely to be answered in that hour."""
        average = (sum(self.answered) + 1.0) / (sum(self.placed) + 2.0)
        return (self.answered[hour] + _ASSUMED_CALLS * average) / (self.placed[hour] + _ASSUMED_CALLS)

    @property
    def known(self) -> bool:
        """Whether there is anything to choose by."""
        return sum(self.placed) > 0


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of the lead: called again at ``at``, in UTC, or done where that is None; and why, in words.

    ``callback_at`` is set where the called party has agreed to it.
    """

    at: datetime | None
    why: str
    callback_at: datetime | None = None


def next_call(
    rules: Rules,
    lead: LeadLike,
    ended: Mapping[str, int],
    disposition: Disposition,
    now: datetime,
    *,
    callback_at: datetime | None = None,
    hours: Hours | None = None,
) -> Next:
    """When a lead is called again whose call has ended.

    Args:
        rules: of the campaign.
        lead: as it was when the call began, that call counted in ``attempts``.
        ended: how many calls of the lead have ended with each disposition, this one included.
        disposition: of this call.
        now: when it ended; aware.
        callback_at: agreed on in the call; aware.
        hours: the answers that the campaign has had so far.
    """
    if disposition in (Disposition.OPTED_OUT, Disposition.INVALID, Disposition.NOT_ALLOWED):
        return Next(None, f"{disposition.value} is final")
    limits = rules.definition.attempts
    if lead.attempts >= limits.per_lead:
        return Next(None, f"called {lead.attempts} times; attempts.per_lead is {limits.per_lead}")
    schedule = rules.schedule(lead)
    if callback_at is not None:
        return _called_back(schedule, callback_at, now)
    rule = rules.definition.retry.rule(disposition.value)
    if rule is None:
        return Next(None, f"{disposition.value} is final")
    count = max(1, ended.get(disposition.value, 0))
    if count > rule.times:
        return Next(
            None, f"ended as {disposition.value} {count} times; retry.{disposition.value}.times is {rule.times}"
        )
    wait = min(timedelta(seconds=min(rule.after_s * rule.backoff ** (count - 1), 1e8)), LONGEST_WAIT)
    wait = max(wait, timedelta(seconds=rule.after_s))
    last = lead.last_at or now
    earliest = max(now + wait, last + timedelta(seconds=limits.gap_s)).astimezone(UTC)
    at = schedule.next_open(earliest)
    if at is None:
        return Next(None, "there are no calling hours within the next 60 days")
    why = f"{disposition.value}, time {count} of {rule.times}"
    if rule.best_hour:
        return Next(_best(schedule, at, hours or Hours(), f"{lead.number} {lead.attempts}"), why)
    return Next(at, why)


def after_crash(rules: Rules, lead: LeadLike, started_at: datetime) -> Next:
    """When a lead is called again whose call was cut off with the box: its gap at least has passed then."""
    ended = {Disposition.INTERRUPTED.value: 1}
    return next_call(rules, lead, ended, Disposition.INTERRUPTED, started_at)


def _called_back(schedule: Schedule, callback_at: datetime, now: datetime) -> Next:
    wanted = max(callback_at, now).astimezone(UTC)
    if wanted - now > _CALLBACK_LATEST:
        return Next(None, f"the callback was asked for on {wanted:%Y-%m-%d}, which is too far ahead")
    at = schedule.next_open(wanted)
    if at is None:
        return Next(None, "there are no calling hours within 60 days of the callback")
    return Next(at, "a callback was agreed on", callback_at=at)


def _best(schedule: Schedule, earliest: datetime, hours: Hours, seed: str) -> datetime:
    """The moment, within a day of ``earliest``, at which an answer is likeliest; never outside the calling hours.

    Within the hour, and among hours that are equally good, leads are spread by ``seed``.
    """
    zone = zone_named(schedule.zones()[-1])  # the address's, where there is one
    assert zone is not None
    best, chosen = -1.0, earliest
    for hour, begin, end in _open_hours(schedule, zone, _hour_of(earliest, zone)):
        opens = max(begin, earliest)
        if opens >= min(end, earliest + _CHOICE):
            continue
        spread = _share(f"{seed} {hour}")
        rate = hours.rate(hour) if hours.known else spread
        if rate > best:
            moment = (opens + spread * (end - opens)).replace(microsecond=0)
            best, chosen = rate, moment if moment >= opens and schedule.is_open(moment) else opens
    return chosen


@lru_cache(maxsize=1024)
def _open_hours(schedule: Schedule, zone: ZoneInfo, start: datetime) -> tuple[tuple[int, datetime, datetime], ...]:
    """The hours of the clock from ``start`` on in which it is open: which, from when, and when it is over."""
    found: list[tuple[int, datetime, datetime]] = []
    moment = start
    while moment < start + _CHOICE + _HOUR:
        opens = schedule.next_open(moment)
        if opens is None:
            break
        moment = _hour_of(opens, zone) + _HOUR
        found.append((opens.astimezone(zone).hour, opens, moment))
    return tuple(found)


def _hour_of(moment: datetime, zone: ZoneInfo) -> datetime:
    """When the hour that the clock shows began."""
    local = moment.astimezone(zone)
    return moment - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def _share(seed: str) -> float:
    """A number from 0 to 1 that ``seed`` alone decides."""
    return zlib.crc32(seed.encode()) / 2**32
