"""Who a request is from where a reverse proxy passes it on. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_HOPS = 16


def client_address(peer: str, forwarded_for: str, proxies: Sequence[Network]) -> str:
    """The IP address that a request came from.

    Args:
        peer: the address of the socket.
        forwarded_for: the X-Forwarded-For header, the newest entry last; anybody can write what they like into it.
        proxies: networks whose word is taken; nobody else's is.
    """
    address = peer.partition("%")[0]
    hops = [hop.strip() for hop in forwarded_for.split(",")[-_MAX_HOPS:]] if forwarded_for else []
    while hops and within(address, proxies):
        try:
            address = str(ipaddress.ip_address(hops.pop()))
        except ValueError:
            break
    return address


def subscriber(address: str) -> str:
    """What counts as one address: of IPv6 the network of a subscriber, who has 2**64 addresses to choose from."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((int(known) >> 64 << 64, 64)))
    return address


def from_a_page(headers: Mapping[str, str]) -> bool:
    """Whether a page in a browser makes the request, which may be anybody's page: it comes from whoever looks at it.

    A page cannot choose these headers. Programs that open WebSockets may send an Origin too, but are no Mozilla.
    """
    origin = headers.get("Origin", "")
    browser = headers.get("User-Agent", "").startswith("Mozilla/")
    return origin == "null" or (bool(origin) and browser) or headers.get("Sec-Fetch-Site", "none") != "none"


def within(address: str, networks: Sequence[Network]) -> bool:
    """Whether an IP address is in one of the networks; an IPv4 address mapped into IPv6 counts as what it is."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    return any(known in network for network in networks)
