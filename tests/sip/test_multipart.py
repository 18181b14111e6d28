"""Which part of a body is the session description."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteSipError
from appliance.sip.multipart import MAX_PARTS, find_sdp, parts_of

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"
MIXED = 'multipart/mixed; boundary="b1"'
INNER = b"multipart/mixed;boundary=b2"
DEEPEST = b"multipart/mixed;boundary=b3"


def body_of(*parts: bytes, boundary: bytes = b"b1", end: bytes = b"\r\n") -> bytes:
    return b"".join(b"--" + boundary + end + part + end for part in parts) + b"--" + boundary + b"--" + end


def part(media_type: bytes, data: bytes, extra: bytes = b"") -> bytes:
    return b"Content-Type: " + media_type + b"\r\n" + extra + b"\r\n" + data


def test_the_sdp_is_found_beside_what_a_carrier_adds() -> None:
    isup = part(
        b"application/isup;version=nxv3",
        b"\x01\x00\r\n--b\r\n\r\n",
        b"Content-Disposition: signal;handling=optional\r\n",
    )
    assert find_sdp(MIXED, body_of(isup, part(b"application/sdp", SDP))) == SDP
    assert (
        find_sdp("multipart/mixed;boundary=b1", b"preamble\r\n" + body_of(part(b"Application/SDP", SDP), isup)) == SDP
    )
    assert find_sdp("application/sdp", SDP) == SDP
    assert find_sdp("text/plain", SDP) == b""
    assert find_sdp(MIXED, body_of(isup)) == b""
    assert find_sdp(MIXED, b"") == b""


def test_a_boundary_that_begins_like_another_is_another() -> None:
    inner = body_of(part(b"application/sdp", SDP), boundary=b"b1-inner")
    assert find_sdp(MIXED, body_of(part(b"multipart/alternative;boundary=b1-inner", inner))) == SDP


def test_bare_line_feeds_and_a_missing_end_are_forgiven() -> None:
    body = body_of(b"Content-Type: application/sdp\n\n" + SDP, end=b"\n")
    assert find_sdp(MIXED, body) == SDP
    assert find_sdp(MIXED, body_of(part(b"application/sdp", SDP)).removesuffix(b"\r\n--b1--\r\n")) == SDP


def test_what_must_be_understood_and_is_not_is_refused() -> None:
    needed = part(b"application/vnd.x", b"?", b"Content-Disposition: session;handling=required\r\n")
    with pytest.raises(RemoteSipError, match="required to be understood") as caught:
        find_sdp(MIXED, body_of(part(b"application/sdp", SDP), needed))
    assert caught.value.status_hint == 415


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/mixed", body_of(part(b"text/plain", b"x"))),
        (MIXED, b"no parts at all"),
        (MIXED, body_of(*[part(b"text/plain", b"x")] * (MAX_PARTS + 1))),
        (MIXED, body_of(part(INNER, body_of(part(DEEPEST, b"--b3\r\n\r\nx"), boundary=b"b2")))),
    ],
    ids=["no boundary", "no parts", "too many", "too deep"],
)
def test_a_broken_multipart_body_is_a_bad_request(content_type: str, body: bytes) -> None:
    with pytest.raises(RemoteSipError) as caught:
        parts_of(content_type, body)
    assert caught.value.status_hint == 400


@given(st.text(max_size=60), st.binary(max_size=2000))
def test_nothing_but_the_named_error_escapes(tail: str, body: bytes) -> None:
    with contextlib.suppress(RemoteSipError):
        find_sdp(f"multipart/mixed;boundary=b1;{tail}", body.replace(b"\0", b"\r\n--b1\r\n"))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=MAX_PARTS))
def test_every_part_comes_back_as_it_went_in(data: list[bytes]) -> None:
    body = body_of(*[part(b"application/x", d) for d in data], boundary=b"7aa0-unlikely-44f1")
    assert [p.data for p in parts_of("multipart/mixed;boundary=7aa0-unlikely-44f1", body)] == data
