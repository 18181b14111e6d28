"""Campaign definitions: what is read, what is refused and in which words, what may be changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.campaigns.definition import Definition
from appliance.campaigns.definition_files import changed, misfits, parsed_definition, patched, read_definition
from appliance.campaigns.regions import subdivision, zones_of
from appliance.config import Settings
from appliance.config.load import SecretSource
from appliance.errors import ConfigError

WHOLE = """\
name: spring-recall
line: recall
trunk: carrier
caller_ids: ["+1 202-555-0100"]
owner: Acme Plumbing
region: US
holidays: {country: US, subdivision: FL, days: ["12-24"]}
windows:
  default: {days: mon-fri, hours: 09:00-20:00}
  regions:
    us-fl: {days: mon-sat, hours: 08:00-20:00}
    FR: [{days: mon-fri, hours: [10:00-13:00, 14:00-20:00]}]
    DE: []
attempts: {per_lead: 4, per_number_per_day: 2, per_number_total: 9, gap_s: 7200}
retry:
  busy: {after_s: 600, times: 5}
  no_answer: {after_s: 600, times: 5, best_hour: false}
  machine: {times: 0}
  rejected: {after_s: 600}
  failed: {after_s: 600, backoff: 3}
  interrupted: {after_s: 600}
pacing:
  {max_calls: 5, calls_per_s: 0.5, ring_timeout_s: 20, max_abandoned_percent: 2,
   breaker: {failures: 5, of_last: 10, pause_s: 30}}
consent: {required: false}
opt_out_key: "*"
answering_machines:
  {detect: true, on_machine: message, on_screening: answer,
   message: "Hello ${lead.first_name}, ${campaign.owner} here."}
webhook: {url: "https://hooks.example.com/leads", secret: !secret hook_key}
dnc: {lists: [never.csv]}
"""
SMALLEST = """\
name: small
line: recall
caller_ids: "+12025550100"
owner: Acme
region: US
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed_definition(text, "recall.yaml")
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_definition_is_kept_as_plain_data_and_read_again() -> None:
    definition = parsed_definition(WHOLE, "recall.yaml")
    kept = json.loads(json.dumps(definition.as_json()))
    assert Definition.of(kept) == definition
    assert parsed_definition(json.dumps(kept), "recall.json") == definition
    assert definition.caller_ids == ("+12025550100",)
    assert definition.windows.regions["DE"] == ()
    assert definition.windows.regions["US-FL"][0].hours == ("08:00-20:00",)
    assert definition.holidays.entries == ("US-FL", "12-24")
    assert definition.retry.rule("busy") == definition.retry.busy
    assert definition.retry.rule("completed") is None
    assert list(definition.variables()) == ["first_name"]


def test_what_is_not_said_is_safe() -> None:
    definition = parsed_definition(SMALLEST, "small.yaml")
    assert definition.consent.required
    assert [(one.days, one.hours) for one in definition.windows.default] == [("mon-fri", ("09:00-20:00",))]
    assert definition.answering_machines.on_machine == "hang_up"


def test_the_name_of_a_secret_is_kept_and_not_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "recall.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    secrets = SecretSource(None, {"APPLIANCE_SECRET_HOOK_KEY": "whsec_0123456789"})
    assert read_definition(path, secrets=secrets).webhook.secret == "hook_key"
    with pytest.raises(ConfigError, match="hook_key"):
        read_definition(path, secrets=SecretSource(None, {}))


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        (
            "hours: 09:00-20:00",
            "hours: 20:00-06:00",
            "recall.yaml:9: windows.default.hours: '20:00-06:00' goes past mid",
        ),
        ("days: mon-fri, hours: 09", "days: moon, hours: 09", "'moon' is not a day of the week"),
        ("days: mon-fri, hours: 09", "days: holidays, hours: 09", "holidays are days without calls"),
        ("us-fl", "US-FX", "windows.regions.US-FX: US has no part 'FX'"),
        ("us-fl", "Florida", "'Florida' is neither a country nor a part of one"),
        ("+1 202-555-0100", "202 555 0100", "caller_ids.0: '202 555 0100' is not a whole telephone number"),
        ("region: US", "region: USA", "'USA' is not a country"),
        ("country: US, subdivision: FL", "country: XX", "there is no calendar of holidays 'XX'"),
        ("country: US, subdivision: FL", "subdivision: FL", "names a part and no country"),
        ("max_calls: 5", "max_cals: 5", "pacing.max_cals: unknown key; did you mean 'max_calls'?"),
        ("failures: 5", "failures: 11", "it would never open; set of_last to 11 or more"),
        ("lead.first_name", "first_name", "${first_name} stands for nothing; write ${lead.NAME}"),
        ("detect: true", "detect: false", "on_machine: message needs detect"),
        ("!secret hook_key", "''", "webhook: has no secret to sign with"),
        ("!secret hook_key", "'a secret!'", "webhook.secret: is not the name of a secret"),
        ("https://hooks", "ftp://hooks", "is not an address"),
        ("owner: Acme Plumbing\n", "", "owner: is missing"),
        ('opt_out_key: "*"', "opt_out_key: 11", "opt_out_key: '11' is not a telephone key"),
        ("per_lead: 4", "per_lead: 0", "attempts.per_lead: must be at least 1, not 0"),
    ],
)
def test_a_mistake_is_told_at_its_line(written: str, instead: str, said: str) -> None:
    found = problems(WHOLE.replace(written, instead, 1))
    assert any(said in one for one in found), found


@pytest.mark.parametrize("text", ["", "- name: x", "just words", "a: ["])
def test_what_is_no_campaign_is_refused(text: str) -> None:
    assert problems(text)


def test_a_running_campaign_is_changed_by_key() -> None:
    definition = parsed_definition(WHOLE, "recall.yaml")
    after = changed(definition, ["pacing.max_calls=20", "windows.default={days: sat, hours: 10:00-12:00}"])
    assert after.pacing.max_calls == 20
    assert after.pacing.calls_per_s == 0.5
    assert after.windows.default[0].days == "sat"
    assert changed(definition, ["windows.regions.FR=null"]).windows.regions.keys() == {"US-FL", "DE"}


def test_a_program_changes_a_campaign_by_a_merge_patch() -> None:
    definition = parsed_definition(WHOLE, "recall.yaml")
    window = {"days": "sat", "hours": "10:00-12:00"}
    patch = {"pacing": {"max_calls": 7}, "retry.busy.times": 1, "windows": {"regions": {"CA-ON": window, "FR": None}}}
    after = patched(definition, patch)
    assert (after.pacing.max_calls, after.pacing.calls_per_s) == (7, 0.5)
    assert (after.retry.busy.times, after.retry.busy.after_s) == (1, 600)
    assert after.windows.regions.keys() == {"US-FL", "DE", "CA-ON"}
    for wrong in ({"name": "x"}, {"pacing": {"speed": 1}}, {"pacing": 1}, {"owner": None}):
        with pytest.raises(ConfigError):
            patched(definition, wrong)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("pacing.max_calls=0", "must be at least 1"),
        ("pacing.speed=1", "unknown key"),
        ("name=other", "cannot be changed"),
        ("region=DE", "cannot be changed"),
        ("nothing.there=1", "there is no such key"),
        ("pacing", "is not KEY=VALUE"),
        ("owner=[", "syntax"),
    ],
)
def test_a_change_that_is_wrong_changes_nothing(assignment: str, said: str) -> None:
    definition = parsed_definition(WHOLE, "recall.yaml")
    with pytest.raises(ConfigError) as caught:
        changed(definition, [assignment])
    assert said in str(caught.value) or said == "syntax"


def test_a_campaign_shows_only_numbers_that_are_the_operators_own() -> None:
    definition = parsed_definition(WHOLE, "recall.yaml")
    trunk = {"kind": "sip", "proxy": "sip:192.0.2.1", "allow_prefixes": ["+1"]}
    other = Settings.model_validate({"trunks": {"carrier": trunk}})
    own = Settings.model_validate({"trunks": {"carrier": trunk | {"caller_ids": ["+1 (202) 555-0100"]}}})
    assert [one.key for one in misfits(definition, other, None)] == ["caller_ids.0"]
    assert list(misfits(definition, own, None)) == []
    assert [one.key for one in misfits(definition, Settings(), None)] == ["trunk"]
    alone = own.model_copy(update={"egress": ("api.example.com",)})
    assert [one.key for one in misfits(definition, alone, None)] == ["webhook.url"]


def test_parts_of_countries_and_their_zones() -> None:
    assert subdivision("US", "florida") == subdivision("US", "us-fl") == subdivision("US", "FL") == "FL"
    assert subdivision("US", "Ontario") == ""
    assert subdivision("FR", "idf") == "IDF"
    assert zones_of("US-NY") == ("America/New_York",)
    assert set(zones_of("US-TN")) == {"America/New_York", "America/Chicago"}
    assert zones_of("FR") == ()
