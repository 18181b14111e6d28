"""What is checked of a request before anybody acts on it, and what a refusal says (RFC 3261 §8.2, §18.2)."""

from __future__ import annotations

from appliance.errors import RemoteSipError
from appliance.sip.headers import Via, split_values, tokens
from appliance.sip.message import Request
from appliance.sip.multipart import SDP, find_sdp, parse_media_type
from appliance.sip.uri import DEFAULT_PORT, DEFAULT_TLS_PORT, Peer, SipUri, scheme_of

ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY")
"""The methods answered; every other that an RFC defines gets 405, the rest 501."""

SUPPORTED = ("100rel", "norefersub", "replaces", "timer")
"""Option tags a peer may require, and those we tell it of."""

ACCEPT = SDP
"""What the body of an INVITE may be; a multipart body is searched for it."""

RETRY_AFTER_S = 5
"""Told with a 503, so that a proxy tries another box at once and this one soon again."""


def note_source(request: Request, source: Peer) -> Peer:
    """Put ``received`` and ``rport`` into the topmost Via; where the response goes (§18.2.1, §18.2.2, RFC 3581).

    The response always goes to the address the request came from; the ``maddr`` of a Via could send it to anyone.
    """
    via = request.via
    asks_rport = "rport" in via.params and not via.params["rport"]
    port = via.port or (DEFAULT_TLS_PORT if source.transport == "tls" else DEFAULT_PORT)
    if not asks_rport and via.host == source.host:
        return source._replace(port=port)
    params = dict(via.params)
    if asks_rport:
        params["rport"] = str(source.port)
    params["received"] = source.host
    lines = request.headers.get_all("via")
    first = split_values(lines[:1])
    first[0] = str(Via(via.transport, via.host, via.port, params))
    request.headers.set_all("via", [", ".join(first), *lines[1:]])
    return source if asks_rport else source._replace(port=port)


def check_target(request: Request) -> None:
    """Whether the request may be served as far as its first line and Max-Forwards go (§8.2.2.1, §16.3).

    Raises:
        RemoteSipError: 416 for a kind of URI we do not serve, 400 for a broken one, 483 with no hops left.
    """
    if scheme_of(request.uri) not in ("sip", "sips", "tel"):
        raise RemoteSipError("cannot serve this kind of URI", status_hint=416)
    SipUri.parse(request.uri)
    if request.headers.get("max-forwards") is not None and int(request.headers.get("max-forwards") or 0) == 0:
        raise RemoteSipError("no hops left", status_hint=483)


def check_extensions(request: Request) -> None:
    """Raises: RemoteSipError 420 where the peer requires what we do not have (§8.2.2.3)."""
    if _unsupported(request):
        raise RemoteSipError("a required extension is missing here", status_hint=420)


def check_body(request: Request) -> None:
    """Whether the body is SDP, or holds it, and whether the peer takes SDP (§8.2.3, §13.3.1, RFC 5621).

    Raises:
        RemoteSipError: 415 for another body, 406 where the peer cannot take an answer, 400 for broken parts.
    """
    if request.body:
        content_type = request.headers.get("content-type") or ""
        encoding = (request.headers.get("content-encoding") or "identity").strip().lower()
        media_type = parse_media_type(content_type)[0]
        plain = media_type == SDP or (media_type.startswith("multipart/") and find_sdp(content_type, request.body))
        if not plain or encoding != "identity":
            raise RemoteSipError("the body is not plain SDP", status_hint=415)
    accept = tokens(request.headers.get_all("accept"))
    if accept and not {SDP, "application/*", "*/*"}.intersection(a.lower() for a in accept):
        raise RemoteSipError("the peer cannot take an SDP answer", status_hint=406)


def explanations(request: Request, status: int) -> list[tuple[str, str]]:
    """The headers that say what would have been accepted."""
    if status in (405, 501):
        return [("allow", ", ".join(ALLOW))]
    if status == 415:
        return [("accept", ACCEPT), ("accept-encoding", "identity")]
    if status == 420:
        return [("unsupported", ", ".join(_unsupported(request)))]
    if status == 489:
        return [("allow-events", "refer")]
    if status == 503:
        return [("retry-after", str(RETRY_AFTER_S))]
    return []


def _unsupported(request: Request) -> list[str]:
    return [tag for tag in tokens(request.headers.get_all("require"))[:32] if tag.lower() not in SUPPORTED]
