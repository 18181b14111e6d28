"""What keeps each trunk alive: registering with it, and asking by OPTIONS whether it is there.

The machines are :mod:`appliance.sip.registration` and :mod:`appliance.sip.qualify`; here their requests are sent, to
the proxies in the order of the configuration and the servers of each in the order of RFC 3263. What comes of it stands
in the trunk's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from appliance.errors import SipError, SipUnreachable
from appliance.signalling.loops import keep_running
from appliance.signalling.resolver import Server
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.outside import Outcome
from appliance.sip.qualify import Qualify, Reachability
from appliance.sip.registration import BACKOFF_BASE_S, Registration, RegistrationState
from appliance.sip.uri import Peer, SipUri, join_host_port

logger = logging.getLogger(__name__)

MAX_SERVERS: Final = 4
"""Servers of one proxy that one request is tried at."""

STOP_S: Final = 2.0
"""How long the end of all registrations is waited for."""

_FAILED: Final = (408, 503)


class Way(NamedTuple):
    """One proxy of a trunk, and one server of it that a request went to."""

    uri: SipUri
    peer: Peer


class _Binding(NamedTuple):
    """A registration that was accepted: where, and when it ends unless it is refreshed."""

    way: Way
    until: float


class Reach(Protocol):
    """What the links need of the endpoint."""

    async def servers_of(self, rule: TrunkRule, uri: SipUri) -> Sequence[Server]:
        """Where requests for a proxy go; raises SipUnreachable."""
        ...

    async def way_to(self, rule: TrunkRule, server: Server) -> Peer:
        """A way to a server; raises SipUnreachable."""
        ...

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
        """Send a request outside any call and wait for its end."""
        ...

    def still_open(self, peer: Peer) -> bool:
        """Whether the connection of this peer lasts; for UDP always."""
        ...

    def now(self) -> float: ...


class TrunkLinks:
    """The registrations and probes of all trunks.

    Args:
        trunks: their rules; their states are written.
        reach: the endpoint.
        chance: numbers in [0, 1).
    """

    def __init__(self, trunks: TrunkTable, reach: Reach, chance: Callable[[], float]) -> None:
        self._trunks = trunks
        self._reach = reach
        self._chance = chance
        self._registrars: list[_Registrar] = []
        self._registered: dict[tuple[str, str], tuple[_Registrar, ...]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin with every trunk that is to be registered or asked."""
        for rule in self._trunks:
            if not rule.proxies:
                continue
            if rule.register:
                registrar = _Registrar(rule, self._trunks, self._reach, self._chance, self._note_registered)
                self._registrars.append(registrar)
                self._keep(registrar.run, f"the registration of trunk {rule.name}")
            if rule.qualify_s > 0:
                self._keep(functools.partial(self._qualify, rule), f"the probe of trunk {rule.name}")

    def _keep(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        self._tasks.append(keep_running(work, name, pause_s=BACKOFF_BASE_S))

    async def stop(self) -> None:
        """End every registration, waiting a moment for the answers."""
        for registrar in self._registrars:
            registrar.stop()
        if self._registrars:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(one.gone.wait() for one in self._registrars)), STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._registered.clear()

    def uses(self, flow: int) -> bool:
        """Whether a registration holds by this connection."""
        return any(one.binding is not None and one.binding.way.peer.flow == flow for one in self._registrars)

    def registered_with(self, peer: Peer) -> TrunkRule | None:
        """The trunk whose registration this peer has accepted and that has not run out; None where there is none.

        A peer is the host, by the transport of the REGISTER: what a host has shown by TLS says nothing of datagrams
        in its name. Where that was UDP, TCP will do as well, to which large requests move (RFC 3261 §18.1.1).
        """
        if not self._registered:
            return None
        now = self._reach.now()
        here = self._registered.get((peer.host, peer.transport), ())
        return next((one.rule for one in here if one.holds(now)), None)

    def _note_registered(self) -> None:
        """A registration was accepted somewhere, or is over."""
        registered: dict[tuple[str, str], tuple[_Registrar, ...]] = {}
        for one in self._registrars:
            if one.binding is None:
                continue
            peer = one.binding.way.peer
            for transport in ("udp", "tcp") if peer.transport == "udp" else (peer.transport,):
                key = peer.host, transport
                registered[key] = (*registered.get(key, ()), one)
        self._registered = registered

    async def _qualify(self, rule: TrunkRule) -> None:
        machine = Qualify(rule.qualify_s, self._chance)
        state = self._trunks.state(rule.name)
        machine.start(self._reach.now())
        while (due := machine.get_timer()) is not None:
            await asyncio.sleep(max(0.0, due - self._reach.now()))
            if not machine.poll(self._reach.now()):
                continue
            outcome, words, _ = await _at_proxies(rule, self._reach, self._probe)
            changed = machine.on_outcome(outcome.status if outcome is not None else 503, self._reach.now())
            state.reachable = machine.state is Reachability.REACHABLE
            state.round_trip_ms = 1000.0 * machine.round_trip_s if machine.round_trip_s is not None else None
            if changed:
                level = logging.INFO if state.reachable else logging.WARNING
                logger.log(level, "trunk %s is %s%s", rule.name, machine.state, f": {words}" if words else "")

    async def _probe(self, rule: TrunkRule, way: Way) -> Outcome:
        host = join_host_port(way.uri.host, None)
        from_uri = f"{way.uri.scheme}:{rule.caller_id or 'ping'}@{host}"
        return await self._reach.ask("OPTIONS", way.uri, way.peer, from_uri=from_uri)


class _Registrar:
    """One trunk's registration.

    Args:
        rule: the trunk.
        trunks: where its state is written.
        reach: the endpoint.
        chance: numbers in [0, 1).
        on_binding: called when ``binding`` has changed.

    Attributes:
        binding: the registration that was accepted last; None where there is none, or it has ended.
        gone: set at the end.
    """

    def __init__(
        self,
        rule: TrunkRule,
        trunks: TrunkTable,
        reach: Reach,
        chance: Callable[[], float],
        on_binding: Callable[[], None],
    ) -> None:
        self.rule = rule
        self.gone = asyncio.Event()
        self.binding: _Binding | None = None
        self._state = trunks.state(rule.name)
        self._reach = reach
        self._chance = chance
        self._on_binding = on_binding
        self._machine = self._new_machine()
        self._changed = asyncio.Event()
        self._stopping = False
        self._previous: Outcome | None = None

    def holds(self, now: float) -> bool:
        """Whether the trunk is registered."""
        return self.binding is not None and now < self.binding.until

    def _new_machine(self) -> Registration:
        return Registration(len(self.rule.proxies), max(1, int(self.rule.register_interval_s)), self._chance)

    def _begin(self) -> None:
        self._machine = self._new_machine()
        self._machine.start(self._reach.now())

    def stop(self) -> None:
        """Begin to end the registration."""
        self._stopping = True
        self._machine.stop(self._reach.now())
        self._changed.set()

    async def run(self) -> None:
        """Keep the trunk registered until it is stopped. After a failure it can be run again, and begins anew."""
        if not self._stopping:
            self._begin()
            await self._follow_machine()
        self._bind(None)
        self._state.registered, self._state.registration = False, "not registered any more"
        self.gone.set()

    async def _follow_machine(self) -> None:
        while self._machine.state is not RegistrationState.GONE:
            now = self._reach.now()
            attempt = self._machine.poll(now)
            if attempt is None:
                await self._wait(self._machine.get_timer(), now)
                continue
            await self._attempt(attempt.proxy, attempt.expires_s)

    async def _wait(self, due: float | None, now: float) -> None:
        """Until the machine is due, or something has changed; a lost connection begins the registration again."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), 1.0 if due is None else max(0.0, min(1.0, due - now)))
        if self.binding is None:
            return
        lost = not self._reach.still_open(self.binding.way.peer)
        if lost and not self._stopping and self._machine.state is RegistrationState.REGISTERED:
            logger.info("trunk %s: the connection to its registrar is lost; registering again", self.rule.name)
            self._begin()
        elif not self.holds(self._reach.now()):
            self._bind(None)
            self._tell(f"it has run out; {self._machine.last_reason or 'it could not be refreshed'}")

    async def _attempt(self, proxy: int, expires_s: int) -> None:
        headers = [("Expires", str(expires_s))]

        async def register(rule: TrunkRule, way: Way) -> Outcome:
            uri = way.uri
            record = f"{uri.scheme}:{rule.username}@{join_host_port(uri.host, None)}"
            return await self._reach.ask(
                "REGISTER",
                SipUri(uri.scheme, "", uri.host, uri.port),
                way.peer,
                from_uri=record,
                to_uri=record,
                headers=headers,
                contact_user=rule.username,
                previous=self._previous,
            )

        outcome, words, way = await _at_proxies(self.rule, self._reach, register, only=proxy)
        now, machine = self._reach.now(), self._machine
        if outcome is None or outcome.response is None:
            machine.on_failure(words, now)
        else:
            self._previous = outcome
            machine.on_response(outcome.request, outcome.response, now)
        if machine.state is RegistrationState.REGISTERED and way is not None and machine.until is not None:
            self._bind(_Binding(way, machine.until))
        else:
            words = words or "the registrar keeps it for no time"
            if not machine.registered(now):
                self._bind(None)
        self._tell(words)

    def _bind(self, binding: _Binding | None) -> None:
        self.binding = binding
        self._on_binding()

    def _tell(self, words: str) -> None:
        """Write down how the registration stands; ``words`` say what is wrong, "" for nothing."""
        before = self._state.registered, self._state.registration
        self._state.registered = self.binding is not None
        if self.binding is None:
            self._state.registration = f"not registered: {words}"
        elif words:
            self._state.registration = f"registered until it runs out; refreshing failed: {words}"
        else:
            self._state.registration = f"registered with {self.binding.way.uri} at {self.binding.way.peer}"
        if before != (self._state.registered, self._state.registration) and not self._stopping:
            level = logging.INFO if self._state.registered and not words else logging.WARNING
            logger.log(level, "trunk %s: %s", self.rule.name, self._state.registration)


async def _at_proxies(
    rule: TrunkRule,
    reach: Reach,
    ask: Callable[[TrunkRule, Way], Awaitable[Outcome]],
    *,
    only: int | None = None,
) -> tuple[Outcome | None, str, Way | None]:
    """Ask each server of each proxy (or of one), until one gives an answer that is not about itself.

    Gives the last outcome, None where there was none; what was wrong in words, "" for a 2xx; and who was asked.
    """
    last: tuple[Outcome | None, str, Way | None] = (None, "the trunk has no proxy", None)
    for proxy in rule.proxies if only is None else rule.proxies[only : only + 1]:
        try:
            uri = SipUri.parse(proxy)
            servers = await reach.servers_of(rule, uri)
        except SipError as error:
            last = (None, str(error), None)
            continue
        for server in list(servers)[:MAX_SERVERS]:
            try:
                way = Way(uri, await reach.way_to(rule, server))
                outcome = await ask(rule, way)
            except (SipUnreachable, SipError) as error:
                last = (None, str(error), None)
                continue
            last = (outcome, _words(outcome), way)
            if outcome.response is not None and outcome.status not in _FAILED:
                return last
    return last


def _words(outcome: Outcome) -> str:
    if outcome.response is None:
        return "no answer" if outcome.status == 408 else "it could not be sent"
    if outcome.status in (401, 407):
        return f"{outcome.status}: the user name or password is not accepted"
    return "" if 200 <= outcome.status < 300 else f"{outcome.status} {outcome.response.reason}".rstrip()
