"""Look-ups against a DNS server of our own on loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from appliance.errors import SipUnreachable
from appliance.signalling.resolver import MAX_SERVERS, Resolver, Server
from appliance.sip.uri import SipUri
from tests.waiting import LIMIT_S

ZONE = {
    ("full.test.", "NAPTR"): [
        '20 10 "s" "SIP+D2U" "" _sip._udp.full.test.',
        '10 10 "s" "SIPS+D2T" "" _sips._tcp.full.test.',
        '10 20 "s" "SIP+D2T" "" _sip._tcp.full.test.',
        '5 10 "s" "E2U+sip" "" other.test.',
        '5 10 "u" "SIP+D2U" "!^.*$!sip:x@y!" .',
    ],
    ("_sips._tcp.full.test.", "SRV"): ["10 0 5061 one.test."],
    ("_sip._tcp.full.test.", "SRV"): ["20 0 5070 two.test.", "10 0 5060 one.test."],
    ("_sip._udp.full.test.", "SRV"): ["10 0 5060 both.test."],
    ("one.test.", "A"): ["10.0.0.1"],
    ("two.test.", "A"): ["10.0.0.2"],
    ("both.test.", "A"): ["10.0.0.3"],
    ("both.test.", "AAAA"): ["2001:db8::3"],
    ("_sip._udp.srv.test.", "SRV"): ["10 60 5060 one.test.", "10 20 5060 two.test.", "20 0 5080 both.test."],
    ("none.test.", "A"): ["10.0.0.9"],
    ("_sip._udp.none.test.", "SRV"): ["0 0 0 ."],
    ("alias.test.", "CNAME"): ["one.test."],
    ("many.test.", "A"): [f"10.1.0.{i}" for i in range(1, 41)],
    ("lonely.test.", "A"): ["10.0.0.7"],
}


class NameServer(asyncio.DatagramProtocol):
    """Answers from ``ZONE`` and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.ttl = 300
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name, dns.rdatatype.to_text(query.question[0].rdtype)
        key = (name.to_text().lower(), kind)
        self.asked[key] += 1
        if self.silent:
            return
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if (key[0], "CNAME") in ZONE:
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", *ZONE[key[0], "CNAME"]))
            response.answer.append(dns.rrset.from_text("one.test.", self.ttl, "IN", "A", "10.0.0.1"))
        elif key in ZONE:
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", kind, *ZONE[key]))
        elif not any(known == key[0] for known, _ in ZONE):
            response.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def resolver(
    *, chance: float = 0.0, families: tuple[str, ...] = ("4", "6"), timeout_s: float = 5.0
) -> AsyncIterator[tuple[Resolver, NameServer]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    try:
        yield (
            Resolver(lambda: chance, families=families, nameservers=["127.0.0.1"], port=port, timeout_s=timeout_s),
            server,
        )
    finally:
        transport.close()


async def found(uri: str, chance: float = 0.0, **settings: tuple[str, ...]) -> list[str]:
    families = settings.pop("families", ("4", "6"))
    async with resolver(chance=chance, families=families) as (one, _):
        servers = await one.servers(SipUri.parse(uri), **settings)
    return [f"{server.host} {server.port} {server.transport}" for server in servers]


async def test_addresses_need_no_dns() -> None:
    assert await found("sip:a@10.0.0.1") == ["10.0.0.1 5060 udp"]
    assert await found("sip:a@10.0.0.1;transport=tls") == ["10.0.0.1 5061 tls"]
    assert await found("sips:a@10.0.0.1") == ["10.0.0.1 5061 tls"]
    assert await found("sip:a@[2001:db8::1]:5070;transport=TCP") == ["2001:db8::1 5070 tcp"]
    assert await found("sip:a@name.test;maddr=10.0.0.5") == ["10.0.0.5 5060 udp"]


async def test_naptr_says_transport_and_order() -> None:
    udp = ["10.0.0.3 5060 udp", "2001:db8::3 5060 udp"]
    tcp = ["10.0.0.1 5060 tcp", "10.0.0.2 5070 tcp"]
    assert await found("sip:a@full.test") == ["10.0.0.1 5061 tls", *tcp, *udp]
    assert await found("sip:a@full.test", transports=("udp", "tcp")) == [*tcp, *udp]
    assert await found("sip:a@full.test", transports=("udp",), families=("4",)) == udp[:1]
    assert await found("sips:a@full.test") == ["10.0.0.1 5061 tls"]


async def test_a_transport_that_is_said_needs_no_naptr() -> None:
    async with resolver() as (one, server):
        servers = await one.servers(SipUri.parse("sip:a@full.test;transport=tcp"))
        assert servers == [Server("10.0.0.1", 5060, "tcp", "full.test"), Server("10.0.0.2", 5070, "tcp", "full.test")]
        assert ("full.test.", "NAPTR") not in server.asked


async def test_srv_without_naptr_in_the_order_of_priority_and_weight() -> None:
    last = ["10.0.0.3 5080 udp", "2001:db8::3 5080 udp"]
    assert await found("sip:a@srv.test", chance=0.0) == ["10.0.0.2 5060 udp", "10.0.0.1 5060 udp", *last]
    assert await found("sip:a@srv.test", chance=0.5) == ["10.0.0.1 5060 udp", "10.0.0.2 5060 udp", *last]


async def test_a_port_or_no_srv_means_plain_addresses() -> None:
    assert await found("sip:a@lonely.test:5090;transport=tcp") == ["10.0.0.7 5090 tcp"]
    assert await found("sip:a@lonely.test") == ["10.0.0.7 5060 udp"]
    assert await found("sip:a@lonely.test;transport=tls") == ["10.0.0.7 5061 tls"]
    assert await found("sip:a@none.test") == ["10.0.0.9 5060 udp"]
    assert await found("sip:a@alias.test:5060") == ["10.0.0.1 5060 udp"]
    assert len(await found("sip:a@many.test:5060")) == MAX_SERVERS


async def test_names_without_a_dot_are_asked_of_the_system() -> None:
    assert await found("sip:a@localhost:5070", families=("4",)) == ["127.0.0.1 5070 udp"]


async def test_what_cannot_be_found() -> None:
    async with resolver() as (one, _):
        with pytest.raises(SipUnreachable, match=r"the host nowhere\.invalid is unknown; check the name"):
            await one.servers(SipUri.parse("sip:a@nowhere.invalid:5060"))
        with pytest.raises(SipUnreachable, match=r"the host srv\.test is unknown"):
            await one.servers(SipUri.parse("sip:a@srv.test:5090"))
        with pytest.raises(SipUnreachable, match="asks for the transport 'sctp'; udp, tcp and tls"):
            await one.servers(SipUri.parse("sip:a@one.test;transport=sctp"))
        with pytest.raises(SipUnreachable, match="asks for tls, which is not among udp"):
            await one.servers(SipUri.parse("sips:a@one.test"), ("udp",))
        with pytest.raises(SipUnreachable, match="names no host"):
            await one.servers(SipUri.parse("tel:+49301234567"))


async def test_answers_are_kept_as_long_as_they_last() -> None:
    async with resolver() as (one, server):
        for _ in range(3):
            await one.servers(SipUri.parse("sip:a@full.test"))
        assert set(server.asked.values()) == {1}
    async with resolver() as (one, server):
        server.ttl = 0
        for _ in range(3):
            await one.servers(SipUri.parse("sip:a@lonely.test:5060"))
        assert server.asked["lonely.test.", "A"] == 3


async def test_silent_name_servers_are_not_waited_for_long_and_their_last_word_holds() -> None:
    async with resolver(timeout_s=0.2) as (one, server):
        server.ttl = 0
        known = await one.servers(SipUri.parse("sip:a@full.test"))
        server.silent = True
        with pytest.raises(SipUnreachable, match=r"no DNS server answered .*; check this box's DNS servers"):
            async with asyncio.timeout(LIMIT_S):
                await one.servers(SipUri.parse("sip:a@full.invalid"))
        async with asyncio.timeout(LIMIT_S):
            assert await one.servers(SipUri.parse("sip:a@full.test")) == known
