"""Whose calls a registration lets in, and for how long, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from appliance.errors import SipUnreachable
from appliance.signalling.resolver import Server
from appliance.signalling.trunk_links import TrunkLinks
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.message import Request, make_response
from appliance.sip.outside import Outcome
from appliance.sip.uri import Peer, SipUri

from ..engines.virtual_time import run_virtual
from ..sip.requests import good_message, make_request

ONE, OTHER = "192.0.2.1", "192.0.2.2"
RULE = TrunkRule("carrier", proxies=("sip:carrier.example",), username="box", register=True, register_interval_s=100.0)


class Carrier:
    """The endpoint, with one server behind the name, which answers as ``answer`` says: a status, 0 for no connection.

    ``answer`` may raise what the endpoint never should.
    """

    def __init__(self, transport: str = "udp") -> None:
        self.server = Server(ONE, 5060, transport, "carrier.example")
        self.answer: Callable[[], int] = lambda: 200
        self.asked: list[tuple[str, float]] = []
        self.lost = False

    async def servers_of(self, rule: TrunkRule, uri: SipUri) -> Sequence[Server]:
        return [self.server]

    async def way_to(self, rule: TrunkRule, server: Server) -> Peer:
        if not self.answer():
            raise SipUnreachable("no SIP connection: its certificate is refused")
        self.lost = False
        return Peer(server.host, server.port, server.transport, 7)

    async def ask(self, method: str, target: SipUri, peer: Peer, **more: Any) -> Outcome:
        self.asked.append((peer.host, self.now()))
        status = self.answer()
        request = good_message(make_request(method))
        assert isinstance(request, Request)
        response = make_response(request, status)
        if ("Expires", "0") not in more.get("headers", ()):
            response.headers.add("Expires", "100")
        return Outcome(status, response, request)

    def still_open(self, peer: Peer) -> bool:
        return not self.lost

    def now(self) -> float:
        return asyncio.get_running_loop().time()


class Rig:
    def __init__(self, transport: str = "udp") -> None:
        self.carrier = Carrier(transport)
        self.table = TrunkTable([RULE])
        self.links = TrunkLinks(self.table, self.carrier, lambda: 0.5)

    def takes(self, host: str = ONE, transport: str = "udp") -> bool:
        """Whether calls from there, on any port and connection, are the trunk's."""
        found = self.links.registered_with(Peer(host, 40_000, transport, 99))
        assert found in (RULE, None)
        return found is RULE

    @property
    def registration(self) -> str:
        return self.table.state("carrier").registration


def run(story: Callable[[Rig], Coroutine[Any, Any, None]], transport: str = "udp") -> None:
    async def whole() -> None:
        rig = Rig(transport)
        rig.links.start()
        try:
            await story(rig)
        finally:
            await rig.links.stop()
        assert not any(rig.takes(host) for host in (ONE, OTHER))

    run_virtual(whole())


@pytest.mark.parametrize("status", [0, 403, 503])
def test_a_name_that_leads_somewhere_lets_nobody_in(status: int) -> None:
    async def story(rig: Rig) -> None:
        rig.carrier.answer = lambda: status
        await asyncio.sleep(1.0)
        assert rig.registration.startswith("not registered: ")
        assert not any(rig.takes(transport=transport) for transport in ("udp", "tcp", "tls"))

    run(story, "tls")


@pytest.mark.parametrize(
    ("transport", "taken"), [("udp", {"udp", "tcp"}), ("tcp", {"tcp"}), ("tls", {"tls"})], ids=["udp", "tcp", "tls"]
)
def test_calls_come_by_the_transport_of_the_registration(transport: str, taken: set[str]) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(1.0)
        assert {one for one in ("udp", "tcp", "tls") if rig.takes(transport=one)} == taken
        assert not rig.takes(OTHER, transport)

    run(story, transport)


def test_a_server_that_was_left_is_a_stranger_again() -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(1.0)
        assert rig.takes(ONE) and not rig.takes(OTHER)
        rig.carrier.server = rig.carrier.server._replace(host=OTHER)
        await asyncio.sleep(100.0)
        assert rig.takes(OTHER) and not rig.takes(ONE)
        assert rig.registration == f"registered with sip:carrier.example at {OTHER}:5060/udp"

    run(story)


@pytest.mark.parametrize("status", [0, 503])
def test_a_registration_that_is_not_refreshed_runs_out(status: int) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(80.0)
        rig.carrier.server = rig.carrier.server._replace(host=OTHER)
        rig.carrier.answer = lambda: status
        await asyncio.sleep(10.0)
        assert rig.takes(ONE) and not rig.takes(OTHER)
        assert rig.registration.startswith("registered until it runs out; refreshing failed: ")
        await asyncio.sleep(9.5)
        assert rig.takes(ONE)
        await asyncio.sleep(1.5)
        assert not rig.takes(ONE)
        assert rig.registration.startswith("not registered: it has run out; ")
        assert rig.table.state("carrier").registered is False

    run(story)


def test_a_lost_connection_is_no_registration_where_it_cannot_be_made_again() -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(5.0)
        assert rig.takes(transport="tls") and rig.links.uses(7)
        rig.carrier.lost, rig.carrier.answer = True, lambda: 0
        await asyncio.sleep(2.0)
        assert not rig.takes(transport="tls") and not rig.links.uses(7)

    run(story, "tls")


def test_a_mistake_while_registering_is_logged_and_the_trunk_registers_later(caplog: pytest.LogCaptureFixture) -> None:
    def mistake() -> int:
        raise ValueError("a mistake of ours")

    async def story(rig: Rig) -> None:
        rig.carrier.answer = mistake
        await asyncio.sleep(1.0)
        assert "the registration of trunk carrier failed; it begins again in 30 s" in caplog.messages
        rig.carrier.answer = lambda: 200
        await asyncio.sleep(30.0)
        assert rig.takes() and rig.registration.startswith("registered with ")

    run(story)
