"""SIP over one UDP socket: drives the sans-IO user agent on the event loop."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any

from appliance.errors import LocalSipError, RemoteSipError
from appliance.signalling.leg import MediaSlot
from appliance.signalling.sip_legs import OutgoingCall, SipLeg, TrunkRule, call_info, session_id_of
from appliance.signalling.sip_media import SipMedia
from appliance.sip.call import Call
from appliance.sip.events import CallClosed, CallEnded, Event, IncomingCall
from appliance.sip.sdp import choose, parse_sdp
from appliance.sip.transaction import Timing
from appliance.sip.uri import DEFAULT_PORT, SipUri, join_host_port
from appliance.sip.useragent import Limits, UserAgent

logger = logging.getLogger(__name__)

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
"""Asked of the kernel, so that a burst of calls is not lost while the loop is busy; it may grant less."""


def _random_token() -> str:
    return secrets.token_hex(8)


class SipEndpoint(asyncio.DatagramProtocol):
    """Answers and places SIP calls on one UDP port.

    Args:
        local_host: address to listen on; 0.0.0.0 or :: for all.
        local_port: UDP port; 0 lets the system choose (see :attr:`port`).
        trunks: who may call; the first rule whose networks hold the source address names the trunk. Strangers get
            403, and nothing at all for what is malformed.
        on_call: called with a :class:`SipLeg` for every new INVITE, after the 100 has left and its offer was found
            acceptable. It must ring, answer or reject; left alone, the call is refused after the ring timeout.
        user_agent_name: goes into Server and User-Agent.
        advertised_host: how peers reach us, where that is not the local address (NAT).
        random_token: unguessable text, new at each call.
        stop_grace_s: how long :meth:`stop` waits for the answers to its BYEs.
    """

    def __init__(
        self,
        local_host: str,
        local_port: int,
        *,
        trunks: Sequence[TrunkRule],
        on_call: Callable[[SipLeg], None],
        user_agent_name: str = "appliance",
        advertised_host: str | None = None,
        random_token: Callable[[], str] = _random_token,
        timing: Timing | None = None,
        limits: Limits | None = None,
        stop_grace_s: float = 2.0,
    ) -> None:
        self._local_host = local_host
        self._local_port = local_port
        self._bound_host = local_host
        self._trunks = tuple(trunks)
        self._on_call = on_call
        self._name = user_agent_name
        self._advertised_host = advertised_host
        self._random_token = random_token
        self._timing = timing
        self._limits = limits
        self._stop_grace_s = stop_grace_s
        self._agent: UserAgent | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup: asyncio.TimerHandle | None = None
        self._wakeup_at: float | None = None
        self._pumping = False
        self._legs: dict[Call, SipLeg | OutgoingCall] = {}
        self._idle = asyncio.Event()
        self._accepting = True
        self._send_errors = 0

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind the socket and begin to answer.

        Raises:
            OSError: where the port is taken or the address is not ours; the message says what to change.
        """
        self._loop = asyncio.get_running_loop()
        sock = self._bind()
        transport, _ = await self._loop.create_datagram_endpoint(lambda: self, sock=sock)
        self._transport = transport
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        except OSError as error:
            logger.info("the kernel grants no larger receive buffer: %s", error)
        self._bound_host, self._local_port = transport.get_extra_info("sockname")[:2]
        self._agent = UserAgent(
            self._advertised_host or self._host_seen_by,
            self._local_port,
            new_token=self._random_token,
            trunk_of=self.trunk_of,
            name=self._name,
            timing=self._timing,
            limits=self._limits,
        )
        self._agent.accepting = self._accepting

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in self._local_host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind((self._local_host, self._local_port))
        except OSError as error:
            sock.close()
            where = join_host_port(self._local_host, self._local_port)
            raise OSError(
                f"cannot listen for SIP on {where}/udp: {error.strerror or error}; stop the program that has it, or "
                "set another listen.sip port"
            ) from error
        return sock

    async def stop(self) -> None:
        """Hang up what is left, wait a moment for the answers, and close the socket."""
        if self._agent is None or self._transport is None:
            return
        self.accepting = False
        for leg in list(self._legs.values()):
            leg.hangup("shutting down")
        for call in self._agent.calls:
            call.hangup(self.now(), "shutting down")
        self.pump()
        if self._agent.call_count:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), self._stop_grace_s)
            except TimeoutError:
                logger.warning("%d calls did not confirm their end", self._agent.call_count)
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._transport.close()
        self._transport = None
        self._legs.clear()

    @property
    def port(self) -> int:
        """The UDP port, once started."""
        return self._local_port

    @property
    def accepting(self) -> bool:
        """Whether new calls are taken. While false they get 503 with Retry-After; running calls go on."""
        return self._accepting

    @accepting.setter
    def accepting(self, value: bool) -> None:
        self._accepting = value
        if self._agent is not None:
            self._agent.accepting = value

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far and what is held now, by name."""
        if self._agent is None:
            return {}
        return {
            **self._agent.counters,
            "send_errors": self._send_errors,
            "calls": self._agent.call_count,
            "transactions": len(self._agent.layer),
            "timers": len(self._agent.timers),
        }

    # --- placing a call ---------------------------------------------------------------------------------------------

    async def dial(
        self,
        target_uri: str,
        from_uri: str,
        media: MediaSlot,
        *,
        codecs: Sequence[str] = ("pcmu", "pcma"),
        display_name: str = "",
        ring_timeout_s: float = 60.0,
    ) -> OutgoingCall:
        """Call a SIP URI and offer ``media``.

        Returns at once after the INVITE has left; see :class:`OutgoingCall` for what follows.

        Raises:
            RemoteSipError: where ``target_uri`` is no SIP URI.
            OSError: where its host cannot be resolved.
            LocalSipError: where too many calls are up, or the endpoint is not started.
        """
        agent, loop = self._started()
        target = SipUri.parse(target_uri)
        destination = target.literal_address()
        if destination is None:
            family = socket.AF_INET6 if ":" in self._local_host else socket.AF_INET
            found = await loop.getaddrinfo(
                target.host, target.port or DEFAULT_PORT, family=family, type=socket.SOCK_DGRAM
            )
            destination = (str(found[0][4][0]), int(found[0][4][1]))
        negotiation = SipMedia(media, session_id_of(self._random_token()), codecs, destination[0])
        call = agent.invite(
            target,
            from_uri,
            negotiation.offer(),
            self.now(),
            destination=destination,
            display_name=display_name,
            ring_timeout_s=ring_timeout_s,
        )
        outgoing = OutgoingCall(call, negotiation, self)
        self._legs[call] = outgoing
        self.pump()
        return outgoing

    # --- driving the protocol core --------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds on the loop's clock."""
        return self._started()[1].time()

    def pump(self) -> None:
        """Send what is queued, hand out events, and set the next wake-up.

        Datagrams leave before each event is handled, so that a 100 never waits for what the application does.
        Calls from within an event are taken care of by the call that is running.
        """
        if self._pumping or self._agent is None:
            return
        self._pumping = True
        try:
            self._flush()
            while (event := self._agent.next_event()) is not None:
                self._handle(event)
                self._flush()
        finally:
            self._pumping = False
        self._schedule()
        if not self._agent.call_count:
            self._idle.set()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """A datagram came (asyncio)."""
        if self._agent is not None:
            self._agent.receive_datagram(data, (addr[0], addr[1]), self.now())
            self.pump()

    def error_received(self, exc: Exception) -> None:
        """The kernel could not deliver something (asyncio); retransmission takes care of it."""
        self._send_errors += 1

    def _flush(self) -> None:
        assert self._agent is not None
        for data, destination in self._agent.datagrams_to_send():
            if self._transport is None or self._transport.is_closing():
                return
            try:
                self._transport.sendto(data, destination)
            except (OSError, ValueError) as error:
                self._send_errors += 1
                logger.warning("cannot send SIP to %s: %s", join_host_port(*destination), error)

    def _schedule(self) -> None:
        agent, loop = self._started()
        at = agent.get_timer()
        if at == self._wakeup_at and self._wakeup is not None:
            return
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._wakeup_at = at
        self._wakeup = loop.call_at(at, self._on_wakeup) if at is not None and self._transport is not None else None

    def _on_wakeup(self) -> None:
        self._wakeup = self._wakeup_at = None
        if self._agent is not None:
            self._agent.handle_timer(self.now())
            self.pump()

    def _started(self) -> tuple[UserAgent, asyncio.AbstractEventLoop]:
        if self._agent is None or self._loop is None:
            raise LocalSipError("the SIP endpoint is not started; await start() first")
        return self._agent, self._loop

    # --- events ------------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, IncomingCall):
            self._incoming(event)
            return
        if isinstance(event, CallClosed):
            self._legs.pop(event.call, None)
            return
        leg = self._legs.get(event.call)
        if leg is None:
            return
        try:
            leg.on_event(event)
        except Exception:
            logger.exception("a call's handler of %s failed", type(event).__name__)
            if not isinstance(event, CallEnded):
                event.call.hangup(self.now(), "internal error")

    def _incoming(self, event: IncomingCall) -> None:
        call = event.call
        trunk = self._trunk_rule(call.source[0])
        if trunk is None:
            call.reject(403, self.now())
            return
        if event.offer is not None:
            try:
                choose(parse_sdp(event.offer), trunk.codecs)
            except RemoteSipError as error:
                logger.info(
                    "offer from %s refused: %s", join_host_port(*call.source), error, extra={"call_id": call.call_id}
                )
                call.reject(error.status_hint or 400, self.now())
                return
        info = call_info(event.request, self._random_token(), trunk.name, call.source)
        leg = SipLeg(call, info, event.offer, trunk.codecs, self)
        self._legs[call] = leg
        try:
            self._on_call(leg)
        except Exception:
            logger.exception("the handler of a new call failed", extra={"call_id": info.leg_id})
            leg.reject(500)

    # --- addresses ---------------------------------------------------------------------------------------------------

    def trunk_of(self, host: str) -> str | None:
        """The name of the trunk that this source address belongs to, None for a stranger."""
        rule = self._trunk_rule(host)
        return rule.name if rule is not None else None

    def _trunk_rule(self, host: str) -> TrunkRule | None:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return next((rule for rule in self._trunks if any(address in network for network in rule.allow)), None)

    def _host_seen_by(self, peer: str) -> str:
        """Our address on the way to ``peer``."""
        if not ipaddress.ip_address(self._bound_host).is_unspecified:
            return self._bound_host
        return _route_source(peer, self._bound_host)


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
