"""Every socket of the SIP endpoint: UDP listeners, and the TCP and TLS connections; which of them a message leaves by.

A request of more than 1300 bytes that would go by UDP goes by TCP where the peer takes TCP (RFC 3261 §18.1.1). To the
transaction nothing has changed: it sends again, which is dropped here, and where no connection can be made the request
leaves by UDP after all.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import itertools
import logging
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from appliance.signalling.connections import ConnectionLimits, Connections, Target, plain_host
from appliance.signalling.loops import keep_running
from appliance.signalling.resolver import Server
from appliance.signalling.tls import TlsClient, TlsContexts, TlsServer
from appliance.sip.uri import DEFAULT_PORT, DEFAULT_TLS_PORT, Peer, join_host_port

logger = logging.getLogger(__name__)

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked of the kernel, so that a burst of calls is not lost while the loop is busy; it may grant less."""

MAX_UDP_REQUEST_BYTES: Final = 1300

_ANYWHERE: Final = ("0.0.0.0", "::")
_SWEEP_S: Final = 1.0
_LOOK_AT_FILES_S: Final = 30.0
_MAX_REMEMBERED: Final = 2048
_NO_TCP_S: Final = 600.0
_MOVED_CONNECT_S: Final = 2.0


class ListenOn(NamedTuple):
    """One socket to listen on. ``tls`` is needed for the transport "tls"; port 0 takes any free one."""

    transport: str
    host: str
    port: int
    tls: TlsServer | None = None


class _Udp(asyncio.DatagramProtocol):
    """One UDP listener."""

    def __init__(self, owner: Transports, flow: int, sock: socket.socket) -> None:
        self.owner = owner
        self.flow = flow
        self.family = sock.family
        self.host, self.port = sock.getsockname()[:2]
        self.anywhere = self.host in _ANYWHERE
        self.only_ipv6 = bool(
            self.family == socket.AF_INET6 and sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        )
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.owner.deliver(data, Peer(plain_host(addr[0]), addr[1], "udp", self.flow))

    def error_received(self, exc: Exception) -> None:
        # The kernel could not deliver something; retransmission takes care of it.
        self.owner.counters["send_errors"] += 1

    def reaches(self, host: str) -> bool:
        """Whether datagrams can go to this address."""
        if ":" in host:
            return self.family == socket.AF_INET6
        return self.family == socket.AF_INET or (self.anywhere and not self.only_ipv6)

    def send(self, data: bytes, host: str, port: int) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self.family == socket.AF_INET6 and ":" not in host:
            host = f"::ffff:{host}"
        try:
            self.transport.sendto(data, (host, port))
        except (OSError, ValueError) as error:
            self.owner.counters["send_errors"] += 1
            logger.warning("cannot send SIP to %s: %s", join_host_port(host, port), error)


class Transports:
    """The sockets of one endpoint.

    Args:
        listeners: where to listen; nothing is bound before :meth:`start`.
        deliver: takes each whole message and where it came from.
        unsent: takes each message that could not be sent, where it should have gone, and why in words.
        known: whether an address belongs to a trunk, by this transport.
        in_use: whether a call needs this flow.
        tls_of: for an address that only a message within a call has named: the domain its certificate must be for
            ("" for the address itself), and how TLS is spoken to it.
        advertised: how peers reach us, where that is not the address they see (NAT).
        chance: numbers in [0, 1).
    """

    def __init__(
        self,
        listeners: Sequence[ListenOn],
        *,
        deliver: Callable[[bytes, Peer], None],
        unsent: Callable[[bytes, Peer, str], None],
        known: Callable[[str, str], bool],
        in_use: Callable[[int], bool],
        tls_of: Callable[[str], tuple[str, TlsClient]],
        chance: Callable[[], float],
        advertised: str | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.deliver = deliver
        self.counters: Counter[str] = Counter()
        self.contexts = TlsContexts()
        self._listeners = tuple(listeners)
        self._unsent = unsent
        self._tls_of = tls_of
        self._advertised = advertised
        flows = itertools.count(1)
        self._flows = flows
        self._connections = Connections(
            deliver=deliver,
            unsent=self._not_sent,
            known=known,
            in_use=in_use,
            contexts=self.contexts,
            chance=chance,
            limits=limits,
            flows=flows,
        )
        self._udp: dict[int, _Udp] = {}
        self._bound: list[tuple[str, str, int]] = []
        self._targets: OrderedDict[tuple[str, int, str], Target] = OrderedDict()
        self._udp_only: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._moved: OrderedDict[bytes, Target] = OrderedDict()
        self._loops: list[asyncio.Task[None]] = []

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind every socket.

        Raises:
            OSError: where a port is taken or an address is not ours; the message says what to change.
            ApplianceError: where a certificate cannot be used.
        """
        loop = asyncio.get_running_loop()
        for one in self._listeners:
            context = self.contexts.server(one.tls) if one.tls is not None else None
            only_ipv6 = ":" in one.host and any(
                (other.transport, other.port) == (one.transport, one.port) and ":" not in other.host
                for other in self._listeners
            )
            try:
                if one.transport == "udp":
                    sock = _bind_udp(one.host, one.port, only_ipv6)
                    listener = _Udp(self, next(self._flows), sock)
                    await loop.create_datagram_endpoint(lambda listener=listener: listener, sock=sock)  # type: ignore[misc]
                    self._udp[listener.flow] = listener
                    bound = (str(listener.host), int(listener.port))
                else:
                    bound = self._connections.listen(one.transport, one.host, one.port, context, only_ipv6=only_ipv6)
            except OSError as error:
                where = join_host_port(one.host, one.port)
                raise OSError(
                    f"cannot listen for SIP on {where}/{one.transport}: {error.strerror or error}; stop the program "
                    "that has it, or set another listen.sip port"
                ) from error
            self._bound.append((one.transport, *bound))
        self._loops = [
            keep_running(self._sweep, "the sweep of SIP connections"),
            keep_running(self._follow_files, "the watch on certificates"),
        ]

    async def close(self) -> None:
        """Close every socket."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        for listener in self._udp.values():
            if listener.transport is not None:
                listener.transport.close()
        self._udp.clear()
        await self._connections.close()

    def reload(self) -> None:
        """Read certificates and authorities again; calls that are up notice nothing."""
        self.contexts.reload()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._connections.sweep(self._connections.now())

    async def _follow_files(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_FILES_S)
            if await self.contexts.changed():
                self.contexts.reload()

    @property
    def bound(self) -> tuple[tuple[str, str, int], ...]:
        """(transport, host, port) of every listener, in the order they were named; true ports once started."""
        return tuple(self._bound)

    @property
    def spoken(self) -> tuple[str, ...]:
        """The transports by which requests of ours can leave."""
        return ("udp", "tcp", "tls") if self._udp or not self._bound else ("tcp", "tls")

    @property
    def connection_counters(self) -> dict[str, int]:
        """What happened to connections so far, and how many are open now."""
        return {**self._connections.counters, **self.counters, "connections": len(self._connections)}

    def is_open(self, peer: Peer) -> bool:
        """Whether the connection a peer names still lasts."""
        found = self._connections.find(peer)
        return found is not None and found.flow == peer.flow

    # --- sending ---------------------------------------------------------------------------------------------------

    async def reach(self, server: Server, tls: TlsClient | None = None, *, udp_only: bool = False) -> Peer:
        """The way to a server: a listener for UDP, else a connection that is open once this returns.

        ``udp_only`` keeps large requests on UDP too.

        Raises:
            SipUnreachable: where no connection can be made; the message says why, in the operator's words.
        """
        if server.transport == "udp":
            if udp_only:
                self._remember_udp_only(server.host, server.port, float("inf"))
            return Peer(server.host, server.port)
        secure = server.transport == "tls"
        target = Target(server.host, server.port, server.transport, server.domain if secure else "", tls)
        if not secure:
            target = target._replace(tls=None)
        self._targets[server.host, server.port, server.transport] = target
        while len(self._targets) > _MAX_REMEMBERED:
            self._targets.popitem(last=False)
        return await self._connections.connect(target)

    def send(self, data: bytes, peer: Peer) -> None:
        """Send one message. What cannot be sent is given back through ``unsent``, now or later."""
        if peer.transport != "udp":
            target = self._targets.get(peer[:3])
            if target is None:
                target = Target(*peer[:3], *(self._tls_of(peer.host) if peer.transport == "tls" else ()))
            self._connections.send(data, peer, target)
            return
        if (self._moved or len(data) > MAX_UDP_REQUEST_BYTES) and self._by_tcp(data, peer):
            return
        self._send_udp(data, peer)

    def _send_udp(self, data: bytes, peer: Peer) -> None:
        listener = self._udp_towards(peer)
        if listener is None:
            family = "IPv6" if ":" in peer.host else "IPv4"
            self._unsent(data, peer, f"no UDP listener can reach {peer.host}; add one for {family} to listen.sip")
            return
        listener.send(data, peer.host, peer.port)

    def _by_tcp(self, data: bytes, peer: Peer) -> bool:
        """Whether this message went by TCP, or has gone that way before."""
        branch = _branch_of_request(data)
        if branch is None:
            return False
        target = self._moved.get(branch)
        again = target is not None
        if target is None:
            asleep = self._udp_only.get((peer.host, peer.port), 0.0)
            if len(data) <= MAX_UDP_REQUEST_BYTES or self._connections.now() < asleep:
                return False
            target = Target(peer.host, peer.port, "tcp")
            self._moved[branch] = target
            while len(self._moved) > _MAX_REMEMBERED:
                self._moved.popitem(last=False)
            self.counters["requests_moved_to_tcp"] += 1
        if again and not data.startswith((b"ACK ", b"CANCEL ")):
            return True
        by_tcp = data.replace(b"\r\nVia: SIP/2.0/UDP ", b"\r\nVia: SIP/2.0/TCP ", 1)
        self._connections.send(by_tcp, Peer(peer.host, peer.port, "tcp"), target, connect_s=_MOVED_CONNECT_S)
        return True

    def _not_sent(self, data: bytes, peer: Peer, why: str) -> None:
        branch = _branch_of_request(data) if self._moved and peer.transport == "tcp" else None
        if branch is None or self._moved.pop(branch, None) is None:
            self._unsent(data, peer, why)
            return
        logger.info("%s takes no TCP; large requests go to it by UDP: %s", join_host_port(peer.host, peer.port), why)
        self._remember_udp_only(peer.host, peer.port, self._connections.now() + _NO_TCP_S)
        by_udp = data.replace(b"\r\nVia: SIP/2.0/TCP ", b"\r\nVia: SIP/2.0/UDP ", 1)
        self._send_udp(by_udp, Peer(peer.host, peer.port))

    def _remember_udp_only(self, host: str, port: int, until: float) -> None:
        self._udp_only[host, port] = until
        while len(self._udp_only) > _MAX_REMEMBERED:
            self._udp_only.popitem(last=False)

    # --- addresses ---------------------------------------------------------------------------------------------------

    def local(self, peer: Peer) -> tuple[str, int]:
        """The host and port by which ``peer`` reaches us."""
        if peer.transport == "udp":
            listener = self._udp_towards(peer)
            own, port = (listener.host, listener.port) if listener is not None else ("0.0.0.0", DEFAULT_PORT)
        else:
            found = self._connections.find(peer)
            end = self._connections.local_address(found.flow) if found is not None else None
            own, port = end or ("0.0.0.0", DEFAULT_TLS_PORT if peer.transport == "tls" else DEFAULT_PORT)
            listening = [(host, at) for kind, host, at in self._bound if kind == peer.transport]
            if listening:
                port = next((at for host, at in listening if host == own), listening[0][1])
        if self._advertised is not None and _same_family(self._advertised, peer.host):
            return self._advertised, port
        if own in _ANYWHERE:
            own = _route_source(peer.host, own)
        return own, port

    def _udp_towards(self, peer: Peer) -> _Udp | None:
        listener = self._udp.get(peer.flow)
        if listener is not None and listener.reaches(peer.host):
            return listener
        able = [one for one in self._udp.values() if one.reaches(peer.host)]
        if len(able) < 2:
            return able[0] if able else None
        source = _route_source(peer.host, "")
        return next((one for one in able if one.host == source), None) or next(
            (one for one in able if one.anywhere), able[0]
        )


def _bind_udp(host: str, port: int, only_ipv6: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if only_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    except OSError as error:
        logger.info("the kernel grants no larger receive buffer: %s", error)
    return sock


def _branch_of_request(data: bytes) -> bytes | None:
    """The branch of a request of ours; None for a response. Its first header is always our Via."""
    if data.startswith(b"SIP/"):
        return None
    start = data.find(b"\r\nVia: SIP/2.0/")
    end = data.find(b"\r\n", start + 2)
    _, found, rest = data[start:end].partition(b";branch=")
    return rest.partition(b";")[0] if found and start >= 0 else None


def _same_family(one: str, other: str) -> bool:
    """False only where both are addresses, of different families."""
    try:
        return ipaddress.ip_address(one).version == ipaddress.ip_address(other.partition("%")[0]).version
    except ValueError:
        return True


@functools.lru_cache(maxsize=256)
def _route_source(peer: str, fallback: str) -> str:
    """The local address from which the kernel would send to ``peer``; sends nothing."""
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return fallback
