"""SIP over TCP and TLS: listeners, connections of ours and to us, and what keeps their number bounded.

A connection is used in both directions and again for whatever goes to the same peer (RFC 3261 §18). Sockets are
accepted by hand, so that the limits hold before a TLS handshake costs anything. One sweep a second looks after all
time-outs; connections have no timers of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import ssl
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from appliance.errors import ApplianceError, RemoteSipError, SipUnreachable
from appliance.signalling.loops import keep_running
from appliance.signalling.tls import TlsClient, TlsContexts, certificate_domains, certificate_is_for, explain
from appliance.sip.stream import PING, PONG, KeepAlive, StreamReader
from appliance.sip.uri import Peer, join_host_port

logger = logging.getLogger(__name__)

_BACKLOG: Final = 256
_ACCEPT_PAUSE_S: Final = 0.1
_MAX_SINNERS: Final = 4096
_CLOSE_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The most of what peers can make us keep, and how long. Times in seconds.

    Attributes:
        total: connections in all; strangers (peers of no trunk) may have ``strangers`` of them.
        per_address: connections from one address of a trunk, which may use one for each call.
        per_stranger: connections from one address of no trunk.
        connect_s: for a connection of ours to be made, TLS included.
        startup_s: within which a connection to us must have finished TLS and sent a whole message.
        message_s: within which a message that has begun must be whole.
        idle_s: without a message (or a ping of the peer's), after which a connection is closed, unless it is in use.
        ping_s: how often connections of ours are pinged (RFC 5626 §4.4.1: 95 to 120 s).
        pong_s: within which a peer that has ever answered a ping must answer.
        write_bytes: waiting to be written to one connection; more closes it.
        queue: messages waiting for one connection of ours to be made.
        garbage: streams that are no SIP, after which an address of no trunk is refused for ``ban_s``.
        retry_s: how long a peer that could not be connected to is not tried again.
    """

    total: int = 2000
    strangers: int = 400
    per_address: int = 1000
    per_stranger: int = 20
    connect_s: float = 5.0
    startup_s: float = 10.0
    message_s: float = 20.0
    idle_s: float = 900.0
    ping_s: float = 100.0
    pong_s: float = 10.0
    write_bytes: int = 1024 * 1024
    queue: int = 256
    garbage: int = 3
    ban_s: float = 300.0
    retry_s: float = 1.0


class Target(NamedTuple):
    """Where a connection of ours goes: an address, and for TLS the domain it must belong to and how we speak it."""

    host: str
    port: int
    transport: str
    domain: str = ""
    tls: TlsClient | None = None


class _Connection(asyncio.Protocol):
    """One stream. Made by :class:`Connections` only."""

    def __init__(self, owner: Connections, flow: int, transport: str, target: Target | None) -> None:
        self.owner = owner
        self.flow = flow
        self.target = target
        self.kind = transport
        self.peer = Peer("", 0, transport, flow)
        self.local: tuple[str, int] = ("", 0)
        self.reader = StreamReader()
        self.transport: asyncio.Transport | None = None
        self.used_at = self.begun_at = owner.now()
        self.spoke = False
        self.partial_since: float | None = None
        self.ping_at = 0.0
        self.pinged_at: float | None = None
        self.has_ponged = False
        self.why = ""
        self.stranger = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one, without being derived from it
        self.transport = transport
        remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if remote and local:
            self.peer = Peer(plain_host(remote[0]), remote[1], self.kind, self.flow)
            self.local = (plain_host(local[0]), local[1])
        else:
            transport.abort()
        self.owner.made(self)

    def data_received(self, data: bytes) -> None:
        now = self.owner.now()
        try:
            frames = self.reader.feed(data)
        except RemoteSipError as error:
            self.owner.on_garbage(self, str(error))
            return
        for frame in frames:
            if isinstance(frame, KeepAlive):
                self._on_keep_alive(frame, now)
            else:
                self.spoke, self.used_at = True, now
                self.owner.deliver(frame, self.peer)
        if self.reader.broken:
            self.owner.on_garbage(self, "what followed a message is no SIP")
        elif not self.reader.partial:
            self.partial_since = None
        elif self.partial_since is None or frames:
            self.partial_since = now

    def _on_keep_alive(self, frame: KeepAlive, now: float) -> None:
        if frame is KeepAlive.PING and self.transport is not None and self.target is None:
            self.owner.counters["pings_answered"] += 1
            self.used_at = now
            self.transport.write(PONG)
        elif frame is KeepAlive.PONG and self.pinged_at is not None:
            self.pinged_at = None
            self.has_ponged = True

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.why:
            self.why = explain(exc)
        self.transport = None
        self.owner.lost(self)

    def write(self, data: bytes) -> bool:
        """Queue bytes; false where the connection is closing or its peer does not take what we send."""
        if self.transport is None or self.transport.is_closing():
            return False
        if self.transport.get_write_buffer_size() + len(data) > self.owner.limits.write_bytes:
            self.owner.counters["write_overflows"] += 1
            self.drop("the peer does not read what we send")
            return False
        self.used_at = self.owner.now()
        self.transport.write(data)
        return True

    def close(self, why: str) -> None:
        """Let what is queued leave, then close."""
        self.why = self.why or why
        if self.transport is not None:
            self.transport.close()

    def drop(self, why: str) -> None:
        """Close at once."""
        self.why = self.why or why
        if self.transport is not None:
            self.transport.abort()


class _Opening:
    """A connection of ours that is being made, and what waits for it."""

    def __init__(self, task: asyncio.Task[_Connection]) -> None:
        self.task = task
        self.waiting: deque[tuple[bytes, Peer]] = deque()


class _Listener(NamedTuple):
    kind: str
    sock: socket.socket
    context: ssl.SSLContext | None
    task: asyncio.Task[None]


class Connections:
    """All TCP and TLS connections of the box.

    Args:
        deliver: takes each whole message and who sent it.
        unsent: takes each message that could not be sent, where it should have gone, and why in words.
        known: whether an address belongs to a trunk, by this transport.
        in_use: whether a call or a registration needs this flow, so that it is kept though nothing is said.
        contexts: for TLS.
        chance: numbers in [0, 1), to spread keep-alives.
        flows: gives the numbers of new connections; shared with whoever else numbers flows.
    """

    def __init__(
        self,
        *,
        deliver: Callable[[bytes, Peer], None],
        unsent: Callable[[bytes, Peer, str], None],
        known: Callable[[str, str], bool],
        contexts: TlsContexts,
        chance: Callable[[], float],
        in_use: Callable[[int], bool] = lambda flow: False,
        limits: ConnectionLimits | None = None,
        flows: Iterator[int] | None = None,
    ) -> None:
        self.deliver = deliver
        self.limits = limits or ConnectionLimits()
        self.counters: Counter[str] = Counter()
        self._unsent = unsent
        self._known = known
        self._in_use = in_use
        self._contexts = contexts
        self._chance = chance
        self._flows = flows or itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._listeners: list[_Listener] = []
        self._open: dict[int, _Connection] = {}
        self._ours: dict[Target, _Connection] = {}
        self._openings: dict[Target, _Opening] = {}
        self._by_host: Counter[str] = Counter()
        self._strangers = 0
        self._welcoming: set[asyncio.Task[None]] = set()
        self._failed: OrderedDict[Target, tuple[float, str]] = OrderedDict()
        self._sinners: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._closing = False
        self._all_closed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def now(self) -> float:
        """Seconds on the loop's clock."""
        return self._loop.time()

    # --- connections to us -----------------------------------------------------------------------------------------

    def listen(
        self, kind: str, host: str, port: int, context: ssl.SSLContext | None, *, only_ipv6: bool = False
    ) -> tuple[str, int]:
        """Accept connections ("tcp", or "tls" with ``context``); gives the address bound.

        ``only_ipv6`` leaves IPv4 on the same port to another listener, where ``host`` is ``::``.

        Raises:
            OSError: where the port is taken or the address is not ours.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if only_ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        task = keep_running(
            lambda: self._accept(kind, sock, context), f"the {kind} listener on {host}", pause_s=_ACCEPT_PAUSE_S
        )
        self._listeners.append(_Listener(kind, sock, context, task))
        bound = sock.getsockname()
        return str(bound[0]), int(bound[1])

    async def _accept(self, kind: str, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(sock)
            except OSError as error:
                self.counters["accept_errors"] += 1
                logger.error("cannot accept a SIP connection: %s; raise the limit of open files", error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            host = plain_host(address[0])
            why = self._refuses(host, kind)
            if why:
                self.counters["connections_refused"] += 1
                logger.debug("connection from %s refused: %s", host, why)
                accepted.close()
                continue
            connection = _Connection(self, next(self._flows), kind, None)
            connection.peer = connection.peer._replace(host=host)
            connection.stranger = not self._known(host, kind)
            self._count(connection, 1)
            task = self._loop.create_task(self._welcome(connection, accepted, context))
            self._welcoming.add(task)
            task.add_done_callback(self._welcoming.discard)

    def _refuses(self, host: str, kind: str) -> str:
        """Why no connection is taken from ``host``; "" where it is."""
        limits = self.limits
        if self._by_host.total() >= limits.total:
            return "too many connections"
        known = self._known(host, kind)
        if self._by_host[host] >= (limits.per_address if known else limits.per_stranger):
            return "too many connections from this address"
        if known:
            return ""
        if self._strangers >= limits.strangers:
            return "too many connections of strangers"
        sins, until = self._sinners.get(host, (0, 0.0))
        return "banned" if sins >= limits.garbage and self.now() < until else ""

    async def _welcome(self, connection: _Connection, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        _tune(sock)
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=context,
                ssl_handshake_timeout=self.limits.startup_s if context is not None else None,
            )
        except (OSError, TimeoutError) as error:
            # The loop closes the socket, which is its own since the call.
            if connection.transport is None and connection.flow not in self._open:
                self._count(connection, -1)
            self.counters["tls_handshakes_failed"] += 1
            logger.info("no TLS with %s: %s", connection.peer.host, explain(error))
            self._note_sin(connection)

    def _count(self, connection: _Connection, change: int) -> None:
        host = connection.peer.host
        self._by_host[host] += change
        if not self._by_host[host]:
            del self._by_host[host]
        if connection.stranger:
            self._strangers += change

    # --- connections of ours ---------------------------------------------------------------------------------------

    async def connect(self, target: Target) -> Peer:
        """A connection to ``target``, the one that is open already where there is one.

        Raises:
            SipUnreachable: where none can be made; the message says why, in the operator's words.
        """
        connection = self._ours.get(target)
        if connection is None:
            connection = await asyncio.shield(self._opening(target).task)
        return connection.peer

    def find(self, peer: Peer) -> Peer | None:
        """The open connection to a peer, by its flow or else one of ours to its address; None where there is none."""
        connection = self._find(peer)
        return connection.peer if connection is not None else None

    def local_address(self, flow: int) -> tuple[str, int] | None:
        """Our own end of a connection; None where it is gone."""
        connection = self._open.get(flow)
        return connection.local if connection is not None else None

    def send(self, data: bytes, peer: Peer, target: Target, *, connect_s: float | None = None) -> None:
        """Send one message: on the flow of ``peer``, on a connection to its address, or on a new one to ``target``."""
        connection = self._find(peer) or self._ours.get(target)
        if connection is not None:
            if not connection.write(data):
                self._unsent(data, peer, connection.why or "the connection is closing")
            return
        opening = self._opening(target, connect_s)
        if len(opening.waiting) >= self.limits.queue:
            self.counters["write_overflows"] += 1
            self._unsent(data, peer, "too much waits for this connection already")
            return
        opening.waiting.append((data, peer))

    def _find(self, peer: Peer) -> _Connection | None:
        connection = self._open.get(peer.flow) if peer.flow else None
        if connection is not None and connection.kind == peer.transport and not connection.why:
            return connection
        for target, candidate in self._ours.items():
            if target[:3] == peer[:3] and not candidate.why:
                return candidate
        return None

    def _opening(self, target: Target, connect_s: float | None = None) -> _Opening:
        opening = self._openings.get(target)
        if opening is None:
            opening = _Opening(
                self._loop.create_task(self._connect(target, connect_s), name=f"connect {target.transport}")
            )
            self._openings[target] = opening
            opening.task.add_done_callback(lambda task: self._opened(target, task))
        return opening

    async def _connect(self, target: Target, connect_s: float | None) -> _Connection:
        where = f"{join_host_port(target.host, target.port)}/{target.transport}"
        failed_at, words = self._failed.get(target, (-1e9, ""))
        if self.now() < failed_at + self.limits.retry_s:
            raise SipUnreachable(words)
        connection = _Connection(self, next(self._flows), target.transport, target)
        try:
            if self._closing or len(self._open) >= self.limits.total:
                raise ApplianceError("too many connections are open" if not self._closing else "shutting down")
            context = self._contexts.client(target.tls or TlsClient()) if target.transport == "tls" else None
            async with asyncio.timeout(connect_s or self.limits.connect_s):
                await self._loop.create_connection(
                    lambda: connection,
                    target.host,
                    target.port,
                    ssl=context,
                    server_hostname=(target.domain or target.host) if context is not None else None,
                )
            self._check_certificate(connection, target)
        except (OSError, ssl.SSLError, ApplianceError, UnicodeError) as error:
            connection.drop("not usable")
            self.counters["connects_failed"] += 1
            words = f"no SIP connection to {where}: {explain(error)}"
            logger.warning("%s", words)
            self._failed[target] = (self.now(), words)
            while len(self._failed) > _MAX_SINNERS:
                self._failed.popitem(last=False)
            raise SipUnreachable(words) from error
        if connection.transport is None:
            raise SipUnreachable(f"no SIP connection to {where}: the peer closed it at once")
        self._failed.pop(target, None)
        self._ours[target] = connection
        self._plan_ping(connection)
        self.counters["connects"] += 1
        return connection

    def _check_certificate(self, connection: _Connection, target: Target) -> None:
        if target.transport != "tls" or connection.transport is None or not (target.tls or TlsClient()).verify:
            return
        secured = connection.transport.get_extra_info("ssl_object")
        certificate: dict[str, Any] = secured.getpeercert() or {} if secured is not None else {}
        domain = target.domain or target.host
        if not certificate_is_for(certificate, domain):
            names = ", ".join(certificate_domains(certificate)[:8]) or "nobody"
            self.counters["certificates_refused"] += 1
            raise ApplianceError(
                f"its certificate is for {names}, not for {domain}; name the domain of the certificate in the proxy "
                "URI of the trunk, or have the peer correct it"
            )

    def _opened(self, target: Target, task: asyncio.Task[_Connection]) -> None:
        opening = self._openings.pop(target, None)
        waiting = opening.waiting if opening is not None else deque[tuple[bytes, Peer]]()
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            for data, peer in waiting:
                self._unsent(data, peer, str(error) if error is not None else "shutting down")
            return
        connection = task.result()
        for data, peer in waiting:
            if not connection.write(data):
                self._unsent(data, peer, connection.why or "the connection was closed")

    # --- what connections tell ---------------------------------------------------------------------------------

    def made(self, connection: _Connection) -> None:
        """A connection is up."""
        self._open[connection.flow] = connection
        if connection.target is None:
            self.counters["connections_accepted"] += 1
        else:
            _tune(connection.transport.get_extra_info("socket") if connection.transport is not None else None)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone; what it was used for finds another way or none."""
        self._open.pop(connection.flow, None)
        if connection.target is None:
            self._count(connection, -1)
        elif self._ours.get(connection.target) is connection:
            del self._ours[connection.target]
        if self._closing and not self._open:
            self._all_closed.set()
        self.counters["connections_closed"] += 1
        logger.debug("connection %s closed: %s", connection.peer, connection.why or "by the peer")

    def on_garbage(self, connection: _Connection, why: str) -> None:
        """What came is no SIP: give the connection up."""
        self.counters["garbage_streams"] += 1
        logger.info("connection %s given up: %s", connection.peer, why)
        connection.drop(why)
        self._note_sin(connection)

    def _note_sin(self, connection: _Connection) -> None:
        """A stranger that speaks no SIP, or no TLS where TLS is spoken, is refused for a while after a few times."""
        host = connection.peer.host
        if not connection.stranger:
            return
        now = self.now()
        sins, until = self._sinners.pop(host, (0, 0.0))
        sins = sins + 1 if now < until else 1
        self._sinners[host] = (sins, now + self.limits.ban_s)
        if sins == self.limits.garbage:
            self.counters["addresses_banned"] += 1
            logger.warning("%s sends no SIP on a SIP port; refused for %.0f s", host, self.limits.ban_s)
        while len(self._sinners) > _MAX_SINNERS:
            self._sinners.popitem(last=False)

    # --- time ------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close what has been silent or slow too long, and send the keep-alives that are due. Once a second."""
        limits = self.limits
        for connection in list(self._open.values()):
            if connection.transport is None or connection.why:
                continue
            if connection.partial_since is not None and now - connection.partial_since > limits.message_s:
                connection.drop("a message was not finished in time")
            elif connection.target is None and not connection.spoke and now - connection.begun_at > limits.startup_s:
                connection.drop("nothing was said in time")
            elif connection.pinged_at is not None and now - connection.pinged_at > limits.pong_s:
                if connection.has_ponged:
                    self.counters["pongs_missed"] += 1
                    connection.drop("no answer to a keep-alive")
                connection.pinged_at = None
            elif now - connection.used_at > limits.idle_s and not self._in_use(connection.flow):
                connection.close("idle")
            elif connection.target is not None and now >= connection.ping_at:
                connection.pinged_at = now
                self.counters["pings_sent"] += 1
                connection.transport.write(PING)
                self._plan_ping(connection)

    def _plan_ping(self, connection: _Connection) -> None:
        connection.ping_at = self.now() + self.limits.ping_s * (0.8 + 0.2 * self._chance())

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        self._closing = True
        tasks: list[asyncio.Task[Any]] = [opening.task for opening in self._openings.values()]
        tasks += [*self._welcoming, *(listener.task for listener in self._listeners)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.sock.close()
        self._listeners.clear()
        for connection in list(self._open.values()):
            connection.close("shutting down")
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), _CLOSE_GRACE_S)
        for connection in list(self._open.values()):
            connection.drop("shutting down")


def plain_host(host: str) -> str:
    """An address as other peers write it: IPv4 addresses of a dual-stack socket without their IPv6 dress."""
    return host[7:] if host.lower().startswith("::ffff:") and "." in host else host


def _tune(sock: socket.socket | None) -> None:
    """Send small messages at once, and find out in a minute or two that a peer is gone without a word."""
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
