"""Session descriptions and the offer/answer model for telephone audio (RFC 8866, RFC 3264, RFC 4733 §2.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from appliance.errors import LocalSipError, RemoteSipError

MAX_BYTES = 16 * 1024
MAX_MEDIA = 32
MAX_FORMATS = 128

CODECS = {"pcmu": 0, "pcma": 8}
"""Names used inside the box, and their static payload types (RFC 3551 §6). Both are 8000 Hz, one channel."""

DTMF_PAYLOAD_TYPE = 101
"""What we offer for telephone-event."""

_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_MIRROR = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


@dataclass(frozen=True, slots=True)
class Media:
    """One m= section. ``host`` is "" where no usable address was given; ``rtpmap`` is payload type → (name, Hz)."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    host: str = ""
    direction: str = "sendrecv"
    rtpmap: dict[int, tuple[str, int]] = field(default_factory=dict)
    ptime_ms: int = 0
    maxptime_ms: int = 0

    @property
    def held(self) -> bool:
        """Whether the address is the 0.0.0.0 with which RFC 2543 puts a call on hold."""
        return self.host in ("0.0.0.0", "::")

    def codec(self, payload_type: int) -> str:
        """The codec's name in the box, "telephone-event", or "" for one we do not speak."""
        name, rate = self.rtpmap.get(payload_type, ("", 0))
        if not name:
            return next((codec for codec, static in CODECS.items() if static == payload_type), "")
        if rate != 8000:
            return ""
        return name if name in CODECS or name == "telephone-event" else ""


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What a peer wrote: its media sections in order."""

    media: tuple[Media, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an offer and its answer came to, seen from here.

    ``remote_host`` is "" where the peer named no address media can be sent to (hold by 0.0.0.0, or a host name).
    ``payload_type`` is what we put into packets; ``dtmf_payload_type`` is -1 without telephone-event.
    ``ptime_ms`` is the length of packet the peer wants. ``send`` and ``receive`` are this side's directions.
    """

    remote_host: str
    remote_port: int
    codec: str
    payload_type: int
    dtmf_payload_type: int
    ptime_ms: int
    send: bool
    receive: bool


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
    """The address of a c= line; "" for a host name, which media cannot be sent to without asking DNS.

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
    return str(address)


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
    elif name in ("ptime", "maxptime"):
        digits = detail.strip().partition(".")[0]
        if digits.isascii() and digits.isdigit() and len(digits) < 5:
            length_ms = int(digits)
            return replace(media, ptime_ms=length_ms) if name == "ptime" else replace(media, maxptime_ms=length_ms)
    return media


def _payload_types(media: Media) -> list[int]:
    return [int(f) for f in media.formats if f.isascii() and f.isdigit() and len(f) < 4]


def _packet_ms(media: Media) -> int:
    """The packet length to send: what the peer asks for where it is a whole number of our 20 ms frames."""
    wanted = media.ptime_ms if media.ptime_ms in (20, 40, 60) else 20
    if media.maxptime_ms >= 20:
        wanted = min(wanted, media.maxptime_ms // 20 * 20)
    return wanted


class LocalDescription:
    """Our side of one session: writes its offers and answers and keeps the o= version (RFC 3264 §5, §8).

    Args:
        session_id: a number the peer has not seen from us before.
        host: where our media is received.
        port: the RTP port there.
        codecs: names from :data:`CODECS` that may be used, best first.
    """

    def __init__(self, session_id: int, host: str, port: int, codecs: Sequence[str]) -> None:
        unknown = [codec for codec in codecs if codec not in CODECS]
        if unknown or not codecs:
            raise LocalSipError(f"codecs must be some of {', '.join(CODECS)}, not {', '.join(unknown) or 'none'}")
        self.host = host
        self.port = port
        self.codecs = tuple(codecs)
        self._session_id = session_id
        self._version = 0
        self._last = ""

    def offer(self) -> bytes:
        """A description with every codec, for a call of ours or an INVITE that came without an offer."""
        lines = [f"m=audio {self.port} RTP/AVP {' '.join(str(CODECS[c]) for c in self.codecs)} {DTMF_PAYLOAD_TYPE}"]
        lines += [f"a=rtpmap:{CODECS[c]} {c.upper()}/8000" for c in self.codecs]
        lines += _telephone_event(DTMF_PAYLOAD_TYPE)
        lines += ["a=ptime:20", "a=sendrecv"]
        return self._render(lines)

    def accept_answer(self, answer: SessionDescription) -> Agreement:
        """What the peer's answer to :meth:`offer` means.

        Raises:
            RemoteSipError: 488 where it accepts nothing of what was offered.
        """
        audio = next((m for m in answer.media if m.kind == "audio"), None)
        agreed = _agree(audio, self.codecs) if audio is not None and audio.port else None
        if audio is None or agreed is None:
            raise RemoteSipError("the answer accepts none of the codecs offered", status_hint=488)
        return agreed

    def answer(self, offer: SessionDescription) -> tuple[bytes, Agreement]:
        """The answer to an offer: one audio section with one codec; every other section is refused.

        Raises:
            RemoteSipError: 488 where there is no audio we can take part in.
        """
        chosen, agreed = choose(offer, self.codecs)
        lines: list[str] = []
        for media in offer.media:
            if media is not chosen:
                formats = " ".join(media.formats)
                lines.append(f"m={media.kind} 0 {media.protocol} {formats}")
                continue
            dtmf = agreed.dtmf_payload_type
            formats = str(agreed.payload_type) + (f" {dtmf}" if dtmf >= 0 else "")
            lines.append(f"m=audio {self.port} RTP/AVP {formats}")
            lines.append(f"a=rtpmap:{agreed.payload_type} {agreed.codec.upper()}/8000")
            if dtmf >= 0:
                lines += _telephone_event(dtmf)
            lines.append("a=ptime:20")
            lines.append(f"a={_MIRROR[_effective_direction(media)]}")
        return self._render(lines), agreed

    def _render(self, lines: list[str]) -> bytes:
        content = "\r\n".join(lines)
        if content != self._last:
            self._version += 1
            self._last = content
        family = "IP6" if ":" in self.host else "IP4"
        return (
            f"v=0\r\no=- {self._session_id} {self._version} IN {family} {self.host}\r\ns=-\r\n"
            f"c=IN {family} {self.host}\r\nt=0 0\r\n{content}\r\n"
        ).encode("utf-8", "replace")


def choose(offer: SessionDescription, codecs: Sequence[str]) -> tuple[Media, Agreement]:
    """The audio section of ``offer`` we can take part in, in the offerer's order of codecs.

    Raises:
        RemoteSipError: 488 where there is none.
    """
    for media in offer.media:
        if media.kind == "audio" and media.port and media.protocol == "RTP/AVP":
            agreed = _agree(media, codecs)
            if agreed is not None:
                return media, agreed
    raise RemoteSipError(f"no common codec: we speak {', '.join(codecs)} over RTP/AVP", status_hint=488)


def _agree(media: Media, codecs: Sequence[str]) -> Agreement | None:
    dtmf = -1
    voice: tuple[str, int] | None = None
    for payload_type in _payload_types(media):
        codec = media.codec(payload_type)
        if codec == "telephone-event":
            dtmf = payload_type if dtmf < 0 else dtmf
        elif codec in codecs and voice is None:
            voice = (codec, payload_type)
    if voice is None:
        return None
    theirs = _effective_direction(media)
    return Agreement(
        remote_host="" if media.held else media.host,
        remote_port=media.port,
        codec=voice[0],
        payload_type=voice[1],
        dtmf_payload_type=dtmf,
        ptime_ms=_packet_ms(media),
        send=theirs in ("sendrecv", "recvonly"),
        receive=theirs in ("sendrecv", "sendonly"),
    )


def _effective_direction(media: Media) -> str:
    """The offerer's direction; the 0.0.0.0 of RFC 2543 means that it wants nothing from us."""
    if media.held:
        return {"sendrecv": "sendonly", "recvonly": "inactive"}.get(media.direction, media.direction)
    return media.direction


def _telephone_event(payload_type: int) -> list[str]:
    return [f"a=rtpmap:{payload_type} telephone-event/8000", f"a=fmtp:{payload_type} 0-15"]


def dtmf_from_info(content_type: str, body: bytes) -> str:
    """The key in an INFO body of ``application/dtmf-relay`` or ``application/dtmf``; "" where there is none.

    These bodies come from practice, not from an RFC: ``Signal=5`` lines, or the key alone.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    text = body[:256].decode("ascii", "replace")
    key = ""
    if media_type == "application/dtmf-relay":
        for line in text.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip().lower() == "signal":
                key = value.strip().upper()
    elif media_type == "application/dtmf":
        key = text.strip().upper()
    key = {"10": "*", "11": "#"}.get(key, key)
    return key if len(key) == 1 and key in "0123456789*#ABCD" else ""
