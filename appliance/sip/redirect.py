"""Where a 3xx sends a call, and whether it may (RFC 3261 §8.1.3.4, §19.1.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from appliance.errors import RemoteSipError
from appliance.sip.headers import NameAddr, split_values
from appliance.sip.message import Response
from appliance.sip.uri import DEFAULT_TLS_PORT, Peer, SipUri

MAX_REDIRECTS = 5
"""Targets tried for one call beyond the one it was placed to."""

MAX_CONTACTS = 16

RedirectPolicy: TypeAlias = Callable[[SipUri, SipUri, Peer], Peer | None]
"""(the target refused, the target offered, where the former was sent) → where to send it; None where it may not be."""


def _nowhere(peer: Peer, address: str) -> bool:
    return False


def same_user_near_peer(
    refused: SipUri, offered: SipUri, peer: Peer, near: Callable[[Peer, str], bool] = _nowhere
) -> Peer | None:
    """Follow only to the same user, so that no peer can make us call a number that nobody asked for; and only to the
    host of the peer that redirected us, or to an address that is ``near`` it, as those of one trunk are.

    The request goes to the address the target names; where it names a host, to the peer that redirected us, which
    knows the way. A call that came by TLS goes on by TLS, also where the target leaves the transport open: the keys of
    its audio are in the request.
    """
    if offered.scheme == "tel" or offered.number != refused.number:
        return None
    if refused.scheme == "sips" and offered.scheme != "sips":
        return None
    where = offered.literal_address()
    if where is None or where[:3] == peer[:3]:
        return peer
    if where.host != peer.host and not near(peer, where.host):
        return None
    if peer.transport != "tls" or where.transport == "tls":
        return where
    if offered.transport:
        return None
    if where.host == peer.host and offered.port in (None, peer.port):
        return peer
    return Peer(where.host, offered.port or DEFAULT_TLS_PORT, "tls")


def contacts_of(response: Response) -> list[SipUri]:
    """The targets of a 3xx, best first (by q, then in order); those that are no SIP URIs are left out.

    URI headers and a ``method`` parameter are taken off: what the redirecting server wants added to our request is
    not its to say.
    """
    found: list[tuple[float, int, SipUri]] = []
    try:
        values = split_values(response.headers.get_all("contact"))[:MAX_CONTACTS]
    except RemoteSipError:
        return []
    for number, value in enumerate(values):
        try:
            contact = NameAddr.parse(value)
            uri = contact.sip_uri()
        except RemoteSipError:
            continue
        params = tuple(param for param in uri.params if param[0] != "method")
        found.append((-_q_of(contact), number, SipUri(uri.scheme, uri.user, uri.host, uri.port, params)))
    return [uri for _, _, uri in sorted(found, key=lambda entry: entry[:2])]


def _q_of(contact: NameAddr) -> float:
    text = contact.params.get("q") or "1"
    try:
        q = float(text) if len(text) < 8 else 1.0
    except ValueError:
        return 1.0
    return q if 0.0 <= q <= 1.0 else 1.0


def next_target(
    refused: str, response: Response, peer: Peer, visited: set[str], policy: RedirectPolicy
) -> tuple[str, Peer] | None:
    """The best target of a 3xx not yet tried and allowed by ``policy``, which is then marked as tried.

    Args:
        refused: the Request-URI that was redirected; it counts as tried.
        visited: the targets tried so far for this call.
    """
    if len(visited) > MAX_REDIRECTS:
        return None
    try:
        before = SipUri.parse(refused)
    except RemoteSipError:
        return None
    visited.add(_canonical(before))
    for uri in contacts_of(response):
        mark = _canonical(uri)
        where = policy(before, uri, peer) if mark not in visited else None
        if where is not None:
            visited.add(mark)
            return str(uri), where
    return None


def _canonical(uri: SipUri) -> str:
    """What makes two targets the same: everything but unknown parameters and the case of the host."""
    kept = (uri.scheme, uri.user, uri.host.lower(), str(uri.port or ""), uri.transport, uri.param("maddr") or "")
    return "|".join(kept)
