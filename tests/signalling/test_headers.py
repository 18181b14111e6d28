"""What carriers say about a call: read where it can be, bounded, and never a reason to fail."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.signalling.headers import (
    MAX_ENTRIES,
    MAX_VALUE,
    CallHeaders,
    Diversion,
    Reason,
    fill,
    named_headers,
    read_headers,
)
from appliance.sip.message import Headers


def read(*lines: tuple[str, str]) -> CallHeaders:
    return read_headers(Headers(lines))


def test_who_the_network_says_is_calling() -> None:
    found = read(
        ("From", '"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1'),
        ("P-Asserted-Identity", '"Ann" <sip:+4930123;verstat=TN-Validation-Passed@carrier.example;user=phone>'),
        ("P-Asserted-Identity", "<tel:+4930123>"),
        ("Privacy", "id;critical"),
    )
    assert (found.asserted, found.asserted_name) == (("+4930123", "+4930123"), "Ann")
    assert (found.privacy, found.verstat) == (("id", "critical"), "TN-Validation-Passed")


@pytest.mark.parametrize(
    "value",
    [
        "<tel:+12025550123;verstat=TN-Validation-Failed>;tag=9",
        "<sip:+12025550123@a;verstat=TN-Validation-Failed>;tag=9",
        "<sip:+12025550123;verstat=TN-Validation-Failed@a>;tag=9",
    ],
)
def test_the_verdict_on_the_number_wherever_it_stands(value: str) -> None:
    assert read(("From", value)).verstat == "TN-Validation-Failed"


def test_whom_the_call_was_meant_for_before() -> None:
    diverted = read(("Diversion", "<sip:200@a>;reason=no-answer, <tel:+4930>;reason=unconditional"))
    assert diverted.diversions == (Diversion("200", "no-answer"), Diversion("+4930", "unconditional"))
    history = read(
        ("History-Info", "<sip:100@a>;index=1, <sip:200@a?Reason=SIP%3Bcause%3D302>;index=1.1"),
        ("History-Info", "<sip:300@a;cause=408>;index=1.1.1"),
    )
    assert history.diversions == (Diversion("200", "302"), Diversion("100", ""))


def test_reasons_and_data_of_the_callers_system() -> None:
    found = read(
        ("Reason", 'Q.850;cause=16;text="Normal call clearing", SIP;cause=200'),
        ("User-to-User", "56a390f3d2b7310023a;encoding=hex"),
    )
    assert found.reasons == (Reason("Q.850", 16, "Normal call clearing"), Reason("SIP", 200))
    assert [str(one) for one in found.reasons] == ['Q.850;cause=16;text="Normal call clearing"', "SIP;cause=200"]
    assert str(Reason("SIP", 486, 'the "line" is busy')) == "SIP;cause=486"
    assert found.user_to_user == "56a390f3d2b7310023a;encoding=hex"


def _token(claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'ES256', 'ppt': 'shaken'})}.{part(claims)}.c2ln"


def test_what_an_identity_claims() -> None:
    token = _token({"attest": "A", "orig": {"tn": "12025550123"}, "dest": {"tn": ["4930", "4931"]}, "iat": 1700000000})
    (found,) = read(("Identity", f"{token};info=<https://cert.example/c.pem>;alg=ES256;ppt=shaken")).identity
    assert (found.attest, found.origin, found.destinations) == ("A", "12025550123", ("4930", "4931"))
    assert (found.issued_at, found.certificate, found.token) == (1700000000, "https://cert.example/c.pem", token)
    assert read(("Identity", "x.y.z;info=<i>"), ("Identity", f"{_token([1])};;")).identity == ()


def test_headers_an_operator_asked_for() -> None:
    headers = Headers([("X-Account", "7"), ("x-account", "8\x07"), ("Subject", "s")])
    assert named_headers(headers, ["X-ACCOUNT", "X-Other"]) == {"X-ACCOUNT": "7, 8"}


def test_headers_to_send() -> None:
    values = {"caller.number": "100\r\nX-Evil: 1", "call.id": "${caller.number}"}
    templates = [("X-A", "from ${caller.number}"), ("X-B", "${call.id}"), ("X-C", "${nothing}"), ("X-D", "fix")]
    assert fill(templates, values) == [
        ("X-A", "from 100X-Evil: 1"),
        ("X-B", "${caller.number}"),
        ("X-D", "fix"),
    ]


_NAMES = ["From", "P-Asserted-Identity", "Privacy", "Diversion", "History-Info", "Reason", "User-to-User", "Identity"]
_TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["<sip:1@a>", "<tel:+1>", ";", ",", '"', "reason=", "cause=9", "%3B", "=", "?", "&", "<", "e30."]
        )
    ).map("".join),
)


@given(st.lists(st.tuples(st.sampled_from(_NAMES), _TEXT), max_size=30))
def test_any_header_at_all(lines: list[tuple[str, str]]) -> None:
    found = read(*lines)
    assert len(found.asserted) <= MAX_ENTRIES
    assert len(found.diversions) <= MAX_ENTRIES
    assert len(found.user_to_user) <= MAX_VALUE
    texts = [*found.asserted, found.asserted_name, found.user_to_user, found.verstat, *found.privacy]
    texts += [text for entry in found.diversions for text in (entry.number, entry.reason)]
    assert all(text.isprintable() for text in texts)


def test_a_flood_of_values_stays_small() -> None:
    many = ", ".join(f"<sip:{number}@a>" for number in range(5000))
    found = read(*[(name, many) for name in _NAMES for _ in range(20)])
    assert len(found.asserted) <= MAX_ENTRIES
    assert len(found.diversions) <= MAX_ENTRIES
    assert len(found.reasons) <= MAX_ENTRIES
