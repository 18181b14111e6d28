"""Whether a lead may be called now, and what is said where it may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from appliance.campaigns.outcome import Disposition
from appliance.campaigns.rules import Allowed, Decision, Never, NotNow, Rules, Surroundings
from tests.campaigns.leads import CONSENT, OWNED, Contact, Lead, definition

NOON = datetime(2026, 11, 23, 17, tzinfo=UTC)
"""Monday, 12:00 in New York."""
AROUND = Surroundings("running", (), OWNED)


def decide(
    lead: Lead | None = None,
    contact: Contact | None = None,
    around: Surroundings = AROUND,
    now: datetime = NOON,
    **keys: Any,
) -> Decision:
    return Rules(definition(**keys)).may_dial(lead or Lead(), contact, around, now)


def test_a_lead_of_whom_everything_is_known_is_called() -> None:
    assert decide() == Allowed("+12025550100", "2026-11-23", 1)


@pytest.mark.parametrize(
    ("lead", "cause", "disposition", "words"),
    [
        (Lead(zones=()), "zone", "not_allowed", "the time zone of the number is not known"),
        (Lead(zones=("Etc/Unknown",)), "zone", "not_allowed", "'Etc/Unknown' is not known"),
        (Lead(zones=("America/New_York", "Nowhere/None")), "zone", "not_allowed", "'Nowhere/None'"),
        (Lead(address_zone="Mars/Olympus"), "zone", "not_allowed", "'Mars/Olympus'"),
        (Lead(region="ZZ"), "zone", "not_allowed", "'ZZ' is not known"),
        (Lead(number="+1212"), "number", "invalid", "no valid number"),
        (Lead(number="2125550142"), "number", "invalid", "write +"),
        (Lead(number="+870773111632"), "number", "invalid", "no valid number of a country"),
        (Lead(number="+19005550100"), "costly", "not_allowed", "premium"),
        (Lead(number="911"), "number", "invalid", "no valid number"),
        (Lead(consent=None), "consent", "not_allowed", "no evidence of consent"),
        (Lead(consent={}), "consent", "not_allowed", "no evidence"),
        (Lead(consent=CONSENT | {"text": " "}), "consent", "not_allowed", "has no text"),
        (Lead(consent={"at": CONSENT["at"]}), "consent", "not_allowed", "has no source and no text"),
        (Lead(consent=CONSENT | {"at": "yesterday"}), "consent", "not_allowed", "cannot be read"),
        (Lead(consent=CONSENT | {"at": "2036-01-01"}), "consent", "not_allowed", "in the future"),
        (Lead(attempts=3), "per_lead", "", "attempts.per_lead is 3"),
    ],
)
def test_what_is_missing_or_used_up_means_never(lead: Lead, cause: str, disposition: str, words: str) -> None:
    decided = decide(lead)
    assert isinstance(decided, Never), decided
    assert (decided.cause, decided.disposition) == (cause, disposition)
    assert words in decided.why


def test_consent_is_asked_for_only_where_the_campaign_requires_it() -> None:
    assert isinstance(decide(Lead(consent=None), consent={"required": False}), Allowed)


def test_a_clock_that_is_ahead_delays_the_call_instead_of_losing_the_lead() -> None:
    lead = Lead(consent=CONSENT | {"at": "2026-11-23T17:02:00+00:00"})
    decided = decide(lead)
    assert isinstance(decided, NotNow)
    assert decided.until == NOON + timedelta(minutes=2)


@pytest.mark.parametrize(
    ("around", "cause", "words"),
    [
        (replace(AROUND, state="paused"), "state", "the campaign is paused"),
        (replace(AROUND, listed=None), "do_not_call", "cannot be read"),
        (replace(AROUND, owned=frozenset()), "caller_id", "list it under trunks.NAME.caller_ids"),
        (replace(AROUND, trunk_refuses="trunks.x may dial nothing"), "trunk", "may dial nothing"),
    ],
)
def test_what_the_operator_must_put_right_holds_the_lead_back(around: Surroundings, cause: str, words: str) -> None:
    decided = decide(around=around)
    assert isinstance(decided, NotNow), decided
    assert (decided.cause, decided.until) == (cause, None)
    assert words in decided.why


def test_a_number_on_a_list_is_never_called_whatever_else_holds() -> None:
    around = Surroundings("paused", ("global", "spring.csv"), frozenset())
    lead = Lead(callback_at=NOON, zones=())
    decided = decide(lead, around=around)
    assert isinstance(decided, Never)
    assert decided.disposition is Disposition.OPTED_OUT
    assert decided.why == "+12125550142 is on a do-not-call list: global, spring.csv"


def test_a_closed_window_says_which_clock_is_wrong_and_when_it_opens() -> None:
    decided = decide(now=datetime(2026, 11, 24, 2, tzinfo=UTC))
    assert isinstance(decided, NotNow)
    assert decided.until == datetime(2026, 11, 24, 14, tzinfo=UTC)
    assert decided.why == "it is Monday 21:00 in America/New_York, outside the calling hours"


def test_nothing_is_begun_that_would_ring_after_hours() -> None:
    evening = datetime(2026, 11, 24, 0, 59, 50, tzinfo=UTC)  # 19:59:50
    assert isinstance(decide(now=evening - timedelta(seconds=51)), Allowed)
    decided = decide(now=evening)
    assert isinstance(decided, NotNow)
    assert decided.until == datetime(2026, 11, 24, 14, tzinfo=UTC)


def test_a_holiday_is_named() -> None:
    decided = decide(now=datetime(2026, 11, 26, 17, tzinfo=UTC), holidays={"country": "US"})
    assert isinstance(decided, NotNow)
    assert "a holiday (Thanksgiving" in decided.why
    assert decided.until == datetime(2026, 11, 27, 14, tzinfo=UTC)


def test_hours_that_zones_do_not_share_are_never_open() -> None:
    lead = Lead(zones=("America/New_York",), address_zone="Asia/Bangkok")
    decided = decide(lead)
    assert isinstance(decided, Never)
    assert decided.why == "the calling hours of America/New_York, Asia/Bangkok have no time in common within 60 days"


def test_the_gap_holds_across_campaigns() -> None:
    decided = decide(contact=Contact(NOON - timedelta(hours=3), 0, 1))
    assert isinstance(decided, NotNow)
    assert (decided.cause, decided.until) == ("gap", NOON + timedelta(hours=1))


def test_one_call_a_day_lasts_until_the_called_party_has_another_day() -> None:
    morning = NOON - timedelta(hours=3)
    contact = Contact(morning, 1, 1)
    decided = decide(contact=contact, attempts={"gap_s": 60})
    assert isinstance(decided, NotNow)
    assert (decided.cause, decided.until) == ("per_day", datetime(2026, 11, 24, 14, tzinfo=UTC))
    assert isinstance(decide(contact=contact, attempts={"gap_s": 60, "per_number_per_day": 2}), Allowed)
    tomorrow = NOON + timedelta(days=1)
    assert isinstance(decide(contact=contact, now=tomorrow, attempts={"gap_s": 60}), Allowed)


def test_a_day_is_over_when_it_is_over_in_every_zone() -> None:
    lead = Lead(zones=("America/New_York", "Pacific/Honolulu"))
    late = datetime(2026, 11, 24, 0, 30, tzinfo=UTC)  # 19:30 and 14:30
    hours = {"default": {"hours": "00:00-24:00", "days": "mon-sun"}}
    keys: dict[str, Any] = {"windows": hours, "attempts": {"gap_s": 60}}
    decided = decide(lead, Contact(late, 1, 1), now=late + timedelta(hours=5), **keys)  # Tuesday in New York only
    assert isinstance(decided, NotNow)
    assert decided.until == datetime(2026, 11, 24, 10, tzinfo=UTC)  # midnight in Honolulu


def test_the_total_of_all_campaigns_is_final() -> None:
    decided = decide(contact=Contact(NOON - timedelta(days=9), 1, 7))
    assert isinstance(decided, Never)
    assert "attempts.per_number_total is 7" in decided.why


def test_a_callback_overrides_gap_and_day_and_nothing_else() -> None:
    called = Contact(NOON - timedelta(minutes=30), 1, 1)
    lead = Lead(callback_at=NOON, attempts=1, last_at=called.last_started_at, next_at=NOON)
    assert decide(lead, called) == Allowed("+12025550100", "2026-11-23", 2, agreed=True)
    assert isinstance(decide(lead, called, replace(AROUND, listed=("global",))), Never)
    night = NOON + timedelta(hours=12)
    decided = decide(replace(lead, callback_at=night), called, now=night)
    assert isinstance(decided, NotNow)
    assert decided.cause == "window"
    early = decide(replace(lead, callback_at=NOON + timedelta(hours=1)), called)
    assert isinstance(early, NotNow)
    assert (early.cause, early.until) == ("callback", NOON + timedelta(hours=1))


def test_a_callback_that_has_been_tried_is_used_up() -> None:
    lead = Lead(callback_at=NOON, attempts=2, last_at=NOON + timedelta(minutes=1))
    contact = Contact(NOON + timedelta(minutes=1), 2, 2)
    decided = decide(lead, contact, now=NOON + timedelta(minutes=2))
    assert isinstance(decided, NotNow)
    assert decided.cause == "per_day"


def test_a_lead_keeps_its_caller_id_for_a_day_and_leads_share_them() -> None:
    rules = Rules(definition(caller_ids=sorted(OWNED)))
    shown = {rules.caller_id(Lead(), OWNED, NOON + timedelta(days=day)) for day in range(3)}
    assert shown == OWNED
    assert rules.caller_id(Lead(), OWNED, NOON) == rules.caller_id(Lead(), OWNED, NOON + timedelta(hours=6))
    among = [rules.caller_id(Lead(number=f"+1212555{i:04}"), OWNED, NOON) for i in range(300)]
    assert all(among.count(number) > 60 for number in OWNED)
    assert rules.caller_id(Lead(), frozenset({"+12025550102"}), NOON) == "+12025550102"
