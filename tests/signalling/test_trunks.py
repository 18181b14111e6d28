"""Trunks at run time: whose an address is, and whether there is room."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.config.trunks import CarrierTrunk, SipTrunk
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.uri import SipUri


def table(*rules: TrunkRule) -> TrunkTable:
    return TrunkTable(rules)


def test_the_smallest_network_that_holds_an_address_names_the_trunk() -> None:
    wide = TrunkRule("wide", (ip_network("10.0.0.0/8"),))
    narrow = TrunkRule("narrow", (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")))
    trunks = table(wide, narrow)
    found = {
        host: rule.name if (rule := trunks.rule_for(host)) else None
        for host in ("10.1.2.3", "10.2.2.3", "::ffff:10.2.2.3", "2001:db8::1%eth0", "192.0.2.1", "pbx")
    }
    assert found == {
        "10.1.2.3": "narrow",
        "10.2.2.3": "wide",
        "::ffff:10.2.2.3": "wide",
        "2001:db8::1%eth0": "narrow",
        "192.0.2.1": None,
        "pbx": None,
    }


def test_an_address_is_named_by_proxies_and_by_sources() -> None:
    proxies = ("sip:[2001:db8::5]:5070;transport=tls", "sip:broken@", "sip:192.0.2.5")
    trunks = table(
        TrunkRule("carrier", (ip_network("192.0.2.64/26"),), proxies=proxies),
        TrunkRule("pbx", (ip_network("192.0.2.5"),)),
    )
    assert [str(proxy) for proxy in trunks.proxies("carrier")] == [proxies[0], proxies[2]]
    found = {host: trunks.naming(host) for host in ("2001:DB8:0::5", "192.0.2.5", "192.0.2.65", "192.0.2.1", "a.b")}
    assert found == {
        "2001:DB8:0::5": {"carrier"},
        "192.0.2.5": {"carrier", "pbx"},
        "192.0.2.65": {"carrier"},
        "192.0.2.1": set(),
        "a.b": set(),
    }


def test_one_call_more_than_max_calls_is_refused_until_one_ends() -> None:
    trunks = table(TrunkRule("pbx", max_calls=2))
    assert [trunks.take("pbx", 0.0) for _ in range(3)] == ["", "", "trunks.pbx.max_calls (2) reached"]
    trunks.give_back("pbx")
    assert trunks.take("pbx", 0.1, outgoing=True) == ""
    state = trunks.state("pbx")
    assert state.calls == 2
    assert dict(state.counters) == {"calls_in": 2, "calls_out": 1, "refused_max_calls": 1}


def test_a_rate_below_one_a_second_spreads_the_calls() -> None:
    trunks = table(TrunkRule("pbx", max_cps=0.5))
    assert [trunks.take("pbx", now) == "" for now in (0.0, 1.0, 1.9, 2.0, 3.9, 4.0)] == [
        True, False, False, True, False, True
    ]  # fmt: skip


@given(
    st.floats(0.1, 20), st.lists(st.floats(0, 5), max_size=60).map(sorted), st.integers(1, 5), st.lists(st.booleans())
)
def test_never_more_than_the_limits(max_cps: float, times: list[float], max_calls: int, ends: list[bool]) -> None:
    trunks = table(TrunkRule("pbx", max_cps=max_cps, max_calls=max_calls))
    taken: list[float] = []
    for index, now in enumerate(times):
        if trunks.take("pbx", now) == "":
            taken.append(now)
            assert trunks.state("pbx").calls <= max_calls
            if index < len(ends) and ends[index]:
                trunks.give_back("pbx")
    for start in taken:
        assert sum(start <= at < start + 1.0 for at in taken) <= max(1.0, max_cps) + 1


def test_a_rule_holds_what_the_settings_say_and_does_not_show_the_password() -> None:
    trunk = SipTrunk.model_validate(
        {"kind": "sip", "proxy": "sip:a", "username": "u", "password": "hunter2", "headers_out": {"X-A": "b"}}
    )
    rule = TrunkRule.of("a", trunk)
    assert (rule.proxies, rule.password, rule.caller_id, rule.headers_out) == (
        ("sip:a",), "hunter2", "u", (("X-A", "b"),)
    )  # fmt: skip
    assert "hunter2" not in repr(rule)


_PLACE = r"([a1;@:%]{0,4}@)?([a1.:_$-]{0,6}|\[[0-9a-f:.]{0,8}\]?)(:[0-9]{0,7})?"
_NEARLY_A_URI = rf"sips?:{_PLACE}[;=a1?@&:]{{0,8}}(;transport=(udp|tls|x))?"


@settings(max_examples=400)
@given(st.one_of(st.text(max_size=30), st.from_regex(_NEARLY_A_URI, fullmatch=True)))
def test_every_proxy_that_the_settings_take_can_be_called(text: str) -> None:
    try:
        (proxy,) = SipTrunk.model_validate({"kind": "sip", "proxy": text}).proxy
    except ValidationError:
        return
    uri = SipUri.parse(proxy)
    assert uri.host
    assert SipUri.parse(str(uri)) == uri


def test_a_source_of_a_carrier_calls_by_no_other_kind_of_trunk() -> None:
    everywhere = (ip_network("10.0.0.0/8"),)
    trunks = table(
        TrunkRule("sip", everywhere),
        TrunkRule("pbx", (ip_network("10.0.0.5"), ip_network("192.0.2.0/24")), kind="pbx"),
        TrunkRule("far", (ip_network("192.0.2.7"),), kind="pbx"),
    )
    assert [rule and rule.name for rule in (trunks.rule_for("10.0.0.5"), trunks.rule_for("10.0.0.5", "pbx"))] == [
        "sip",
        "pbx",
    ]
    assert trunks.rule_for("192.0.2.7") is None
    assert trunks.rule_for("10.0.0.6", "pbx") is trunks.rule_for("10.0.0.5", "audiosocket") is None
    assert (named := trunks.rule_for("192.0.2.7", "pbx")) is not None
    assert named.name == "far"
    assert trunks.naming("192.0.2.7") == frozenset()
    assert trunks.naming("10.0.0.5") == {"sip"}


def test_the_rule_of_a_carrier_has_what_all_trunks_have_and_its_own_keys() -> None:
    trunk = CarrierTrunk.model_validate(
        {
            "kind": "twilio", "allow": "192.0.2.1", "max_calls": 3, "max_cps": 2, "allow_prefixes": "+49",
            "allow_kinds": "premium", "region": "DE", "caller_id": "+4930", "transfer": "refer",
            "media_timeout": "keep", "auth_token": {"!secret": "s3cret"}, "tries": 2,
        }
    )  # fmt: skip
    rule = TrunkRule.of("t", trunk)
    assert (rule.kind, rule.allow, rule.max_calls, rule.max_cps) == ("twilio", (ip_network("192.0.2.1"),), 3, 2.0)
    assert (rule.allow_prefixes, rule.allow_kinds, rule.region) == (("+49",), ("premium",), "DE")
    assert (rule.caller_id, rule.transfer, rule.media_timeout) == ("+4930", "refer", "keep")
    assert rule.options["tries"] == 2
    assert rule.options["auth_token"].get_secret_value() == "s3cret"
    assert "s3cret" not in repr(rule)
    assert not rule.allow_transfer
    assert {rule: 1}[rule] == 1
