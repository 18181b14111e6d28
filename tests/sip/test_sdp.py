from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteSipError
from appliance.sip.sdes import SUITES, parse_crypto
from appliance.sip.sdp import Media, parse_sdp

HEAD = "v=0\r\nc=IN IP4 192.0.2.1\r\n"
KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"


def audio(lines: str) -> Media:
    return parse_sdp((HEAD + lines).encode()).media[0]


def test_payload_types_mean_what_rtpmap_or_the_profile_says() -> None:
    media = audio(
        "m=audio 4000 RTP/AVP 0 8 9 13 18 97 98 999 x\r\na=rtpmap:97 opus/48000/2\r\na=rtpmap:8 PCMA/16000\r\n"
    )
    assert media.payload_types == [0, 8, 9, 13, 18, 97, 98]
    assert [media.encoding(number) for number in media.payload_types] == [
        ("pcmu", 8000),
        ("pcma", 16000),
        ("g722", 8000),
        ("cn", 8000),
        ("", 0),
        ("opus", 48000),
        ("", 0),
    ]


def test_where_rtcp_goes() -> None:
    assert audio("m=audio 4000 RTP/AVP 0\r\na=rtcp:53020 IN IP4 126.16.64.4\r\n").rtcp_port == 53020
    assert audio("m=audio 4000 RTP/AVP 0\r\na=rtcp:x\r\na=rtcp:99999\r\n").rtcp_port == 0
    assert audio("m=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n").rtcp_mux


def test_no_more_crypto_lines_are_kept_than_anybody_needs() -> None:
    line = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"
    assert len(audio("m=audio 4000 RTP/SAVP 0\r\n" + line * 100).crypto) == 16


@pytest.mark.parametrize(
    "value",
    [
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20",
        f"123456789 aes_cm_128_hmac_sha1_32 INLINE:{KEY} WSH=64",
        f"2 AEAD_AES_128_GCM inline:{KEY[:37]}",
        f"2 AEAD_AES_128_GCM inline:{KEY[:37]}A==",
    ],
)
def test_crypto_lines_we_take(value: str) -> None:
    if value.endswith(KEY[:37]):
        value += "A"
    crypto = parse_crypto(value)
    assert crypto is not None and crypto.suite in SUITES
    assert KEY not in repr(crypto)
    assert parse_crypto(crypto.line.removeprefix("a=crypto:")) == crypto


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"x AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
        f"1 F8_128_HMAC_SHA1_80 inline:{KEY}",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY[:-4]}",
        "1 AES_CM_128_HMAC_SHA1_80 inline:not base64",
        f"1 AES_CM_128_HMAC_SHA1_80 prompt:{KEY}",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4;inline:{KEY}|2^20|2:4",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=1",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} SOMETHING_NEW",
    ],
)
def test_crypto_lines_we_cannot_honour(value: str) -> None:
    assert parse_crypto(value) is None


@pytest.mark.parametrize("body", ["m=audio\r\n", "m=audio x RTP/AVP 0\r\n", "m=audio 70000 RTP/AVP 0\r\n", "c=IN\r\n"])
def test_broken_sdp_is_400(body: str) -> None:
    with pytest.raises(RemoteSipError) as caught:
        audio(body)
    assert caught.value.status_hint == 400


def test_what_is_no_sdp() -> None:
    for body in (b"", b"hello", b"\xff\xfe"):
        with pytest.raises(RemoteSipError) as caught:
            parse_sdp(body)
        assert caught.value.status_hint == 400
    with pytest.raises(RemoteSipError) as caught:
        parse_sdp(b"v=0\r\n" + b"a=x\r\n" * 10_000)
    assert caught.value.status_hint == 413


@given(st.text(max_size=60) | st.from_regex(r"\A[0-9]{1,3} [A-Z_0-9]{0,24} inline:[A-Za-z0-9+/=|:;^]{0,50}\Z"))
def test_any_crypto_line_is_read_or_refused(value: str) -> None:
    crypto = parse_crypto(value)
    assert crypto is None or parse_crypto(crypto.line.removeprefix("a=crypto:")) == crypto


@pytest.mark.parametrize("zone", ["eth0", "a\x00b", "é", "1"])
def test_an_ipv6_address_with_a_zone_is_no_address_for_media(zone: str) -> None:
    body = f"v=0\r\nc=IN IP6 fe80::1%{zone}\r\nm=audio 4000 RTP/AVP 0\r\n"
    assert parse_sdp(body.encode()).media[0].host == ""
