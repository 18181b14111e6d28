"""Registration, qualify, credentials and limits of trunks, against a peer that says what it is told."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import SipLeg
from appliance.signalling.trunks import TrunkRule, TrunkState, TrunkTable
from appliance.sip.uri import SipUri
from tests.waiting import LIMIT_S, eventually

from .test_sip_endpoint import SDP, RawPeer, StaticMedia, raw_peer

CHALLENGE = 'WWW-Authenticate: Digest realm="carrier", nonce="n1", qop="auth", algorithm=SHA-256'


def reply(request: str, status: str, *lines: str) -> bytes:
    """A response to ``request`` with further header lines."""
    kept = [line for line in request.split("\r\n") if re.match(r"(Via|From|To|Call-ID|CSeq):", line)]
    kept = [f"{line};tag=there" if line.startswith("To:") and "tag=" not in line else line for line in kept]
    return "\r\n".join([f"SIP/2.0 {status}", *kept, *lines, "Content-Length: 0", "", ""]).encode()


def header(message: str, name: str) -> str:
    return next(line.partition(": ")[2] for line in message.split("\r\n") if line.startswith(f"{name}:"))


class Registrar:
    """Answers each method with the next of the replies it was given, the last one for ever."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.replies: dict[str, list[tuple[str, ...]]] = {}
        peer.datagram_received = self.answer  # type: ignore[method-assign]

    def answer(self, data: bytes, addr: tuple[str, int]) -> None:
        text = data.decode()
        self.peer.heard.put_nowait(text)
        method = text.split(" ", 1)[0]
        replies = self.replies.get(method)
        if replies:
            status, *lines = replies.pop(0) if len(replies) > 1 else replies[0]
            self.peer.transport.sendto(reply(text, status, *lines), addr)


@asynccontextmanager
async def registrar() -> AsyncIterator[Registrar]:
    async with raw_peer() as peer:
        yield Registrar(peer)


@asynccontextmanager
async def endpoint(
    *rules: TrunkRule, on_call: Callable[[SipLeg], None] = lambda leg: None
) -> AsyncIterator[tuple[SipEndpoint, TrunkTable]]:
    table = TrunkTable(rules)
    running = SipEndpoint([ListenOn("udp", "127.0.0.1", 0)], trunks=table, on_call=on_call)
    await running.start()
    try:
        yield running, table
    finally:
        await running.stop()


async def until(state: TrunkState, words: str) -> None:
    await eventually(lambda: re.search(words, state.registration))


def account(port: int, **more: object) -> TrunkRule:
    return TrunkRule(
        "carrier",
        proxies=(f"sip:127.0.0.1:{port}",),
        username="box",
        password="secret",
        register=True,
        register_interval_s=300.0,
        **more,  # type: ignore[arg-type]
    )


async def test_a_trunk_is_registered_with_digest_and_unregistered_at_the_end() -> None:
    async with registrar() as there:
        there.replies["REGISTER"] = [("401 Unauthorized", CHALLENGE), ("200 OK", "Expires: 300")]
        async with endpoint(account(there.peer.port)) as (_, table):
            state = table.state("carrier")
            assert (state.registered, state.reachable) == (False, None)
            await until(state, "^registered with ")
            assert state.registered
            first = await there.peer.expect("REGISTER")
            second = await there.peer.expect("REGISTER")
            assert first.startswith(f"REGISTER sip:127.0.0.1:{there.peer.port} SIP/2.0\r\n")
            assert header(first, "To") == "<sip:box@127.0.0.1>"
            assert header(first, "Contact").startswith("<sip:box@127.0.0.1:")
            assert header(first, "Expires") == "300"
            assert 'username="box", realm="carrier"' in header(second, "Authorization")
            assert header(first, "Call-ID") == header(second, "Call-ID")
        last = await there.peer.expect("REGISTER")
        assert header(last, "Expires") == "0"
        assert header(last, "Call-ID") == header(first, "Call-ID")
        assert header(last, "CSeq") == "3 REGISTER"
        assert state.registered is False


async def test_a_wrong_password_is_said_in_the_trunks_state() -> None:
    async with registrar() as there:
        there.replies["REGISTER"] = [("401 Unauthorized", CHALLENGE)]
        async with endpoint(account(there.peer.port)) as (_, table):
            await until(table.state("carrier"), "^not registered: 401: the user name or password is not accepted$")
            assert table.state("carrier").registered is False


async def test_the_next_proxy_takes_over_where_the_first_cannot_be_reached() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"sip:127.0.0.1:{closed.getsockname()[1]};transport=tcp"
        async with registrar() as there:
            there.replies["REGISTER"] = [("200 OK",)]
            rule = account(there.peer.port)
            rule = TrunkRule("carrier", proxies=(dead, *rule.proxies), register=True, username="box")
            async with endpoint(rule) as (_, table):
                await until(table.state("carrier"), f"^registered with sip:127.0.0.1:{there.peer.port}")


async def test_calls_from_where_a_trunk_is_registered_are_its_own() -> None:
    trunks: list[str] = []

    def on_call(leg: SipLeg) -> None:
        trunks.append(leg.info.trunk)
        leg.reject(486)

    async with registrar() as there:
        there.replies["REGISTER"] = [("200 OK",)]
        async with endpoint(account(there.peer.port), on_call=on_call) as (box, table):
            await until(table.state("carrier"), "^registered")
            there.peer.transport.sendto(there.peer.request("INVITE", body=SDP), ("127.0.0.1", box.port))
            await there.peer.expect("SIP/2.0 486")
    assert trunks == ["carrier"]


async def test_qualify_tells_whether_a_trunk_is_there() -> None:
    async with registrar() as there:
        there.replies["OPTIONS"] = [("200 OK",), ("503 Full",)]
        rule = TrunkRule("carrier", proxies=(f"sip:127.0.0.1:{there.peer.port}",), qualify_s=0.05)
        async with endpoint(rule) as (_, table):
            state = table.state("carrier")
            await eventually(lambda: state.reachable is not None)
            assert state.reachable
            assert state.round_trip_ms is not None and state.round_trip_ms >= 0.0
            await eventually(lambda: not state.reachable)


async def test_each_of_two_accounts_at_one_server_answers_challenges_as_itself() -> None:
    async with registrar() as there:
        there.replies["INVITE"] = [
            ("407 Proxy Authentication Required", CHALLENGE.replace("WWW", "Proxy")),
            ("486 Busy Here",),
            ("407 Proxy Authentication Required", CHALLENGE.replace("WWW", "Proxy")),
            ("486 Busy Here",),
        ]
        uri = f"sip:127.0.0.1:{there.peer.port}"
        rules = [
            TrunkRule(name, proxies=(uri,), username=name, password="p", caller_id=number)
            for name, number in (("north", "+491"), ("south", "+492"))
        ]
        async with endpoint(*rules) as (box, _):
            for rule in rules:
                await box.servers_of(rule, SipUri.parse(uri))
            for rule in rules:
                from_uri = f"sip:{rule.caller_id}@127.0.0.1"
                call = await box.dial(f"sip:1@127.0.0.1:{there.peer.port}", from_uri, StaticMedia(), trunk=rule)
                async with asyncio.timeout(LIMIT_S):
                    assert (await call.wait_ended()).code == 486
                await there.peer.expect("INVITE")
                again = await there.peer.expect("INVITE")
                assert f'username="{rule.username}"' in header(again, "Proxy-Authorization")
                assert header(again, "CSeq") == "2 INVITE"


async def test_a_trunk_that_must_authenticate_is_challenged() -> None:
    loopback = (ipaddress.ip_network("127.0.0.0/8"),)
    rule = TrunkRule("office", loopback, username="u", password="p", auth="challenge")
    async with endpoint(rule, on_call=lambda leg: pytest.fail("not authenticated")) as (box, _), raw_peer() as peer:
        peer.transport.sendto(peer.request("INVITE", body=SDP), ("127.0.0.1", box.port))
        assert "WWW-Authenticate: Digest" in await peer.expect("SIP/2.0 401")


@pytest.mark.parametrize(
    ("named", "elsewhere", "expected"),
    [
        ({"allow": (ipaddress.ip_network("127.0.0.2"),)}, (), 486),
        ({"proxies": ("sip:127.0.0.2",)}, (), 486),
        ({}, (ipaddress.ip_network("127.0.0.2"),), 302),
        ({}, (), 302),
    ],
)
async def test_a_redirection_is_followed_only_to_where_the_trunk_is(
    named: dict[str, tuple[object, ...]], elsewhere: tuple[ipaddress.IPv4Network, ...], expected: int
) -> None:
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(RawPeer, local_addr=("127.0.0.2", 0))
    there = Registrar(peer)
    there.replies["INVITE"] = [("486 Busy Here",)]
    async with registrar() as moved:
        moved.replies["INVITE"] = [("302 Moved", f"Contact: <sip:100@127.0.0.2:{peer.port}>")]
        uri = f"sip:100@127.0.0.1:{moved.peer.port}"
        rule = TrunkRule("carrier", allow=named.get("allow", ()), proxies=(uri, *named.get("proxies", ())))  # type: ignore[arg-type]
        async with endpoint(rule, TrunkRule("other", allow=elsewhere)) as (box, _):
            call = await box.dial(uri, "sip:us@127.0.0.1", StaticMedia(), trunk=rule)
            async with asyncio.timeout(LIMIT_S):
                assert (await call.wait_ended()).code == expected
    transport.close()
    assert peer.heard.empty() is (expected == 302)
