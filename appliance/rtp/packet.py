"""RTP packets (RFC 3550 §5.1): read any, write the plain 12-byte header.

Reading is strict about what is not RTP: an RTP port also hears STUN, DTLS, RTCP multiplexed by a confused peer and
whatever a scanner sends. All of that is :class:`~appliance.errors.RtpError`, never another exception.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from appliance.errors import RtpError

HEADER_BYTES: Final = 12
_HEADER: Final = struct.Struct("!BBHII")
_PLAIN: Final = 0x80
_unpack_header = _HEADER.unpack_from
_new_tuple = tuple.__new__


class RtpPacket(NamedTuple):
    """One packet. ``timestamp`` counts samples (8 kHz for G.711 and telephone-event) modulo 2**32."""

    payload_type: int
    marker: bool
    seq: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse(data: bytes) -> RtpPacket:
    """The packet in a datagram, padding, contributing sources and header extension removed.

    Raises:
        RtpError: if it is not an RTP packet: too short, another version, RTCP (second octet 192 to 223, RFC 5761
            §4), a length that does not fit, or padding that does not.
    """
    if len(data) < HEADER_BYTES:
        raise RtpError(f"{len(data)} bytes are too short for an RTP header")
    first, second, seq, timestamp, ssrc = _unpack_header(data)
    if 192 <= second <= 223:
        raise RtpError(f"RTCP packet type {second} on the RTP port")
    payload = data[HEADER_BYTES:] if first == _PLAIN else _payload(data, first)
    return _new_tuple(RtpPacket, (second & 0x7F, second >= 128, seq, timestamp, ssrc, payload))


def _payload(data: bytes, first: int) -> bytes:
    """The payload of a packet whose first octet says that the header is not the plain one."""
    if first >> 6 != 2:
        raise RtpError(f"first octet 0x{first:02x} is not RTP version 2 (STUN, DTLS or noise)")
    start = HEADER_BYTES + 4 * (first & 0x0F)
    end = len(data)
    if first & 0x10:
        if start + 4 > end:
            raise RtpError("the header extension does not fit in the datagram")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if start > end:
        raise RtpError("contributing sources or the header extension do not fit in the datagram")
    if first & 0x20:
        padding = data[-1] if end > start else 0
        if padding == 0 or padding > end - start:
            raise RtpError("the padding count does not fit the packet")
        end -= padding
    return data[start:end]


def build(payload_type: int, seq: int, timestamp: int, ssrc: int, payload: bytes, marker: bool = False) -> bytes:
    """A whole packet with a plain header; ``seq`` and ``timestamp`` may run past 16 and 32 bits."""
    second = payload_type | 0x80 if marker else payload_type
    return _HEADER.pack(_PLAIN, second, seq & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload
