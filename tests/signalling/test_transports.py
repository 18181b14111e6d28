"""What peers are told of our address, and which way a message takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.signalling.connections import Connections
from appliance.signalling.tls import TlsClient, TlsContexts, TlsServer
from appliance.signalling.transports import ListenOn, Transports
from appliance.sip.uri import Peer
from tests.waiting import LIMIT_S, eventually

from ..certificates import Authority
from ..engines.virtual_time import run_virtual


@asynccontextmanager
async def transports(
    *listeners: ListenOn,
    advertised: str | None = None,
    unsent: list[tuple[bytes, Peer, str]] | None = None,
    heard: asyncio.Queue[bytes] | None = None,
    tls: tuple[str, TlsClient] = ("", TlsClient()),
) -> AsyncIterator[Transports]:
    returned = unsent if unsent is not None else []
    one = Transports(
        listeners,
        deliver=lambda data, peer: heard.put_nowait(data) if heard is not None else None,
        unsent=lambda data, peer, why: returned.append((data, peer, why)),
        known=lambda host, transport: True,
        in_use=lambda flow: False,
        tls_of=lambda host: tls,
        chance=lambda: 0.5,
        advertised=advertised,
    )
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def test_what_peers_are_told() -> None:
    async with transports(
        ListenOn("udp", "127.0.0.1", 0), ListenOn("udp", "127.0.0.2", 0), ListenOn("tcp", "127.0.0.1", 0)
    ) as one:
        (_, _, first), (_, _, second), (_, _, tcp) = one.bound
        assert one.local(Peer("127.0.0.9", 5060)) == ("127.0.0.1", first)
        assert one.local(Peer("127.0.0.9", 5060, "udp", 2)) == ("127.0.0.2", second)
        assert one.local(Peer("127.0.0.9", 5060, "tcp")) == ("127.0.0.1", tcp)
        assert one.local(Peer("127.0.0.9", 5061, "tls")) == ("127.0.0.1", 5061)
        assert one.spoken == ("udp", "tcp", "tls")


async def test_all_interfaces_and_nat() -> None:
    async with transports(ListenOn("udp", "0.0.0.0", 0), ListenOn("udp", "::1", 0)) as one:
        (_, _, four), (_, _, six) = one.bound
        assert one.local(Peer("127.0.0.9", 5060)) == ("127.0.0.1", four)
        assert one.local(Peer("::1", 5060)) == ("::1", six)
    async with transports(ListenOn("udp", "0.0.0.0", 0), ListenOn("udp", "::1", 0), advertised="192.0.2.7") as one:
        (_, _, four), (_, _, six) = one.bound
        assert one.local(Peer("127.0.0.9", 5060)) == ("192.0.2.7", four)
        assert one.local(Peer("::1", 5060)) == ("::1", six)
    async with transports(ListenOn("udp", "::1", 0), advertised="box.example") as one:
        assert one.local(Peer("::1", 5060)) == ("box.example", one.bound[0][2])


async def test_an_address_named_within_a_call_must_show_the_certificate_of_its_trunk(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    listener = ListenOn("tls", "127.0.0.1", 0, TlsServer(authority.issue("sip.example.net").both))
    message = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n"
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    for domain in ("sip.example.net", ""):
        unsent: list[tuple[bytes, Peer, str]] = []
        trunk = (domain, TlsClient(ca=authority.ca))
        async with transports(listener, heard=heard) as box, transports(tls=trunk, unsent=unsent) as one:
            one.send(message, Peer("127.0.0.1", box.bound[0][2], "tls"))
            async with asyncio.timeout(LIMIT_S):
                if domain:
                    assert await heard.get() == message
                    continue
                await eventually(lambda unsent=unsent: unsent)
            assert "its certificate is for sip.example.net, not for 127.0.0.1" in unsent[0][2]


def test_a_mistake_in_a_sweep_or_a_look_at_files_is_logged_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[str] = []

    def sweep(connections: Connections, now: float) -> None:
        times.append("sweep")
        raise ValueError("a mistake of ours")

    async def changed(contexts: TlsContexts) -> bool:
        times.append("look")
        raise RuntimeError("dictionary changed size during iteration")

    async def story() -> None:
        async with transports(ListenOn("tcp", "127.0.0.1", 0)):
            await asyncio.sleep(100.5)

    monkeypatch.setattr(Connections, "sweep", sweep)
    monkeypatch.setattr(TlsContexts, "changed", changed)
    run_virtual(story())
    assert (times.count("sweep"), times.count("look")) == (50, 3)
    assert set(caplog.messages) == {
        "the sweep of SIP connections failed; it begins again in 1 s",
        "the watch on certificates failed; it begins again in 1 s",
    }


async def test_what_no_listener_can_send_is_given_back() -> None:
    unsent: list[tuple[bytes, Peer, str]] = []
    async with transports(ListenOn("udp", "127.0.0.1", 0), unsent=unsent) as one:
        one.send(b"x", Peer("::1", 5060))
        ((data, peer, why),) = unsent
        assert (data, peer) == (b"x", Peer("::1", 5060))
        assert why == "no UDP listener can reach ::1; add one for IPv6 to listen.sip"
    async with transports(ListenOn("tcp", "127.0.0.1", 0)) as one:
        assert one.spoken == ("tcp", "tls")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_leave_by_the_listener_they_came_to(host: str) -> None:
    heard: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    class Peers(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            heard.put_nowait((data, addr[:2]))

    async with transports(ListenOn("udp", host, 0), ListenOn("udp", host, 0)) as one:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Peers, local_addr=(host, 0))
        port = transport.get_extra_info("sockname")[1]
        for flow in (1, 2):
            one.send(b"x", Peer(host, port, "udp", flow))
            async with asyncio.timeout(LIMIT_S):
                assert await heard.get() == (b"x", (host, one.bound[flow - 1][2]))
        transport.close()
