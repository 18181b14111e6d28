from __future__ import annotations

import pytest

from appliance.errors import RemoteSipError
from appliance.sip.headers import CSeq, NameAddr, Via, split_values, tokens


def test_via_with_white_space_everywhere() -> None:
    via = Via.parse("SIP  /   2.0 /UDP    192.0.2.2 : 5070;branch=390skdjuw ;rport; ttl = 1")
    assert (via.transport, via.host, via.port, via.branch) == ("UDP", "192.0.2.2", 5070, "390skdjuw")
    assert via.params["rport"] is None
    assert via.params["ttl"] == "1"
    assert str(via) == "SIP/2.0/UDP 192.0.2.2:5070;branch=390skdjuw;rport;ttl=1"


@pytest.mark.parametrize(
    "text", ["", "SIP/2.0/UDP", "SIP/2.0 192.0.2.1", "SIP/2.0/UDP 192.0.2.15;;", "SIP/2.0/UDP a b", "HTTP/2.0/UDP a"]
)
def test_what_is_no_via(text: str) -> None:
    with pytest.raises(RemoteSipError):
        Via.parse(text)


@pytest.mark.parametrize(
    ("text", "display", "uri", "tag"),
    [
        ('"J R \\\\\\""       <sip:j@example.com>  ;  tag = 98asjd8', 'J R \\"', "sip:j@example.com", "98asjd8"),
        ("caller<sip:caller@example.com>;tag=323", "caller", "sip:caller@example.com", "323"),
        ("sip:caller@example.net;tag=1", "", "sip:caller@example.net", "1"),
        ("<sip:a@b;x=1>", "", "sip:a@b;x=1", None),
        ("Bell, Alexander <sip:a@b>;tag=43", "Bell, Alexander", "sip:a@b", "43"),
        ('"a;b,<c>" <sip:a@b>', "a;b,<c>", "sip:a@b", None),
    ],
)  # fmt: skip
def test_name_addr(text: str, display: str, uri: str, tag: str | None) -> None:
    value = NameAddr.parse(text)
    assert (value.display, value.uri, value.tag) == (display, uri, tag)
    assert NameAddr.parse(str(value)) == value


@pytest.mark.parametrize(
    "text",
    ['"Mr. J. User <sip:j.user@example.com>', "<sip:a@b", "sip:a@b?Route=x", '"a" sip:a@b', "<sip:a@b>;;", "<sip:a@b>x",
     "", "alice@example.com", 'a" <sip:a@b>'],
)  # fmt: skip
def test_what_is_no_name_addr(text: str) -> None:
    with pytest.raises(RemoteSipError):
        NameAddr.parse(text)


def test_number_falls_back_to_the_uri() -> None:
    assert NameAddr.parse("<isbn:2983792873>").number == "isbn:2983792873"
    assert NameAddr.parse("<sip:pbx.example>").number == "sip:pbx.example"


def test_cseq() -> None:
    assert CSeq.parse("0009 INVITE") == CSeq(9, "INVITE")
    for text in ("36893488147419103232 REGISTER", "2147483648 ACK", "-1 ACK", "1", "ACK", "1 IN VITE", ""):
        with pytest.raises(RemoteSipError):
            CSeq.parse(text)


def test_lists_are_split_outside_quotes_and_brackets() -> None:
    assert split_values(['"a, b" <sip:x?y,z>, <sip:c>', "<sip:d>"]) == ['"a, b" <sip:x?y,z>', "<sip:c>", "<sip:d>"]
    with pytest.raises(RemoteSipError):
        split_values(["a,,b"])
    assert tokens(["a, b;q=1", ",c"]) == ["a", "b", "c"]
