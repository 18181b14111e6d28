from __future__ import annotations

import pytest

from appliance.errors import RemoteSipError
from appliance.sip.uri import Peer, SipUri, join_host_port, printable, split_host_port, unescape


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("sip:alice@example.com", "alice", "example.com", None),
        ("sip:example.com:5070;transport=udp", "", "example.com", 5070),
        ("sips:bob@[2001:db8::1]:5061", "bob", "2001:db8::1", 5061),
        ("sip:user;par=u%40example.net@example.com", "user;par=u%40example.net", "example.com", None),
        ("sip:a?b;c=/d@example.com", "a?b;c=/d", "example.com", None),
        ("SIP:alice:secret@10.0.0.1?subject=x", "alice:secret", "10.0.0.1", None),
    ],
)
def test_parts(text: str, user: str, host: str, port: int | None) -> None:
    uri = SipUri.parse(text)
    assert (uri.user, uri.host, uri.port) == (user, host, port)
    assert SipUri.parse(str(uri)) == uri


def test_number_is_what_people_read() -> None:
    assert SipUri.parse("sip:+49%2030;phone-context=x@example.com").number == "+49 30"
    assert SipUri.parse("tel:+15551234;ext=9").number == "+15551234"
    assert SipUri.parse("sip:null-%00-null@example.com").number == "null--null"


@pytest.mark.parametrize(
    "text",
    ["", "alice", "sip:", "sip:@host", "sip:a@", "sip:a@host:0", "sip:a@host:99999", "sip:a@ho st", "sip:a@[::1",
     "<sip:a@host>", "1sip:a@host", "sip:a@host:5060x", "tel:"],
)  # fmt: skip
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(RemoteSipError) as caught:
        SipUri.parse(text)
    assert caught.value.status_hint == 400


def test_an_unknown_scheme_is_416() -> None:
    with pytest.raises(RemoteSipError) as caught:
        SipUri.parse("soap.beep://192.0.2.103:3002")
    assert caught.value.status_hint == 416


def test_literal_address_needs_no_dns() -> None:
    assert SipUri.parse("sip:a@192.0.2.1").literal_address() == Peer("192.0.2.1", 5060)
    assert SipUri.parse("sip:a@h.example;maddr=192.0.2.9").literal_address() == Peer("192.0.2.9", 5060)
    assert SipUri.parse("sip:a@[::1]:5070").literal_address() == Peer("::1", 5070)
    assert SipUri.parse("sip:a@192.0.2.1;transport=TCP").literal_address() == Peer("192.0.2.1", 5060, "tcp")
    assert SipUri.parse("sips:a@192.0.2.1").literal_address() == Peer("192.0.2.1", 5061, "tls")
    assert SipUri.parse("sip:a@example.com").literal_address() is None


def test_small_things() -> None:
    assert unescape("100%25%4") == "100%%4"
    assert split_host_port("[::1]:5") == ("::1", 5)
    assert join_host_port("::1", 5) == "[::1]:5"
    assert printable("a\r\nb\x00c\udce9") == "abc?"
    assert len(printable("x" * 1000)) == 256
