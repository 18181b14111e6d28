"""Who a message is from, and whether that peer may: trunks, rates, bans and credentials together."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from appliance.sip.auth import Credentials, DigestServer, Verdict
from appliance.sip.guard import Admission, Guard, GuardSettings
from appliance.sip.message import Request
from appliance.sip.uri import Peer

MAX_CONTACTED = 4096
"""Hosts we have sent requests to and so know; the one contacted longest ago is forgotten first."""


class Gate:
    """Judges messages before they are parsed, and new calls after.

    Args:
        trunk_of: the name of the trunk a peer belongs to, None for a stranger.
        challenge_of: what a new INVITE of this trunk must be authenticated with; None for nothing.
        realm: of our challenges.
        new_token: unguessable text, new at each call.
    """

    def __init__(
        self,
        trunk_of: Callable[[Peer], str | None],
        challenge_of: Callable[[str], Credentials | None],
        realm: str,
        new_token: Callable[[], str],
        settings: GuardSettings | None,
        counters: Counter[str],
    ) -> None:
        self.trunk_of = trunk_of
        self.guard = Guard(settings, counters)
        self._challenge_of = challenge_of
        self._digest = DigestServer(realm, f"{new_token()}{new_token()}", new_token)
        self._contacted: OrderedDict[str, None] = OrderedDict()
        self._counters = counters
        self._unconfirmed: dict[object, str] = {}
        self._half_open: Counter[str] = Counter()

    def admit(self, data: bytes, source: Peer, now: float) -> Admission:
        """What to do with a message, by its source and its first bytes."""
        trunk = self.trunk_of(source)
        contacted = source.host in self._contacted
        trusted = contacted or (trunk is not None and self._challenge_of(trunk) is None)
        return self.guard.admit(data, source, now, trusted=trusted, known=contacted or trunk is not None)

    def admit_call(self, request: Request, source: Peer, now: float) -> Admission:
        """What to do with a request whose message was admitted: a new call of a trunk has a rate of its own."""
        if request.method != "INVITE" or request.to.tag or not self._known(source):
            return Admission.ADMIT
        return self.guard.admit_call(source, now)

    def note_contacted(self, peer: Peer) -> None:
        """We send requests to this peer: what comes from its host is no stranger's."""
        self._contacted[peer.host] = None
        self._contacted.move_to_end(peer.host)
        if len(self._contacted) > MAX_CONTACTED:
            self._contacted.popitem(last=False)

    def _known(self, source: Peer) -> bool:
        return source.host in self._contacted or self.trunk_of(source) is not None

    def half_open(self, source: Peer) -> int:
        """Calls from this host that it has not confirmed yet."""
        return self._half_open[source.host]

    def opened(self, call: object, source: Peer) -> None:
        """A call from this host begins."""
        self._unconfirmed[call] = source.host
        self._half_open[source.host] += 1

    def settled(self, call: object) -> None:
        """The call is confirmed, or over."""
        host = self._unconfirmed.pop(call, None)
        if host is not None:
            self._half_open[host] -= 1
            if not self._half_open[host]:
                del self._half_open[host]

    def strike(self, source: Peer, now: float) -> None:
        """The source did what an honest one seldom does; too often is a ban."""
        self.guard.strike(source.host, now)

    def challenges(self, request: Request, source: Peer, now: float) -> list[tuple[str, str]]:
        """The header lines that ask a new INVITE for credentials; none where it has them or needs none (§22)."""
        trunk = self.trunk_of(source)
        credentials = self._challenge_of(trunk) if trunk is not None else None
        if credentials is None:
            return []
        verdict = self._digest.check(request, credentials, now, host=source.host)
        self._counters[f"credentials_{verdict}"] += 1
        if verdict is Verdict.GOOD:
            return []
        if verdict is Verdict.WRONG:
            self.strike(source, now)
        lines = self._digest.challenges(
            now, host=source.host, algorithms=credentials.algorithms, stale=verdict is Verdict.STALE
        )
        return [("WWW-Authenticate", line) for line in lines]
