"""SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import NamedTuple

from appliance.errors import RemoteSipError

TRANSPORTS = ("udp", "tcp", "tls")


class Peer(NamedTuple):
    """Where a message goes or came from.

    ``host`` is an IP address in text and ``transport`` "udp", "tcp" or "tls". ``flow`` names the connection (tcp,
    tls) or the listener (udp) the message came by, and so the one to send by while it lasts; where it is gone, and
    for 0, whichever reaches ``host`` and ``port`` will do. Two peers are the same only where all four are.
    """

    host: str
    port: int
    transport: str = "udp"
    flow: int = 0

    @property
    def reliable(self) -> bool:
        """Whether the transport delivers by itself."""
        return self.transport != "udp"

    def __str__(self) -> str:
        return f"{join_host_port(self.host, self.port)}/{self.transport}"


def reachable(target: Peer, seen: Peer) -> bool:
    """Whether a peer that speaks from ``seen`` may be reached at ``target``, as far as the addresses tell.

    Not at a private or shared (RFC 6598) address where it speaks from a wider network: it stands behind a NAT that
    does not rewrite SIP. Not at our own loopback, unless it speaks from there, and at no link's or group's address.
    """
    if target.transport not in TRANSPORTS:
        return False
    to, of = _address(target.host), _address(seen.host)
    if to.is_unspecified or to.is_multicast or to.is_link_local or str(to) == "255.255.255.255":
        return False
    if to.is_loopback and not of.is_loopback:
        return False
    return to.is_global or not (of.is_global or (to.is_private and not of.is_private))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


_SCHEME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SCHEME = _SCHEME_FIRST | frozenset("0123456789+-.")
_HOST = _SCHEME | frozenset("_")
_HEX = frozenset("0123456789abcdefABCDEF")

DEFAULT_PORT = 5060
DEFAULT_TLS_PORT = 5061


def scheme_of(text: str) -> str:
    """The scheme in lower case.

    Raises:
        RemoteSipError: where ``text`` does not begin with ``scheme:``.
    """
    scheme, colon, _ = text.partition(":")
    if not colon or not scheme or scheme[0] not in _SCHEME_FIRST or not _SCHEME.issuperset(scheme):
        raise RemoteSipError(f"not a URI: {text[:80]!r}")
    return scheme.lower()


def unescape(text: str) -> str:
    """Resolve %XX escapes (as UTF-8). A % that begins no escape is kept as it is."""
    if "%" not in text:
        return text
    out = bytearray()
    i = 0
    while i < len(text):
        if text[i] == "%" and _HEX.issuperset(pair := text[i + 1 : i + 3]) and len(pair) == 2:
            out.append(int(pair, 16))
            i += 3
        else:
            out += text[i].encode("utf-8", "surrogateescape")
            i += 1
    return out.decode("utf-8", "surrogateescape")


def split_host_port(text: str) -> tuple[str, int | None]:
    """``host``, ``host:port``, ``[v6]`` or ``[v6]:port``. The host comes back without brackets.

    Raises:
        RemoteSipError: for an impossible host or port.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            bracket = ""
        if not bracket or (rest and not rest.startswith(":")):
            raise RemoteSipError(f"not a host: {text[:80]!r}")
        port = rest[1:] if rest else None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
        if not host or not _HOST.issuperset(host):
            raise RemoteSipError(f"not a host: {text[:80]!r}")
    if port is None:
        return host, None
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise RemoteSipError(f"not a port: {text[:80]!r}")
    return host, int(port)


def join_host_port(host: str, port: int | None) -> str:
    """The opposite of :func:`split_host_port`."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


@dataclass(frozen=True, slots=True)
class SipUri:
    """One URI a request can be sent to.

    ``user`` is as written, escapes included (empty where there is none); :attr:`number` is what people read.
    ``params`` are lower-case names with their values, None for one without a value. For ``tel:`` the number is the
    user and the host is empty.
    """

    scheme: str
    user: str
    host: str
    port: int | None = None
    params: tuple[tuple[str, str | None], ...] = ()
    headers: str = ""

    @classmethod
    def parse(cls, text: str) -> SipUri:
        """Read one URI.

        Raises:
            RemoteSipError: where it is no URI; with status 416 where its scheme is none we know.
        """
        scheme = scheme_of(text)
        rest = text[len(scheme) + 1 :]
        if scheme == "tel":
            number, _, tail = rest.partition(";")
            if not number:
                raise RemoteSipError(f"a tel: URI without a number: {text[:80]!r}")
            return cls(scheme, number, "", None, _params(tail))
        if scheme not in ("sip", "sips"):
            raise RemoteSipError(f"cannot call a {scheme}: URI", status_hint=416)
        user, at, after = rest.rpartition("@")
        if at and not user:
            raise RemoteSipError(f"an empty user before the @: {text[:80]!r}")
        after, _, headers = after.partition("?")
        hostport, _, tail = after.partition(";")
        host, port = split_host_port(hostport)
        return cls(scheme, user, host, port, _params(tail), headers)

    @property
    def number(self) -> str:
        """The user part as a number or name: escapes resolved, password and user parameters (";...") left out."""
        return printable(unescape(self.user.split(";", 1)[0].split(":", 1)[0]))

    def param(self, name: str) -> str | None:
        """The value of a parameter, "" where it has none, None where it is absent."""
        for key, value in self.params:
            if key == name:
                return value or ""
        return None

    @property
    def transport(self) -> str:
        """The transport the URI asks for in lower case, "" where it leaves that open (RFC 3263 §4.1)."""
        named = (self.param("transport") or "").lower()
        if self.scheme == "sips":
            return "tls" if named in ("", "tcp") else named
        return named

    @property
    def effective_port(self) -> int:
        """The port as written, else the one that its transport implies."""
        return self.port or (DEFAULT_TLS_PORT if self.transport == "tls" else DEFAULT_PORT)

    def is_at(self, host: str) -> bool:
        """Whether its host is ``host``: the same name, or the same address."""
        return _canonical(self.host) == _canonical(host)

    def literal_address(self) -> Peer | None:
        """Where to send a request for this URI without asking DNS; None where the host is a name.

        A transport that is left open is UDP, as it is for every numeric host (RFC 3263 §4.1).
        """
        host = self.param("maddr") or self.host
        try:
            literal = str(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            return None
        return Peer(literal, self.effective_port, self.transport or "udp")

    def __str__(self) -> str:
        tail = "".join(f";{k}" if v is None else f";{k}={v}" for k, v in self.params)
        if self.scheme == "tel":
            return f"tel:{self.user}{tail}"
        user = f"{self.user}@" if self.user else ""
        headers = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{user}{join_host_port(self.host, self.port)}{tail}{headers}"


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def printable(text: str, limit: int = 256) -> str:
    """``text`` as valid Unicode without control characters, fit for a record, a log line or a metric."""
    clean = text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
    return "".join(c for c in clean[:limit] if c.isprintable())


def _params(tail: str) -> tuple[tuple[str, str | None], ...]:
    if not tail:
        return ()
    found: list[tuple[str, str | None]] = []
    for part in tail.split(";"):
        name, equals, value = part.partition("=")
        if not name or " " in part:
            raise RemoteSipError(f"a broken URI parameter: {part[:80]!r}")
        found.append((name.lower(), value if equals else None))
    return tuple(found)
