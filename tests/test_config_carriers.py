"""Trunks of carriers in ``appliance.yaml``: the keys that all trunks share, and those that only the carrier knows."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from appliance.config import Settings
from appliance.config.trunks import CarrierTrunk, SipTrunk
from tests.config_files import load, mistakes

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_keys_of_the_carrier_are_gathered_and_secrets_stay_secret() -> None:
    box = load(
        """
listen:
  media: {host: 0.0.0.0, port: 9000}
  streams: [{kind: audiosocket, host: 0.0.0.0, port: 9092}]
  proxies: [127.0.0.1, 10.0.0.0/8]
limits: {streams_per_address: 7}
trunks:
  local: {kind: sip, allow: 10.0.0.5}
  twilio:
    kind: twilio
    auth_token: !secret token
    nested: {deep: [!secret token]}
    public_url: https://voice.example.com
    allow_prefixes: "+49"
    caller_id: +493012345
    max_calls: 4
  asterisk: {kind: audiosocket, allow: 10.0.0.5, options: {called: 100}, calling: 7}
routes: [{to: "+49", trunks: [twilio]}]
""",
        environ={"APPLIANCE_SECRET_TOKEN": "hunter2"},
    )
    twilio, asterisk = box.trunks["twilio"], box.trunks["asterisk"]
    assert isinstance(twilio, CarrierTrunk)
    assert isinstance(asterisk, CarrierTrunk)
    assert isinstance(box.trunks["local"], SipTrunk)
    assert (twilio.allow_prefixes, twilio.caller_id, twilio.max_calls) == (("+49",), "+493012345", 4)
    assert twilio.options == {
        "auth_token": SecretStr("hunter2"),
        "nested": {"deep": [SecretStr("hunter2")]},
        "public_url": "https://voice.example.com",
    }
    assert asterisk.options == {"called": 100, "calling": 7}
    assert (list(box.sip_trunks), list(box.carrier_trunks)) == (["local"], ["twilio", "asterisk"])
    assert (box.listen.media.port, box.listen.streams[0].port, box.limits.streams_per_address) == (9000, 9092, 7)
    assert [str(one) for one in box.listen.proxies] == ["127.0.0.1/32", "10.0.0.0/8"]
    assert "hunter2" not in repr(box) + box.model_dump_json()
    child = Settings.model_validate_json(box.dump_json())
    assert child == box
    assert isinstance(child.trunks["twilio"], CarrierTrunk)
    assert child.trunks["twilio"].options == twilio.options


@pytest.mark.parametrize(
    ("trunk", "expected"),
    [
        ("kind: twilio, allow: nowhere", "trunks.p.allow: 'nowhere' is not a network"),
        ("kind: twilio, allow: [nowhere]", "trunks.p.allow.0: 'nowhere' is not a network"),
        ("kind: twilio, transfer: by_hand", "trunks.p.transfer: must be one of auto, refer, bridge"),
        ("kind: twilio, allow_prefixes: ['0']", "trunks.p.allow_prefixes: '0' lets numbers without a country code"),
        ("kind: twilio, options: 3", "trunks.p.options: must be a mapping"),
        ("kind: tw ilio", "trunks.p.kind: 'tw ilio' is not a name"),
        ("kind: [sip]", "trunks.p.kind: must be text, not a list"),
        ("kind: ", "trunks.p.kind: has no value; it must be text; give it one or remove the key"),
        ("allow: 10.0.0.1", "trunks.p.kind: is missing; add one, such as kind: sip or kind: twilio"),
        ("kind: sip, auht: x", "trunks.p.auht: unknown key; did you mean 'auth'?"),
    ],
)
def test_what_is_wrong_is_told_at_the_key_as_it_was_written(trunk: str, expected: str) -> None:
    (found,) = mistakes(f"\ntrunks:\n  p: {{{trunk}}}\n")
    assert found.startswith(f"appliance.yaml:3: {expected}")
    assert "<" not in found


def test_a_trunk_is_a_mapping() -> None:
    assert mistakes("trunks: {p: 5}") == ["appliance.yaml:1: trunks.p: must be a mapping (key: value), not 5"]


def test_a_source_may_be_of_one_trunk_of_each_kind() -> None:
    write_both = "trunks: {{a: {{kind: {0}, allow: 10.0.0.1}}, b: {{kind: {1}, allow: 10.0.0.1}}}}"
    assert len(load(write_both.format("sip", "pbx")).trunks) == 2
    assert mistakes(write_both.format("pbx", "pbx")) == [
        "appliance.yaml:1: trunks.b.allow.0: 10.0.0.1/32 also belongs to trunk 'a'; "
        "a source can only be of one trunk of kind pbx"
    ]


def test_a_carrier_can_be_called_without_a_proxy_but_may_dial_only_what_is_listed() -> None:
    assert mistakes("trunks: {t: {kind: twilio}}\nroutes: [{trunks: t}]") == [
        "appliance.yaml:2: routes.0.trunks.0: trunk 't' may dial no number; "
        "list what it may under trunks.t.allow_prefixes"
    ]


def test_every_socket_has_a_port_of_its_own() -> None:
    assert mistakes(
        """\
listen:
  sip: [{transport: tcp, port: 8081}]
  http: {port: 9092}
  streams: [{kind: audiosocket, port: 9092}]
trunks: {a: {kind: audiosocket}}
"""
    ) == [
        "appliance.yaml:1: listen.media.port: 127.0.0.1:8081/tcp is already listen.sip.0; choose another port",
        "appliance.yaml:4: listen.streams.0.port: 127.0.0.1:9092/tcp is already listen.http; choose another port",
    ]
    assert load("listen: {http: {port: 0}, media: {port: 0}}").listen.media.port == 0


def test_overrides_reach_a_carrier() -> None:
    box = load("trunks: {t: {kind: twilio, tries: 1}}", "trunks.t.tries=2", "trunks.t.max_calls=3")
    trunk = box.trunks["t"]
    assert isinstance(trunk, CarrierTrunk)
    assert (trunk.options, trunk.max_calls) == ({"tries": 2}, 3)
    phone = load("", "trunks.phone.hosts=[x.example]").trunks["phone"]
    assert isinstance(phone, CarrierTrunk)
    assert (phone.options, [str(one) for one in phone.allow]) == ({"hosts": ["x.example"]}, ["127.0.0.0/8"])
