"""Which hosts the box may speak to (``egress``), and which private ones a plugin may (``allow_hosts``). PURE."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator

from appliance.config.validation import fault

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES: Final = ("http", "https", "ws", "wss")
_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_HOLD_IPV4: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/96", "::ffff:0:0:0/96")))
"""Translated to IPv4 on the way, to the address in the last 32 bits: NAT64, a site's own NAT64, SIIT."""
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All public addresses of IPv6. What lies outside is some network's own, whatever Python knows of it."""
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "169.254.169.254", "fd00:ec2::254")))
"""Where clouds tell a machine its credentials; one of them looks like a public address."""
_PROTOCOLS: Final = ipaddress.IPv4Network("192.0.0.0/24")
"""For protocols (RFC 6890); clouds have services there, and not every version of Python knows all of it."""


def _host_pattern(value: str) -> str:
    plain = value.strip().lower().rstrip(".")
    if _network(plain) is not None:
        return plain
    if "/" in plain or ":" in plain or "@" in plain:
        hint = "write a host such as api.example.com or *.example.com, or an address or network such as 10.0.0.0/8"
        raise fault(f"{value!r} is not a host", hint)
    try:
        ascii_name = plain if plain.isascii() else plain.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_name = ""
    if not _NAME.fullmatch(ascii_name) or _is_number(ascii_name.rsplit(".", maxsplit=1)[-1]):
        raise fault(f"{value!r} is not a host", "write it as api.example.com, *.example.com or 192.0.2.10")
    return ascii_name


def _is_number(label: str) -> bool:
    """Whether a resolver would take a name that ends in ``label`` for an address: 2130706433, 0x7f.1."""
    return label.isdecimal() or label.startswith("0x")


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


HostPattern: TypeAlias = Annotated[str, AfterValidator(_host_pattern)]
"""A host name, ``*.`` and a domain for every host below it, an address, or a network."""


@dataclass(frozen=True)
class Hosts:
    """A list of hosts, as an operator wrote it (:data:`HostPattern`)."""

    names: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()
    networks: tuple[_Network, ...] = ()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Hosts:
        networks = [(pattern, _network(pattern)) for pattern in patterns]
        words = [pattern for pattern, network in networks if network is None]
        return cls(
            frozenset(word for word in words if not word.startswith("*.")),
            tuple(word[1:] for word in words if word.startswith("*.")),
            tuple(network for _, network in networks if network is not None),
        )

    def names_host(self, host: str) -> bool:
        """Whether ``host``, a name or an address as text, is on the list."""
        plain = host.lower().rstrip(".").strip("[]")
        literal = _address(plain)
        if literal is not None:
            return self.holds(literal)
        return plain in self.names or plain.endswith(self.domains)

    def holds(self, address: IpAddress) -> bool:
        """Whether the address itself is on the list."""
        meant = embedded(address)
        return any(meant.version == network.version and meant in network for network in self.networks)


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def embedded(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 one stands for (mapped, compatible, 6to4, NAT64, SIIT, Teredo), or itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if (inner := address.ipv4_mapped or address.sixtofour) is not None:
        return inner
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _HOLD_IPV4) or (address in _COMPATIBLE and int(address) > 0xFFFF):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine."""
    literal = _address(host.strip("[]"))
    return host.lower() == "localhost" if literal is None else embedded(literal).is_loopback


def refusal(host: str, address: IpAddress, allowed: Hosts, egress: Hosts | None) -> str:
    """Why a plugin may not connect to ``address``, which ``host`` has been resolved to; "" if it may.

    Args:
        host: as it stands in the URL.
        address: what the socket is about to be connected to.
        allowed: private hosts that have been listed.
        egress: hosts the box may speak to; None for any.
    """
    meant = embedded(address)
    if egress is not None and not (egress.names_host(host) or egress.holds(meant)):
        return f"egress does not list {host}"
    if allowed.holds(meant):
        return ""
    if meant in _METADATA or address in _METADATA or meant.is_link_local or meant.is_multicast or meant.is_unspecified:
        return (
            f"{host} is at {meant}, which is link-local, metadata or multicast; allow_hosts does not list the address"
        )
    if not _is_public(meant) and not allowed.names_host(host):
        return f"{host} is at {meant}, which is not public; allow_hosts does not list it"
    return ""


def _is_public(address: IpAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global and address in _UNICAST
    return address.is_global and address not in _PROTOCOLS


def engine_mistakes(
    engines: Mapping[tuple[str, ...], Any], egress: Iterable[str] | None
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Addresses in the options of engines that ``egress`` does not list: (path, what, hint) each.

    Args:
        engines: key below ``engines`` to the settings of the engine.
        egress: the setting; None for any host.
    """
    for key, engine in engines.items():
        yield from address_mistakes(dict(_urls(engine.options, ("engines", *key, "options"))), egress)
        if (fallback := getattr(engine, "fallback", None)) is not None:
            path = ("engines", *key, "fallback", "options")
            yield from address_mistakes(dict(_urls(fallback.options, path)), egress)


def address_mistakes(
    urls: Mapping[tuple[str | int, ...], str], egress: Iterable[str] | None
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Those of ``urls`` (by path) whose host is neither this machine nor on the list: (path, what, hint) each."""
    if egress is None:
        return
    listed = Hosts.of(egress)
    for path, url in urls.items():
        host = urlsplit(url).hostname or ""
        if host and not is_loopback(host) and not listed.names_host(host):
            yield path, f"is at {host}, which egress does not list", f"add {host} to egress, or use another server"


def _urls(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _urls(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _urls(item, (*path, index))
    elif isinstance(value, str):
        try:
            parts = urlsplit(value)
        except ValueError:
            return
        if parts.scheme.lower() in _SCHEMES and parts.netloc:
            yield path, value
