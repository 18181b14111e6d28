"""Who may send how much: the first look at a datagram, before anything of it is parsed.

A source costs one entry in a capped table. What is dropped here is dropped in silence; what is over the rate but not
yet a flood is refused, so that a proxy takes its calls elsewhere. Times are seconds, rates per second.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from appliance.sip.uri import Peer

SCANNERS = (
    "friendly-scanner", "friendly-request", "sipvicious", "sipcli", "sip-scan", "sipscan", "sundayddr",
    "vaxsipuseragent", "pplsip", "siparmyknife", "iwar", "sivus", "smap", "eyebeam release 3006o stamp 17551",
)  # fmt: skip
"""Words by which attack tools call themselves in User-Agent, in lower case."""

_SCANNER = re.compile(
    rb"\n(?:user-agent|server)[ \t]*:[^\r\n]{0,200}?\b(?:" + "|".join(map(re.escape, SCANNERS)).encode() + rb")\b"
    rb"|\n(?:from|f|to|t)[ \t]*:[^\r\n]{0,200}?(?:sipvicious|sipsscuser|sip:nm2?@nm2?\b|sip:100@1\.1\.1\.1\b)"
    rb"|\n(?:via|v)[ \t]*:[^\r\n]{0,200}?\bnm;branch=foo\b"
)

_END_OF_HEAD = re.compile(rb"\r\n\r\n|\n\n")

_TO_TAG = re.compile(
    rb"\n(?:to|t)[ \t]*:(?:[^\r\n<]{0,1000}<[^\r\n>]{0,1000}>)?[^\r\n<>]{0,1000}?;[ \t]*tag[ \t]*=", re.IGNORECASE
)

INVITE_DEBT = 0.25
"""What a refused INVITE costs of a token: a source at twice its rate gets two thirds of it, at four times nothing."""

REPORT_S = 0.9
"""Reports are this far apart at least: a second, for who asks each second by a clock that is not exact."""

_HEAD = 4096
"""How much of a message is searched for signatures."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: so many a second, and so many at once after a pause."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What a source may do.

    Attributes:
        messages: messages of all kinds from one source that belongs to a trunk.
        stranger: messages of all kinds from one source that belongs to none.
        total_strangers: messages from all such sources, whose addresses may be forged.
        invites: new INVITEs from one source; beyond it they are refused with 503, and far beyond it, all of them.
        total_invites: new INVITEs from all sources that keep to their own rate.
        refusals: 503s for one source; beyond it even they are spared.
        ban_s: how long a scanner, or one that fails :attr:`strikes` times within :attr:`strike_window_s`, is banned.
        sources: entries of every table; the source heard longest ago is forgotten first, the banned last.
    """

    messages: Rate = Rate(1000.0, 2000.0)
    stranger: Rate = Rate(10.0, 40.0)
    total_strangers: Rate = Rate(200.0, 400.0)
    invites: Rate = Rate(100.0, 200.0)
    total_invites: Rate = Rate(300.0, 600.0)
    refusals: Rate = Rate(20.0, 20.0)
    ban_s: float = 600.0
    strikes: int = 20
    strike_window_s: float = 60.0
    sources: int = 4096


class Admission(StrEnum):
    """What to do with a message."""

    ADMIT = "admit"
    REFUSE = "refuse"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class FloodReport:
    """What was kept out since the last report. ``worst`` is the source that sent most of it."""

    dropped: int
    refused: int
    sources: int
    worst: str
    worst_count: int
    seconds: float

    @property
    def text(self) -> str:
        """The line for the log."""
        return (
            f"flood: {self.dropped} SIP messages dropped and {self.refused} calls refused within {self.seconds:.1f} s; "
            f"{self.sources} sources, {self.worst_count} of these messages from {self.worst}"
        )


def _looks_like_a_call(data: bytes) -> bool:
    """Whether this seems to be a whole INVITE outside a dialog, by its bytes alone.

    That is enough to spare the parsing of what would be refused, not to let anything pass: bytes can be arranged so
    that a parser reads another thing than a pattern. One that is cut off begins nothing, and must not use up calls.
    """
    if data[:1] in b"\r\n":
        data = data.lstrip(b"\r\n")
    if not data.startswith(b"INVITE "):
        return False
    end = _END_OF_HEAD.search(data)
    return end is not None and not _TO_TAG.search(data, 0, min(end.start(), _HEAD))


class _Bucket:
    """Tokens at a rate. What is refused costs ``debt`` of a token, so that who asks far too often gets nothing."""

    __slots__ = ("at", "debt", "tokens")

    def __init__(self, rate: Rate, debt: float = 0.0) -> None:
        self.tokens = rate.burst
        self.at: float | None = None
        self.debt = debt

    def holds(self, rate: Rate, now: float) -> float:
        """The tokens there are now."""
        passed = now - self.at if self.at is not None else 0.0
        return min(rate.burst, self.tokens + passed * rate.per_s)

    def take(self, rate: Rate, now: float) -> bool:
        tokens = self.holds(rate, now)
        self.at = now
        if tokens < 1.0:
            self.tokens = max(tokens - self.debt, -rate.per_s)
            return False
        self.tokens = tokens - 1.0
        return True


class _Source:
    __slots__ = ("invites", "messages", "refusals", "strikes", "strikes_since")

    def __init__(self, messages: _Bucket, invites: _Bucket, refusals: _Bucket, now: float) -> None:
        self.messages = messages
        self.invites = invites
        self.refusals = refusals
        self.strikes = 0
        self.strikes_since = now


class Guard:
    """Decides about each message by its source and its first bytes, and about each call once it is known to be one.

    Attributes:
        counters: ``guard_dropped`` (over the rate), ``guard_refused``, ``guard_banned`` (dropped under a ban),
            ``scanners`` and ``bans``; the set of names is fixed.
    """

    def __init__(self, settings: GuardSettings | None = None, counters: Counter[str] | None = None) -> None:
        self.settings = settings or GuardSettings()
        self.counters = counters if counters is not None else Counter()
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._banned: OrderedDict[str, float] = OrderedDict()
        self._total = _Bucket(self.settings.total_invites)
        self._strangers = _Bucket(self.settings.total_strangers)
        self._kept_out: Counter[str] = Counter()
        self._dropped = self._refused = 0
        self._kept_out_since: float | None = None
        self._reported_at = -REPORT_S

    def __len__(self) -> int:
        return len(self._sources) + len(self._banned)

    def admit(self, data: bytes, peer: Peer, now: float, *, trusted: bool, known: bool = True) -> Admission:
        """Judge one message. One that is admitted and begins a call is :meth:`admit_call`'s to judge.

        Args:
            trusted: whether the source is a trunk by its address alone: it is never banned, because its address can be
                forged, and because it may pass on what a scanner sent to it.
            known: whether the source belongs to a trunk at all. What a datagram from there says bans nobody: anyone
                can have sent it.
        """
        settings, host = self.settings, peer.host
        if not trusted and self._banned and self._is_banned(host, now):
            self.counters["guard_banned"] += 1
            return self._drop(host, now)
        source = self._source(host, known, now)
        if known:
            within = source.messages.take(settings.messages, now)
        else:
            within = source.messages.take(settings.stranger, now)
            within = within and self._strangers.take(settings.total_strangers, now)
        if not within:
            self.counters["guard_dropped"] += 1
            return self._drop(host, now)
        if not trusted and _SCANNER.search(data[:_HEAD].lower()):
            self.counters["scanners"] += 1
            if peer.reliable or not known:
                self.ban(host, now)
            return self._drop(host, now)
        if not known or self._may_call(source, now) or not _looks_like_a_call(data):
            return Admission.ADMIT
        return self.admit_call(peer, now)

    def admit_call(self, peer: Peer, now: float) -> Admission:
        """Judge one new INVITE of a source that belongs to a trunk."""
        settings, host = self.settings, peer.host
        source = self._source(host, True, now)
        if source.invites.take(settings.invites, now) and self._total.take(settings.total_invites, now):
            return Admission.ADMIT
        if source.refusals.take(settings.refusals, now):
            self.counters["guard_refused"] += 1
            self._refused += 1
            self._note(host, now)
            return Admission.REFUSE
        self.counters["guard_dropped"] += 1
        return self._drop(host, now)

    def strike(self, host: str, now: float) -> None:
        """Something that an honest peer seldom does (a wrong password, a call to a box that does not know it).

        Of a host that belongs to a trunk only what it must have sent itself may be told here.
        """
        source = self._source(host, True, now)
        if now - source.strikes_since > self.settings.strike_window_s:
            source.strikes, source.strikes_since = 0, now
        source.strikes += 1
        if source.strikes >= self.settings.strikes:
            source.strikes = 0
            self.ban(host, now)

    def ban(self, host: str, now: float) -> None:
        """Hear nothing more from this source for a while."""
        self.counters["bans"] += 1
        self._banned[host] = now + self.settings.ban_s
        self._banned.move_to_end(host)
        if len(self._banned) > self.settings.sources:
            self._banned.popitem(last=False)

    def banned(self, now: float) -> tuple[str, ...]:
        """The sources that are banned now."""
        return tuple(host for host, until in self._banned.items() if until > now)

    def report(self, now: float) -> FloodReport | None:
        """What was kept out since the last report, about once a second at most; None where nothing was."""
        if self._kept_out_since is None or now - self._reported_at < REPORT_S:
            return None
        worst, count = self._kept_out.most_common(1)[0] if self._kept_out else ("nobody", 0)
        report = FloodReport(
            self._dropped, self._refused, len(self._kept_out), worst, count, now - self._kept_out_since
        )
        self._kept_out.clear()
        self._dropped = self._refused = 0
        self._kept_out_since = None
        self._reported_at = now
        return report

    def _may_call(self, source: _Source, now: float) -> bool:
        settings = self.settings
        within = source.invites.holds(settings.invites, now) >= 1.0
        return within and self._total.holds(settings.total_invites, now) >= 1.0

    def _is_banned(self, host: str, now: float) -> bool:
        until = self._banned.get(host)
        if until is None:
            return False
        if until > now:
            return True
        del self._banned[host]
        return False

    def _source(self, host: str, known: bool, now: float) -> _Source:
        source = self._sources.get(host)
        if source is not None:
            self._sources.move_to_end(host)
            return source
        settings = self.settings
        source = _Source(
            _Bucket(settings.messages if known else settings.stranger),
            _Bucket(settings.invites, INVITE_DEBT),
            _Bucket(settings.refusals),
            now,
        )
        self._sources[host] = source
        if len(self._sources) > settings.sources:
            self._sources.popitem(last=False)
        return source

    def _drop(self, host: str, now: float) -> Admission:
        self._dropped += 1
        self._note(host, now)
        return Admission.DROP

    def _note(self, host: str, now: float) -> None:
        if self._kept_out_since is None:
            self._kept_out_since = now
        if host in self._kept_out or len(self._kept_out) < self.settings.sources:
            self._kept_out[host] += 1
