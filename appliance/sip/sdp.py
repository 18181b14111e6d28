"""Session descriptions as peers write them (RFC 8866), as far as telephone audio needs them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.errors import RemoteSipError
from appliance.sip.sdes import MAX_LINES, Crypto, parse_crypto

MAX_BYTES = 16 * 1024
MAX_MEDIA = 32
MAX_FORMATS = 128

CODECS: Final = {"pcmu": 8000, "pcma": 8000, "g722": 8000, "opus": 48000}
"""The codecs of the box by name, and the RTP clock of each; G.722 has 8000 for its 16 kHz (RFC 3551 §4.5.2)."""

TELEPHONE_EVENT: Final = "telephone-event"
COMFORT_NOISE: Final = "cn"

_STATIC: Final = {0: ("pcmu", 8000), 8: ("pcma", 8000), 9: ("g722", 8000), 13: (COMFORT_NOISE, 8000)}
"""Payload types that need no rtpmap (RFC 3551 §6)."""

_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


@dataclass(frozen=True, slots=True)
class Media:
    """One m= section.

    ``host`` is "" where no usable address was given; ``rtpmap`` is payload type → (name, Hz). ``crypto`` holds the
    a=crypto lines that we could take. ``rtcp_port`` is 0 where none was named, so that RTCP goes to the one above.
    """

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    host: str = ""
    direction: str = "sendrecv"
    rtpmap: dict[int, tuple[str, int]] = field(default_factory=dict)
    ptime_ms: int = 0
    maxptime_ms: int = 0
    crypto: tuple[Crypto, ...] = ()
    rtcp_port: int = 0
    rtcp_mux: bool = False

    @property
    def held(self) -> bool:
        """Whether the address is the 0.0.0.0 with which RFC 2543 puts a call on hold."""
        return self.host in ("0.0.0.0", "::")

    @property
    def payload_types(self) -> list[int]:
        """The RTP payload types of the m= line, in its order."""
        return [int(f) for f in self.formats if f.isascii() and f.isdigit() and len(f) < 4 and int(f) < 128]

    def encoding(self, payload_type: int) -> tuple[str, int]:
        """What the payload type stands for, as (name in lower case, clock in Hz); ("", 0) where nothing says."""
        return self.rtpmap.get(payload_type) or _STATIC.get(payload_type, ("", 0))

    @property
    def effective_direction(self) -> str:
        """The direction, from the peer's side; the 0.0.0.0 of RFC 2543 means that it wants nothing from us."""
        if self.held:
            return {"sendrecv": "sendonly", "recvonly": "inactive"}.get(self.direction, self.direction)
        return self.direction


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What a peer wrote: its media sections in order."""

    media: tuple[Media, ...]


def parse_sdp(body: bytes) -> SessionDescription:
    """Read a description; lines we have no use for are skipped.

    Raises:
        RemoteSipError: 400 where it is no SDP.
    """
    if len(body) > MAX_BYTES:
        raise RemoteSipError(f"an SDP body of more than {MAX_BYTES} bytes", status_hint=413)
    lines = [line.rstrip("\r") for line in body.decode("utf-8", "replace").split("\n")]
    if not lines[0].startswith("v=0"):
        raise RemoteSipError("the SDP body does not begin with v=0")
    session_host, session_direction = "", "sendrecv"
    media: list[Media] = []
    for line in lines[1:]:
        kind, value = line[:2], line[2:].strip()
        if kind == "m=":
            if len(media) >= MAX_MEDIA:
                raise RemoteSipError(f"more than {MAX_MEDIA} media sections in the SDP body")
            media.append(replace(_media_line(value), host=session_host, direction=session_direction))
        elif kind == "c=":
            host = _connection(value)
            if media:
                media[-1] = replace(media[-1], host=host)
            else:
                session_host = host
        elif kind == "a=":
            if media:
                media[-1] = _attribute(media[-1], value)
            elif value in _DIRECTIONS:
                session_direction = value
    return SessionDescription(tuple(media))


def _media_line(value: str) -> Media:
    parts = value.split()
    if len(parts) < 4:
        raise RemoteSipError(f"a broken m= line in the SDP body: {value[:80]!r}")
    port = parts[1].partition("/")[0]
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise RemoteSipError(f"a broken port in the SDP body: {value[:80]!r}")
    return Media(parts[0].lower(), int(port), parts[2].upper(), tuple(parts[3 : 3 + MAX_FORMATS]))


def _connection(value: str) -> str:
    """The address of a c= line; "" for what media cannot be sent to: a host name, which would have to be looked up in
    DNS, or an IPv6 address with a zone, which means something on the peer's machine only (RFC 4007 §6).

    Raises:
        RemoteSipError: 488 for a group or broadcast address, which no telephone has.
    """
    parts = value.split()
    if len(parts) < 3 or parts[0].upper() != "IN":
        raise RemoteSipError(f"a broken c= line in the SDP body: {value[:80]!r}")
    text = parts[2].partition("/")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if address.is_multicast or text == "255.255.255.255":
        raise RemoteSipError(f"media to {text} is not for one telephone", status_hint=488)
    if getattr(address, "scope_id", None) is not None:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _attribute(media: Media, value: str) -> Media:
    name, _, detail = value.partition(":")
    if value in _DIRECTIONS:
        return replace(media, direction=value)
    if name == "rtpmap":
        number, _, encoding = detail.partition(" ")
        name_rate = encoding.strip().split("/")
        if number.isascii() and number.isdigit() and len(number) < 4 and len(name_rate) >= 2:
            rate = name_rate[1].strip()
            if rate.isascii() and rate.isdigit() and len(rate) < 8 and len(media.rtpmap) < MAX_FORMATS:
                media.rtpmap[int(number)] = (name_rate[0].strip().lower(), int(rate))
    elif name == "crypto":
        crypto = parse_crypto(detail) if len(media.crypto) < MAX_LINES else None
        return replace(media, crypto=(*media.crypto, crypto)) if crypto is not None else media
    elif name == "rtcp":
        port = detail.strip().partition(" ")[0]
        if port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536:
            return replace(media, rtcp_port=int(port))
    elif name == "rtcp-mux":
        return replace(media, rtcp_mux=True)
    elif name in ("ptime", "maxptime"):
        digits = detail.strip().partition(".")[0]
        if digits.isascii() and digits.isdigit() and len(digits) < 5:
            length_ms = int(digits)
            return replace(media, ptime_ms=length_ms) if name == "ptime" else replace(media, maxptime_ms=length_ms)
    return media
