"""The structured header fields: Via, From/To/Contact/Route, CSeq (RFC 3261 §20, §25)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from appliance.errors import RemoteSipError
from appliance.sip.uri import SipUri, join_host_port, printable, scheme_of, split_host_port

MAGIC_COOKIE = "z9hG4bK"
"""Begins every branch made by RFC 3261 (§8.1.1.7); a branch without it says nothing about the transaction."""

_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~")


def is_token(text: str) -> bool:
    """Whether ``text`` is an RFC 3261 §25.1 token."""
    return bool(text) and _TOKEN.issuperset(text)


def split_quoted(text: str, separator: str) -> list[str]:
    """Split at ``separator`` outside quoted strings and angle brackets; parts are stripped and may be empty.

    Raises:
        RemoteSipError: where a quote or an angle bracket is never closed.
    """
    if '"' not in text and "<" not in text:
        return [part.strip() for part in text.split(separator)]
    parts: list[str] = []
    start = i = 0
    quoted = angled = False
    end = len(text)
    while i < end:
        c = text[i]
        if quoted:
            if c == "\\":
                i += 1
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c == "<":
            angled = True
        elif c == ">":
            angled = False
        elif c == separator and not angled:
            parts.append(text[start:i].strip())
            start = i + 1
        i += 1
    if quoted or angled:
        raise RemoteSipError(f"an unclosed quote or bracket: {text[:80]!r}")
    parts.append(text[start:].strip())
    return parts


def split_values(lines: Iterable[str]) -> list[str]:
    """The elements of a comma-separated header over all its lines.

    Raises:
        RemoteSipError: for an empty element or an unclosed quote.
    """
    values: list[str] = []
    for line in lines:
        if "," not in line:
            values.append(line)
        else:
            values += split_quoted(line, ",")
    if "" in values:
        raise RemoteSipError("an empty element in a list of header values")
    return values


def tokens(lines: Iterable[str]) -> list[str]:
    """Option tags, methods and media ranges of a list header, parameters left out; empty elements are skipped."""
    return [token for line in lines for part in line.split(",") if (token := part.partition(";")[0].strip())]


def parse_params(parts: Iterable[str]) -> dict[str, str | None]:
    """``name=value`` parts as a mapping with lower-case names; a value keeps its quotes.

    Raises:
        RemoteSipError: for an empty part.
    """
    params: dict[str, str | None] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.rstrip().lower()
        if not name or " " in name or "\t" in name:
            raise RemoteSipError(f"a broken header parameter: {part[:80]!r}")
        params[name] = value.lstrip() if equals else None
    return params


def _render(params: Mapping[str, str | None]) -> str:
    return "".join(f";{k}" if v is None else f";{k}={v}" for k, v in params.items())


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of the way a response takes back (RFC 3261 §20.42, RFC 3581)."""

    transport: str
    host: str
    port: int | None
    params: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Via:
        """Read one element.

        Raises:
            RemoteSipError: where it cannot be one.
        """
        head, *rest = split_quoted(text, ";")
        protocol, _, tail = head.partition("/")
        version, slash, tail = tail.partition("/")
        transport_sent_by = tail.split(None, 1)
        if not slash or protocol.strip().upper() != "SIP" or not version.strip() or len(transport_sent_by) != 2:
            raise RemoteSipError(f"a broken Via: {text[:80]!r}")
        transport, sent_by = transport_sent_by
        if not is_token(transport):
            raise RemoteSipError(f"a broken transport in Via: {text[:80]!r}")
        host, port = split_host_port(":".join(part.strip() for part in sent_by.split(":")))
        return cls(transport.upper(), host, port, parse_params(rest))

    @property
    def branch(self) -> str:
        """The transaction's identifier, "" where there is none."""
        return self.params.get("branch") or ""

    @property
    def sent_by(self) -> str:
        """``host:port`` in lower case, as transactions are matched by it."""
        return join_host_port(self.host.lower(), self.port or 5060)

    def __str__(self) -> str:
        return f"SIP/2.0/{self.transport} {join_host_port(self.host, self.port)}{_render(self.params)}"


@dataclass(frozen=True, slots=True)
class NameAddr:
    """The value of From, To, Contact, Route or Record-Route. ``uri`` is as written."""

    display: str
    uri: str
    params: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Read one element: ``"Name" <uri>;params``, ``<uri>;params`` or ``uri;params``.

        Raises:
            RemoteSipError: where it cannot be one.
        """
        if '"' not in text and "<" not in text:
            uri, *rest = split_quoted(text, ";")
            display = ""
            if any(c in uri for c in "?, \t"):
                raise RemoteSipError(f"a URI with ? , or spaces must stand in <>: {text[:80]!r}")
        else:
            display, inner, tail = _split_name_addr(text)
            uri = inner.strip()
            rest = split_quoted(tail, ";")
            if rest[0]:
                raise RemoteSipError(f"something between > and ;: {text[:80]!r}")
            del rest[0]
        scheme_of(uri)
        return cls(display, uri, parse_params(rest) if rest else {})

    @property
    def tag(self) -> str | None:
        """The dialog tag of this side, None where there is none."""
        return self.params.get("tag") or None

    def sip_uri(self) -> SipUri:
        """The URI in parts.

        Raises:
            RemoteSipError: where it is no SIP, SIPS or tel URI.
        """
        return SipUri.parse(self.uri)

    @property
    def number(self) -> str:
        """The number or user name for people, the whole URI where it has none."""
        try:
            return self.sip_uri().number or printable(self.uri)
        except RemoteSipError:
            return printable(self.uri)

    def __str__(self) -> str:
        quoted = self.display.replace("\\", "\\\\").replace('"', '\\"')
        shown = f'"{quoted}" ' if self.display else ""
        return f"{shown}<{self.uri}>{_render(self.params)}"


def _split_name_addr(text: str) -> tuple[str, str, str]:
    """(display name unquoted, what is in <>, what follows >)."""
    stripped = text.lstrip()
    if stripped.startswith('"'):
        i = 1
        name: list[str] = []
        while i < len(stripped) and stripped[i] != '"':
            if stripped[i] == "\\":
                i += 1
            name.append(stripped[i : i + 1])
            i += 1
        if i >= len(stripped):
            raise RemoteSipError(f"an unclosed quote: {text[:80]!r}")
        display, rest = "".join(name), stripped[i + 1 :].lstrip()
        if not rest.startswith("<"):
            raise RemoteSipError(f"a quoted name without <uri>: {text[:80]!r}")
        rest = rest[1:]
    else:
        display, bracket, rest = stripped.partition("<")
        display = display.strip()
        if not bracket or '"' in display:
            raise RemoteSipError(f"unbalanced quotes: {text[:80]!r}")
    inner, closed, tail = rest.partition(">")
    if not closed:
        raise RemoteSipError(f"an unclosed <: {text[:80]!r}")
    return display, inner, tail


@dataclass(frozen=True, slots=True)
class CSeq:
    """Sequence number and method (RFC 3261 §20.16)."""

    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> CSeq:
        """Read the value.

        Raises:
            RemoteSipError: where it is not ``number method`` with a number below 2**31.
        """
        parts = text.split()
        if len(parts) != 2 or not is_number(parts[0], 2**31 - 1) or not is_token(parts[1]):
            raise RemoteSipError(f"a broken CSeq: {text[:80]!r}")
        return cls(int(parts[0]), parts[1])


def is_number(text: str, largest: int) -> bool:
    """Whether ``text`` is only decimal digits and at most ``largest``."""
    return text.isascii() and text.isdigit() and len(text) < 32 and int(text) <= largest
