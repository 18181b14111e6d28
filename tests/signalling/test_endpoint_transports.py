"""Calls over TCP and TLS, on IPv6, large requests, and servers that fail, between two endpoints on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.errors import SipUnreachable
from appliance.signalling.leg import HangupCause
from appliance.signalling.resolver import Server
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import SipLeg
from appliance.signalling.tls import TlsServer
from appliance.signalling.trunks import TrunkRule, TrunkTls
from appliance.sip.uri import Peer, SipUri
from tests.waiting import LIMIT_S, eventually

from ..certificates import Authority
from .test_sip_endpoint import SDP, RawPeer, StaticMedia, raw_peer

LOOPBACK = TrunkRule("local", (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))


class Listed:
    """A resolver that knows the servers already."""

    def __init__(self, *servers: Server) -> None:
        self._servers = list(servers)

    async def servers(self, uri: SipUri, transports: tuple[str, ...] = ()) -> list[Server]:
        return list(self._servers)


@asynccontextmanager
async def endpoint(
    *listeners: ListenOn, on_call: Callable[[SipLeg], None] = lambda leg: None, **settings: object
) -> AsyncIterator[SipEndpoint]:
    running = SipEndpoint(listeners, trunks=(LOOPBACK,), on_call=on_call, **settings)  # type: ignore[arg-type]
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


class Answers:
    """Answers every call and keeps its leg."""

    def __init__(self) -> None:
        self.legs: list[SipLeg] = []
        self.ended: asyncio.Queue[HangupCause] = asyncio.Queue()

    def __call__(self, leg: SipLeg) -> None:
        self.legs.append(leg)
        leg.on_hangup = self.ended.put_nowait
        leg.answer(StaticMedia())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("both_listen", [True, False])
async def test_a_call_over_tcp_that_the_called_side_ends(host: str, both_listen: bool) -> None:
    taken = Answers()
    shown = f"[{host}]" if ":" in host else host
    own = [ListenOn("udp", host, 0), *([ListenOn("tcp", host, 0)] if both_listen else [])]
    async with endpoint(ListenOn("tcp", host, 0), on_call=taken) as box, endpoint(*own) as phone:
        call = await phone.dial(f"sip:100@{shown}:{box.port};transport=tcp", "sip:ann@here", StaticMedia())
        async with asyncio.timeout(LIMIT_S):
            assert await call.wait_answered() is not None
            taken.legs[0].hangup("done")
            assert (await call.wait_ended()).by == "agent"
        assert box.counters["connections"] == phone.counters["connections"] == 1
        assert phone.counters.get("retransmissions_sent", 0) == 0


async def test_a_call_over_tls_and_a_wrong_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("localhost", file="good"), authority.issue("other.example", file="other")
    trust = TrunkRule("carrier", tls=TrunkTls(ca=authority.ca))
    taken = Answers()
    listen = [ListenOn("tls", "127.0.0.1", 0, TlsServer(p.cert, p.key)) for p in (pair, other)]
    async with endpoint(*listen, on_call=taken) as box, endpoint(ListenOn("udp", "127.0.0.1", 0)) as phone:
        good, wrong = (port for _, _, port in box.bound)
        call = await phone.dial(f"sips:100@localhost:{good}", "sip:ann@here", StaticMedia(), trunk=trust)
        async with asyncio.timeout(LIMIT_S):
            assert await call.wait_answered() is not None
            call.hangup()
            await call.wait_ended()
            assert await taken.ended.get() == HangupCause("caller", 200, "BYE")
        with pytest.raises(SipUnreachable, match=r"its certificate is for other.example, not for localhost"):
            await phone.dial(f"sip:1@localhost:{wrong};transport=tls", "sip:a@b", StaticMedia(), trunk=trust)
        with pytest.raises(SipUnreachable, match=r"its certificate is refused: .*tls.ca"):
            await phone.dial(f"sip:1@localhost:{good};transport=tls", "sip:a@b", StaticMedia())
        assert len(taken.legs) == 1


async def test_a_certificate_is_replaced_while_a_call_is_up(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    trust = TrunkRule("carrier", tls=TrunkTls(ca=authority.ca))
    taken = Answers()
    async with (
        endpoint(ListenOn("tls", "127.0.0.1", 0, TlsServer(pair.cert, pair.key)), on_call=taken) as box,
        endpoint(ListenOn("udp", "127.0.0.1", 0)) as phone,
        endpoint(ListenOn("udp", "127.0.0.1", 0)) as other,
    ):
        uri = f"sip:1@localhost:{box.port};transport=tls"
        call = await phone.dial(uri, "sip:a@b", StaticMedia(), trunk=trust)
        async with asyncio.timeout(LIMIT_S):
            await call.wait_answered()
        authority.issue("renamed.example")
        box.reload()
        with pytest.raises(SipUnreachable, match=r"is for renamed.example"):
            await other.dial(uri, "sip:a@b", StaticMedia(), trunk=trust)
        async with asyncio.timeout(LIMIT_S):
            taken.legs[0].hangup()
            assert (await call.wait_ended()).by == "agent"


async def test_a_large_request_goes_by_tcp_where_the_peer_takes_it() -> None:
    taken = Answers()
    large = [("X-Large", "x" * 1400)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = [ListenOn("udp", "127.0.0.1", port), ListenOn("tcp", "127.0.0.1", port)]
    phones = [ListenOn("udp", "127.0.0.1", 0)]
    async with endpoint(*both, on_call=taken) as box, endpoint(*phones) as phone:
        for uri, moved in ((f"sip:1@127.0.0.1:{port}", 1), (f"sip:1@127.0.0.1:{port};transport=udp", 1)):
            call = await phone.dial(uri, "sip:a@b", StaticMedia(), headers=large)
            async with asyncio.timeout(LIMIT_S):
                assert await call.wait_answered() is not None
                call.hangup()
                await call.wait_ended()
                await taken.ended.get()
            assert phone.counters["requests_moved_to_tcp"] == moved
        assert box.counters["connections_accepted"] == 1
        assert len(taken.legs) == 2


async def test_a_large_request_goes_by_udp_where_no_tcp_is_taken() -> None:
    taken = Answers()
    large = [("X-Large", "x" * 1400)]
    udp = ListenOn("udp", "127.0.0.1", 0)
    async with endpoint(udp, on_call=taken) as box, endpoint(udp) as phone:
        for _ in range(2):
            call = await phone.dial(f"sip:1@127.0.0.1:{box.port}", "sip:a@b", StaticMedia(), headers=large)
            async with asyncio.timeout(LIMIT_S):
                assert await call.wait_answered() is not None
                call.hangup()
                await call.wait_ended()
        assert phone.counters["requests_moved_to_tcp"] == 1
        assert len(taken.legs) == 2


def refusing(peer: RawPeer, status: str) -> Callable[[bytes, tuple[str, int]], None]:
    def answer(data: bytes, addr: tuple[str, int]) -> None:
        peer.heard.put_nowait(data.decode())
        if data.startswith(b"INVITE"):
            reply = data.decode().replace(data.decode().split("\r\n", 1)[0], f"SIP/2.0 {status}", 1)
            head = reply.split("\r\n\r\n")[0].replace(SDP, "")
            lines = [line for line in head.split("\r\n") if not line.startswith("Content-")]
            peer.transport.sendto(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode(), addr)

    return answer


async def test_the_next_server_is_tried_after_503_and_after_no_connection_but_not_after_486() -> None:
    taken = Answers()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Server("127.0.0.1", closed.getsockname()[1], "tcp", "x.example")
        async with endpoint(ListenOn("udp", "127.0.0.1", 0), on_call=taken) as box, raw_peer() as down:
            full = Server("127.0.0.1", down.port, "udp", "x.example")
            good = Server("127.0.0.1", box.port, "udp", "x.example")
            for status, answered in (("503 Full", True), ("486 Busy", False)):
                down.datagram_received = refusing(down, status)  # type: ignore[method-assign]
                resolver = Listed(nobody, full, nobody, good)
                async with endpoint(ListenOn("udp", "127.0.0.1", 0), resolver=resolver) as phone:
                    call = await phone.dial("sip:1@x.example", "sip:a@b", StaticMedia())
                    async with asyncio.timeout(LIMIT_S):
                        assert (await call.wait_answered() is not None) is answered
                        if answered:
                            call.hangup()
                        await call.wait_ended()
                await down.expect("ACK")
    assert len(taken.legs) == 1


async def test_a_server_that_says_nothing_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.signalling.failover.PATIENCE_S", 0.05)
    taken = Answers()
    async with endpoint(ListenOn("udp", "127.0.0.1", 0), on_call=taken) as box, raw_peer() as silent:
        servers = [Server("127.0.0.1", port, "udp", "x.example") for port in (silent.port, box.port)]
        udp = ListenOn("udp", "127.0.0.1", 0)
        async with endpoint(udp, resolver=Listed(*servers), stop_grace_s=0.01) as phone:
            call = await phone.dial("sip:1@x.example", "sip:a@b", StaticMedia())
            async with asyncio.timeout(LIMIT_S):
                assert await call.wait_answered() is not None
                call.hangup()
                assert (await call.wait_ended()).by == "caller"
        assert (await silent.expect("INVITE")).count("Via:") == 1


async def test_when_every_server_fails_the_call_ends_with_what_the_last_gave() -> None:
    async with raw_peer() as one, raw_peer() as two:
        for peer in (one, two):
            peer.datagram_received = refusing(peer, "503 Full")  # type: ignore[method-assign]
        servers = [Server("127.0.0.1", peer.port, "udp", "x.example") for peer in (one, two)]
        async with endpoint(ListenOn("udp", "127.0.0.1", 0), resolver=Listed(*servers)) as phone:
            call = await phone.dial("sip:1@x.example", "sip:a@b", StaticMedia())
            async with asyncio.timeout(LIMIT_S):
                assert await call.wait_answered() is None
                assert await call.wait_ended() == HangupCause("agent", 503, "Full")
        with pytest.raises(SipUnreachable):
            nobody = Server("127.0.0.1", 1, "tcp", "x.example")
            async with endpoint(ListenOn("udp", "127.0.0.1", 0), resolver=Listed(nobody)) as phone:
                await phone.dial("sip:1@x.example", "sip:a@b", StaticMedia())


async def test_a_listener_that_cannot_be_bound_leaves_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listeners = [ListenOn("udp", "127.0.0.1", 0), ListenOn("tcp", "127.0.0.1", port)]
        with pytest.raises(OSError, match=rf"cannot listen for SIP on 127.0.0.1:{port}/tcp: .*another listen.sip port"):
            await SipEndpoint(listeners, trunks=(), on_call=lambda leg: None).start()


async def test_both_families_on_one_port() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        port = probe.getsockname()[1]
    taken = Answers()
    both = [ListenOn(transport, host, port) for transport in ("udp", "tcp") for host in ("0.0.0.0", "::")]
    phone_listens = [ListenOn("udp", host, 0) for host in ("127.0.0.1", "::1")]
    async with endpoint(*both, on_call=taken) as box, endpoint(*phone_listens) as phone:
        for host in ("127.0.0.1", "[::1]"):
            for tail in ("", ";transport=tcp"):
                call = await phone.dial(f"sip:1@{host}:{box.port}{tail}", "sip:a@b", StaticMedia())
                async with asyncio.timeout(LIMIT_S):
                    assert await call.wait_answered() is not None
                    taken.legs[-1].hangup()
                    assert (await call.wait_ended()).by == "agent"


async def test_a_dual_stack_listener_serves_both_families() -> None:
    taken = Answers()
    async with endpoint(ListenOn("udp", "::", 0), on_call=taken) as box:
        for host in ("127.0.0.1", "::1"):
            async with endpoint(ListenOn("udp", host, 0)) as phone:
                shown = f"[{host}]" if ":" in host else host
                call = await phone.dial(f"sip:1@{shown}:{box.port}", "sip:a@b", StaticMedia())
                async with asyncio.timeout(LIMIT_S):
                    assert await call.wait_answered() is not None
                    assert taken.legs[-1].info.source == f"{shown}:{phone.port}"
                    taken.legs[-1].hangup()
                    assert (await call.wait_ended()).by == "agent"


class TcpPeer:
    """A peer on one TCP connection, written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> TcpPeer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def say(self, method: str, cseq: int, tag: str = "", body: str = "") -> None:
        to_tag = f";tag={tag}" if tag else ""
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.writer.write(
            (
                f"{method} sip:100@127.0.0.1 SIP/2.0\r\n"
                f"Via: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{method}{cseq};rport\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:ann@127.0.0.1>;tag=ann\r\nTo: <sip:100@127.0.0.1>{to_tag}\r\n"
                f"Call-ID: tcp\r\nCSeq: {cseq} {method}\r\nContact: <sip:ann@127.0.0.1:9;transport=tcp>\r\n{kind}"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )

    async def expect(self, start: str) -> str:
        async with asyncio.timeout(LIMIT_S):
            while True:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
                length = int(
                    next(line for line in head.split("\r\n") if line.startswith("Content-Length")).split(":")[1]
                )
                await self.reader.readexactly(length)
                if head.startswith(start):
                    return head

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_calls_of_a_trunk_registered_by_tcp_come_over_that_connection_and_no_datagrams_do() -> None:
    trunks: list[str] = []

    def on_call(leg: SipLeg) -> None:
        trunks.append(leg.info.trunk)
        leg.reject(486)

    peers: asyncio.Queue[TcpPeer] = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: peers.put_nowait(TcpPeer(*streams)), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rule = TrunkRule("carrier", proxies=(f"sip:127.0.0.1:{port};transport=tcp",), username="box", register=True)
    box = SipEndpoint([ListenOn("udp", "127.0.0.1", 0)], trunks=(rule,), on_call=on_call)
    await box.start()
    async with asyncio.timeout(LIMIT_S), raw_peer() as stranger:
        peer = await peers.get()
        asked = await peer.expect("REGISTER")
        await stranger_is_refused(stranger, box, "before")
        peer.writer.write(asked.replace(asked.split("\r\n", 1)[0], "SIP/2.0 200 OK").encode())
        await eventually(lambda: box.trunk_of(Peer("127.0.0.1", port, "tcp")))
        peer.say("INVITE", 1, body=SDP)
        await peer.expect("SIP/2.0 486")
        await stranger_is_refused(stranger, box, "after")
        stopping = asyncio.create_task(box.stop())
        asked = await peer.expect("REGISTER")
        peer.writer.write(asked.replace(asked.split("\r\n", 1)[0], "SIP/2.0 200 OK").encode())
        await stopping
        await peer.close()
    server.close()
    await server.wait_closed()
    assert trunks == ["carrier"]


async def stranger_is_refused(stranger: RawPeer, box: SipEndpoint, call: str) -> None:
    stranger.transport.sendto(stranger.request("INVITE", body=SDP, call=call), ("127.0.0.1", box.port))
    await stranger.expect("SIP/2.0 403")


async def test_a_call_goes_on_over_the_connection_that_its_peer_made_anew() -> None:
    taken = Answers()
    async with endpoint(ListenOn("tcp", "127.0.0.1", 0), on_call=taken) as box:
        first = await TcpPeer.connect(box.port)
        first.say("INVITE", 1, body=SDP)
        tag = next(
            line for line in (await first.expect("SIP/2.0 200")).split("\r\n") if line.startswith("To:")
        ).rpartition("tag=")[2]
        first.say("ACK", 1, tag)
        second = await TcpPeer.connect(box.port)
        await first.close()
        second.say("INFO", 2, tag)
        await second.expect("SIP/2.0 200")
        taken.legs[0].hangup()
        bye = await second.expect("BYE")
        second.writer.write(bye.replace(bye.split("\r\n", 1)[0], "SIP/2.0 200 OK").encode())
        await second.writer.drain()
        await second.close()
