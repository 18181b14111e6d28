"""The trunks at run time: what each may do, how it is, and how many calls it has."""

from __future__ import annotations

import ipaddress
import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from appliance.config.trunks import CarrierTrunk, SipTrunk
from appliance.errors import RemoteSipError
from appliance.sip.uri import SipUri, printable

logger = logging.getLogger(__name__)

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

SIP: Final = "sip"
"""The kind of trunk that the box itself speaks; every other kind is a carrier's."""

RETRY_AFTER_S: Final = 5
"""Told with a 503 where a trunk has no room, so that the peer tries another way at once and this one soon again."""


@dataclass(frozen=True, slots=True)
class TrunkTls:
    """PEM files for TLS towards a trunk; ``ca`` None takes the system's authorities."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class TrunkRule:
    """One trunk's settings, as signalling uses them; ``docs/configuration.md`` explains each.

    ``codecs`` and ``proxies`` are best first. Times are in seconds, ``ptime_ms`` in milliseconds; 0 turns a timer off.
    Of a carrier's trunk (``kind`` is not "sip") only what it shares with all trunks counts, and ``options``, its own
    keys.
    """

    name: str
    allow: tuple[Network, ...] = ()
    codecs: tuple[str, ...] = ("pcmu", "pcma")
    proxies: tuple[str, ...] = ()
    tls: TrunkTls = TrunkTls()
    username: str = ""
    password: str = field(default="", repr=False)
    register: bool = False
    register_interval_s: float = 600.0
    auth: str = "none"
    qualify_s: float = 0.0
    srtp: str = "off"
    ptime_ms: int = 20
    dtmf: str = "auto"
    comfort_noise: bool = False
    media_timeout: str = "end"
    session_timer_s: int = 0
    max_calls: int | None = None
    max_cps: float | None = None
    allow_prefixes: tuple[str, ...] = ()
    allow_kinds: tuple[str, ...] = ()
    region: str | None = None
    caller_id: str = ""
    caller_ids: tuple[str, ...] = ()
    allow_transfer: bool = False
    transfer: str = "auto"
    headers_in: tuple[str, ...] = ()
    headers_out: tuple[tuple[str, str], ...] = ()
    kind: str = SIP
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def of(cls, name: str, trunk: SipTrunk | CarrierTrunk) -> TrunkRule:
        """The rule that the settings make."""
        if isinstance(trunk, CarrierTrunk):
            return cls(
                name=name,
                kind=trunk.kind,
                options=trunk.options,
                allow=trunk.allow,
                media_timeout=trunk.media_timeout,
                max_calls=trunk.max_calls,
                max_cps=trunk.max_cps,
                allow_prefixes=trunk.allow_prefixes,
                allow_kinds=trunk.allow_kinds,
                region=trunk.region,
                caller_id=trunk.caller_id or "",
                caller_ids=trunk.caller_ids,
                transfer=trunk.transfer,
                headers_in=trunk.headers_in,
            )
        return cls(
            name=name,
            allow=trunk.allow,
            codecs=trunk.codecs,
            proxies=trunk.proxy,
            tls=TrunkTls(trunk.tls.ca, trunk.tls.cert, trunk.tls.key, trunk.tls.verify),
            username=trunk.username or "",
            password=trunk.password.get_secret_value() if trunk.password is not None else "",
            register=trunk.register_,
            register_interval_s=trunk.register_interval_s,
            auth=trunk.auth,
            qualify_s=trunk.qualify_s,
            srtp=trunk.srtp,
            ptime_ms=trunk.ptime_ms,
            dtmf=trunk.dtmf,
            comfort_noise=trunk.comfort_noise,
            media_timeout=trunk.media_timeout,
            session_timer_s=trunk.session_timer_s,
            max_calls=trunk.max_calls,
            max_cps=trunk.max_cps,
            allow_prefixes=trunk.allow_prefixes,
            allow_kinds=trunk.allow_kinds,
            region=trunk.region,
            caller_id=trunk.caller_id or trunk.username or "",
            caller_ids=trunk.caller_ids,
            allow_transfer=trunk.allow_transfer,
            transfer=trunk.transfer,
            headers_in=trunk.headers_in,
            headers_out=tuple(trunk.headers_out.items()),
        )


@dataclass(slots=True)
class TrunkState:
    """How a trunk is now. Whoever learns something writes it here; metrics and the status page read it.

    Attributes:
        registered: None where the trunk does not register.
        registration: how that stands, in words ("registered until ...", "refused: 403 Forbidden").
        reachable: what the last OPTIONS said; None where the trunk is not asked.
        round_trip_ms: of that OPTIONS; None while unknown.
        calls: simultaneous calls now, both ways.
        counters: what happened so far; :data:`COUNTED` lists the names.
    """

    registered: bool | None = None
    registration: str = ""
    reachable: bool | None = None
    round_trip_ms: float | None = None
    calls: int = 0
    counters: Counter[str] = field(default_factory=Counter)


_UNLIMITED: Final = 1_000_000
COUNTED: Final = {
    "calls_in": "Calls taken",
    "calls_out": "Calls placed",
    "refused_max_calls": "Calls refused by max_calls",
    "refused_max_cps": "Calls refused by max_cps",
    "refused_dialling": "Numbers that may not be dialled",
    "refused_transfer": "Transfers asked for by the peer and refused",
    "refused_webhook": "Requests refused that were not the carrier's, or could not be read",
    "transfers_in": "Transfers asked for by the peer and done",
    "failovers": "Calls that went on to the next trunk",
}
"""The counters of a trunk, with their meaning."""


class TrunkTable:
    """All trunks: whose a source address is, and whether there is room for one more call.

    The set of trunks is fixed, so nothing here grows with what peers do.
    """

    def __init__(self, rules: Iterable[TrunkRule]) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._states = {name: TrunkState() for name in self._rules}
        for name, rule in self._rules.items():
            self._states[name].registered = False if rule.register else None
        self._recent: dict[str, deque[float]] = {name: deque() for name in self._rules}
        self._networks: dict[str, list[tuple[Network, TrunkRule]]] = {}
        for rule in self._rules.values():
            self._networks.setdefault(rule.kind, []).extend((network, rule) for network in rule.allow)
        for owned in self._networks.values():
            owned.sort(key=lambda item: -item[0].prefixlen)
        self._proxies = {name: tuple(_readable(rule)) for name, rule in self._rules.items()}

    def __iter__(self) -> Iterator[TrunkRule]:
        return iter(self._rules.values())

    def by_name(self, name: str) -> TrunkRule | None:
        """The trunk of that name."""
        return self._rules.get(name)

    def proxies(self, name: str) -> tuple[SipUri, ...]:
        """The proxies of the trunk, best first; ``name`` must be one."""
        return self._proxies[name]

    def naming(self, address: str) -> frozenset[str]:
        """The names of the SIP trunks that name an IP address as a proxy of theirs, or within ``allow``."""
        names = {name for name, proxies in self._proxies.items() if any(one.is_at(address) for one in proxies)}
        rule = self.rule_for(address)
        return frozenset(names if rule is None else {*names, rule.name})

    def state(self, name: str) -> TrunkState:
        """How the trunk is; ``name`` must be one."""
        return self._states[name]

    def rule_for(self, host: str, kind: str = SIP) -> TrunkRule | None:
        """The trunk of that kind which a source address belongs to; None: a stranger.

        It is the one with the smallest network that holds the address.
        """
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return next((rule for network, rule in self._networks.get(kind, ()) if address in network), None)

    def take(self, name: str, now: float, *, outgoing: bool = False) -> str:
        """Count one more call on the trunk; "" where there is room, else why there is none.

        Every call taken must be given back once with :meth:`give_back`. ``now`` is in seconds of any steady clock.
        """
        rule, state, recent = self._rules[name], self._states[name], self._recent[name]
        if rule.max_calls is not None and state.calls >= rule.max_calls:
            state.counters["refused_max_calls"] += 1
            return f"trunks.{name}.max_calls ({rule.max_calls}) reached"
        if rule.max_cps is not None:
            window_s = max(1.0, 1.0 / rule.max_cps)
            while recent and now - recent[0] >= window_s:
                recent.popleft()
            if len(recent) >= max(1.0, rule.max_cps):
                state.counters["refused_max_cps"] += 1
                return f"trunks.{name}.max_cps ({rule.max_cps:g}) reached"
            recent.append(now)
        state.calls += 1
        state.counters["calls_out" if outgoing else "calls_in"] += 1
        return ""

    def room(self, name: str, now: float) -> int:
        """How many more calls :meth:`take` would count now; many, where the trunk has no limit of its own."""
        rule, recent = self._rules[name], self._recent[name]
        left = _UNLIMITED if rule.max_calls is None else rule.max_calls - self._states[name].calls
        if rule.max_cps is not None:
            window_s = max(1.0, 1.0 / rule.max_cps)
            begun = sum(now - at < window_s for at in recent)
            left = min(left, math.ceil(max(1.0, rule.max_cps)) - begun)
        return max(0, left)

    def give_back(self, name: str) -> None:
        """One call of the trunk is over."""
        self._states[name].calls -= 1


def _readable(rule: TrunkRule) -> Iterator[SipUri]:
    for proxy in rule.proxies:
        try:
            yield SipUri.parse(proxy)
        except RemoteSipError as error:
            logger.error("trunk %s: the proxy %s is left out: %s", rule.name, printable(proxy, 80), error)
