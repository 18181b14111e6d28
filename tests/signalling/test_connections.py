"""TCP and TLS connections over loopback; time-outs by telling the sweep another time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import SipUnreachable
from appliance.signalling.connections import ConnectionLimits, Connections, Target, plain_host
from appliance.signalling.tls import TlsClient, TlsContexts, TlsServer
from appliance.sip.uri import Peer
from tests.waiting import LIMIT_S, eventually

from ..certificates import Authority


def message(text: str = "x") -> bytes:
    return f"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: {text}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass
class Side:
    """One box's connections, and what it heard."""

    heard: asyncio.Queue[tuple[bytes, Peer]] = field(default_factory=asyncio.Queue)
    unsent: asyncio.Queue[tuple[bytes, Peer, str]] = field(default_factory=asyncio.Queue)
    known: Callable[[str, str], bool] = lambda host, transport: True
    used: set[int] = field(default_factory=set)
    connections: Connections = field(init=False)
    port: int = 0

    async def next(self) -> tuple[bytes, Peer]:
        async with asyncio.timeout(LIMIT_S):
            return await self.heard.get()

    async def next_unsent(self) -> tuple[bytes, Peer, str]:
        async with asyncio.timeout(LIMIT_S):
            return await self.unsent.get()


@asynccontextmanager
async def side(
    kind: str = "tcp",
    tls: TlsServer | None = None,
    limits: ConnectionLimits | None = None,
    known: Callable[[str, str], bool] = lambda host, transport: True,
) -> AsyncIterator[Side]:
    contexts = TlsContexts()
    one = Side(known=known)
    one.connections = Connections(
        deliver=lambda data, peer: one.heard.put_nowait((data, peer)),
        unsent=lambda data, peer, why: one.unsent.put_nowait((data, peer, why)),
        known=one.known,
        contexts=contexts,
        chance=lambda: 0.5,
        in_use=lambda flow: flow in one.used,
        limits=limits,
    )
    one.port = one.connections.listen(kind, "127.0.0.1", 0, contexts.server(tls) if tls else None)[1]
    try:
        yield one
    finally:
        await one.connections.close()
        assert len(one.connections) == 0


async def until(what: Callable[[], object]) -> None:
    await eventually(what)


async def test_one_connection_carries_both_directions_and_is_used_again() -> None:
    async with side() as box, side() as peer:
        target = Target("127.0.0.1", box.port, "tcp")
        to_box = Peer("127.0.0.1", box.port, "tcp")
        peer.connections.send(message("1"), to_box, target)
        peer.connections.send(message("2"), to_box, target)
        data, source = await box.next()
        assert data == message("1") and source.transport == "tcp" and source.flow
        assert (await box.next())[0] == message("2")
        box.connections.send(message("back"), source, Target(*source[:3]))
        back, by = await peer.next()
        assert back == message("back") and by[:3] == to_box[:3]
        assert await peer.connections.connect(target) == by
        assert peer.connections.find(to_box) == by
        peer.connections.send(message("3"), by, target)
        assert (await box.next())[1] == source
        assert peer.connections.counters["connects"] == box.connections.counters["connections_accepted"] == 1
        assert peer.connections.local_address(by.flow) == ("127.0.0.1", source.port)


async def test_a_mistake_while_accepting_does_not_end_the_listener(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, mistakes = Connections._accept, [ValueError("a mistake of ours")]

    async def accept_after_a_mistake(*arguments: Any) -> None:
        if mistakes:
            raise mistakes.pop()
        await accept(*arguments)

    monkeypatch.setattr(Connections, "_accept", accept_after_a_mistake)
    async with side() as box, side() as peer:
        to_box = Peer("127.0.0.1", box.port, "tcp")
        peer.connections.send(message(), to_box, Target(*to_box[:3]))
        assert (await box.next())[0] == message()
    assert "the tcp listener on 127.0.0.1 failed; it begins again in 0.1 s" in caplog.text


async def test_a_closed_connection_is_replaced() -> None:
    async with side() as box, side() as peer:
        target = Target("127.0.0.1", box.port, "tcp")
        first = await peer.connections.connect(target)
        await until(lambda: len(box.connections) == 1)
        peer.connections.sweep(peer.connections.now() + 10_000)
        await until(lambda: len(box.connections) == 0 and len(peer.connections) == 0)
        peer.connections.send(message(), first, target)
        _, source = await box.next()
        assert peer.connections.counters["connects"] == 2
        assert peer.connections.find(first) != first
        assert box.connections.find(source._replace(flow=99)) is None


async def test_what_cannot_be_sent_comes_back_with_the_reason() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Target("127.0.0.1", closed.getsockname()[1], "tcp")
        async with side() as box:
            where = Peer(*nobody[:3])
            box.connections.send(message("1"), where, nobody)
            data, peer, why = await box.next_unsent()
            assert (data, peer) == (message("1"), where)
            assert why.startswith(f"no SIP connection to 127.0.0.1:{nobody.port}/tcp: ")
            with pytest.raises(SipUnreachable, match="no SIP connection to"):
                await box.connections.connect(nobody)
            assert box.connections.counters["connects_failed"] == 1  # the second was not tried so soon


async def test_a_queue_has_an_end() -> None:
    async with side(limits=ConnectionLimits(queue=2)) as box, side() as peer:
        target = Target("127.0.0.1", peer.port, "tcp")
        for text in "123":
            box.connections.send(message(text), Peer(*target[:3]), target)
        assert (await box.next_unsent())[0] == message("3")
        assert [(await peer.next())[0] for _ in "12"] == [message("1"), message("2")]


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    async with side(limits=ConnectionLimits(write_bytes=100_000)) as box:
        _, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(message())
        _, source = await box.next()
        sent = 0
        while box.unsent.empty() and sent < 100_000_000:
            box.connections.send(b"x" * 50_000, source, Target(*source[:3]))
            sent += 50_000
        assert (await box.next_unsent())[2] == "the peer does not read what we send"
        await until(lambda: len(box.connections) == 0)
        writer.close()


async def test_pings_are_answered_and_sent() -> None:
    async with side() as box, side() as peer:
        flow = await peer.connections.connect(Target("127.0.0.1", box.port, "tcp"))
        peer.connections.send(message(), flow, Target(*flow[:3]))
        await box.next()
        now = peer.connections.now()
        peer.connections.sweep(now + 50)
        assert peer.connections.counters["pings_sent"] == 0
        peer.connections.sweep(now + 95)
        assert peer.connections.counters["pings_sent"] == 1
        await until(lambda: box.connections.counters["pings_answered"])
        assert peer.heard.empty() and box.heard.empty()
        connection = peer.connections._open[flow.flow]
        await until(lambda: connection.has_ponged)
        peer.connections.sweep(now + 106)
        assert len(peer.connections) == 1


async def test_a_server_that_stops_answering_pings_is_given_up_and_one_that_never_did_is_not() -> None:
    heard = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(100):
            heard.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with side() as box:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], "tcp")
        flow = await box.connections.connect(target)
        now = box.connections.now()
        box.connections.sweep(now + 100)
        box.connections.sweep(now + 111)
        assert box.connections.find(flow) == flow
        box.connections.sweep(now + 220)
        async with asyncio.timeout(LIMIT_S):
            await heard.wait()
        writers[0].write(b"\r\n")
        await until(lambda: box.connections._open[flow.flow].has_ponged)
        box.connections.sweep(now + 330)
        box.connections.sweep(now + 341)
        await until(lambda: len(box.connections) == 0)
        assert box.connections.counters["pongs_missed"] == 1
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_silent_slow_and_idle_connections_are_closed() -> None:
    async with side() as box:
        now = box.connections.now()
        silent, slow, idle, used = [await asyncio.open_connection("127.0.0.1", box.port) for _ in range(4)]
        slow[1].write(message() + message()[:20])
        idle[1].write(message())
        used[1].write(message())
        for _ in range(3):
            await box.next()
        flows = {connection.peer.port: flow for flow, connection in box.connections._open.items()}
        port = {name: pair[1].get_extra_info("sockname")[1] for name, pair in {"used": used, "idle": idle}.items()}
        box.used.add(flows[port["used"]])
        await until(lambda: any(connection.partial_since for connection in box.connections._open.values()))
        box.connections.sweep(now + 11)
        await until(lambda: len(box.connections) == 3)
        assert await silent[0].read() == b""
        box.connections.sweep(now + 30)
        await until(lambda: len(box.connections) == 2)
        box.connections.sweep(now + 1000)
        await until(lambda: set(box.connections._open) == {flows[port["used"]]})
        for _, writer in (silent, slow, idle, used):
            writer.close()


async def test_limits_for_one_address_for_strangers_and_in_all() -> None:
    for limits, known in (
        (ConnectionLimits(per_address=2), True),
        (ConnectionLimits(per_stranger=2), False),
        (ConnectionLimits(total=2), True),
        (ConnectionLimits(strangers=2), False),
    ):
        async with side(limits=limits, known=lambda host, transport, known=known: known) as box:  # type: ignore[misc]
            pairs = [await asyncio.open_connection("127.0.0.1", box.port) for _ in range(3)]
            await until(lambda box=box: box.connections.counters["connections_refused"] == 1)
            async with asyncio.timeout(LIMIT_S):
                assert await pairs[2][0].read() == b""
            assert len(box.connections) == 2
            pairs[0][1].close()
            await until(lambda box=box: len(box.connections) == 1)
            pairs.append(await asyncio.open_connection("127.0.0.1", box.port))
            await until(lambda box=box: len(box.connections) == 2)
            for _, writer in pairs:
                writer.close()


async def test_garbage_closes_a_connection_and_bans_a_stranger() -> None:
    async with side(known=lambda host, transport: False, limits=ConnectionLimits(garbage=2)) as box:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
            writer.write(message() + b"GET / HTTP/1.1\r\n\r\n")
            assert (await box.next())[0] == message()
            async with asyncio.timeout(LIMIT_S):
                with pytest.raises(ConnectionResetError):
                    assert await reader.read() == b""
                    raise ConnectionResetError
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
        await until(lambda: box.connections.counters["connections_refused"] == 1)
        assert box.connections.counters["garbage_streams"] == 2
        assert box.connections.counters["addresses_banned"] == 1
        writer.close()


async def test_tls_both_ways_with_the_certificate_of_the_domain(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("sip.example.net")
    async with side("tls", TlsServer(pair.cert, pair.key)) as box, side() as peer:
        target = Target("127.0.0.1", box.port, "tls", "sip.example.net", TlsClient(ca=authority.ca))
        flow = await peer.connections.connect(target)
        peer.connections.send(message(), flow, target)
        data, source = await box.next()
        assert (data, source.transport) == (message(), "tls")
        box.connections.send(message("back"), source, Target(*source[:3]))
        assert (await peer.next())[0] == message("back")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("another domain", "its certificate is for sip.example.net, not for other.example"),
        ("a stranger's authority", "its certificate is refused: .*name the authority that signed it as tls.ca"),
        ("expired", "its certificate is refused: certificate has expired"),
    ],
)
async def test_a_wrong_certificate_is_refused_before_anything_is_sent(tmp_path: Path, case: str, words: str) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.issue("sip.example.net", expired=case == "expired")
    ca = other.ca if case == "a stranger's authority" else authority.ca
    domain = "other.example" if case == "another domain" else "sip.example.net"
    async with side("tls", TlsServer(pair.cert, pair.key)) as box, side() as peer:
        target = Target("127.0.0.1", box.port, "tls", domain, TlsClient(ca=ca))
        peer.connections.send(message(), Peer(*target[:3]), target)
        _, _, why = await peer.next_unsent()
        assert why.startswith(f"no SIP connection to 127.0.0.1:{box.port}/tls: ")
        with pytest.raises(SipUnreachable, match=words):
            await peer.connections.connect(target)
        await until(lambda: len(peer.connections) == len(box.connections) == 0)
        assert box.heard.empty()
        trusting = target._replace(tls=TlsClient(verify=False))
        assert await peer.connections.connect(trusting)


async def test_a_peer_that_asks_for_our_certificate_is_shown_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    theirs, ours = authority.issue("sip.example.net", file="theirs"), authority.issue("box.example", file="ours")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.load_cert_chain(theirs.both)
    context.verify_mode = ssl.CERT_REQUIRED
    shown: asyncio.Queue[object] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.put_nowait(writer.get_extra_info("peercert")["subjectAltName"])
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with side() as box:
        client = TlsClient(ca=authority.ca, cert=ours.cert, key=ours.key)
        port = server.sockets[0].getsockname()[1]
        await box.connections.connect(Target("127.0.0.1", port, "tls", "sip.example.net", client))
        async with asyncio.timeout(LIMIT_S):
            assert await shown.get() == (("DNS", "box.example"),)
    server.close()
    await server.wait_closed()


async def test_a_handshake_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("sip.example.net")
    limits = ConnectionLimits(per_address=1, startup_s=1.0)
    async with side("tls", TlsServer(pair.both), limits=limits) as box:
        for data in (message(), b""):  # plain text on a TLS port, and nothing at all
            _, writer = await asyncio.open_connection("127.0.0.1", box.port)
            writer.write(data)
            failed = box.connections.counters["tls_handshakes_failed"]
            await until(lambda failed=failed: box.connections.counters["tls_handshakes_failed"] > failed)
            writer.close()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with asyncio.timeout(LIMIT_S):
            _, writer = await asyncio.open_connection("127.0.0.1", box.port, ssl=context)
        writer.write(message())
        assert (await box.next())[0] == message()
        writer.close()
        await until(lambda: len(box.connections) == 0)


def test_addresses_of_a_dual_stack_socket_read_as_what_they_are() -> None:
    assert plain_host("::ffff:10.0.0.1") == "10.0.0.1"
    assert plain_host("2001:db8::1") == "2001:db8::1"
