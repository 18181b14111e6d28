"""The SIP side of the box: drives the sans-IO user agent on the event loop, over all its listeners and connections."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from appliance.errors import LocalSipError, RemoteSipError
from appliance.signalling.connections import ConnectionLimits
from appliance.signalling.failover import Placement
from appliance.signalling.leg import RtpSlot
from appliance.signalling.loops import keep_running
from appliance.signalling.resolver import Resolver, Server
from appliance.signalling.sip_legs import OutgoingCall, SipLeg, call_info, session_id_of
from appliance.signalling.sip_media import SipMedia, check_sdp_offer, media_policy
from appliance.signalling.tls import TlsClient
from appliance.signalling.trace import SipTrace
from appliance.signalling.transports import ListenOn, Transports
from appliance.signalling.trunk_links import TrunkLinks
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.auth import OFFERED, Credentials
from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import CallClosed, CallEnded, Event, IncomingCall
from appliance.sip.message import Request, Response
from appliance.sip.outside import Outcome
from appliance.sip.redirect import same_user_near_peer
from appliance.sip.transaction import Timing
from appliance.sip.uri import Peer, SipUri
from appliance.sip.useragent import Limits, UserAgent

__all__ = ["ListenOn", "SipEndpoint"]

logger = logging.getLogger(__name__)

_CHANCE = random.SystemRandom()
_MAX_HOSTS: Final = 1024
_WATCH_S: Final = 1.0


def _random_token() -> str:
    return secrets.token_hex(8)


class SipEndpoint:
    """Answers and places SIP calls on all listeners of the box.

    Args:
        listeners: where to listen; the first is the one :attr:`port` tells of.
        trunks: who may call; strangers get 403, and nothing at all for what is malformed.
        on_call: called with a :class:`SipLeg` for every new INVITE, after the 100 has left and its offer was found
            acceptable. It must ring, answer or reject; left alone, the call is refused after the ring timeout.
        user_agent_name: goes into Server and User-Agent.
        advertised_host: how peers reach us, where that is not the local address (NAT).
        media_host: where media slots receive; calls whose media could not go there are refused at once.
        random_token: unguessable text, new at each call.
        stop_grace_s: how long :meth:`stop` waits for the answers to its BYEs.
        resolver: finds the servers of a URI; one of our own asks the system's name servers.
    """

    def __init__(
        self,
        listeners: Sequence[ListenOn],
        *,
        trunks: TrunkTable | Sequence[TrunkRule],
        on_call: Callable[[SipLeg], None],
        user_agent_name: str = "appliance",
        advertised_host: str | None = None,
        media_host: str = "",
        random_token: Callable[[], str] = _random_token,
        timing: Timing | None = None,
        limits: Limits | None = None,
        connection_limits: ConnectionLimits | None = None,
        stop_grace_s: float = 2.0,
        resolver: Resolver | None = None,
    ) -> None:
        self._listeners = tuple(listeners)
        self._trunks = trunks if isinstance(trunks, TrunkTable) else TrunkTable(trunks)
        self._on_call = on_call
        self._name = user_agent_name
        self._advertised_host = advertised_host
        self._media_host = media_host
        self._random_token = random_token
        self._timing = timing
        self._limits = limits
        self._connection_limits = connection_limits
        self._stop_grace_s = stop_grace_s
        self._resolver = resolver
        self._agent: UserAgent | None = None
        self._transports: Transports | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup: asyncio.TimerHandle | None = None
        self._wakeup_at: float | None = None
        self._pumping = False
        self.trace = SipTrace()
        self._legs: dict[Call, SipLeg | OutgoingCall] = {}
        self._placements: dict[Call, Placement] = {}
        self._rule_for = functools.lru_cache(4096)(self._trunks.rule_for)
        self._trunks_at: OrderedDict[str, tuple[TrunkRule, ...]] = OrderedDict()
        self._links = TrunkLinks(self._trunks, self, _CHANCE.random)
        self._watching: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._accepting = True

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind the sockets and begin to answer.

        Raises:
            OSError: where a port is taken or an address is not ours; the message says what to change.
            ApplianceError: where a certificate cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._transports = Transports(
            self._listeners,
            deliver=self._receive,
            unsent=self._on_unsent,
            known=lambda host, transport: self._rule_of(Peer(host, 0, transport)) is not None,
            in_use=self._in_use,
            tls_of=self._tls_of,
            chance=_CHANCE.random,
            advertised=self._advertised_host,
            limits=self._connection_limits,
        )
        self._agent = UserAgent(
            self._transports.local,
            new_token=self._random_token,
            trunk_of=self.trunk_of,
            name=self._name,
            timing=self._timing,
            limits=self._limits,
            credentials_of=self._credentials_of,
            challenge_of=self._challenge_of,
            redirect=functools.partial(same_user_near_peer, near=self._of_one_trunk),
        )
        self._agent.call_options = lambda peer: call_options(self._rule_of(peer))
        self._agent.accepting = self._accepting
        try:
            await self._transports.start()
        except BaseException:
            await self._transports.close()
            self._transports = self._agent = None
            raise
        if self._resolver is None:
            families = dict.fromkeys(
                family for one in self._listeners for family in (("4", "6") if one.host == "::" else _family(one.host))
            )
            self._resolver = Resolver(_CHANCE.random, families=tuple(families) or ("4",))
        self._watching = keep_running(self._watch, "the watch on floods")
        self._links.start()

    async def stop(self) -> None:
        """Hang up what is left, wait a moment for the answers, and close the sockets."""
        if self._agent is None or self._transports is None:
            return
        self.accepting = False
        for placement in list(self._placements.values()):
            placement.abandon()
        for leg in list(self._legs.values()):
            leg.hangup("shutting down")
        for call in self._agent.calls:
            call.hangup(self.now(), "shutting down")
        self.pump()
        await self._links.stop()
        if self._agent.call_count:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), self._stop_grace_s)
            except TimeoutError:
                logger.warning("%d calls did not confirm their end", self._agent.call_count)
        if self._wakeup is not None:
            self._wakeup.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        transports, self._transports = self._transports, None
        await transports.close()
        self._legs.clear()
        self._placements.clear()

    def reload(self) -> None:
        """Read certificates again, as after SIGHUP; calls that are up notice nothing."""
        if self._transports is not None:
            self._transports.reload()

    @property
    def port(self) -> int:
        """The port of the first listener; the true one once started."""
        return self.bound[0][2] if self.bound else self._listeners[0].port

    @property
    def bound(self) -> tuple[tuple[str, str, int], ...]:
        """(transport, host, port) of every listener, once started."""
        return self._transports.bound if self._transports is not None else ()

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
            **(self._transports.connection_counters if self._transports is not None else {}),
            "calls": self._agent.call_count,
            "transactions": len(self._agent.layer),
            "timers": len(self._agent.timers),
        }

    # --- placing a call ---------------------------------------------------------------------------------------------

    async def dial(
        self,
        target_uri: str,
        from_uri: str,
        media: RtpSlot,
        *,
        trunk: TrunkRule | None = None,
        headers: Sequence[tuple[str, str]] = (),
        codecs: Sequence[str] = ("pcmu", "pcma"),
        display_name: str = "",
        ring_timeout_s: float = 60.0,
    ) -> OutgoingCall:
        """Call a SIP URI and offer ``media``.

        Returns once the INVITE has left to the first server that could be reached; see :class:`OutgoingCall` for what
        follows. A server that gives 503, or nothing, makes the next one of the same URI be tried (RFC 3263 §4.3).

        Args:
            target_uri: whom to call.
            from_uri: who calls.
            media: where the audio goes.
            trunk: whose codecs, encryption and certificates hold; without one, ``codecs`` and the defaults.
            headers: further headers of the INVITE.

        Raises:
            RemoteSipError: where ``target_uri`` is no SIP URI.
            SipUnreachable: (an OSError) where no server of it can be found or connected to.
            LocalSipError: where too many calls are up, or the endpoint is not started.
        """
        agent = self._started()[0]
        target = SipUri.parse(target_uri)

        async def reach(server: Server) -> Peer:
            return await self.way_to(trunk, server, udp_only=target.transport == "udp")

        placement = Placement(await self.servers_of(trunk, target), reach, self)
        peer = await placement.first()
        policy = media_policy(trunk) if trunk is not None else codecs
        negotiation = SipMedia(media, session_id_of(self._random_token()), policy, peer.host)
        body = negotiation.offer()

        def invite(peer: Peer) -> Call:
            return agent.invite(
                target,
                from_uri,
                body,
                self.now(),
                destination=peer,
                display_name=display_name,
                headers=headers,
                ring_timeout_s=ring_timeout_s,
                options=call_options(trunk),
            )

        outgoing = OutgoingCall(invite(peer), negotiation, self)
        placement.begin(outgoing, invite)
        self.pump()
        return outgoing

    def adopt(self, call: Call, outgoing: OutgoingCall, placement: Placement | None) -> None:
        """Hand the events of ``call`` to ``outgoing``; those that may mean another server, to ``placement`` first."""
        self._legs[call] = outgoing
        if placement is not None:
            self._placements[call] = placement
        else:
            self._placements.pop(call, None)

    def disown(self, call: Call) -> None:
        """Nobody hears of ``call`` any more."""
        self._legs.pop(call, None)
        self._placements.pop(call, None)

    # --- driving the protocol core --------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds on the loop's clock."""
        if self._loop is None:
            raise _not_started()
        return self._loop.time()

    def pump(self) -> None:
        """Send what is queued, hand out events, and set the next wake-up.

        Messages leave before each event is handled, so that a 100 never waits for what the application does.
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

    def _receive(self, data: bytes, source: Peer) -> None:
        if self._agent is not None:
            now = self.now()
            self.trace.note(data, sent=False, peer=str(source), at=now)
            self._agent.receive_datagram(data, source, now)
            self.pump()

    def _flush(self) -> None:
        assert self._agent is not None
        while messages := self._agent.datagrams_to_send():
            for data, destination in messages:
                if self._transports is not None:
                    self.trace.note(data, sent=True, peer=str(destination), at=self.now())
                    self._transports.send(data, destination)

    def _on_unsent(self, data: bytes, peer: Peer, why: str) -> None:
        logger.info("SIP to %s not sent: %s", peer, why)
        if self._agent is not None:
            self._agent.send_failed(data, peer, self.now())
            self.pump()

    def _in_use(self, flow: int) -> bool:
        if self._links.uses(flow):
            return True
        return self._agent is not None and any(call.source.flow == flow for call in self._agent.calls)

    async def _watch(self) -> None:
        """Say once a second what a flood brought."""
        while self._agent is not None:
            await asyncio.sleep(_WATCH_S)
            report = self._agent.flood_report(self.now())
            if report is not None:
                logger.warning("%s", report.text)

    def _schedule(self) -> None:
        assert self._agent is not None and self._loop is not None
        at = self._agent.get_timer()
        if at == self._wakeup_at and self._wakeup is not None:
            return
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._wakeup_at = at
        running = at is not None and self._transports is not None
        self._wakeup = self._loop.call_at(at, self._on_wakeup) if running and at is not None else None

    def _on_wakeup(self) -> None:
        self._wakeup = self._wakeup_at = None
        if self._agent is not None:
            try:
                self._agent.handle_timer(self.now())
            finally:
                self.pump()

    def _started(self) -> tuple[UserAgent, Transports, Resolver]:
        if self._agent is None or self._transports is None or self._resolver is None:
            raise _not_started()
        return self._agent, self._transports, self._resolver

    # --- events ------------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, IncomingCall):
            self._incoming(event)
            return
        placement = self._placements.get(event.call)
        if placement is not None and placement.takes(event):
            return
        if isinstance(event, CallClosed):
            self.disown(event.call)
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
        trunk = self._rule_of(call.source)
        if trunk is None:
            call.reject(403, self.now())
            return
        if event.offer is not None:
            try:
                check_sdp_offer(event.offer, media_policy(trunk), self._media_host)
            except RemoteSipError as error:
                logger.info("offer from %s refused: %s", call.source, error, extra={"call_id": call.call_id})
                call.reject(error.status_hint or 400, self.now())
                return
        if event.replaces is not None:
            self._replace(event, event.replaces, trunk)
            return
        info = call_info(event.request, self._random_token(), trunk.name, call.source, trunk.headers_in)
        leg = SipLeg(call, info, event.offer, media_policy(trunk), self)
        self._legs[call] = leg
        try:
            self._on_call(leg)
        except Exception:
            logger.exception("the handler of a new call failed", extra={"call_id": info.leg_id})
            leg.reject(500)

    def _replace(self, event: IncomingCall, replaced: Call, trunk: TrunkRule) -> None:
        """Let the new call take the place of the other, on its leg, where the trunk may transfer (RFC 3891)."""
        leg = self._legs.get(replaced)
        counters = self._trunks.state(trunk.name).counters
        if isinstance(leg, OutgoingCall) and leg.heir is not None:
            leg = leg.heir
        if leg is None or not trunk.allow_transfer:
            logger.warning("trunk %s may not replace calls; see its allow_transfer", trunk.name)
            counters["refused_transfer"] += 1
            event.call.reject(403 if leg is not None else 481, self.now())
            return
        self._legs[event.call] = leg
        try:
            leg.adopt(event.call, event.offer, media_policy(trunk))
        except RemoteSipError as error:
            del self._legs[event.call]
            event.call.reject(error.status_hint or 488, self.now())
        else:
            counters["transfers_in"] += 1

    # --- trunks ------------------------------------------------------------------------------------------------------

    def trunk_of(self, peer: Peer) -> str | None:
        """The name of the trunk that a message from this peer belongs to, None for a stranger."""
        rule = self._rule_of(peer)
        return rule.name if rule is not None else None

    def _rule_of(self, peer: Peer) -> TrunkRule | None:
        """The trunk that calls from this peer belong to: by ``allow``, else one that is registered with it."""
        return self._rule_for(peer.host) or self._links.registered_with(peer)

    def _of_one_trunk(self, peer: Peer, address: str) -> bool:
        """Whether a trunk of ``peer`` is also at ``address``: by its proxies, resolved or written so, or ``allow``."""
        here, there = (
            {rule.name for rule in self._trunks_at.get(host, ())} | self._trunks.naming(host)
            for host in (peer.host, address)
        )
        return bool(here & there)

    def _credentials_of(self, peer: Peer, message: Request | Response) -> Credentials | None:
        """Ours at a peer. Where several trunks are at one address, the user in From says which."""
        rules = [rule for rule in self._trunks_at.get(peer.host, ()) if rule.username]
        if not rules:
            rule = self._rule_of(peer)
            rules = [rule] if rule is not None and rule.username and rule.auth == "none" else []
        if len(rules) > 1:
            user = message.from_.number
            rules.sort(key=lambda rule: user not in (rule.username, rule.caller_id))
        return Credentials(rules[0].username, rules[0].password) if rules else None

    def _challenge_of(self, trunk: str) -> Credentials | None:
        rule = self._trunks.by_name(trunk)
        if rule is None or rule.auth == "none":
            return None
        algorithms = ("SHA-256",) if rule.auth == "challenge-sha-256" else OFFERED
        return Credentials(rule.username, rule.password, algorithms=algorithms)

    def _tls_of(self, host: str) -> tuple[str, TlsClient]:
        """The domain that the certificate of an address must be for, and how TLS is spoken to it: as to its trunk."""
        rule = self._rule_of(Peer(host, 0, "tls")) or next(iter(self._trunks_at.get(host, ())), None)
        proxies = self._trunks.proxies(rule.name) if rule is not None else ()
        return proxies[0].host if proxies else "", client_tls(rule)

    # --- ways to trunks (for the links) ------------------------------------------------------------------------------

    async def servers_of(self, rule: TrunkRule | None, uri: SipUri) -> Sequence[Server]:
        """Where requests for ``uri`` go. There the trunk's credentials hold; calls from there are not taken for that.

        Raises:
            SipUnreachable: where its host is unknown.
        """
        _, transports, resolver = self._started()
        servers = await resolver.servers(uri, transports.spoken)
        for server in servers if rule is not None else ():
            here = self._trunks_at.pop(server.host, ())
            self._trunks_at[server.host] = here if rule is None or rule in here else (*here, rule)
            while len(self._trunks_at) > _MAX_HOSTS:
                self._trunks_at.popitem(last=False)
        return servers

    async def way_to(self, rule: TrunkRule | None, server: Server, *, udp_only: bool = False) -> Peer:
        """A way to a server: for TCP and TLS an open connection.

        Raises:
            SipUnreachable: where none can be made.
        """
        return await self._started()[1].reach(server, client_tls(rule), udp_only=udp_only)

    def still_open(self, peer: Peer) -> bool:
        """Whether the connection of this peer lasts; for UDP always."""
        return self._transports is not None and (not peer.reliable or self._transports.is_open(peer))

    async def ask(
        self,
        method: str,
        target: SipUri,
        peer: Peer,
        *,
        from_uri: str,
        to_uri: str = "",
        headers: Sequence[tuple[str, str]] = (),
        contact_user: str | None = None,
        previous: Outcome | None = None,
    ) -> Outcome:
        """Send a request outside any call, and wait for its end.

        Raises:
            LocalSipError: where too much is under way.
        """
        agent = self._started()[0]
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def on_done(outcome: Outcome, now: float) -> None:
            if not done.done():
                done.set_result(outcome)

        agent.request(
            method,
            target,
            self.now(),
            from_uri=from_uri,
            on_done=on_done,
            to_uri=to_uri,
            destination=peer,
            headers=headers,
            contact_user=contact_user,
            previous=previous,
        )
        self.pump()
        return await done


def call_options(trunk: TrunkRule | None) -> CallOptions:
    """How calls of a trunk are held."""
    return CallOptions() if trunk is None else CallOptions(session_expires_s=trunk.session_timer_s)


def client_tls(trunk: TrunkRule | None) -> TlsClient:
    """How TLS is spoken to a trunk."""
    if trunk is None:
        return TlsClient()
    return TlsClient(trunk.tls.ca, trunk.tls.cert, trunk.tls.key, trunk.tls.verify)


def _family(host: str) -> tuple[str, ...]:
    return ("6",) if ":" in host else ("4",)


def _not_started() -> LocalSipError:
    return LocalSipError("the SIP endpoint is not started; await start() first")
