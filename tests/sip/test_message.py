from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.message import (
    MAX_HEAD_BYTES,
    Headers,
    Request,
    Response,
    make_response,
    read_message,
    response_port,
)

from .requests import good_message, make_request

GOOD = make_request(body=b"v=0\r\n")


def refused(data: bytes) -> tuple[int | None, str]:
    with pytest.raises(RemoteSipError) as caught:
        good_message(data)
    return caught.value.status_hint, str(caught.value)


def test_a_request_in_parts() -> None:
    message = good_message(GOOD)
    assert isinstance(message, Request)
    assert (message.method, message.uri, message.call_id) == ("INVITE", "sip:100@192.0.2.2", "call-1")
    assert message.via.branch == "z9hG4bKone"
    assert message.from_.tag == "caller"
    assert message.to.tag is None
    assert message.cseq.number == 1
    assert message.body == b"v=0\r\n"
    assert message.contact is not None and message.contact.uri == "sip:peer@192.0.2.7:5070"


def test_compact_and_folded_headers() -> None:
    data = (
        b"OPTIONS sip:x@y SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bKx\r\nf: <sip:a@b>\r\n ;tag=\r\n\t1\r\n"
        b"t: <sip:c@d>\r\ni: id\r\ncseq: 1\r\n  OPTIONS\r\nl: 0\r\nS :\r\n\r\n"
    )
    message = good_message(data)
    assert message.headers.get("From") == "<sip:a@b> ;tag= 1"
    assert message.from_.tag == "1"
    assert message.headers.get("subject") == ""


def test_lines_may_end_in_a_bare_line_feed() -> None:
    message = good_message(GOOD.replace(b"\r\n", b"\n").replace(b"Length: 5", b"Length: 4"))
    assert message.body == b"v=0\n"


def test_what_follows_content_length_is_ignored() -> None:
    assert good_message(GOOD + b"INVITE sip:again@x SIP/2.0\r\n\r\n").body == b"v=0\r\n"


@pytest.mark.parametrize(
    ("old", "new", "status", "says"),
    [
        (b"SIP/2.0\r\nVia", b"SIP/7.0\r\nVia", 505, "not SIP/2.0"),
        (b"INVITE sip", b"INVITE  sip", 400, "request line"),
        (b"SIP/2.0\r\nVia", b"SIP/2.0  \r\nVia", 400, "request line"),
        (b"sip:100@192.0.2.2 ", b"<sip:100@192.0.2.2> ", 400, "not a URI"),
        (b"Content-Length: 5", b"Content-Length: 9999", 400, "bytes came"),
        (b"Content-Length: 5", b"Content-Length: -999", 400, "broken Content-Length"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nl: 5", 400, "comes twice"),
        (b"CSeq: 1 INVITE", b"CSeq: 1 BYE", 400, "CSeq says BYE"),
        (b"CSeq: 1 INVITE", b"CSeq: x INVITE", 400, "broken CSeq"),
        (b"Call-ID: call-1\r\n", b"", 400, "Call-Id header is missing"),
        (b"Max-Forwards: 70", b"Max-Forwards: 256", 400, "Max-Forwards"),
        (b"Max-Forwards: 70", b"no header", 400, "no header"),
        (b"<sip:peer@192.0.2.7>;tag", b'"x <sip:peer@192.0.2.7>;tag', 400, "unclosed quote"),
        (b";branch", b";;branch", 400, "parameter"),
        (b"\r\n\r\n", b"\r\n", 400, "empty line"),
        (b"Max-Forwards: 70", b"X: y\r\n" * 300 + b"Max-Forwards: 70", 413, "header lines"),
        (b"Max-Forwards: 70", b"X: " + b"y" * MAX_HEAD_BYTES, 413, "bytes of headers"),
    ],
)
def test_a_broken_request_says_what_is_wrong(old: bytes, new: bytes, status: int, says: str) -> None:
    assert old in GOOD
    hint, text = refused(GOOD.replace(old, new, 1))
    assert hint == status
    assert says in text


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x01\x02", b"GET / HTTP/1.1\r\n\r\n", b"SIP/2.0 99 x\r\n\r\n", b"SIP/3.0 200"]
)
def test_what_is_not_sip_is_not_answered(data: bytes) -> None:
    assert refused(data)[0] is None


def test_a_broken_response_is_not_answered() -> None:
    response = make_response(read_message(GOOD), 200).encode()  # type: ignore[arg-type]
    assert isinstance(good_message(response), Response)
    assert refused(response.replace(b"CSeq: 1", b"CSeq: 9292394834772304023312"))[0] is None


def test_a_response_takes_over_what_it_must() -> None:
    request = good_message(GOOD)
    assert isinstance(request, Request)
    response = make_response(request, 486, to_tag="mine")
    assert response.headers.get("via") == request.headers.get("via")
    assert response.to.tag == "mine"
    assert response.reason == "Busy Here"
    again = good_message(response.encode())
    assert again == response


def test_a_to_tag_is_not_added_twice() -> None:
    request = good_message(make_request(to_tag="there"))
    assert isinstance(request, Request)
    assert make_response(request, 200, to_tag="mine").to.tag == "there"


def test_line_breaks_never_leave_in_a_value() -> None:
    request = Request("BYE", "sip:a@b", Headers([("reason", "x\r\nInjected: y")]))
    with pytest.raises(LocalSipError):
        request.encode()
    with pytest.raises(LocalSipError):
        Response(200, "OK\r\nInjected: y", Headers()).encode()


def test_a_bare_carriage_return_from_the_peer_can_be_echoed() -> None:
    message = read_message(GOOD.replace(b"tag=caller", b"tag=cal\rler"))
    assert isinstance(message, Request)
    make_response(message, 400).encode()


def test_where_a_response_to_a_broken_via_goes() -> None:
    def port(via: str) -> int:
        return response_port(Request("INVITE", "sip:a@b", Headers([("via", via)])))

    assert port("SIP/2.0/UDP 192.0.2.15:5090;;,;,,") == 5090
    assert port("SIP/7.0/UDP c.example.com;branch=z9hG4bKkdjuw") == 5060
    assert port("rubbish") == 5060


names = st.sampled_from(["Via", "Route", "Contact", "Subject", "X-Thing", "Call-ID"])
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40).map(str.strip)


@given(st.lists(st.tuples(names, values), max_size=12), st.binary(max_size=60))
def test_parsing_undoes_serialising(items: list[tuple[str, str]], body: bytes) -> None:
    headers = Headers((name, value.strip(" \t")) for name, value in items)
    request = Request("INVITE", "sip:a@b", headers, body)
    again = read_message(request.encode())
    again.headers.set_all("content-length", [])
    again.body = again.body[: len(body)]
    assert again == request


@given(st.binary(max_size=400))
@example(b"INVITE sip:a@b SIP/2.0\r\n\r\n")
def test_random_bytes_raise_only_the_named_error(data: bytes) -> None:
    with contextlib.suppress(RemoteSipError):
        good_message(data)


@settings(max_examples=300)
@given(st.integers(0, len(GOOD)), st.binary(max_size=8), st.integers(0, 12))
def test_damaged_requests_raise_only_the_named_error(at: int, junk: bytes, cut: int) -> None:
    data = GOOD[:at] + junk + GOOD[at + cut :]
    try:
        message = good_message(data)
    except RemoteSipError:
        return
    assert message.call_id
    message.encode()
