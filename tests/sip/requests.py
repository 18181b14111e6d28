"""Requests as bytes, and bytes as messages, for tests that speak to one user agent directly."""

from __future__ import annotations

from appliance.sip.message import Message, read_message
from appliance.sip.uri import Peer

PEER = Peer("192.0.2.7", 5070)


def make_request(
    method: str = "INVITE",
    *,
    uri: str = "sip:100@192.0.2.2",
    branch: str = "z9hG4bKone",
    cseq: str = "1",
    call_id: str = "call-1",
    from_tag: str = "caller",
    to_tag: str = "",
    extra: str = "",
    body: bytes = b"",
    via: str = "192.0.2.7:5070",
    contact: str = "<sip:peer@192.0.2.7:5070>",
    content_type: str = "application/sdp",
) -> bytes:
    """One request from :data:`PEER`. ``extra`` are whole header lines, each with its line end."""
    tag = f";tag={to_tag}" if to_tag else ""
    kind = f"Content-Type: {content_type}\r\n" if body else ""
    head = (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch={branch}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:peer@192.0.2.7>;tag={from_tag}\r\nTo: <sip:100@192.0.2.2>{tag}\r\nCall-ID: {call_id}\r\n"
        f"CSeq: {cseq} {method}\r\nContact: {contact}\r\n{kind}{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def good_message(data: bytes) -> Message:
    """A message that breaks no rule.

    Raises:
        RemoteSipError: what it breaks, as the user agent finds it.
    """
    message = read_message(data)
    if message.defect is not None:
        raise message.defect
    return message
