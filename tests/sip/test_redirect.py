"""3xx: which targets are tried, in which order, and which never."""

from __future__ import annotations

import pytest

from appliance.sip.message import Request, Response, make_response
from appliance.sip.redirect import MAX_REDIRECTS, contacts_of, next_target, same_user_near_peer
from appliance.sip.uri import Peer, SipUri

from .requests import PEER, good_message, make_request

FIRST = "sip:100@192.0.2.7"


def moved(contact: str) -> Response:
    request = good_message(make_request())
    assert isinstance(request, Request)
    response = make_response(request, 302)
    response.headers.set("contact", contact)
    return response


def test_contacts_come_best_first_without_what_is_not_theirs_to_say() -> None:
    low = "<sip:a@h>;q=0.1, <sip:b@h;method=BYE?Subject=x>, <sip:c@h>;q=0.5"
    found = contacts_of(moved(f"{low}, <mailto:x@y>, <sip:d@h>;q=7, <tel:+1>;q=0"))
    assert [str(uri) for uri in found] == ["sip:b@h", "sip:d@h", "sip:c@h", "sip:a@h", "tel:+1"]
    assert contacts_of(moved("<sip:a@h")) == []


@pytest.mark.parametrize(
    ("contact", "expected"),
    [
        (
            "<sip:100@192.0.2.7:5080;transport=tcp>",
            ("sip:100@192.0.2.7:5080;transport=tcp", Peer("192.0.2.7", 5080, "tcp")),
        ),
        ("<sip:100@198.51.100.4:5080>", None),
        ("<sip:100@gw.example;maddr=198.51.100.4>", None),
        ("<sip:100@gw.example;transport=tcp>", ("sip:100@gw.example;transport=tcp", PEER)),
        ("<sip:100@192.0.2.7:5099>", ("sip:100@192.0.2.7:5099", Peer("192.0.2.7", 5099))),
        ("<sip:100@192.0.2.7:5070;x>", ("sip:100@192.0.2.7:5070;x", PEER)),
        ("<sip:900123@192.0.2.7:5071>, <sip:100@192.0.2.7:5072>", ("sip:100@192.0.2.7:5072", Peer("192.0.2.7", 5072))),
        ("<sip:900123@192.0.2.7:5071>", None),
        ("<tel:100>", None),
        (f"<{FIRST}>", None),
        ("", None),
    ],
)
def test_only_the_same_user_is_followed(contact: str, expected: tuple[str, Peer] | None) -> None:
    assert next_target(FIRST, moved(contact), PEER, set(), same_user_near_peer) == expected


def near(peer: Peer, address: str) -> bool:
    return address.startswith("198.51.100.")


def test_an_address_of_the_same_trunk_is_followed_and_no_other() -> None:
    refused = SipUri.parse(FIRST)
    there = SipUri.parse("sip:100@198.51.100.4:5080;transport=tcp")
    assert same_user_near_peer(refused, there, PEER, near) == Peer("198.51.100.4", 5080, "tcp")
    assert same_user_near_peer(refused, SipUri.parse("sip:100@203.0.113.1"), PEER, near) is None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("sip:100@192.0.2.7:7777;transport=udp", None),
        ("sip:100@192.0.2.7:7777;transport=tcp", None),
        ("sip:100@198.51.100.4;transport=udp", None),
        ("sip:100@192.0.2.7", "peer"),
        ("sip:100@192.0.2.7:5071", "peer"),
        ("sip:100@192.0.2.7:5081", Peer("192.0.2.7", 5081, "tls")),
        ("sip:100@198.51.100.4", Peer("198.51.100.4", 5061, "tls")),
        ("sip:100@198.51.100.4:5081;transport=tls", Peer("198.51.100.4", 5081, "tls")),
        ("sip:100@gw.example;transport=udp", "peer"),
        ("sips:100@198.51.100.4", Peer("198.51.100.4", 5061, "tls")),
        ("sip:100@203.0.113.1;transport=tls", None),
    ],
)
def test_a_call_by_tls_is_never_sent_on_in_the_clear(target: str, expected: Peer | str | None) -> None:
    peer = Peer("192.0.2.7", 5071, "tls", 3)
    found = same_user_near_peer(SipUri.parse(FIRST), SipUri.parse(target), peer, near)
    assert found == (peer if expected == "peer" else expected)


def test_a_loop_ends_and_so_does_an_endless_chain() -> None:
    visited: set[str] = set()
    there = next_target(FIRST, moved("<sip:100@192.0.2.7:5071>"), PEER, visited, same_user_near_peer)
    assert there is not None
    back = moved(f"<{FIRST}>, <sip:100@192.0.2.7;x=1>")
    assert next_target(there[0], back, there[1], visited, same_user_near_peer) is None
    visited, count = set(), 0
    while (
        next_target(FIRST, moved(f"<sip:100@192.0.2.7:{6000 + count}>"), PEER, visited, same_user_near_peer) is not None
    ):
        count += 1
    assert count == MAX_REDIRECTS


def test_a_secure_call_is_not_made_insecure() -> None:
    refused, offered = SipUri.parse("sips:100@h"), SipUri.parse(f"sip:100@{PEER.host}")
    assert same_user_near_peer(refused, offered, PEER) is None
