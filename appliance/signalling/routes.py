"""Placing a call: which trunks a number goes by, in which order, and when the next one is tried.

Every number passes :mod:`appliance.signalling.dial_policy` here, wherever it came from: a dialplan, a campaign, or a
peer's REFER. There is no other way out of the box.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from appliance.config.trunks import Route
from appliance.errors import DialError, LocalSipError, RemoteSipError
from appliance.signalling import dial_policy
from appliance.signalling.headers import fill
from appliance.signalling.leg import HangupCause, MediaSlot, PlacedCall
from appliance.signalling.trunks import SIP, TrunkRule, TrunkTable
from appliance.sip.uri import SipUri, join_host_port, printable

logger = logging.getLogger(__name__)

NO_ROUTE: Final = 404
FORBIDDEN: Final = 403
NO_ROOM: Final = 503
NO_ANSWER: Final = 408
"""What a call comes to that has rung for as long as it may."""
REFUSALS: Final = ("no_route", "malformed", "denied", "prefix", "premium", "shared_cost", "satellite", "emergency")
"""Causes for which a number is not dialled, as metrics name them."""

UNSURE: Final = "unsure"
"""Cause for which a carrier's call may have been placed, and ring: nobody else is asked to place it."""

_E164: Final = re.compile(r"\+[1-9][0-9]{2,14}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to reach a number: an INVITE for ``uri`` by ``trunk``, or a call that its carrier places.

    For a carrier ``number`` has + and a country code, and ``uri`` is ``tel:`` and that.
    """

    trunk: TrunkRule
    uri: str
    number: str

    @property
    def needs_rtp(self) -> bool:
        """Whether the call's media slot must have a port."""
        return self.trunk.kind == SIP


class Router:
    """Finds the ways a number can be dialled.

    Attributes:
        refused: how often a number was not dialled, by cause (:data:`REFUSALS`).
    """

    def __init__(self, trunks: TrunkTable, routes: Sequence[Route]) -> None:
        self._trunks = trunks
        self._routes = tuple(routes)
        self.refused: Counter[str] = Counter()

    def attempts(self, target: str, *, trunk: str = "") -> list[Attempt]:
        """The ways to ``target``, best first; at least one.

        Args:
            target: a number, a name, or a ``sip:`` or ``tel:`` URI, from any source. A SIP URI is only called where
                its host is a trunk's.
            trunk: the one trunk to use; "" lets the routes choose.

        Raises:
            DialError: it may not be dialled (403), or nothing leads there (404).
        """
        with self._counting():
            return self._attempts(target, trunk)

    def referral(self, number: str, rule: TrunkRule, source: str) -> str:
        """What a peer of a trunk is told to call itself, on that trunk's account: a URI, or a carrier's number.

        Args:
            source: where the peer is, for a SIP trunk without a proxy.

        Raises:
            DialError: the trunk may not dial it (403), or cannot (404).
        """
        with self._counting():
            self._check(number, number, rule)
            if rule.kind != SIP:
                return self._by_carrier(rule, dial_policy.plain(number)).number
        bare = dial_policy.plain(number)
        return self._through(rule, bare)[0].uri if self._trunks.proxies(rule.name) else f"sip:{as_user(bare)}@{source}"

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except DialError as error:
            self.refused[error.cause] += 1
            logger.warning("not dialled: %s", error)
            raise

    def _attempts(self, target: str, trunk: str) -> list[Attempt]:
        number, uri = _parts(target)
        if uri is not None and uri.host:
            return self._at_host(number, uri, trunk)
        if trunk:
            rule = self._trunks.by_name(trunk)
            if rule is None:
                raise DialError(f"there is no trunk {trunk!r}", status=NO_ROUTE, cause="no_route")
            self._check(number, number, rule)
            return self._through(rule, dial_policy.plain(number))
        return self._by_routes(number)

    def _by_routes(self, number: str) -> list[Attempt]:
        bare = dial_policy.plain(number)
        if not bare:
            raise _malformed(number)
        route = next((one for one in self._routes if any(dial_policy.begins(bare, to) for to in one.to)), None)
        if route is None:
            raise DialError(f"no route leads to {bare}; add one under routes", status=NO_ROUTE, cause="no_route")
        dialled = route.prepend + bare[route.strip :]
        if dial_policy.plain(dialled) != dialled or not dialled:
            raise _malformed(dialled)
        found: list[Attempt] = []
        problem: DialError | None = None
        for name in route.trunks:
            rule = self._trunks.by_name(name)
            assert rule is not None
            try:
                self._check(bare, dialled, rule)
                found += self._through(rule, dialled)
            except DialError as error:
                problem = problem or error
        if not found:
            assert problem is not None
            raise problem
        return found

    def _through(self, rule: TrunkRule, number: str) -> list[Attempt]:
        """``number`` at each of the trunk's proxies, or by its carrier."""
        if rule.kind != SIP:
            return [self._by_carrier(rule, number)]
        found = [_attempt(rule, proxy, number) for proxy in self._trunks.proxies(rule.name)]
        if not found:
            raise DialError(f"trunk {rule.name!r} cannot be called; give it a proxy", status=NO_ROUTE, cause="no_route")
        return found

    def _by_carrier(self, rule: TrunkRule, number: str) -> Attempt:
        whole = dial_policy.international(number, rule.region)
        if not _E164.fullmatch(whole):
            hint = "write + and the country code first"
            if rule.region is None:
                hint += f", or set trunks.{rule.name}.region to the country it is to be read in"
            what = f"{number} is no whole telephone number, and trunk {rule.name!r} dials no other; {hint}"
            raise DialError(what, status=NO_ROUTE, cause="malformed")
        if whole != number:
            self._refuse(dial_policy.refusal_of_dialled(whole, number, rule), rule)
        return Attempt(rule, f"tel:{whole}", whole)

    def _at_host(self, number: str, uri: SipUri, trunk: str) -> list[Attempt]:
        """``number`` at the host that a URI names, spoken to as its trunk says and not as the URI does.

        A peer's REFER may hold any URI: it must not choose that a trunk of TLS is called in the clear, nor another
        port. Only an address that no proxy names, but ``allow`` does, is called as the URI says.
        """
        mine = [rule for rule in self._trunks if rule.kind == SIP and trunk in ("", rule.name)]
        proxies = [(rule, proxy) for rule in mine for proxy in self._trunks.proxies(rule.name) if proxy.is_at(uri.host)]
        if proxies:
            found = [one for one in proxies if uri.port is not None and one[1].effective_port == uri.port] or proxies
            rule = found[0][0]
            places = [_as_secure(proxy, uri) for owner, proxy in found if owner is rule]
        else:
            named = next((rule for rule in mine if _names(rule, uri.host)), None)
            if named is None:
                what = f"{printable(uri.host, 80)} is the host of no trunk"
                raise DialError(f"{what}; only trunks can be called", status=NO_ROUTE, cause="no_route")
            rule, places = named, [_as_said(uri, self._trunks.proxies(named.name))]
        self._check(number, number, rule)
        return [_attempt(rule, place, dial_policy.plain(number)) for place in dict.fromkeys(places)]

    def _check(self, asked: str, dialled: str, rule: TrunkRule) -> None:
        """Both what was asked for and what would be dialled must be allowed."""
        refusal = dial_policy.refusal(asked, rule)
        if refusal is None and dialled != asked:
            refusal = dial_policy.refusal_of_dialled(dialled, asked, rule)
        self._refuse(refusal, rule)

    def _refuse(self, refusal: dial_policy.Refusal | None, rule: TrunkRule) -> None:
        if refusal is not None:
            self._trunks.state(rule.name).counters["refused_dialling"] += 1
            raise DialError(refusal.text, status=FORBIDDEN, cause=refusal.cause)


def as_user(number: str) -> str:
    """A number or name as the user part of a SIP URI: ``#`` and what else may not stand there is escaped."""
    return quote(number, safe="+*!~_.-")


def _parts(target: str) -> tuple[str, SipUri | None]:
    """The number or name in ``target``, and the URI where it is one."""
    if not target.lower().startswith(("sip:", "sips:", "tel:")):
        return target, None
    try:
        uri = SipUri.parse(target)
    except RemoteSipError as error:
        raise _malformed(target) from error
    if uri.scheme == "sips":
        uri = SipUri("sips", uri.user, uri.host, uri.port, uri.params)
    return uri.number, uri


def _malformed(target: str) -> DialError:
    text = f"{printable(target, 80)!r} is neither a number, a name nor a SIP URI"
    return DialError(text, status=NO_ROUTE, cause="malformed")


def _attempt(rule: TrunkRule, place: SipUri, number: str) -> Attempt:
    """``number`` at ``place``, whose user is left out."""
    return Attempt(rule, str(SipUri(place.scheme, as_user(number), place.host, place.port, place.params)), number)


def _as_secure(proxy: SipUri, uri: SipUri) -> SipUri:
    """``proxy``; where ``uri`` asks for TLS all the way (sips) and this does not speak it, its host by sips."""
    if uri.scheme != "sips" or proxy.transport == "tls":
        return proxy
    return SipUri("sips", "", proxy.host, uri.port)


def _as_said(uri: SipUri, proxies: Sequence[SipUri]) -> SipUri:
    """The place that ``uri`` names, as it asks for; by TLS where all proxies of the trunk speak that."""
    transport = uri.transport if uri.transport in ("udp", "tcp", "tls") else ""
    if proxies and all(proxy.transport == "tls" for proxy in proxies):
        transport = "tls"
    params = (("transport", transport),) if transport and uri.scheme == "sip" else ()
    return SipUri(uri.scheme, "", uri.host, uri.port, params)


def _names(rule: TrunkRule, host: str) -> bool:
    """Whether ``host`` is one of the addresses that the trunk's calls come from; a network names none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in rule.allow if network.prefixlen == network.max_prefixlen)


def goes_on(cause: HangupCause, rang: bool) -> bool:
    """Whether the next trunk is tried after an attempt ended so.

    A server that is down, full or broken, or that nobody could reach, says nothing about the one called; every other
    answer is that one's own (busy, declined, no such number) and is final. What has rung is final too: to call again
    would ring twice.
    """
    if cause.by == "caller" or rang:
        return False
    return cause.code == 408 or 500 <= cause.code <= 599


def _goes_on_unplaced(error: DialError) -> bool:
    """The same, of a call that a carrier would not place."""
    if error.cause == UNSURE:
        return False
    return error.cause == "no_route" or goes_on(HangupCause("agent", error.status, str(error)), rang=False)


class Dial(Protocol):
    """What places one INVITE: the SIP endpoint."""

    async def __call__(
        self,
        target_uri: str,
        from_uri: str,
        media: MediaSlot,
        *,
        trunk: TrunkRule,
        headers: Sequence[tuple[str, str]],
        display_name: str,
        ring_timeout_s: float,
    ) -> PlacedCall: ...


class Place(Protocol):
    """What has a carrier place one call.

    ``values`` is what ``${...}`` stands for, ``caller_id`` the number shown to the one called. Raises DialError where
    it cannot be placed.
    """

    async def __call__(
        self,
        attempt: Attempt,
        media: MediaSlot,
        *,
        values: Mapping[str, str],
        display_name: str,
        ring_timeout_s: float,
        caller_id: str,
    ) -> PlacedCall: ...


class Dialler:
    """Places calls over the trunks.

    Args:
        router: says by which ways.
        trunks: counts the calls.
        dial: places one INVITE.
        now: seconds of a steady clock.
        place: has a carrier place one call; None where there are none.
    """

    def __init__(
        self, router: Router, trunks: TrunkTable, dial: Dial, now: Callable[[], float], place: Place | None = None
    ) -> None:
        self.router = router
        self._trunks = trunks
        self._dial = dial
        self._place = place
        self._now = now

    async def call(
        self,
        attempts: Sequence[Attempt],
        media: MediaSlot,
        *,
        values: Mapping[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        display_name: str = "",
        ring_timeout_s: float = 60.0,
        on_ringing: Callable[[int], None] | None = None,
        caller_id: str = "",
        on_placed: Callable[[PlacedCall], None] | None = None,
    ) -> PlacedCall:
        """Try the attempts in order until one answers. Cancelled, it takes the call under way back.

        Args:
            attempts: from :meth:`Router.attempts`.
            media: where the answered call's audio goes; with a port if any of the attempts needs one.
            values: what ``${...}`` in the trunks' ``headers_out`` stands for.
            headers: further headers of the INVITE.
            caller_id: number shown to the one called; "" for the trunk's own.
            on_placed: told of each call that has been placed, before anything is heard of it.

        Raises:
            DialError: nobody answered; with the status of the last refusal.
        """
        problem = DialError("there is no way to dial it", status=NO_ROUTE, cause="no_route")
        for index, attempt in enumerate(attempts):
            name = attempt.trunk.name
            if index:
                self._trunks.state(name).counters["failovers"] += 1
            full = self._trunks.take(name, self._now(), outgoing=True)
            if full:
                problem = DialError(f"no room: {full}", status=NO_ROOM, cause="no_room")
                continue
            try:
                outgoing = await self._begin(
                    attempt, media, values or {}, headers, display_name, ring_timeout_s, caller_id
                )
            except DialError as error:
                self._trunks.give_back(name)
                logger.info("call not placed: %s by trunk %s: %s", attempt.number, name, error)
                problem = error
                if not _goes_on_unplaced(error):
                    break
                continue
            except (OSError, LocalSipError, RemoteSipError) as error:
                self._trunks.give_back(name)
                logger.warning("trunk %s cannot be reached: %s", name, error)
                problem = DialError(f"trunk {name} cannot be reached: {error}", status=NO_ROOM, cause="unreachable")
                continue
            except BaseException:
                self._trunks.give_back(name)
                raise
            outgoing.when_over(lambda name=name: self._trunks.give_back(name))  # type: ignore[misc]
            outgoing.trunk, outgoing.uri = name, attempt.uri
            rang = _Rang(on_ringing)
            outgoing.on_ringing = rang.progress
            if on_placed is not None:
                on_placed(outgoing)
            try:
                answered = await outgoing.wait_answered()
            except BaseException:
                outgoing.hangup("no longer wanted")
                raise
            if answered is not None:
                return outgoing
            cause = await outgoing.wait_ended()
            text = f"{attempt.number} by trunk {name}: {cause.code} {cause.text}".rstrip()
            told = cause.by == "agent" or (cause.by == "caller" and cause.code == NO_ANSWER)
            problem = DialError(
                text,
                status=cause.code if cause.code >= 300 else NO_ROOM,
                cause="failed",
                code=cause.code if told else 0,
                text=cause.text if told else "",
            )
            logger.info("call not answered: %s", text)
            if not goes_on(cause, rang.rang):
                break
        raise problem

    async def _begin(
        self,
        attempt: Attempt,
        media: MediaSlot,
        values: Mapping[str, str],
        headers: Sequence[tuple[str, str]],
        display_name: str,
        ring_timeout_s: float,
        caller_id: str,
    ) -> PlacedCall:
        rule = attempt.trunk
        caller_id = caller_id or rule.caller_id
        if rule.kind != SIP:
            if self._place is None:
                what = f"trunk {rule.name!r} cannot be called: this process places no calls of kind {rule.kind!r}"
                raise DialError(what, status=NO_ROOM, cause="unreachable")
            return await self._place(
                attempt,
                media,
                values=values,
                display_name=display_name,
                ring_timeout_s=ring_timeout_s,
                caller_id=caller_id,
            )
        host = next(iter(self._trunks.proxies(rule.name)), SipUri.parse(attempt.uri)).host
        user = as_user(caller_id) or "anonymous"
        return await self._dial(
            attempt.uri,
            f"sip:{user}@{join_host_port(host, None)}",
            media,
            trunk=rule,
            headers=[*headers, *fill(rule.headers_out, {**values, "called.number": attempt.number})],
            display_name=display_name,
            ring_timeout_s=ring_timeout_s,
        )


class _Rang:
    def __init__(self, on_ringing: Callable[[int], None] | None) -> None:
        self.rang = False
        self._on_ringing = on_ringing

    def progress(self, status: int) -> None:
        self.rang = self.rang or status in (180, 183)
        if self._on_ringing is not None:
            self._on_ringing(status)
