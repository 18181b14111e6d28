"""SRTP with the keys that SDP carries; the cipher itself is libsrtp's and is tested there."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import RtpError
from appliance.rtp import packet, rtcp
from appliance.rtp.srtp import SUITES, SrtpContext


def keying(suite: str, key: bytes | None = None) -> str:
    return f"{suite} {base64.b64encode(key or os.urandom(SUITES[suite][1])).decode()}"


def pair(suite: str = "AES_CM_128_HMAC_SHA1_80") -> tuple[SrtpContext, SrtpContext]:
    words = keying(suite)
    return SrtpContext(words, inbound=False), SrtpContext(words, inbound=True)


@pytest.mark.parametrize(
    ("suite", "tag"), [("AES_CM_128_HMAC_SHA1_80", 10), ("AES_CM_128_HMAC_SHA1_32", 4), ("AEAD_AES_128_GCM", 16)]
)
def test_what_is_protected_comes_out_again(suite: str, tag: int) -> None:
    tx, rx = pair(suite)
    for number in range(65530, 65530 + 20):
        plain = packet.build(0, number & 0xFFFF, number * 160, 7, bytes(range(160)))
        secret = tx.protect(plain)
        assert len(secret) == len(plain) + tag
        assert secret[12:172] != plain[12:]
        assert rx.unprotect(secret) == plain
    report = rtcp.build(7, "box", None)
    assert rx.unprotect_rtcp(tx.protect_rtcp(report)) == report
    assert (rx.failures, rx.replayed) == (0, 0)


def test_a_changed_packet_a_replay_and_plain_rtp_are_told_apart() -> None:
    tx, rx = pair()
    plain = packet.build(0, 1, 160, 7, bytes(160))
    secret = tx.protect(plain)
    for broken in (secret[:-1] + bytes([secret[-1] ^ 1]), plain, secret[:20], b"", os.urandom(300)):
        with pytest.raises(RtpError):
            rx.unprotect(broken)
    assert (rx.failures, rx.replayed) == (5, 0)
    rx.unprotect(secret)
    with pytest.raises(RtpError, match="replay"):
        rx.unprotect(secret)
    assert (rx.failures, rx.replayed) == (5, 1)


def test_a_packet_too_long_for_us_is_refused_not_raised() -> None:
    _, rx = pair()
    with pytest.raises(RtpError):
        rx.unprotect(bytes(2048))
    with pytest.raises(RtpError):
        rx.unprotect_rtcp(bytes(2048))


def test_a_peer_that_changes_its_stream_all_the_time_takes_no_more_memory() -> None:
    tx, rx = pair()
    for ssrc in range(200):
        plain = packet.build(0, 1, 160, ssrc, bytes(20))
        assert rx.unprotect(tx.protect(plain)) == plain
        assert len(rx._streams) <= 8


@pytest.mark.parametrize("rtcp_too", [False, True])
def test_the_stream_in_use_goes_on_after_a_rollover_whatever_others_come(rtcp_too: bool) -> None:
    """A stream that libsrtp has forgotten begins with rollover counter 0, and nothing of it authenticates."""
    tx, rx = pair()
    for number in range(65530, 65536 + 40):
        plain = packet.build(0, number & 0xFFFF, number * 160, 7, bytes(20))
        assert rx.unprotect(tx.protect(plain)) == plain
        if number >= 65536:
            rx.unprotect(tx.protect(packet.build(0, 1, 160, 1000 + number, bytes(20))))
            if rtcp_too:
                rx.unprotect_rtcp(tx.protect_rtcp(rtcp.build(2000 + number, "x", None)))
    assert rx.failures == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("F8_128_HMAC_SHA1_80 " + base64.b64encode(bytes(30)).decode(), "no SRTP suite"),
        ("AES_CM_128_HMAC_SHA1_80 " + base64.b64encode(bytes(28)).decode(), "28 bytes; it takes 30"),
        ("AES_CM_128_HMAC_SHA1_80 ***", "not base64"),
        ("", "no SRTP suite"),
    ],
)
def test_keys_that_cannot_be_are_refused_by_name(words: str, why: str) -> None:
    with pytest.raises(RtpError, match=why):
        SrtpContext(words, inbound=True)


@settings(max_examples=200)
@given(st.binary(max_size=1600))
def test_no_input_raises_anything_else(data: bytes) -> None:
    rx = SrtpContext(keying("AEAD_AES_128_GCM", bytes(28)), inbound=True)
    for check in (rx.unprotect, rx.unprotect_rtcp):
        with pytest.raises(RtpError):
            check(data)
