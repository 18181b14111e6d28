"""Whatever is drawn of a lead, nothing is called that any rule forbids, and every wait comes to an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.campaigns.rules import Allowed, Never, NotNow, Rules, Surroundings
from tests.campaigns.leads import CONSENT, OWNED, Contact, Lead, definition

NOON = datetime(2026, 11, 23, 17, tzinfo=UTC)
RULES = Rules(
    definition(
        windows={"default": {"days": "mon-sat", "hours": ["09:00-12:00", "13:00-20:00"]}, "regions": {"FR": []}},
        holidays={"country": "US"},
        attempts={"per_lead": 3, "per_number_per_day": 2, "per_number_total": 5, "gap_s": 3600},
    )
)

instants = st.integers(-20 * 24 * 60, 20 * 24 * 60).map(lambda minutes: NOON + timedelta(minutes=minutes))
zones = st.lists(
    st.sampled_from(["America/New_York", "America/Chicago", "Europe/Paris", "Etc/Unknown", "No/Where"]), max_size=2
).map(tuple)
consents = st.one_of(
    st.just(CONSENT),
    st.none(),
    st.fixed_dictionaries(
        {"source": st.sampled_from(["", "form"]), "text": st.sampled_from(["", "yes"])},
        optional={"at": st.one_of(st.just(""), st.just("soon"), instants.map(lambda at: at.isoformat()))},
    ),
)
leads = st.builds(
    Lead,
    number=st.sampled_from(["+12125550142", "+33142685300", "+19005550100", "+1212", "+870773111632"]),
    zones=zones,
    address_zone=st.sampled_from(["", "America/New_York", "America/Chicago America/Denver", "No/Where"]),
    region=st.sampled_from(["", "US", "US-FL", "FR", "ZZ"]),
    consent=consents,
    attempts=st.integers(0, 4),
    next_at=st.one_of(st.none(), instants),
    callback_at=st.one_of(st.none(), instants),
    last_at=st.one_of(st.none(), instants),
)
contacts = st.one_of(
    st.none(),
    st.builds(
        Contact,
        last_started_at=st.one_of(st.none(), instants),
        day_attempts=st.integers(0, 3),
        total_attempts=st.integers(0, 6),
    ),
)
surroundings = st.builds(
    Surroundings,
    state=st.sampled_from(["running", "paused", "draining", "stopped"]),
    listed=st.sampled_from([None, (), ("global",)]),
    owned=st.sampled_from([frozenset(), OWNED]),
    trunk_refuses=st.sampled_from(["", "trunks.x may dial nothing"]),
)


def mostly(usual: object, drawn: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.just(usual), st.just(usual), st.just(usual), drawn)


cases = st.tuples(
    mostly(Lead(), leads), mostly(None, contacts), mostly(Surroundings("running", (), OWNED), surroundings)
)
"""A good lead with nothing against it, and what may be wrong, one thing at a time or all at once."""


@settings(max_examples=600, deadline=None)
@given(cases, instants)
def test_nothing_is_called_that_a_rule_forbids(case: tuple[Lead, Contact | None, Surroundings], now: datetime) -> None:
    lead, contact, around = case
    decided = RULES.may_dial(lead, contact, around, now)
    if isinstance(decided, NotNow):
        assert decided.until is None or decided.until > now
        assert decided.why
        return
    if isinstance(decided, Never):
        assert decided.why
        return
    assert (around.state, around.listed, around.trunk_refuses) == ("running", (), "")
    assert decided.caller_id in around.owned
    assert lead.number == "+12125550142"  # neither costly, nor invalid, nor of a country without hours
    assert lead.consent is not None and lead.consent["source"] and lead.consent["text"]
    assert datetime.fromisoformat(lead.consent["at"]) <= now
    assert lead.zones and not {"Etc/Unknown", "No/Where"} & {*lead.zones, *lead.address_zone.split()}
    assert lead.region not in ("ZZ", "FR") or not lead.address_zone
    assert lead.attempts < 3
    last = max((at for at in (lead.last_at, contact and contact.last_started_at) if at is not None), default=None)
    if contact is not None:
        assert contact.total_attempts < 5
    if decided.agreed:
        assert lead.callback_at is not None and lead.callback_at <= now
        assert last is None or last < lead.callback_at
        return
    assert lead.next_at is None or lead.next_at <= now
    assert last is None or now - last >= timedelta(hours=1)


@settings(max_examples=200, deadline=None)
@given(cases, instants)
def test_who_waits_until_the_time_that_was_told_is_called(
    case: tuple[Lead, Contact | None, Surroundings], now: datetime
) -> None:
    lead, contact, around = case
    for _ in range(5):
        decided = RULES.may_dial(lead, contact, around, now)
        if not isinstance(decided, NotNow) or decided.until is None:
            return
        now = decided.until
    raise AssertionError(f"still waiting: {decided}")


@given(leads, instants)
def test_an_allowed_call_says_what_the_store_must_hold_to(lead: Lead, now: datetime) -> None:
    good = replace(Lead(), callback_at=lead.callback_at, last_at=lead.last_at)
    decided = RULES.may_dial(good, None, Surroundings("running", (), OWNED), now)
    if not isinstance(decided, Allowed):
        return
    limits = RULES.limits(decided, 0.105)
    assert (limits.gap_s, limits.per_lead, limits.per_number, limits.spacing_s) == (3600, 3, 5, 0.105)
    assert limits.agreed == decided.agreed
    assert limits.day == decided.day and limits.per_day >= 2
