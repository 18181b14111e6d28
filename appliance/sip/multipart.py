"""Bodies of several parts, of which one is the session description (RFC 5621, RFC 2046 §5.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.errors import RemoteSipError
from appliance.sip.headers import parse_params, split_quoted

SDP = "application/sdp"

MAX_PARTS = 16
MAX_DEPTH = 2
"""A part may itself have parts, as mixed around alternative; deeper is nobody's offer."""

_MULTIPART = ("multipart/mixed", "multipart/alternative", "multipart/related")


@dataclass(frozen=True, slots=True)
class Part:
    """One body: its media type in lower case without parameters, whether it must be understood, and its bytes."""

    media_type: str
    required: bool
    data: bytes


def parse_media_type(value: str) -> tuple[str, dict[str, str]]:
    """The media type in lower case and its parameters, unquoted; ``("", {})`` for what is none."""
    try:
        head, *rest = split_quoted(value, ";")
        params = parse_params(rest)
    except RemoteSipError:
        return "", {}
    shown = {name: (text or "").strip('"') for name, text in params.items()}
    return "".join(head.split()).lower(), shown


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """Every part of a body, in order, those of inner multiparts included; a simple body is its own only part.

    Raises:
        RemoteSipError: 400 for a multipart body without boundary or parts, or beyond the limits.
    """
    parts: list[Part] = []
    _collect(content_type, body, False, 0, parts)
    return parts


def find_sdp(content_type: str, body: bytes) -> bytes:
    """The session description in a body, b"" where there is none.

    Of alternatives the last is the best (RFC 2046 §5.1.4); elsewhere there is one at most, and the last is taken.
    A body without a media type is read as SDP.

    Raises:
        RemoteSipError: 415 where a part that must be understood is not SDP; 400 for a broken multipart body.
    """
    if not body:
        return b""
    media_type = parse_media_type(content_type)[0]
    if media_type == SDP or not content_type:
        return body
    if media_type not in _MULTIPART:
        return b""
    found = b""
    for part in parts_of(content_type, body):
        if part.media_type == SDP:
            found = part.data
        elif part.required:
            raise RemoteSipError(f"a part of type {part.media_type[:60]} is required to be understood", 415)
    return found


def _collect(content_type: str, body: bytes, required: bool, depth: int, parts: list[Part]) -> None:
    media_type, params = parse_media_type(content_type)
    if media_type not in _MULTIPART:
        if len(parts) >= MAX_PARTS:
            raise RemoteSipError(f"a body of more than {MAX_PARTS} parts")
        parts.append(Part(media_type, required, body))
        return
    boundary = params.get("boundary", "")
    if not 0 < len(boundary) <= 70 or depth >= MAX_DEPTH:
        raise RemoteSipError("a multipart body without a boundary, or too deep")
    pieces = _cut(body, boundary)
    if not pieces:
        raise RemoteSipError("a multipart body without parts")
    for piece in pieces:
        head, data = _split_head(piece)
        disposition = parse_media_type(head.get("content-disposition", ""))[1]
        needed = disposition.get("handling", "").lower() == "required"
        _collect(head.get("content-type", "text/plain"), data, needed, depth + 1, parts)


def _cut(body: bytes, boundary: str) -> list[bytes]:
    """What stands between the delimiter lines. A missing last one is forgiven; more parts than allowed are not read."""
    delimiter = re.escape(boundary.encode("utf-8", "surrogateescape"))
    pieces: list[bytes] = []
    start = -1
    for found in re.finditer(rb"(?:\A|\r?\n)--" + delimiter + rb"(--)?[ \t]*(?=\r?\n|\Z)", body):
        if start >= 0:
            pieces.append(_after_line_end(body[start : found.start()]))
        start = -1 if found[1] else found.end()
        if found[1] or len(pieces) > MAX_PARTS:
            return pieces
    if start >= 0:
        pieces.append(_after_line_end(body[start:]))
    return pieces


def _after_line_end(data: bytes) -> bytes:
    return data[2:] if data.startswith(b"\r\n") else data[1:]


def _split_head(piece: bytes) -> tuple[dict[str, str], bytes]:
    """The header lines of one part by lower-case name, and its content."""
    if piece.startswith((b"\r\n", b"\n")):
        return {}, _after_line_end(piece)
    gap = re.search(rb"\r?\n\r?\n", piece)
    if gap is None:
        return {}, b""
    headers: dict[str, str] = {}
    for line in piece[: gap.start()].decode("utf-8", "surrogateescape").splitlines()[:32]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers, piece[gap.end() :]
