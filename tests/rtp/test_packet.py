from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RtpError
from appliance.rtp import packet


def test_reads_what_it_wrote() -> None:
    data = packet.build(8, 65535, 2**32 - 1, 0xDEADBEEF, b"\xd5" * 160, marker=True)
    assert packet.parse(data) == packet.RtpPacket(8, True, 65535, 2**32 - 1, 0xDEADBEEF, b"\xd5" * 160)


def test_numbers_wrap_when_written() -> None:
    parsed = packet.parse(packet.build(0, 65536 + 3, 2**32 + 160, 1, b""))
    assert (parsed.seq, parsed.timestamp, parsed.payload) == (3, 160, b"")


def test_the_header_is_the_plain_one() -> None:
    assert packet.build(101, 7, 8, 9, b"\xaa", marker=True) == bytes.fromhex("80e500070000000800000009") + b"\xaa"


def test_contributing_sources_extension_and_padding_are_removed() -> None:
    data = bytes.fromhex("b2000001000000a000000001") + bytes(8) + bytes.fromhex("bede0001aabbccdd") + b"hello\0\0\3"
    assert packet.parse(data).payload == b"hello"


def test_padding_alone_is_an_empty_payload() -> None:
    assert packet.parse(bytes.fromhex("a0000001000000a000000001") + b"\0\0\0\4").payload == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short"),
        (bytes(11), "too short"),
        (bytes.fromhex("000100002112a442") + bytes(12), "version 2"),
        (bytes.fromhex("16fefd0000000000000000") + bytes(12), "version 2"),
        (bytes.fromhex("80c80006") + bytes(24), "RTCP"),
        (bytes.fromhex("81c90007") + bytes(24), "RTCP"),
        (bytes.fromhex("8f000001000000a000000001") + bytes(8), "do not fit"),
        (bytes.fromhex("90000001000000a000000001") + bytes(3), "does not fit"),
        (bytes.fromhex("90000001000000a000000001") + bytes.fromhex("bede0002aabbccdd"), "do not fit"),
        (bytes.fromhex("a0000001000000a000000001"), "padding"),
        (bytes.fromhex("a0000001000000a000000001") + b"\0\0\0", "padding"),
        (bytes.fromhex("a0000001000000a000000001") + b"\0\0\4", "padding"),
    ],
)
def test_refuses_what_is_not_rtp(data: bytes, reason: str) -> None:
    with pytest.raises(RtpError, match=reason):
        packet.parse(data)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"\xb1" + tail))
def test_any_datagram_is_a_packet_or_an_rtp_error(data: bytes) -> None:
    try:
        parsed = packet.parse(data)
    except RtpError:
        return
    assert len(parsed.payload) <= len(data) - packet.HEADER_BYTES
    assert 0 <= parsed.payload_type < 128
