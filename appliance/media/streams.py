"""Carriers' media sockets: WebSockets at ``/KIND/media`` of ``listen.media``, and TCP at ``listen.streams``.

A connection is nobody's until its first words. They bring a token that the box gave out, which makes it the audio of
one leg, once; or, of kinds whose streams come unasked, it is offered to control, from an address that a trunk allows.
Everything that comes is counted, bounded and timed before that: sockets, messages, and how long they take to say who
they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import web

from appliance.api import Audio, Key, Marked, Message, Started, Stopped, StreamKind, StreamProtocol, StreamRequest
from appliance.api.streams import MAX_MESSAGE, printable
from appliance.carriers.forwarded import client_address, from_a_page, subscriber, within
from appliance.config import Settings
from appliance.errors import ApplianceError, CarrierError
from appliance.ipc.messages import AnyMessage, ConnectStream, MediaStats, StreamEnded, StreamOffered, StreamStarted
from appliance.media.leg import MediaLeg
from appliance.media.stream_leg import StreamEnd
from appliance.media.stream_links import Link, TcpLink, WebSocketLink
from appliance.media.tick import AudioClock

logger = logging.getLogger(__name__)

START_S: Final = 5.0
"""A connection that has not said what it is by then is closed."""
OFFER_S: Final = 10.0
"""So long control may take to want an offered stream."""
LINGER_S: Final = 1.0
"""For how long what still comes after a refusal is thrown away, so that the refusal arrives."""
HEARTBEAT_S: Final = 20.0
MAX_SILENT: Final = 256
"""Sockets that have asked for nothing, and streams that have not said what they are, of each so many."""
MAX_STARTING: Final = 32
"""Connections from one address that have not said what they are."""
MAX_BODY: Final = 1024
"""Nothing reads more than this of a body; a request for a stream has none, and is refused where it has."""
MESSAGES_PER_S: Final = 200.0
"""Four times what 20 ms of audio take."""
MESSAGE_BURST: Final = 1000.0
"""What a connection may make up for after the network stood still."""
_SPARE_SOCKETS: Final = 64
_ORDERLY: Final = (1000, 1001, 1005)
"""Codes of a close that is a goodbye."""
AUDIO_PER_S: Final = 1.25
AUDIO_BURST_S: Final = 6.0
"""Seconds of audio that may come at once, after a network that stood still; more is not what somebody says."""
DEAF_S: Final = 10.0
"""A peer that has played nothing for so long, of what it was sent, has no listener."""
_LOGGED_PER_S: Final = 1.0
_LOG_BURST: Final = 20.0


class _Allowance:
    """A token bucket."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst, self._left = per_s, burst, burst
        self._at = 0.0

    def take(self, now: float, amount: float = 1.0) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) if self._at else self._burst
        self._at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True


@dataclass(slots=True)
class _Expected:
    """A leg that waits for its stream."""

    leg: MediaLeg
    kind: str
    until: float


class Connection:
    """One socket and the protocol on it.

    Attributes:
        leg: whose audio it is; None before and after that.
        token: by which it became that.
        offered: the token under which it was offered to control.
        over: nothing that comes is looked at any more.
    """

    def __init__(self, kind: str, protocol: StreamProtocol, address: str, port: int, now: float) -> None:
        self.kind = kind
        self.protocol = protocol
        self.address = address
        self.counted = subscriber(address)
        self.source = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.began = now
        self.link: Link | None = None
        self.started: Started | None = None
        self.leg: MediaLeg | None = None
        self.offered = self.token = ""
        self.over = False
        self.allowance = _Allowance(MESSAGES_PER_S, MESSAGE_BURST)
        self.audio = _Allowance(AUDIO_PER_S, AUDIO_BURST_S)
        self.bytes_per_s = 1.0


class StreamServer:
    """Accepts streams and makes them the audio of legs.

    Args:
        settings: listeners, limits and trunks.
        kinds: how each kind of stream is read.
        clock: has the legs.
        publish: where StreamStarted, StreamEnded and StreamOffered go.
    """

    def __init__(
        self,
        settings: Settings,
        kinds: Mapping[str, StreamKind],
        clock: AudioClock,
        publish: Callable[[AnyMessage], None],
    ) -> None:
        self._settings = settings
        used = {trunk.kind for trunk in settings.trunks.values()}
        self._kinds = {name: kind for name, kind in kinds.items() if name in used}
        self._clock = clock
        self._publish = publish
        self._connections: set[Connection] = set()
        self._by_leg: dict[MediaLeg, Connection] = {}
        self._expected: dict[str, _Expected] = {}
        self._waiting: dict[MediaLeg, str] = {}
        """The token of the stream that a leg waits for."""
        self._offers: dict[str, Connection] = {}
        self._addresses: Counter[str] = Counter()
        self._most = settings.limits.max_calls * 2 + _SPARE_SOCKETS
        self._transports: set[asyncio.BaseTransport | None] = set()
        """Of the WebSockets among the connections."""
        self._silent: dict[web.RequestHandler, float] = {}
        self._log_allowance = _Allowance(_LOGGED_PER_S, _LOG_BURST)
        self._runner: web.AppRunner | None = None
        self._listeners: list[asyncio.Server] = []
        self.closed = 0
        """Connections that ended so far."""
        self._refused = self._faulted = self._broken = 0

    # --- listening ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, where any trunk has streams.

        Raises:
            ApplianceError: a port is taken.
        """
        if not self._kinds:
            return
        where = self._settings.listen.media
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/{kind}/media", self._websocket)
        app.router.add_get("/{kind}/media/{path:.*}", self._websocket)
        # aiohttp tells every broken request with a traceback; anybody can send those.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, keepalive_timeout=0.0, lingering_time=LINGER_S
        )
        await self._runner.setup()
        with _naming(f"listen.media {where.host}:{where.port}"):
            await web.TCPSite(self._runner, where.host, where.port).start()
        loop = asyncio.get_running_loop()
        for one in self._settings.listen.streams:
            kind = self._kinds.get(one.kind)
            if kind is None or kind.transport != "tcp":
                raise ApplianceError(f"listen.streams: no trunk of kind {one.kind!r} has streams over TCP")
            with _naming(f"listen.streams {one.host}:{one.port}"):
                name = one.kind
                made = await loop.create_server(lambda name=name: self._tcp(name), one.host, one.port)  # type: ignore[misc]
            self._listeners.append(made)

    async def close(self) -> None:
        """End every connection and stop listening."""
        for connection in list(self._connections):
            self._end(connection, "the box stops", say_goodbye=True)
        for listener in self._listeners:
            listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- control's side -------------------------------------------------------------------------------------------

    def connect(self, leg: MediaLeg, message: ConnectStream) -> None:
        """The leg's audio is the stream of that token."""
        self.forget(leg)
        offered = self._offers.pop(message.token, None)
        if offered is not None and offered.kind == message.kind:
            self._attach(offered, leg, message.token)
            return
        kind = self._kinds.get(message.kind)
        if kind is None or kind.unasked:
            self._publish(StreamEnded(leg.slot, leg.generation, message.token, True, "the peer has gone"))
            return
        self._expected[message.token] = _Expected(leg, message.kind, time.monotonic() + message.timeout_s)
        self._waiting[leg] = message.token

    def refuse(self, token: str, reason: str) -> None:
        """Nobody wants the stream that was offered."""
        connection = self._offers.pop(token, None)
        if connection is not None:
            self._end(connection, reason or "nobody takes this call")

    def forget(self, leg: MediaLeg) -> None:
        """The leg is over, or gets another stream: its own is ended, and no other is expected."""
        token = self._waiting.pop(leg, "")
        self._expected.pop(token, None)
        connection = self._by_leg.pop(leg, None)
        if connection is not None:
            connection.leg = None
            self._clock.end_stream(leg)
            self._end(connection, "the call is over", say_goodbye=True)

    def add_stats(self, stats: MediaStats) -> MediaStats:
        """``stats`` with what happened to streams since the last call."""
        counts = (self._refused, self._faulted, self._broken)
        self._refused = self._faulted = self._broken = 0
        return msgspec.structs.replace(
            stats,
            streams=len(self._connections),
            streams_refused=counts[0],
            streams_faulted=counts[1],
            streams_broken=counts[2],
        )

    def sweep(self) -> None:
        """End what takes too long; to be called about once a second."""
        now = time.monotonic()
        for token, expected in list(self._expected.items()):
            if now > expected.until:
                del self._expected[token]
                self._waiting.pop(expected.leg, None)
                leg = expected.leg
                self._publish(StreamEnded(leg.slot, leg.generation, token, False, "no stream has come"))
        for connection in list(self._connections):
            age = now - connection.began
            if connection.started is None and age > START_S and not connection.over:
                self._fault(connection, f"nothing was said within {START_S:.0f} s of connecting")
            elif connection.leg is not None and connection.leg.stream is not None:
                if connection.leg.stream.deaf_s(now) > DEAF_S:
                    self._end(connection, f"the peer has played nothing for {DEAF_S:.0f} s")
            elif connection.offered in self._offers and age > START_S + OFFER_S:
                self.refuse(connection.offered, "the box did not decide in time")
        self._sweep_sockets(now)

    def _sweep_sockets(self, now: float) -> None:
        """Cut off who has connected and asked for nothing, of whom aiohttp takes any number, for any time."""
        server = self._runner.server if self._runner is not None else None
        if server is None:
            return
        silent = {}
        for handler in server.connections:
            transport = handler.transport
            if transport is not None and transport not in self._transports:
                silent[handler] = self._silent.get(handler, now)
        self._silent = silent
        crowd = len(silent) - MAX_SILENT
        for number, (handler, since) in enumerate(sorted(silent.items(), key=lambda item: item[1])):
            if (now - since > START_S or number < crowd) and handler.transport is not None:
                handler.transport.abort()

    # --- a connection's life --------------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["kind"]
        kind = self._kinds.get(name)
        if kind is None or kind.transport != "websocket":
            return _answer(404, f"there is no trunk of kind {name[:40]!r} here")
        socket = web.WebSocketResponse(
            protocols=kind.subprotocols, heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE, compress=False, timeout=3.0
        )
        if request.body_exists:
            return _answer(413, "a stream is asked for without a body")
        if not socket.can_prepare(request):
            return _answer(426, "this is a WebSocket")
        proxies = self._settings.listen.proxies
        peer = request.remote or ""
        address = client_address(peer, ",".join(request.headers.getall("X-Forwarded-For", [])), proxies)
        refusal = self._refusal(name, kind, address)
        if refusal is None and kind.unasked and from_a_page(request.headers):
            refusal = self._refuse(name, address, 403, "a page in a browser is no PBX")
        if refusal is not None:
            return _answer(*refusal)
        query = {key[:64]: value[:256] for key, value in list(request.query.items())[:32]}
        try:
            protocol = kind.open(StreamRequest(request.match_info.get("path", "")[:256], query))
        except CarrierError as error:
            return _answer(400, str(error))
        peername = request.transport.get_extra_info("peername") if request.transport is not None else None
        connection = self._add(name, protocol, address, peername[1] if peername else 0)
        broken = "the connection could not be made"
        transport = request.transport
        self._transports.add(transport)
        try:
            await socket.prepare(request)
            link = connection.link = WebSocketLink(
                socket, request.transport, lambda: self._fault(connection, "the peer does not read what it is sent")
            )
            broken = await link.run(lambda message: self._take(connection, message))
        except (ConnectionError, RuntimeError) as error:
            broken = str(error) or type(error).__name__
        finally:
            self._transports.discard(transport)
            orderly = socket.close_code in _ORDERLY and not broken
            self._gone(connection, orderly, broken or f"the connection was closed ({socket.close_code})")
        return socket

    def _tcp(self, name: str) -> TcpLink:
        kind = self._kinds[name]
        holder: list[Connection] = []

        def opened(link: TcpLink, address: str, port: int) -> bool:
            refusal = self._refusal(name, kind, address)
            if refusal is not None:
                return False
            connection = self._add(name, kind.open(StreamRequest()), address, port)
            connection.link = link
            holder.append(connection)
            return True

        def gone(reason: str) -> None:
            if holder:
                self._gone(holder[0], not reason, reason or "the connection was closed")

        return TcpLink(opened, lambda data: self._take(holder[0], data), gone)

    def _refusal(self, name: str, kind: StreamKind, address: str) -> tuple[int, str] | None:
        """Why a connection is not taken: an HTTP status, and words for its peer; None where it is."""
        limit = self._settings.limits.streams_per_address
        counted = subscriber(address)
        starting = [one for one in self._connections if one.started is None]
        found: tuple[int, str] | None = None
        if kind.unasked and not self._trunk_of(name, address):
            found = 403, f"{address} is not within allow of any trunk of kind {name}"
        elif len(self._connections) - len(starting) >= self._most or len(starting) >= MAX_SILENT:
            found = 503, "the box has no room for another stream"
        elif self._addresses.get(counted, 0) >= limit:
            found = 429, f"{address} has {limit} streams (limits.streams_per_address)"
        elif sum(1 for one in starting if one.counted == counted) >= MAX_STARTING:
            found = 429, f"{address} has {MAX_STARTING} streams that have not said what they are"
        return found if found is None else self._refuse(name, address, *found)

    def _refuse(self, name: str, address: str, status: int, why: str) -> tuple[int, str]:
        self._refused += 1
        self._log("%s stream from %s refused: %s", name, address, why)
        return status, why

    def _trunk_of(self, kind: str, address: str) -> str:
        """The trunk of this kind that an address belongs to, by the smallest network that holds it; "" for none."""
        best, name = -1, ""
        for trunk_name, trunk in self._settings.trunks.items():
            if trunk.kind != kind:
                continue
            for network in trunk.allow:
                if network.prefixlen > best and within(address, (network,)):
                    best, name = network.prefixlen, trunk_name
        return name

    def _add(self, kind: str, protocol: StreamProtocol, address: str, port: int) -> Connection:
        connection = Connection(kind, protocol, address, port, time.monotonic())
        self._connections.add(connection)
        self._addresses[connection.counted] += 1
        return connection

    def _take(self, connection: Connection, message: Message) -> None:
        if connection.over:
            return
        try:
            if not connection.allowance.take(time.monotonic()):
                raise CarrierError(f"more than {MESSAGES_PER_S:.0f} messages a second")
            for event in connection.protocol.receive(message):
                self._on(connection, event)
                if connection.over:
                    return
        except CarrierError as error:
            self._fault(connection, str(error))
        except Exception:
            logger.exception("a fault of ours in a %s stream", connection.kind)
            self._fault(connection, "a fault of the box")

    def _on(self, connection: Connection, event: Started | Audio | Key | Marked | Stopped) -> None:
        leg = connection.leg
        if isinstance(event, Audio):
            if not connection.audio.take(time.monotonic(), len(event.payload) / connection.bytes_per_s):
                raise CarrierError("more audio than anybody can say in the time")
            if leg is not None:
                self._clock.incoming.hear(leg, event)
        elif isinstance(event, Marked):
            if leg is not None and leg.stream is not None:
                leg.stream.marked(event.name, time.monotonic())
        elif isinstance(event, Key):
            if leg is not None:
                self._clock.incoming.pressed(leg, event.key, "stream")
        elif isinstance(event, Started):
            self._start(connection, event)
        else:
            self._end(connection, printable(event.reason), orderly=True)

    def _start(self, connection: Connection, started: Started) -> None:
        connection.started = started
        connection.bytes_per_s = float(max(1, started.rate_hz) * (2 if started.codec == "l16" else 1))
        kind = self._kinds[connection.kind]
        expected = self._expected.pop(started.token, None) if started.token else None
        if expected is not None and expected.kind == connection.kind:
            self._waiting.pop(expected.leg, None)
            self._attach(connection, expected.leg, started.token)
            return
        if expected is not None:
            self._expected[started.token] = expected
        if not kind.unasked:
            self._fault(connection, "the token is not known, or was used before")
            return
        token = connection.offered = secrets.token_urlsafe(16)
        self._offers[token] = connection
        self._publish(
            StreamOffered(
                token,
                self._trunk_of(connection.kind, connection.address),
                connection.source,
                started.call_id,
                started.called,
                started.calling,
                dict(started.parameters),
            )
        )

    def _attach(self, connection: Connection, leg: MediaLeg, token: str) -> None:
        assert connection.started is not None and connection.link is not None
        started, link = connection.started, connection.link
        try:
            stream = StreamEnd(connection.protocol, started, link.post, link.unsent)
        except CarrierError as error:
            self._publish(StreamEnded(leg.slot, leg.generation, token, False, str(error)))
            self._fault(connection, str(error))
            return
        connection.leg, connection.token = leg, token
        self._by_leg[leg] = connection
        leg.connect_stream(stream, time.monotonic())
        self._clock.begin_stream(leg)
        self._publish(
            StreamStarted(
                leg.slot, leg.generation, token, started.call_id, started.codec, started.rate_hz, connection.source
            )
        )

    def _fault(self, connection: Connection, reason: str) -> None:
        """The peer has done wrong."""
        if not connection.over:
            self._faulted += 1
            self._log("%s stream from %s is closed: %s", connection.kind, connection.source, reason)
            self._end(connection, reason, fault=True)

    def _end(
        self,
        connection: Connection,
        reason: str,
        *,
        orderly: bool = False,
        fault: bool = False,
        say_goodbye: bool = False,
    ) -> None:
        """Close the connection; its leg, where it has one, is told that it is gone."""
        if connection.over:
            return
        connection.over = True
        self._part(connection, orderly, reason)
        if connection.link is not None:
            goodbye = connection.protocol.goodbye() if say_goodbye and connection.started is not None else ()
            connection.link.close(reason, goodbye, fault=fault)

    def _gone(self, connection: Connection, orderly: bool, reason: str) -> None:
        """The socket is no more."""
        connection.over = True
        self._part(connection, orderly, reason)
        if connection in self._connections:
            self._connections.remove(connection)
            self.closed += 1
            self._addresses[connection.counted] -= 1
            if self._addresses[connection.counted] <= 0:
                del self._addresses[connection.counted]

    def _part(self, connection: Connection, orderly: bool, reason: str) -> None:
        if connection.offered:
            self._offers.pop(connection.offered, None)
        leg, connection.leg = connection.leg, None
        if leg is None:
            return
        self._broken += not orderly
        del self._by_leg[leg]
        self._clock.end_stream(leg)
        self._publish(StreamEnded(leg.slot, leg.generation, connection.token, orderly, reason[:200]))

    def _log(self, words: str, *values: object) -> None:
        """A line about a peer, as long as there are not too many of them."""
        if self._log_allowance.take(time.monotonic()):
            logger.warning(words, *values)


def _answer(status: int, words: str) -> web.Response:
    """To a request that is not served."""
    response = web.Response(status=status, text=words + "\n")
    response.force_close()
    return response


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say which listener could not be had."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ApplianceError(
            f"cannot listen on {what}: {reason}; stop the program that has it, or set another"
        ) from error
