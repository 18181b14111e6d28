"""What keeps each trunk alive: registering with it, and asking by OPTIONS whether it is there.

The machines are :mod:`appliance.sip.registration` and :mod:`appliance.sip.qualify`; here their requests are sent, to
the proxies in the order of the configuration and the servers of each in the order of RFC 3263. What comes of it stands
in the trunk's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from appliance.errors import SipError, SipUnreachable
from appliance.signalling.resolver import Server
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.outside import Outcome
from appliance.sip.qualify import Qualify, Reachability
from appliance.sip.registration import Registration, RegistrationState
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
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin with every trunk that is to be registered or asked."""
        loop = asyncio.get_running_loop()
        for rule in self._trunks:
            if not rule.proxies:
                continue
            if rule.register:
                registrar = _Registrar(rule, self._trunks, self._reach, self._chance)
                self._registrars.append(registrar)
                self._tasks.append(loop.create_task(registrar.run(), name=f"register {rule.name}"))
            if rule.qualify_s > 0:
                self._tasks.append(loop.create_task(self._qualify(rule), name=f"qualify {rule.name}"))

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

    def uses(self, flow: int) -> bool:
        """Whether a registration holds by this connection."""
        return any(one.way is not None and one.way.peer.flow == flow for one in self._registrars)

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
    """One trunk's registration."""

    def __init__(self, rule: TrunkRule, trunks: TrunkTable, reach: Reach, chance: Callable[[], float]) -> None:
        self.gone = asyncio.Event()
        self.way: Way | None = None
        self._rule = rule
        self._state = trunks.state(rule.name)
        self._reach = reach
        self._chance = chance
        self._machine = self._new_machine()
        self._changed = asyncio.Event()
        self._stopping = False
        self._previous: Outcome | None = None

    def _new_machine(self) -> Registration:
        return Registration(len(self._rule.proxies), max(1, int(self._rule.register_interval_s)), self._chance)

    def stop(self) -> None:
        """Begin to end the registration."""
        self._stopping = True
        self._machine.stop(self._reach.now())
        self._changed.set()

    async def run(self) -> None:
        """Keep the trunk registered until it is stopped."""
        self._machine.start(self._reach.now())
        while self._machine.state is not RegistrationState.GONE:
            now = self._reach.now()
            attempt = self._machine.poll(now)
            if attempt is None:
                await self._wait(self._machine.get_timer(), now)
                continue
            await self._attempt(attempt.proxy, attempt.expires_s)
        self._state.registered, self._state.registration = False, "not registered any more"
        self.gone.set()

    async def _wait(self, due: float | None, now: float) -> None:
        """Until the machine is due, or something has changed; a lost connection begins the registration again."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), 1.0 if due is None else max(0.0, min(1.0, due - now)))
        lost = self.way is not None and not self._reach.still_open(self.way.peer)
        if lost and not self._stopping and self._machine.state is RegistrationState.REGISTERED:
            logger.info("trunk %s: the connection to its registrar is lost; registering again", self._rule.name)
            self._machine = self._new_machine()
            self._machine.start(self._reach.now())

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

        outcome, words, way = await _at_proxies(self._rule, self._reach, register, only=proxy)
        now = self._reach.now()
        if outcome is None or outcome.response is None:
            self._machine.on_failure(words, now)
        else:
            self._previous = outcome
            self._machine.on_response(outcome.request, outcome.response, now)
        self._tell(self._machine.registered(now), words, way)

    def _tell(self, registered: bool, words: str, way: Way | None) -> None:
        before = self._state.registered, self._state.registration
        self.way = way if registered else None
        if registered and way is not None:
            self._state.registered, self._state.registration = True, f"registered with {way.uri} at {way.peer}"
        else:
            self._state.registered, self._state.registration = registered, f"not registered: {words}"
            if registered:
                self._state.registration = f"registered until it runs out; refreshing failed: {words}"
        if before != (self._state.registered, self._state.registration) and not self._stopping:
            level = logging.INFO if registered else logging.WARNING
            logger.log(level, "trunk %s: %s", self._rule.name, self._state.registration)


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
