"""Calling hours on the called party's clock, held against the C library's idea of that clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import phonenumbers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.campaigns.definition import Definition, Windows
from appliance.campaigns.rules import LAST_MOMENTS, Allowed, Rules, Surroundings
from appliance.campaigns.windows import (
    CallingWindows,
    Schedule,
    country_of_number,
    local_days,
    schedule,
    zone_named,
    zones_of_number,
)
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

DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = zones()
NIGHTLY = "00:10-00:50, 01:20-02:10, 02:25-03:05, 03:50-04:20, 22:40-23:20"
"""Hours whose edges lie about those at which clocks are changed."""
NUMBERS = {"US": "+12125550142", "CA": "+14165550142", "FR": "+33142685300", "DE": "+4930123456", "GB": "+442079460018"}


@pytest.fixture(scope="module")
def clock() -> Iterator[WallClock]:
    with wall_clock() as found:
        yield found


def windows(default: Any, regions: dict[str, Any] | None = None, holidays: Sequence[str] = ()) -> CallingWindows:
    return CallingWindows.made_of(Windows.model_validate({"default": default, "regions": regions or {}}), holidays)


def at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def test_every_zone_is_read_as_the_c_library_reads_it_around_every_change_of_clocks(clock: WallClock) -> None:
    hours = windows({"days": "mon-sun", "hours": NIGHTLY.split(", ")})
    allows = reading(NIGHTLY)
    around = [minutes * MINUTE_S + shift for minutes in range(-120, 121, 30) for shift in (-1, 0, 59)]
    changes = 0
    for zone in ZONES:
        judged = schedule(hours, NUMBERS["US"], (zone,))
        assert not judged.unknown, zone
        moments = clock.changes(zone)
        changes += len(moments)
        for change in [*moments, FROM, UNTIL]:
            for shift in around:
                moment = change + shift
                assert judged.is_open(at(moment)) == allows(clock.at(zone, moment)), (zone, at(moment))
    assert changes > 4000


def test_the_next_opening_is_found_to_the_minute_around_every_change_of_clocks(clock: WallClock) -> None:
    hours = windows({"days": "mon-sun", "hours": NIGHTLY.split(", ")})
    allows = reading(NIGHTLY)
    seen: set[tuple[int, int, int]] = set()
    for zone in ZONES:
        judged = schedule(hours, NUMBERS["US"], (zone,))
        for change in clock.changes(zone):
            # Zones that share a change are looked at once; the test above has looked at each.
            what = change, clock.offset_s(zone, change - 1), clock.offset_s(zone, change)
            if what in seen:
                continue
            seen.add(what)
            begin = change - change % MINUTE_S
            for moment in range(begin - 130 * MINUTE_S, begin + 130 * MINUTE_S, 20 * MINUTE_S):
                found = judged.next_open(at(moment))
                assert found is not None
                assert found.timestamp() == first_open(clock, [(zone, allows)], moment, DAY_S), (zone, at(moment))
    assert len(seen) > 500


@st.composite
def _hours(draw: st.DrawFn) -> tuple[frozenset[int], str]:
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    cuts = sorted(draw(st.sets(st.integers(0, 24 * 12), min_size=2, max_size=4)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    spans = [f"{a // 12:02}:{a % 12 * 5:02}-{b // 12:02}:{b % 12 * 5:02}" for a, b in pairs]
    return days, ", ".join(spans)


def _written(hours: tuple[frozenset[int], str]) -> dict[str, Any]:
    days, spans = hours
    return {"days": ",".join(DAY_NAMES[day] for day in sorted(days)), "hours": spans.split(", ")}


def _instants() -> st.SearchStrategy[int]:
    """Moments of twelve years, often in the nights and on the days when clocks are changed."""
    changes = [
        int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())
        for year in range(2024, 2036)
        for month, day, hour in ((3, 10, 7), (3, 29, 1), (10, 25, 1), (11, 1, 6), (4, 5, 16), (10, 4, 16))
    ]
    near = st.builds(lambda change, shift: change + shift, st.sampled_from(changes), st.integers(-DAY_S, DAY_S))
    return st.one_of(st.integers(FROM, UNTIL), near)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[dict[str, Any], Lead, int]:
    """Hours with overrides, a lead, and a moment. The lead has one to three zones, and an address or none."""
    names = st.sampled_from(ZONES)
    overrides = draw(
        st.dictionaries(st.sampled_from(["US", "US-FL", "US-NY", "FR", "DE-BY", "CA-QC"]), _hours(), max_size=4)
    )
    case = {"default": draw(_hours()), "regions": overrides}
    lead = Lead(
        number=NUMBERS[draw(st.sampled_from(sorted(NUMBERS)))],
        zones=tuple(draw(st.lists(names, min_size=1, max_size=3))),
        address_zone=" ".join(draw(st.lists(names, max_size=2))),
        region=draw(st.sampled_from(["", "US", "US-FL", "US-NY", "US-TX", "FR", "DE-BY", "CA-QC", "CA"])),
    )
    return case, lead, draw(_instants())


def _sides(case: dict[str, Any], lead: Lead) -> list[tuple[str, Allows]]:
    """Which hours hold on which clocks, as docs/campaign-rules.md tells it."""

    def holding(region: str) -> list[Allows]:
        country = region[:2]
        chosen = [case["regions"].get(country, case["default"])]
        if len(region) > 2:
            chosen = [case["regions"].get(region, chosen[0])]
        else:
            chosen += [hours for name, hours in case["regions"].items() if name[:2] == country and len(name) > 2]
        return [reading(spans, days) for days, spans in chosen]

    home = next(country for country, number in NUMBERS.items() if number == lead.number)
    at_number = lead.region if lead.region[:2] == home else home
    found = [(zone, hours) for zone in lead.zones for hours in holding(at_number)]
    return found + [(zone, hours) for zone in lead.address_zone.split() for hours in holding(lead.region or home)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_cases())
def test_nothing_is_dialled_outside_the_hours_of_any_zone_and_override(
    clock: WallClock, drawn: tuple[dict[str, Any], Lead, int]
) -> None:
    case, lead, moment = drawn
    regions = {name: _written(hours) for name, hours in case["regions"].items()}
    rules = Rules(
        definition(consent={"required": False}, windows={"default": _written(case["default"]), "regions": regions})
    )
    sides = _sides(case, lead)

    def allowed(when: float) -> bool:
        return all(allows(clock.at(zone, when)) for zone, allows in sides)

    decided = rules.may_dial(lead, None, Surroundings("running", (), OWNED), at(moment))
    ends = moment + LAST_MOMENTS.total_seconds()
    assert isinstance(decided, Allowed) == (allowed(moment) and allowed(ends)), decided
    judged = rules.schedule(lead)
    opens = judged.next_open(at(moment))
    if opens is None:
        assert not any(allowed(moment + step) for step in range(0, 8 * DAY_S, 15 * MINUTE_S))
        return
    assert allowed(opens.timestamp())
    start = moment - moment % MINUTE_S
    if opens.timestamp() - moment < 2 * DAY_S and opens.timestamp() > moment:
        assert first_open(clock, sides, start, 2 * DAY_S + MINUTE_S) == opens.timestamp()


@pytest.mark.parametrize(
    "zones",
    [(), ("Etc/Unknown",), ("Factory",), ("",), ("Europe/Berlin", "Etc/Unknown"), ("../../etc/passwd",), ("Europe",)],
)
def test_a_zone_that_is_not_known_is_never_open(zones: tuple[str, ...]) -> None:
    always = windows({"days": "mon-sun", "hours": "00:00-24:00"})
    judged = schedule(always, NUMBERS["DE"], zones)
    assert judged.unknown
    assert not any(judged.is_open(at(FROM + hour * 3600)) for hour in range(24 * 7))
    assert judged.next_open(at(FROM)) is None


def test_an_unknown_zone_of_the_address_closes_what_the_number_would_allow() -> None:
    always = windows({"days": "mon-sun", "hours": "00:00-24:00"})
    assert schedule(always, NUMBERS["DE"], ("Europe/Berlin",)).is_open(at(FROM))
    assert not schedule(always, NUMBERS["DE"], ("Europe/Berlin",), ("Mars/Olympus",)).is_open(at(FROM))


def test_a_number_of_no_country_is_never_open() -> None:
    always = windows({"days": "mon-sun", "hours": "00:00-24:00"})
    for number in ("+80012345678", "+870773111632", "+999123", "5550142", "", "+1" + "2" * 40):
        assert schedule(always, number, ("UTC",)).unknown, number


def test_no_hours_mean_never() -> None:
    never = schedule(windows([]), NUMBERS["US"], ("America/New_York",))
    assert never.next_open(at(FROM)) is None
    assert not any(never.is_open(at(FROM + hour * 3600)) for hour in range(24 * 7))


def test_an_hour_that_is_left_out_is_not_open_and_one_that_is_repeated_is_open_twice() -> None:
    night = schedule(windows({"days": "mon-sun", "hours": "02:00-03:00"}), NUMBERS["DE"], ("Europe/Berlin",))
    evening = datetime(2026, 3, 28, 12, tzinfo=UTC)  # clocks go from 02:00 to 03:00 that night
    assert night.next_open(evening) == datetime(2026, 3, 30, 0, tzinfo=UTC)
    twice = datetime(2026, 10, 24, 12, tzinfo=UTC)  # and from 03:00 back to 02:00
    assert night.next_open(twice) == datetime(2026, 10, 25, 0, tzinfo=UTC)
    assert all(night.is_open(datetime(2026, 10, 25, 0, minute, tzinfo=UTC)) for minute in range(60))
    assert all(night.is_open(datetime(2026, 10, 25, 1, minute, tzinfo=UTC)) for minute in range(60))
    assert not night.is_open(datetime(2026, 10, 25, 2, tzinfo=UTC))


def test_hours_that_end_in_the_hour_left_out_open_where_the_clock_jumps_into_them() -> None:
    hours = windows({"days": "mon-sun", "hours": "02:30-04:00"})
    judged = schedule(hours, NUMBERS["US"], ("America/New_York",))
    assert judged.next_open(datetime(2026, 3, 8, 6, tzinfo=UTC)) == datetime(2026, 3, 8, 7, tzinfo=UTC)


def test_a_part_that_is_not_known_is_held_to_the_hours_of_every_part() -> None:
    split = windows(
        {"days": "mon-sun", "hours": "09:00-21:00"},
        {"US-FL": {"days": "mon-sun", "hours": "08:00-20:00"}, "FR": {"days": "mon-sun", "hours": "10:00-11:00"}},
    )
    morning, evening = (datetime(2026, 6, 1, hour, 30, tzinfo=UTC) for hour in (12, 24 - 24))  # 08:30, 20:30 before
    new_york = ("America/New_York",)

    def allowed(region: str) -> tuple[bool, bool]:
        judged = schedule(split, NUMBERS["US"], new_york, (), region)
        return judged.is_open(morning), judged.is_open(evening)

    assert allowed("US-FL") == (True, False)
    assert allowed("US-TX") == (False, True)
    assert allowed("US") == allowed("") == (False, False)


def test_an_address_abroad_is_held_to_the_hours_there() -> None:
    split = windows({"days": "mon-sun", "hours": "09:00-21:00"}, {"FR": {"days": "mon-sun", "hours": "15:00-16:00"}})
    judged = schedule(split, NUMBERS["US"], ("America/New_York",), ("Europe/Paris",), "FR")
    assert judged.next_open(datetime(2026, 6, 1, tzinfo=UTC)) == datetime(2026, 6, 1, 13, tzinfo=UTC)
    assert judged.next_open(datetime(2026, 6, 1, 14, tzinfo=UTC)) == datetime(2026, 6, 2, 13, tzinfo=UTC)


def test_nobody_is_called_on_a_holiday_of_either_clock() -> None:
    hours = windows({"days": "mon-sun", "hours": "00:00-24:00"}, holidays=("12-25",))
    judged = schedule(hours, NUMBERS["US"], ("America/New_York", "Asia/Tokyo"))
    assert judged.next_open(datetime(2026, 12, 24, 15, tzinfo=UTC)) == datetime(2026, 12, 26, 5, tzinfo=UTC)


def test_the_search_is_bounded() -> None:
    rare = windows({"days": "mon", "hours": "09:00-10:00"}, holidays=("01-01..12-31",))
    assert schedule(rare, NUMBERS["US"], ("America/New_York",)).next_open(at(FROM)) is None


def test_a_moment_needs_a_zone() -> None:
    judged = schedule(windows({}), NUMBERS["US"], ("America/New_York",))
    with pytest.raises(ValueError, match="called party's clock"):
        judged.is_open(datetime(2026, 1, 1))  # noqa: DTZ001


def test_numbers_tell_all_zones_they_may_be_in() -> None:
    assert zones_of_number("+12125550142") == ("America/New_York",)
    assert len(zones_of_number("+18005550142")) > 30
    assert zones_of_number("+80012345678") == ()
    assert zones_of_number("200") == ()
    assert country_of_number("+14165550142") == "CA"
    assert local_days(("America/New_York", "Nowhere", "Asia/Tokyo"), datetime(2026, 5, 1, 20, tzinfo=UTC)) == (
        datetime(2026, 5, 1).date(),  # noqa: DTZ001
        datetime(2026, 5, 2).date(),  # noqa: DTZ001
    )


def test_every_zone_that_a_number_may_have_is_one() -> None:
    from phonenumbers.tzdata import TIMEZONE_DATA

    named = {name for names in TIMEZONE_DATA.values() for name in names}
    assert [name for name in named if zone_named(name) is None] == []
    assert phonenumbers.timezone.UNKNOWN_TIMEZONE not in named


def test_a_schedule_of_many_zones_is_judged_once_a_minute() -> None:
    judged = schedule(windows({}), "+18005550142", zones_of_number("+18005550142"))
    found = judged.next_open(datetime(2026, 11, 23, 12, tzinfo=UTC))
    assert found is not None
    assert found == datetime(2026, 11, 23, 23, tzinfo=UTC)  # 09:00 in Guam, 19:30 in St John's
    assert judged.is_open(found) and not judged.is_open(found - timedelta(minutes=1))


def test_a_schedule_without_constraints_is_closed() -> None:
    assert not Schedule(()).is_open(at(FROM))
    assert isinstance(definition(), Definition)
