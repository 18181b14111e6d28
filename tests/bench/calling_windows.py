"""Whether a campaign would ever dial outside its calling hours: every zone, every change of clocks until 2035.

What the rules say is held against the C library's reading of the same zones: every minute of the six hours about
every change, the next opening from every seventh of them, and leads drawn at random, with several zones, an address
and hours of their own for their region, asked at moments near changes of clocks and at others.
"""

from __future__ import annotations

import argparse
import random
import time
from datetime import UTC, datetime
from typing import Any

from appliance.campaigns.definition import Windows
from appliance.campaigns.rules import LAST_MOMENTS, Allowed, Rules, Surroundings
from appliance.campaigns.windows import CallingWindows, schedule
from tests.bench.report import Bar
from tests.campaigns.leads import OWNED, Lead, definition
from tests.campaigns.wall_clock import (
    DAY_S,
    FROM,
    MINUTE_S,
    UNTIL,
    Allows,
    WallClock,
    first_open,
    reading,
    wall_clock,
    zones,
)

NIGHTLY = "00:10-00:50, 01:20-02:10, 02:25-03:05, 03:50-04:20, 22:40-23:20"
NUMBERS = {"US": "+12125550142", "FR": "+33142685300", "DE": "+4930123456"}
REGIONS = ("US", "US-FL", "US-NY", "FR", "DE-BY")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
AROUND = Surroundings("running", (), OWNED)
_ABOUT_S = 3 * 3600


def at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def every_change(bar: Bar, clock: WallClock) -> list[int]:
    """Judge every minute about every change of clocks; gives the changes."""
    hours = CallingWindows.made_of(Windows.model_validate({"default": {"days": "mon-sun", "hours": [NIGHTLY]}}))
    allows = reading(NIGHTLY)
    minutes = openings = outside = wrong = late = 0
    found: list[int] = []
    searched: set[tuple[int, int, int]] = set()
    names = zones()
    for zone in names:
        judged = schedule(hours, NUMBERS["US"], (zone,))
        changes = clock.changes(zone)
        found += changes
        for change in changes:
            begin = change - change % MINUTE_S
            for moment in range(begin - _ABOUT_S, begin + _ABOUT_S, MINUTE_S):
                said, allowed = judged.is_open(at(moment)), allows(clock.at(zone, moment))
                minutes += 1
                outside += said and not allowed
                wrong += said != allowed
            what = change, clock.offset_s(zone, change - 1), clock.offset_s(zone, change)
            if what in searched:
                continue
            searched.add(what)
            for moment in range(begin - _ABOUT_S, begin + _ABOUT_S, 7 * MINUTE_S):
                opens = judged.next_open(at(moment))
                openings += 1
                late += opens is None or opens.timestamp() != first_open(clock, [(zone, allows)], moment, DAY_S)
    bar.figure(f"{len(names)} zones, {len(found)} changes of clocks, {minutes} minutes: {outside} outside")
    bar.figure(f"{openings} next openings")
    bar.require(outside == 0, "nothing is allowed outside the hours")
    bar.require(wrong == 0, f"everything inside is allowed ({wrong} minutes are not)")
    bar.require(late == 0, f"the next opening is found to the minute ({late} are not)")
    return found


def some_hours(chance: random.Random) -> tuple[frozenset[int], str]:
    """Days, and one or two spans of a day."""
    days = frozenset(chance.sample(range(7), chance.randint(1, 7)))
    cuts = sorted(chance.sample(range(24 * 12 + 1), chance.choice((2, 2, 4))))
    spans = [
        f"{a // 12:02}:{a % 12 * 5:02}-{b // 12:02}:{b % 12 * 5:02}" for a, b in zip(cuts[::2], cuts[1::2], strict=True)
    ]
    return days, ", ".join(spans)


def written(hours: tuple[frozenset[int], str]) -> dict[str, Any]:
    return {"days": ",".join(DAYS[day] for day in sorted(hours[0])), "hours": hours[1].split(", ")}


def holding(default: Any, regions: dict[str, Any], region: str) -> list[Allows]:
    """Which hours hold in a region, as docs/campaign-rules.md tells it."""
    country = region[:2]
    whole = regions.get(country, default)
    if len(region) > 2:
        return [reading(regions.get(region, whole)[1], regions.get(region, whole)[0])]
    parts = [hours for name, hours in regions.items() if name[:2] == country and len(name) > 2]
    return [reading(spans, days) for days, spans in (whole, *parts)]


def random_leads(bar: Bar, clock: WallClock, changes: list[int], count: int, chance: random.Random) -> None:
    names = zones()
    allowed_calls = outside = wrong = 0
    for index in range(count):
        if index % 20 == 0:  # another campaign
            default = some_hours(chance)
            regions = {name: some_hours(chance) for name in chance.sample(REGIONS, chance.randint(0, 3))}
            windows = {"default": written(default), "regions": {name: written(of) for name, of in regions.items()}}
            rules = Rules(definition(consent={"required": False}, windows=windows))
        home = chance.choice(sorted(NUMBERS))
        region = chance.choice(("", *REGIONS))
        lead = Lead(
            number=NUMBERS[home],
            zones=tuple(chance.sample(names, chance.choice((1, 1, 2, 3)))),
            address_zone=" ".join(chance.sample(names, chance.choice((0, 0, 1, 2)))),
            region=region,
        )
        near = chance.choice(changes) + chance.randint(-DAY_S, DAY_S)
        moment = near if chance.random() < 0.7 else chance.randint(FROM, UNTIL)
        at_number = region if region[:2] == home else home
        sides = [(zone, hours) for zone in lead.zones for hours in holding(default, regions, at_number)]
        sides += [
            (zone, hours) for zone in lead.address_zone.split() for hours in holding(default, regions, region or home)
        ]
        inside = all(
            allows(clock.at(zone, when))
            for zone, allows in sides
            for when in (moment, moment + LAST_MOMENTS.total_seconds())
        )
        dialled = isinstance(rules.may_dial(lead, None, AROUND, at(moment)), Allowed)
        allowed_calls += dialled
        outside += dialled and not inside
        wrong += dialled != inside
    bar.figure(f"{count} leads of several zones and regions, {allowed_calls} of them dialled: {outside} outside")
    bar.require(outside == 0, "no lead is dialled outside its hours")
    bar.require(wrong == 0, f"every lead is dialled inside its hours ({wrong} are not)")


def unknown_zones(bar: Bar) -> None:
    rules = Rules(definition(windows={"default": {"days": "mon-sun", "hours": "00:00-24:00"}}))
    unknown = [(), ("Etc/Unknown",), ("Nowhere/None",), ("America/New_York", "Etc/Unknown")]
    leads = [Lead(zones=names) for names in unknown] + [Lead(address_zone="Nowhere/None"), Lead(region="ZZ")]
    dialled = sum(
        isinstance(rules.may_dial(lead, None, AROUND, at(moment)), Allowed)
        for lead in leads
        for moment in range(FROM + 3 * 366 * DAY_S, UNTIL, 7 * DAY_S + 3607)
    )
    bar.figure(f"zones that are not known: {dialled} dialled")
    bar.require(dialled == 0, "an unknown zone means no dial")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    bar = Bar("6.5", "calling windows")
    began = time.monotonic()
    with wall_clock() as clock:
        changes = every_change(bar, clock)
        random_leads(bar, clock, changes, arguments.leads, random.Random(arguments.seed))
    unknown_zones(bar)
    bar.note(f"took {time.monotonic() - began:.0f} s")
    return bar.finish()


if __name__ == "__main__":
    raise SystemExit(main())
