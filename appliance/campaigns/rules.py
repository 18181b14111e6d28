"""Whether a lead may be called now. PURE.

Everything is forbidden that is not known to be allowed: a zone, a list or a piece of evidence that is missing means
no call. The store asks for the attempts again in the transaction that begins a call (``begin_attempt``), since another
box may have called the number meanwhile.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from appliance.campaigns.definition import Definition
from appliance.campaigns.outcome import Disposition
from appliance.campaigns.windows import (
    HORIZON,
    CallingWindows,
    Schedule,
    country_of_number,
    local_days,
    schedule,
    zone_named,
)
from appliance.signalling import dial_policy
from appliance.store.campaign_rows import AttemptLimits

LAST_MOMENTS: Final = timedelta(minutes=1)
"""No call is begun so shortly before the calling hours end: it would ring after them."""

_CLOCKS_DIFFER: Final = timedelta(days=1)
"""By less than this, a time in the future may be another clock's now."""

Cause: TypeAlias = Literal[
    "state",
    "do_not_call",
    "number",
    "costly",
    "consent",
    "zone",
    "window",
    "per_lead",
    "per_day",
    "total",
    "gap",
    "retry",
    "callback",
    "caller_id",
    "trunk",
]


class LeadLike(Protocol):
    """What the rules read of a lead; :class:`appliance.store.campaign_rows.Lead` is one. Times are aware.

    ``address_zone`` may name several zones with blanks between: the address is in one of them. ``consent`` has the
    keys ``source``, ``text`` and ``at`` (ISO 8601).
    """

    @property
    def number(self) -> str: ...
    @property
    def zones(self) -> Sequence[str]: ...
    @property
    def address_zone(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def consent(self) -> Mapping[str, str] | None: ...
    @property
    def attempts(self) -> int: ...
    @property
    def next_at(self) -> datetime | None: ...
    @property
    def callback_at(self) -> datetime | None: ...
    @property
    def last_at(self) -> datetime | None: ...


class ContactLike(Protocol):
    """How often all campaigns have called a number; :class:`appliance.store.campaign_rows.Contact` is one."""

    @property
    def last_started_at(self) -> datetime | None: ...
    @property
    def day_attempts(self) -> int: ...
    @property
    def total_attempts(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else must be known.

    Attributes:
        state: of the campaign; whoever only asks what would be called says "running".
        listed: the do-not-call lists that hold the number, by name; None where they could not be asked.
        owned: caller IDs that the box may show, E.164: those of its trunks' ``caller_ids``.
        trunk_refuses: why the trunk may not dial the number (``signalling.dial_policy``); "" where it may.
    """

    state: str
    listed: Sequence[str] | None
    owned: AbstractSet[str]
    trunk_refuses: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """It may be called now.

    Attributes:
        caller_id: the number to show.
        day: the called party's day, ``2026-11-22``; where several zones come into question, the earliest one.
        per_day: calls of the number on that day, this one included, that may be.
        agreed: it is a callback that was agreed on, for which no gap holds.
    """

    caller_id: str
    day: str
    per_day: int
    agreed: bool = False


@dataclass(frozen=True, slots=True)
class NotNow:
    """It may not be called before ``until``, in UTC; None: not before somebody changes something."""

    cause: Cause
    why: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Never:
    """It may not be called at all; the lead ends with ``disposition`` ("": with that of its last call)."""

    cause: Cause
    why: str
    disposition: Disposition | Literal[""]


Decision: TypeAlias = Allowed | NotNow | Never


class Rules:
    """The rules of one revision of a campaign's definition."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.windows = CallingWindows.made_of(definition.windows, definition.holidays.entries)

    def schedule(self, lead: LeadLike) -> Schedule:
        """When the lead may be called."""
        address = tuple(lead.address_zone.split())
        return schedule(self.windows, lead.number, tuple(lead.zones), address, lead.region)

    def may_dial(
        self, lead: LeadLike, contact: ContactLike | None, surroundings: Surroundings, now: datetime
    ) -> Decision:
        """Whether the lead may be called at ``now``.

        Args:
            lead: as the store has it.
            contact: of its number; None where nobody has called it yet.
            surroundings: what the lead does not tell.
            now: aware.
        """
        refused = self._listed(lead, surroundings) or self.unfit(lead, now) or self._used_up(lead, contact)
        if refused is not None:
            return refused
        if surroundings.state != "running":
            return NotNow("state", f"the campaign is {surroundings.state}", None)
        if surroundings.listed is None:
            return NotNow("do_not_call", "the do-not-call lists cannot be read", None)
        if surroundings.trunk_refuses:
            return NotNow("trunk", surroundings.trunk_refuses, None)
        caller_id = self.caller_id(lead, surroundings.owned, now)
        if not caller_id:
            shown = ", ".join(self.definition.caller_ids)
            return NotNow("caller_id", f"no trunk owns {shown}; list it under trunks.NAME.caller_ids", None)
        return self.when(lead, contact, caller_id, now)

    def caller_id(self, lead: LeadLike, owned: AbstractSet[str], now: datetime) -> str:
        """The number to show to the lead today: another one each day, another one to each; "" where none is owned."""
        usable = [number for number in self.definition.caller_ids if number in owned]
        if not usable:
            return ""
        turn = zlib.crc32(lead.number.encode()) + now.astimezone(UTC).toordinal()
        return usable[turn % len(usable)]

    def day(self, lead: LeadLike, now: datetime) -> str:
        """The called party's day as the store counts by it; "" where no zone is known."""
        days = local_days(self.schedule(lead).zones(), now)
        return min(days).isoformat() if days else ""

    def limits(self, allowed: Allowed, spacing_s: float = 0.0) -> AttemptLimits:
        """What must still hold in the transaction that begins the call; ``spacing_s`` as the gate's distance."""
        attempts = self.definition.attempts
        return AttemptLimits(
            day=allowed.day,
            gap_s=attempts.gap_s,
            per_day=allowed.per_day,
            per_number=attempts.per_number_total,
            per_lead=attempts.per_lead,
            max_calls=self.definition.pacing.max_calls,
            spacing_s=spacing_s,
            agreed=allowed.agreed,
        )

    def unfit(self, lead: LeadLike, now: datetime) -> Never | NotNow | None:
        """Why the lead is not to be called for what it is, at whatever time; None where nothing speaks against it."""
        if not country_of_number(lead.number):
            why = f"{lead.number} is no valid number of a country; write +, country code, number"
            return Never("number", why, Disposition.INVALID)
        if kinds := _costly(lead.number):
            why = f"{lead.number} is a number of kind {', '.join(kinds)}, which campaigns never call"
            return Never("costly", why, Disposition.NOT_ALLOWED)
        if self.definition.consent.required and (refused := _no_consent(lead.consent, now)) is not None:
            return refused
        if why := self.schedule(lead).unknown:
            return Never("zone", f"{why}, so that nobody knows what time it is there", Disposition.NOT_ALLOWED)
        return None

    def _listed(self, lead: LeadLike, surroundings: Surroundings) -> Never | None:
        if not surroundings.listed:
            return None
        lists = ", ".join(surroundings.listed)
        return Never("do_not_call", f"{lead.number} is on a do-not-call list: {lists}", Disposition.OPTED_OUT)

    def _used_up(self, lead: LeadLike, contact: ContactLike | None) -> Never | None:
        attempts = self.definition.attempts
        if lead.attempts >= attempts.per_lead:
            return Never("per_lead", f"called {lead.attempts} times; attempts.per_lead is {attempts.per_lead}", "")
        if contact is not None and contact.total_attempts >= attempts.per_number_total:
            why = f"called {contact.total_attempts} times by all campaigns; attempts.per_number_total is"
            return Never(
                "total", f"{why} {attempts.per_number_total}", "" if lead.attempts else Disposition.NOT_ALLOWED
            )
        return None

    def when(self, lead: LeadLike, contact: ContactLike | None, caller_id: str, now: datetime) -> Decision:
        """Whether it is the time to call a lead against which nothing else speaks; arguments as of :meth:`may_dial`."""
        hours = self.schedule(lead)
        attempts = self.definition.attempts
        last = _latest(lead.last_at, contact.last_started_at if contact is not None else None)
        called_back = lead.callback_at is not None and (last is None or last < lead.callback_at)
        waits: list[tuple[datetime, Cause, str]] = []
        today = 0
        if last is not None and contact is not None:
            again = _next_day(hours.zones(), last)
            today = contact.day_attempts if now < again else 0
        if called_back:
            assert lead.callback_at is not None
            waits.append((lead.callback_at, "callback", "a callback is agreed for then"))
        else:
            if lead.next_at is not None:
                waits.append((lead.next_at, "retry", "the next call is due then"))
            if last is not None:
                gap = timedelta(seconds=attempts.gap_s)
                waits.append((last + gap, "gap", f"called at {_said(last)}; attempts.gap_s is {attempts.gap_s:g}"))
            if last is not None and today >= attempts.per_number_per_day:
                why = f"called {_times(today)} today; attempts.per_number_per_day is {attempts.per_number_per_day}"
                waits.append((again, "per_day", why))
        earliest, cause, why = max(waits, key=lambda wait: wait[0], default=(now, "window", ""))
        if earliest <= now:
            earliest, cause, why = now, "window", ""
            if hours.is_open_for(now, LAST_MOMENTS):
                return Allowed(
                    caller_id,
                    self.day(lead, now),
                    max(attempts.per_number_per_day, today + 1) if called_back else attempts.per_number_per_day,
                    called_back,
                )
        until = hours.next_open(earliest)
        if until is not None and not hours.is_open(until + LAST_MOMENTS):
            until = hours.next_open(until + LAST_MOMENTS)
        if until is None:
            zones = _listed(hours.zones())
            why = f"the calling hours of {zones} have no time in common within {HORIZON.days} days"
            return Never("window", why, "" if lead.attempts else Disposition.NOT_ALLOWED)
        return NotNow(cause, why or _closed(hours, now), until)


@lru_cache(maxsize=8192)
def _costly(number: str) -> tuple[str, ...]:
    return dial_policy.kinds(number, None)


def _no_consent(consent: Mapping[str, str] | None, now: datetime) -> Never | NotNow | None:
    """Why the evidence of consent does not do; None where it does."""

    def never(why: str) -> Never:
        return Never("consent", f"{why}, and consent.required is set", Disposition.NOT_ALLOWED)

    if not consent:
        return never("there is no evidence of consent")
    missing = [key for key in ("source", "text", "at") if not str(consent.get(key) or "").strip()]
    if missing:
        return never(f"the evidence of consent has no {' and no '.join(missing)}")
    try:
        given = datetime.fromisoformat(str(consent["at"]).strip())
    except ValueError:
        return never(f"the time of consent {consent['at']!r} cannot be read")
    given = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    if given <= now:
        return None
    if given - now <= _CLOCKS_DIFFER:
        return NotNow("consent", f"consent is given from {_said(given)} on", given.astimezone(UTC))
    return never(f"the time of consent, {_said(given)}, is in the future")


def _next_day(names: Sequence[str], last: datetime) -> datetime:
    """When the day of ``last`` is over in every one of the zones, in UTC."""
    ends: list[datetime] = []
    for name in names:
        zone = zone_named(name)
        if zone is not None:
            ends += _midnights(zone, last.astimezone(zone).date() + timedelta(days=1))
    return max(ends, default=last + timedelta(days=2))


def _midnights(zone: ZoneInfo, day: date) -> tuple[datetime, datetime]:
    """The moment at which ``day`` begins; both of them where the clock shows it twice."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC)


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _closed(hours: Schedule, now: datetime) -> str:
    """Which clock says that nobody is called now."""
    for opening, zone in hours.constraints:
        local = now.astimezone(zone)
        for moment in (local, (now + LAST_MOMENTS).astimezone(zone)):
            if not opening.is_open(moment):
                day = opening.day_off(local.date())
                off = f", a holiday ({day})" if day else ""
                return f"it is {local:%A %H:%M} in {zone.key}{off}, outside the calling hours"
    return "outside the calling hours"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more zones" if len(names) > 3 else "")


def _said(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
