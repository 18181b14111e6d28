"""Requests and responses as bytes and back (RFC 3261 §7).

Reading is in two steps, because a request that breaks a rule must still be answered: :func:`read_message` finds the
parts of anything that looks like SIP and notes the first rule it breaks in ``defect``, which whoever takes the message
must look at. What is tolerated and what is not follows RFC 4475.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.headers import CSeq, NameAddr, Via, is_number, is_token, split_values
from appliance.sip.multipart import find_sdp
from appliance.sip.uri import DEFAULT_PORT, scheme_of, split_host_port

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADER_LINES = 256

METHODS = frozenset(
    (
        "INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "PRACK", "SUBSCRIBE", "NOTIFY", "PUBLISH", "INFO",
        "REFER", "MESSAGE", "UPDATE",
    )
)  # fmt: skip
"""Every method that an RFC defines, supported here or not."""

_COMPACT = {
    "a": "accept-contact", "b": "referred-by", "c": "content-type", "d": "request-disposition",
    "e": "content-encoding", "f": "from", "i": "call-id", "j": "reject-contact", "k": "supported",
    "l": "content-length", "m": "contact", "n": "identity-info", "o": "event", "r": "refer-to", "s": "subject",
    "t": "to", "u": "allow-events", "v": "via", "x": "session-expires", "y": "identity",
}  # fmt: skip

_PRETTY = {
    "call-id": "Call-ID", "cseq": "CSeq", "www-authenticate": "WWW-Authenticate", "mime-version": "MIME-Version",
    "rseq": "RSeq", "rack": "RAck", "min-se": "Min-SE", "user-to-user": "User-to-User",
}  # fmt: skip
"""Spellings that are not a capital after each hyphen; there are peers that look for these letters exactly."""

_SINGLE = ("from", "to", "call-id", "cseq", "max-forwards", "content-length", "content-type")
"""May come once only: two of them could be read differently by two boxes (RFC 4475 §3.3.8, §3.3.9)."""

REASONS = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 183: "Session Progress", 200: "OK",
    202: "Accepted", 302: "Moved Temporarily", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required",
    408: "Request Timeout", 410: "Gone", 413: "Request Entity Too Large", 415: "Unsupported Media Type",
    416: "Unsupported URI Scheme", 420: "Bad Extension", 422: "Session Interval Too Small",
    469: "Bad Info Package", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist",
    482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete", 486: "Busy Here",
    487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending",
    500: "Server Internal Error", 501: "Not Implemented", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 600: "Busy Everywhere", 603: "Decline",
}  # fmt: skip


def reason_phrase(status: int) -> str:
    """The usual words for a status code."""
    return REASONS.get(status) or {1: "Progress", 2: "OK", 3: "Moved", 4: "Refused", 5: "Failed"}.get(
        status // 100, "Declined"
    )


class Headers:
    """Header fields by name, in any case and compact form; values of one name keep their order."""

    __slots__ = ("_values",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self.add(name, value)

    @staticmethod
    def key(name: str) -> str:
        """The one spelling under which a header is kept."""
        lower = name.lower()
        return _COMPACT.get(lower, lower)

    def add(self, name: str, value: str) -> None:
        """Append one more line of this header."""
        self._values.setdefault(self.key(name), []).append(value)

    def set(self, name: str, value: str) -> None:
        """Replace all lines of this header by one."""
        self._values[self.key(name)] = [value]

    def set_all(self, name: str, values: Iterable[str]) -> None:
        """Replace all lines of this header; none at all removes it."""
        lines = list(values)
        if lines:
            self._values[self.key(name)] = lines
        else:
            self._values.pop(self.key(name), None)

    def get(self, name: str) -> str | None:
        """The first line, None where the header is absent."""
        lines = self._values.get(self.key(name))
        return lines[0] if lines else None

    def get_all(self, name: str) -> list[str]:
        """Every line of this header (a copy is not made)."""
        return self._values.get(self.key(name), [])

    def __contains__(self, name: str) -> bool:
        return self.key(name) in self._values

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for key, lines in self._values.items():
            name = _PRETTY.get(key) or "-".join(part.capitalize() for part in key.split("-"))
            for line in lines:
                yield name, line

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._values == other._values

    def __hash__(self) -> int:
        raise TypeError("headers change and cannot be a key")

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"


def _encode(start: str, headers: Headers, body: bytes) -> bytes:
    if "\r" in start or "\n" in start:
        raise LocalSipError("a line break in the first line; take it out before building the message")
    lines = [start]
    for name, value in headers:
        if name == "Content-Length":
            continue
        if "\r" in value or "\n" in value:
            raise LocalSipError(f"a line break in the value of {name}; take it out before building the message")
        lines.append(f"{name}: {value}")
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


class _Parsed:
    """The header values every message needs, read on first use and kept.

    Each property raises RemoteSipError where the value is broken; none does where ``defect`` is None.
    """

    headers: Headers
    body: bytes

    @cached_property
    def sdp(self) -> bytes:
        """The session description of the body, which may be one part of several; b"" where there is none."""
        try:
            return find_sdp(self.headers.get("content-type") or "", self.body)
        except RemoteSipError:
            return b""

    @cached_property
    def vias(self) -> tuple[Via, ...]:
        """All Via elements, topmost first."""
        return tuple(Via.parse(value) for value in split_values(self.headers.get_all("via")))

    @property
    def via(self) -> Via:
        """The topmost Via."""
        return self.vias[0]

    @cached_property
    def from_(self) -> NameAddr:
        return NameAddr.parse(self.headers.get("from") or "")

    @cached_property
    def to(self) -> NameAddr:
        return NameAddr.parse(self.headers.get("to") or "")

    @cached_property
    def cseq(self) -> CSeq:
        return CSeq.parse(self.headers.get("cseq") or "-")

    @property
    def call_id(self) -> str:
        return self.headers.get("call-id") or ""

    @cached_property
    def contact(self) -> NameAddr | None:
        """The first Contact, None where there is none."""
        values = split_values(self.headers.get_all("contact"))
        return NameAddr.parse(values[0]) if values else None


@dataclass
class Request(_Parsed):
    """A request. ``uri`` is as written. ``defect`` is the first rule it breaks, None for a good one."""

    method: str
    uri: str
    headers: Headers
    body: bytes = b""
    defect: RemoteSipError | None = field(default=None, compare=False)

    def encode(self) -> bytes:
        """The bytes to send, Content-Length added.

        Raises:
            LocalSipError: where a value holds a line break.
        """
        return _encode(f"{self.method} {self.uri} SIP/2.0", self.headers, self.body)


@dataclass
class Response(_Parsed):
    """A response. ``defect`` is the first rule it breaks (then it must be dropped), None for a good one."""

    status: int
    reason: str
    headers: Headers
    body: bytes = b""
    defect: RemoteSipError | None = field(default=None, compare=False)

    def encode(self) -> bytes:
        """The bytes to send, Content-Length added.

        Raises:
            LocalSipError: where a value holds a line break.
        """
        return _encode(f"SIP/2.0 {self.status} {self.reason}", self.headers, self.body)


Message: TypeAlias = Request | Response


def read_message(data: bytes) -> Message:
    """One datagram as a message, broken or not (see ``defect``). Anything after Content-Length bytes is ignored.

    Raises:
        RemoteSipError: with ``status_hint`` None, where this is not SIP at all.
    """
    start = 0
    while data[start : start + 1] in (b"\r", b"\n"):
        start += 1
    end = data.find(b"\r\n\r\n", start)
    bare = data.find(b"\n\n", start, end if end >= 0 else len(data))
    cut, body = (bare, data[bare + 2 :]) if bare >= 0 else (end, data[end + 4 :] if end >= 0 else b"")
    defect: RemoteSipError | None = None
    if cut < 0:
        cut = len(data)
        defect = RemoteSipError("the empty line after the headers is missing")
    if cut - start > MAX_HEAD_BYTES:
        cut = start + MAX_HEAD_BYTES
        defect = RemoteSipError(f"more than {MAX_HEAD_BYTES} bytes of headers", status_hint=413)
    lines = data[start:cut].decode("utf-8", "surrogateescape").split("\n")
    first = lines[0].removesuffix("\r").replace("\r", " ")
    message = _start_line(first)
    message.body = body
    try:
        _read_headers(lines, message.headers)
        if defect is None:
            _check(message)
    except RemoteSipError as error:
        defect = defect or error
    message.defect = message.defect or defect
    if isinstance(message, Response) and message.defect is not None:
        message.defect.status_hint = None
    return message


def _start_line(line: str) -> Message:
    if line[:4].upper() == "SIP/":
        parts = line.split(" ", 2)
        if len(parts) < 2 or parts[0].upper() != "SIP/2.0" or not _is_status(parts[1]):
            raise RemoteSipError(f"a broken status line: {line[:80]!r}", status_hint=None)
        return Response(int(parts[1]), parts[2] if len(parts) > 2 else "", Headers())
    parts = line.split(" ")
    version = next((part for part in reversed(parts) if part), "")
    if version[:4].upper() != "SIP/" and parts[0] not in METHODS:
        raise RemoteSipError("not SIP", status_hint=None)
    request = Request(parts[0], parts[1] if len(parts) > 1 else "", Headers())
    if len(parts) != 3 or not is_token(parts[0]):
        request.defect = RemoteSipError(f"a broken request line: {line[:80]!r}")
    elif version.upper() != "SIP/2.0":
        wrong_version = version[4:].replace(".", "").isdigit()
        request.defect = RemoteSipError(f"{version[:20]!r} is not SIP/2.0", status_hint=505 if wrong_version else 400)
    return request


def _is_status(text: str) -> bool:
    return len(text) == 3 and is_number(text, 699) and text >= "100"


def _read_headers(lines: list[str], headers: Headers) -> None:
    """Put lines[1:] into ``headers``, unfolded; then raise for the first line that was none."""
    broken: RemoteSipError | None = None
    if len(lines) > MAX_HEADER_LINES:
        broken = RemoteSipError(f"more than {MAX_HEADER_LINES} header lines", status_hint=413)
    name, value = "", ""
    for raw in lines[1:MAX_HEADER_LINES]:
        line = raw.rstrip("\r \t")
        if "\r" in line:
            line = line.replace("\r", " ")
        if raw[:1] in (" ", "\t") and name:
            value = f"{value} {line.lstrip()}" if value else line.lstrip()
            continue
        if name:
            headers.add(name, value)
            name = ""
        if not line:
            continue
        candidate, colon, value = line.partition(":")
        candidate = candidate.rstrip(" \t")
        value = value.lstrip(" \t")
        if colon and is_token(candidate):
            name = candidate
        else:
            broken = broken or RemoteSipError(f"a line that is no header: {line[:80]!r}")
    if name:
        headers.add(name, value)
    if broken is not None:
        raise broken


def _check(message: Message) -> None:
    """Raise for the first rule broken; cut the body to Content-Length."""
    headers = message.headers
    for name in ("via", "from", "to", "call-id", "cseq"):
        if not headers.get(name):
            raise RemoteSipError(f"the {name.title()} header is missing or empty")
    for name in _SINGLE:
        if len(headers.get_all(name)) > 1:
            raise RemoteSipError(f"the {name.title()} header comes twice")
    length = headers.get("content-length")
    if length is not None:
        if not is_number(length, 2**31):
            raise RemoteSipError(f"a broken Content-Length: {length[:20]!r}")
        if int(length) > len(message.body):
            raise RemoteSipError(f"Content-Length is {length[:20]} but {len(message.body)} bytes came")
        message.body = message.body[: int(length)]
        headers.set_all("content-length", [])
    assert message.vias and message.from_ and message.to  # read, so that what is broken in them raises here
    if len(message.call_id.split()) != 1:
        raise RemoteSipError("a broken Call-ID")
    cseq = message.cseq
    if isinstance(message, Request):
        scheme_of(message.uri)
        if cseq.method != message.method:
            raise RemoteSipError(f"the method is {message.method[:20]} but CSeq says {cseq.method[:20]}")
        hops = headers.get("max-forwards")
        if hops is not None and not is_number(hops, 255):
            raise RemoteSipError(f"a broken Max-Forwards: {hops[:20]!r}")


def response_port(request: Request) -> int:
    """The port that the topmost Via asks a response to be sent to (RFC 3261 §18.2.2), even from a broken Via."""
    line = request.headers.get("via") or ""
    try:
        return Via.parse(split_values([line])[0]).port or DEFAULT_PORT
    except RemoteSipError:
        sent_by = line.split(";", 1)[0].split(",", 1)[0].rsplit("/", 1)[-1].split()
        try:
            return split_host_port("".join(sent_by[1:]))[1] or DEFAULT_PORT
        except RemoteSipError:
            return DEFAULT_PORT


def make_response(request: Request, status: int, reason: str = "", to_tag: str = "") -> Response:
    """A response with what RFC 3261 §8.2.6 takes over from the request; also from one that is broken.

    ``to_tag`` is added to To unless the request's To has a tag already.
    """
    headers = Headers()
    headers.set_all("via", request.headers.get_all("via"))
    for name in ("from", "to", "call-id", "cseq"):
        value = request.headers.get(name)
        if value is not None:
            headers.set(name, value)
    if to_tag and "to" in headers:
        to = headers.get("to") or ""
        if "tag=" not in "".join(to.split()).rpartition(">")[2].lower():
            headers.set("to", f"{to};tag={to_tag}")
    if status == 100 and "timestamp" in request.headers:
        headers.set("timestamp", request.headers.get("timestamp") or "")
    return Response(status, reason or reason_phrase(status), headers)
