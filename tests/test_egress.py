"""Which hosts may be spoken to."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from appliance.config.egress import Hosts, refusal
from tests.config_files import load, mistakes

NOBODY = Hosts()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:2::a9fe:a9fe",
        "::ffff:0:7f00:1",
        "fec0::1",
        "5f00::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)
def test_an_address_that_is_not_public_is_refused_however_it_is_written(address: str) -> None:
    assert refusal("shop.example", ipaddress.ip_address(address), NOBODY, None)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"])
def test_a_public_address_is_not(address: str) -> None:
    assert refusal("shop.example", ipaddress.ip_address(address), NOBODY, None) == ""


@pytest.mark.parametrize(
    ("listed", "host", "address", "free"),
    [
        ("crm.internal", "crm.internal", "10.0.0.5", True),
        ("crm.internal", "crm.internal.", "10.0.0.5", True),
        ("crm.internal", "xcrm.internal", "10.0.0.5", False),
        ("*.internal", "crm.internal", "10.0.0.5", True),
        ("*.internal", "internal", "10.0.0.5", False),
        ("10.0.0.0/8", "crm.internal", "10.0.0.5", True),
        ("10.0.0.0/8", "crm.internal", "::ffff:10.0.0.5", True),
        ("10.0.0.5", "crm.internal", "10.0.0.6", False),
        ("localhost", "localhost", "127.0.0.1", True),
        ("crm.internal", "crm.internal", "169.254.169.254", False),
        ("169.254.169.254", "crm.internal", "169.254.169.254", True),
    ],
)
def test_a_private_host_has_to_be_listed_and_metadata_by_its_address(
    listed: str, host: str, address: str, free: bool
) -> None:
    assert (refusal(host, ipaddress.ip_address(address), Hosts.of([listed]), None) == "") is free


def test_what_egress_does_not_list_is_refused_even_where_it_is_allowed_as_a_private_host() -> None:
    public = ipaddress.ip_address("93.184.215.14")
    assert refusal("a.example", public, NOBODY, Hosts.of([])) == "egress does not list a.example"
    assert refusal("a.example", public, NOBODY, Hosts.of(["a.example"])) == ""
    assert refusal("a.example", public, NOBODY, Hosts.of(["93.184.0.0/16"])) == ""
    private = ipaddress.ip_address("10.0.0.1")
    assert refusal("crm", private, Hosts.of(["crm"]), Hosts.of([])) == "egress does not list crm"
    assert "allow_hosts" in refusal("crm", private, NOBODY, Hosts.of(["crm"]))


@pytest.mark.parametrize(
    "host", ["https://a.example", "a.example:80", "a b", "", "*", "u@a.example", "2130706433", "0x7f.0x1"]
)
def test_what_is_no_host_is_a_mistake_with_its_remedy(host: str) -> None:
    (said,) = mistakes(f"egress:\n  - '{host}'\n")
    assert said.startswith("appliance.yaml:2: egress.0:")
    assert "write" in said


def test_with_an_empty_list_an_engine_elsewhere_is_refused_and_one_on_this_machine_is_not() -> None:
    away = "engines:\n  llm:\n    provider: openai_compatible\n    url: https://api.example.com/v1\n    model: m\n"
    assert load(away).egress is None
    (said,) = mistakes(f"egress: []\n{away}")
    assert said == (
        "appliance.yaml:5: engines.llm.options.url: is at api.example.com, which egress does not list; "
        "add api.example.com to egress, or use another server"
    )
    assert load(f"egress: ['*.example.com']\n{away}").egress == ("*.example.com",)
    assert load("egress: []\n" + away.replace("https://api.example.com", "http://127.0.0.1:8000")).egress == ()


def test_the_speech_that_stands_in_and_the_database_count_as_well() -> None:
    stands_in = "{provider: openai_compatible, url: 'https://tts.example.com/v1', model: m}"
    text = f"engines:\n  tts:\n    provider: espeak\n    fallback: {stands_in}\n"
    assert load(text)
    (said,) = mistakes(f"egress: []\n{text}")
    assert said.startswith("appliance.yaml:5: engines.tts.fallback.options.url: is at tts.example.com, which egress")
    record = "store: {url: 'postgresql+asyncpg://box:word@db.example.com/calls'}\n"
    (said,) = mistakes(f"egress: []\n{record}")
    assert said.startswith("appliance.yaml:2: store.url: is at db.example.com, which egress does not list")
    assert "word" not in said
    assert load(f"egress: [db.example.com]\n{record}")
    assert load("egress: []\nstore: {url: 'postgresql+asyncpg://box@/calls?host=/run/postgresql'}\n")
