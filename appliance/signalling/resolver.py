"""Where the request for a URI goes: NAPTR, SRV and addresses in the order of RFC 3263, with a bounded cache.

dnspython asks the servers and keeps what they said as long as they said. Names that DNS does not know, and those
without a dot, are asked of the system (``/etc/hosts``) in a thread.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.resolver

from appliance.errors import SipUnreachable
from appliance.sip.uri import DEFAULT_PORT, DEFAULT_TLS_PORT, SipUri

logger = logging.getLogger(__name__)

MAX_SERVERS: Final = 16
"""Addresses tried for one URI; the rest of a longer list is left out."""

_MAX_NAPTR: Final = 16
_CACHE_ENTRIES: Final = 2000
_SERVICES: Final = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
_SRV_PREFIX: Final = {"udp": "_sip._udp.", "tcp": "_sip._tcp.", "tls": "_sips._tcp."}


class Server(NamedTuple):
    """One address a request may be sent to. ``domain`` is the one of the URI: a TLS certificate must be for it."""

    host: str
    port: int
    transport: str
    domain: str


@dataclass(frozen=True, slots=True)
class _Srv:
    priority: int
    weight: int
    port: int
    name: str


class _Silent(Exception):
    """The name servers did not answer in time."""


class Resolver:
    """Finds servers. While the name servers are silent, what they last said of a URI goes on to hold.

    Args:
        chance: numbers in [0, 1), for SRV weights.
        families: "4", "6" or both in the order of preference: what our listeners can speak.
        nameservers: addresses to ask instead of those in ``/etc/resolv.conf``, and ``port`` to ask at.
        timeout_s: for one look-up, all servers asked and asked again.
    """

    def __init__(
        self,
        chance: Callable[[], float],
        *,
        families: Sequence[str] = ("4", "6"),
        nameservers: Sequence[str] | None = None,
        port: int = 53,
        timeout_s: float = 3.0,
    ) -> None:
        self._chance = chance
        self._families = tuple(families)
        self._dns: dns.asyncresolver.Resolver | None
        try:
            self._dns = dns.asyncresolver.Resolver(configure=nameservers is None)
        except (dns.resolver.NoResolverConfiguration, OSError) as error:
            logger.info("no DNS servers are configured, so that names are asked of the system only: %s", error)
            self._dns = None
        if self._dns is not None:
            if nameservers is not None:
                self._dns.nameservers = list(nameservers)
                self._dns.port = port
            self._dns.lifetime = timeout_s
            self._dns.timeout = min(2.0, timeout_s)
            self._dns.cache = dns.resolver.LRUCache(_CACHE_ENTRIES)
        self._timeout_s = timeout_s
        self._last_found: OrderedDict[tuple[object, ...], list[Server]] = OrderedDict()

    async def servers(self, uri: SipUri, transports: Sequence[str] = ("udp", "tcp", "tls")) -> list[Server]:
        """Where a request for ``uri`` may be sent, the one to try first in front (RFC 3263 §4).

        ``transports`` are those we speak. The list is never empty and at most :data:`MAX_SERVERS` long.

        Raises:
            SipUnreachable: where the host is unknown, or wants a transport that we do not speak.
        """
        host = (uri.param("maddr") or uri.host).strip("[]")
        if not host:
            raise SipUnreachable(f"{uri} names no host; write sip:user@host")
        usable = [name for name in transports if name == "tls" or uri.scheme != "sips"]
        said = _said_transport(uri)
        if said is not None:
            usable = [name for name in usable if name == said]
        if not usable:
            raise SipUnreachable(f"{uri} asks for {said or 'tls'}, which is not among {', '.join(transports)}")
        default = said or usable[0]
        try:
            literal = str(ipaddress.ip_address(host))
        except ValueError:
            pass
        else:
            return [Server(literal, uri.port or _port(default), default, uri.host.strip("[]"))]
        key = (host.lower(), uri.port, said, tuple(usable), uri.host.lower())
        try:
            found = [(host, uri.port, default)] if uri.port is not None else await self._from_srv(host, said, usable)
            servers = await self._addresses(found or [(host, _port(default), default)], uri.host)
        except _Silent as error:
            last = self._last_found.get(key)
            if last is None:
                raise SipUnreachable(f"{error}; check this box's DNS servers") from None
            logger.warning("%s; the last addresses of %s go on to be used", error, host)
            return list(last)
        self._last_found[key] = servers
        self._last_found.move_to_end(key)
        if len(self._last_found) > _CACHE_ENTRIES:
            self._last_found.popitem(last=False)
        return list(servers)

    async def _from_srv(self, host: str, said: str | None, usable: Sequence[str]) -> list[tuple[str, int, str]]:
        """(name, port, transport) of every server that NAPTR and SRV name, in order."""
        if self._dns is None or "." not in host:
            return []
        places: list[tuple[str, str]] = []
        if said is None:
            places = await self._naptr(host, usable)
        if not places:
            places = [(_SRV_PREFIX[transport] + host, transport) for transport in usable]
        answers = await asyncio.gather(*(self._srv(name) for name, _ in places))
        found: list[tuple[str, int, str]] = []
        for (_, transport), records in zip(places, answers, strict=True):
            found += [(record.name, record.port, transport) for record in self._in_order(records)]
        return found[:MAX_SERVERS]

    async def _naptr(self, host: str, usable: Sequence[str]) -> list[tuple[str, str]]:
        rows: list[tuple[int, int, str, str]] = []
        for record in await self._ask(host, "NAPTR"):
            transport = _SERVICES.get(bytes(record.service).decode("ascii", "replace").upper())
            if transport in usable and bytes(record.flags).lower() == b"s" and not bytes(record.regexp):
                rows.append((record.order, record.preference, record.replacement.to_text(True), str(transport)))
        return [(name, transport) for _, _, name, transport in sorted(rows)[:_MAX_NAPTR]]

    async def _srv(self, name: str) -> list[_Srv]:
        records = [
            _Srv(record.priority, record.weight, record.port, record.target.to_text(True))
            for record in await self._ask(name, "SRV")
        ]
        return [record for record in records if record.name not in ("", ".")]

    def _in_order(self, records: Iterable[_Srv]) -> list[_Srv]:
        """By priority; within one at random, by weight (RFC 2782)."""
        left = sorted(records, key=lambda record: (record.priority, record.weight))
        order: list[_Srv] = []
        while left:
            group = [record for record in left if record.priority == left[0].priority]
            mark = self._chance() * sum(record.weight for record in group)
            chosen, total = group[-1], 0
            for record in group:
                total += record.weight
                if total > mark:
                    chosen = record
                    break
            order.append(chosen)
            left.remove(chosen)
        return order

    async def _addresses(self, places: Sequence[tuple[str, int, str]], domain: str) -> list[Server]:
        names = list(dict.fromkeys(name for name, _, _ in places))
        answers = dict(zip(names, await asyncio.gather(*(self._hosts(name) for name in names)), strict=True))
        found = [
            Server(host, port, transport, domain)
            for name, port, transport in places
            for host in answers[name][:MAX_SERVERS]
        ]
        if not found:
            asked = ", ".join(names[:4])
            raise SipUnreachable(f"the host {asked} is unknown; check the name, and that this box's DNS answers")
        return list(dict.fromkeys(found))[:MAX_SERVERS]

    async def _hosts(self, name: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(name))]
        except ValueError:
            pass
        found: list[str] = []
        if "." in name.rstrip(".") and not name.lower().rstrip(".").endswith(".localhost"):
            kinds = ["A" if family == "4" else "AAAA" for family in self._families]
            try:
                answers = await asyncio.gather(*(self._ask(name, kind) for kind in kinds))
            except _Silent:
                found = await self._ask_system(name)
                if not found:
                    raise
                return found
            found = [str(record.address) for records in answers for record in records]
        return found or await self._ask_system(name)

    async def _ask(self, name: str, kind: str) -> list[Any]:
        if self._dns is None:
            return []
        try:
            answer = await self._dns.resolve(f"{name.rstrip('.')}.", kind, raise_on_no_answer=False, search=False)
        except dns.exception.Timeout:
            raise _Silent(f"no DNS server answered for {name} {kind} within {self._timeout_s:g} s") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            if not isinstance(error, dns.resolver.NXDOMAIN):
                logger.info("DNS did not answer for %s %s: %s", name, kind, error)
            return []
        return list(answer.rrset or ())

    async def _ask_system(self, name: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found: list[str] = []
        for family in self._families:
            number = socket.AF_INET if family == "4" else socket.AF_INET6
            try:
                async with asyncio.timeout(self._timeout_s):
                    rows = await loop.getaddrinfo(name, None, family=number, type=socket.SOCK_DGRAM)
            except (OSError, UnicodeError):
                continue
            found += [str(row[4][0]) for row in rows]
        return list(dict.fromkeys(found))


def _said_transport(uri: SipUri) -> str | None:
    """The transport the URI asks for; None where it leaves it open.

    Raises:
        SipUnreachable: for one that nobody here has heard of.
    """
    said = (uri.param("transport") or "").lower()
    if uri.scheme == "sips":
        return "tls"
    if said in ("", "udp", "tcp", "tls"):
        return said or None
    raise SipUnreachable(f"{uri} asks for the transport {said[:20]!r}; udp, tcp and tls are spoken here")


def _port(transport: str) -> int:
    return DEFAULT_TLS_PORT if transport == "tls" else DEFAULT_PORT
