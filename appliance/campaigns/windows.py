"""When a called party may be called, by the clock on their own wall. PURE.

A number tells the zones it may be in, an address the zone it is in. Each zone is held to the hours of its region,
and all must allow: whoever might be at dinner is not called. A zone that is not known allows nothing.

Whether a moment is within the hours is asked of the moment in UTC, read on the local clock. So an hour that a change
of clocks leaves out is never open, one that it repeats is open twice, and no local time is ever ambiguous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import phonenumbers

from appliance.api.hours import Opening
from appliance.campaigns.definition import CallingWindow, Windows
from appliance.campaigns.regions import is_subdivision

HORIZON: Final = timedelta(days=60)
"""How far ahead :meth:`Schedule.next_open` looks."""

_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, eq=False)
class CallingWindows:
    """The calling hours of a campaign; made once for each of its revisions, and compared by identity.

    Attributes:
        default: where no region says otherwise.
        regions: by country (``FR``) or part of one (``US-FL``), in upper case.
    """

    default: Opening
    regions: Mapping[str, Opening] = field(default_factory=dict)

    @classmethod
    def made_of(cls, windows: Windows, days_off: Sequence[str] = ()) -> CallingWindows:
        """Of the definition's ``windows`` and of the entries of its ``holidays``, on which nobody is called."""
        regions = {name: _opening(listed, days_off) for name, listed in windows.regions.items()}
        return cls(_opening(windows.default, days_off), regions)

    def of(self, region: str) -> tuple[Opening, ...]:
        """The hours that hold in ``region``, all of them at once; ``region`` is ``US-FL``, or ``US``.

        Where the part of the country is not known, the hours of each part that has its own hold as well: the called
        party may be there.
        """
        country, _, part = region.partition("-")
        whole = self.regions.get(country, self.default)
        if part:
            return (self.regions.get(region, whole),)
        return (whole, *(hours for name, hours in sorted(self.regions.items()) if name.startswith(f"{country}-")))


class Schedule:
    """The hours of every zone that a called party may be in, which all must allow.

    Attributes:
        constraints: pairs of hours and the zone on whose clock they are read.
        unknown: why nobody may be called at any time, in words; "" where that is not so.
    """

    __slots__ = ("_closed", "_open", "constraints", "unknown")

    def __init__(self, constraints: Sequence[tuple[Opening, ZoneInfo]], unknown: str = "") -> None:
        self.constraints = tuple(constraints)
        self.unknown = unknown or ("" if self.constraints else "no time zone is known")
        self._open: tuple[datetime, bool] | None = None  # of one minute
        self._closed: tuple[datetime, datetime, datetime | None] | None = None  # from, until, the answer

    def is_open(self, now: datetime) -> bool:
        """Whether the called party may be called at ``now``, a time with its zone."""
        if self.unknown:
            return False
        minute = _minute_of(now)
        if self._open is None or self._open[0] != minute:
            # Offsets from UTC are whole minutes, so a minute in UTC is one everywhere.
            self._open = minute, all(hours.is_open(minute.astimezone(zone)) for hours, zone in self.constraints)
        return self._open[1]

    def is_open_for(self, now: datetime, length: timedelta) -> bool:
        """Whether it is open at ``now`` and still is after ``length``, which is shorter than any break."""
        return self.is_open(now) and self.is_open(now + length)

    def next_open(self, now: datetime) -> datetime | None:
        """The first moment from ``now`` on at which all zones allow, in UTC; None where none does within HORIZON."""
        if self.unknown:
            return None
        if self.is_open(now):
            return now.astimezone(UTC)
        minute = _minute_of(now)
        if self._closed is not None and self._closed[0] <= minute < self._closed[1]:
            return self._closed[2]
        found = self._search(minute + _MINUTE, minute + HORIZON)
        # Without an answer, the next day may bring one: it may see further.
        self._closed = minute, found or minute + _DAY, found
        return found

    def _search(self, moment: datetime, end: datetime) -> datetime | None:
        """The first minute of ``moment <= ... <= end`` that is open in every zone."""
        agreed = 0
        while agreed < len(self.constraints):
            for hours, zone in self.constraints:
                opens = _opens(hours, zone, moment, end)
                if opens is None:
                    return None
                agreed = agreed + 1 if opens == moment else 1
                moment = opens
                if agreed >= len(self.constraints):
                    break
        return moment

    def zones(self) -> tuple[str, ...]:
        """The names of the zones, each once."""
        return tuple(dict.fromkeys(zone.key for _, zone in self.constraints))


def schedule(
    windows: CallingWindows, number: str, zones: tuple[str, ...], address_zones: tuple[str, ...] = (), region: str = ""
) -> Schedule:
    """What holds for one called party.

    Args:
        windows: of the campaign.
        number: E.164; its country's hours hold in its zones.
        zones: of the number, as :func:`zones_of_number` has them.
        address_zones: of the address, where it is known.
        region: of the address, ``US-FL`` or ``US``; "" where it is not known. In the country of the number it says
            which part of it the number is in.
    """
    return _schedule(windows, country_of_number(number), zones, address_zones, region)


@lru_cache(maxsize=8192)
def _schedule(
    windows: CallingWindows, country: str, zones: tuple[str, ...], address_zones: tuple[str, ...], region: str
) -> Schedule:
    if not country:
        return Schedule((), "the country of the number is not known")
    if region and not is_subdivision(region):
        return Schedule((), f"the region {region!r} is not known; write a country as US, or a part of one as US-FL")
    if not zones:
        return Schedule((), "the time zone of the number is not known")
    at_number = region if region.partition("-")[0] == country else country
    sides = [(zone, windows.of(at_number)) for zone in zones]
    sides += [(zone, windows.of(region or country)) for zone in address_zones]
    constraints: dict[tuple[Opening, str], ZoneInfo] = {}
    for name, openings in sides:
        zone = zone_named(name)
        if zone is None:
            return Schedule((), f"the time zone {name!r} is not known")
        constraints.update(dict.fromkeys(((hours, name) for hours in openings), zone))
    return Schedule([(hours, zone) for (hours, _), zone in constraints.items()])


@lru_cache(maxsize=8192)
def zones_of_number(number: str) -> tuple[str, ...]:
    """The IANA names of every zone that an E.164 number may be in; none where one of them is not known."""
    from phonenumbers import timezone  # its tables take 50 ms to read, and few processes need them

    parsed = _parsed(number)
    if parsed is None:
        return ()
    names = tuple(timezone.time_zones_for_number(parsed))
    return names if all(zone_named(name) is not None for name in names) else ()


@lru_cache(maxsize=32768)
def country_of_number(number: str) -> str:
    """The country of a valid E.164 number, as ``US``; "" for an invalid number and for one of no country."""
    parsed = _parsed(number)
    region = phonenumbers.region_code_for_number(parsed) if parsed is not None else None
    return region if region in phonenumbers.SUPPORTED_REGIONS else ""


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo | None:
    """The zone of an IANA name; None for what is no zone of a place."""
    if not name or name.startswith("Etc/Unknown") or name in ("Factory", "localtime"):
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a name, or a folder of zones
        return None


def local_days(names: Sequence[str], now: datetime) -> tuple[date, ...]:
    """The day it is at ``now`` in each of the zones that are known."""
    return tuple(now.astimezone(zone).date() for name in names if (zone := zone_named(name)) is not None)


def _opening(listed: Sequence[CallingWindow], days_off: Sequence[str]) -> Opening:
    hours: dict[str, list[str]] = {}
    for window in listed:
        hours.setdefault(window.days, []).extend(window.hours)
    return Opening.of(hours, days_off)


def _parsed(number: str) -> phonenumbers.PhoneNumber | None:
    if not number.startswith("+"):
        return None
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return None
    return parsed if phonenumbers.is_valid_number(parsed) else None


def _minute_of(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError("a time without its zone says nothing about the called party's clock")
    return now.astimezone(UTC).replace(second=0, microsecond=0)


def _opens(hours: Opening, zone: ZoneInfo, moment: datetime, end: datetime) -> datetime | None:
    """The first minute from ``moment`` to ``end``, both in UTC, at which ``hours`` are open in ``zone``."""
    local = moment.astimezone(zone)
    if hours.is_open(local):
        return moment
    day, last = local.date(), end.astimezone(zone).date()
    while day <= last:
        found = _opens_on(hours, zone, day, moment)
        if found is not None:
            return found if found <= end else None
        day += timedelta(days=1)
    return None


def _opens_on(hours: Opening, zone: ZoneInfo, day: date, moment: datetime) -> datetime | None:
    """The first open minute of the local ``day`` from ``moment`` on; None where there is none."""
    spans = hours.spans(day)
    if not spans:
        return None
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    samples = [midnight + timedelta(hours=hour) for hour in range(-24, 49, 6)]
    offsets = [_offset(zone, sample) for sample in samples]
    # It opens where a span begins, by any of the offsets there are about this day, or where a change of clocks jumps
    # into one.
    moments = {midnight + timedelta(minutes=begin) - offset for begin, _ in spans for offset in set(offsets)}
    moments |= {
        _change(zone, samples[index], samples[index + 1])
        for index in range(len(samples) - 1)
        if offsets[index] != offsets[index + 1]
    }
    for opens in sorted(max(found, moment) for found in moments):
        local = opens.astimezone(zone)
        if local.date() == day and hours.is_open(local):
            return opens
    return None


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first minute, after ``before`` and up to ``after``, at which the offset is that of ``after``."""
    offset = _offset(zone, after)
    while after - before > _MINUTE:
        middle = before + (after - before) // _MINUTE // 2 * _MINUTE
        before, after = (before, middle) if _offset(zone, middle) == offset else (middle, after)
    return after


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
