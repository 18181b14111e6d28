"""All calls together: who is let in, who is on, and how they end when the box does."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import replace
from typing import Final

from appliance.calls.session import CallSession, Services
from appliance.dialplan.matcher import Arrival
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from appliance.events import Disposition
from appliance.hookspecs import IdentityClaim
from appliance.plugins.call_hooks import CallHooks
from appliance.signalling.leg import CallInfo, Leg

logger = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 5
_END_TIMEOUT_S: Final = 6.0
_REASONS: Final = 5


class CallRegistry:
    """Admits calls and runs a session for each.

    Args:
        routing: chooses the line of each call. A new one may be put in its place (:attr:`routing`) at any time.
        services: what every call uses.
        max_calls, max_cps: what the box takes on; one more is answered 503 with Retry-After.
        hooks: asked whether a signed caller is who it says.
    """

    def __init__(
        self,
        routing: Routing,
        services: Services,
        *,
        max_calls: int,
        max_cps: float,
        hooks: CallHooks | None = None,
    ) -> None:
        self.routing = routing
        self._services = services
        self._max_calls = max_calls
        self._max_cps = max_cps
        self._hooks = hooks
        self._recent: deque[float] = deque()
        self._sessions: dict[CallSession, asyncio.Task[None]] = {}
        self._on_line: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self.accepting = False
        self.refused: Counter[str] = Counter()
        """Calls that no session was made for, by cause: "no_line", "by_line" (one that refuses) or "no_room"."""

    @property
    def active(self) -> int:
        """Calls between INVITE and the end of their record."""
        return len(self._sessions)

    def admit(self, leg: Leg) -> None:
        """Take the call, or refuse it with a reason the peer can act on."""
        refusal = self._full() or self._no_room_on_trunk(leg.info.trunk)
        if not refusal and (refusal := self._too_fast()):
            self._give_back(leg.info.trunk)
        if refusal:
            logger.warning("call from %s refused: %s", leg.info.source, refusal)
            self._refuse(leg, "no_room", 503, "Service Unavailable")
            return
        info = leg.info = self._verified(leg.info)
        arrival = self._arrival(info)
        line = self.routing.decide(arrival)
        if line is None or line.refuse is not None:
            self._give_back(info.trunk)
            self._turn_away(leg, arrival, line)
            return
        session = CallSession(leg, line, self._services)
        task = asyncio.create_task(session.run(), name=f"call {session.call_id}")
        self._sessions[session] = task
        self._on_line[line.name] += 1
        self._empty.clear()
        task.add_done_callback(lambda _: self._ended(session, line))
        logger.info("call %s from %s to %s on line %s", session.call_id, leg.info.calling, leg.info.called, line.name)

    async def drain(self, deadline_s: float) -> None:
        """Take no new call and wait for the running ones; those left at the deadline are hung up."""
        self.accepting = False
        try:
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()
        except TimeoutError:
            logger.warning("%d calls are hung up: the drain deadline has come", self.active)
        await self.end_all("the appliance is shutting down")

    async def end_all(self, text: str) -> None:
        """Hang up every call and wait until each is on record."""
        self.accepting = False
        for session in list(self._sessions):
            session.end(Disposition.INTERRUPTED, text)
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self._empty.wait()
        except TimeoutError:
            logger.error("%d calls did not end in time", self.active)
            for task in self._sessions.values():
                task.cancel()

    def _verified(self, info: CallInfo) -> CallInfo:
        """The call with a plugin's verdict on its number, where it is signed and a plugin has one."""
        if self._hooks is None or not info.about.identity:
            return info
        passport = info.about.identity[0]
        verdict = self._hooks.verify_identity(
            IdentityClaim(
                token=passport.token,
                certificate=passport.certificate,
                attest=passport.attest,
                origin=passport.origin,
                destinations=passport.destinations,
                issued_at=passport.issued_at,
                calling=info.calling,
                called=info.called,
            )
        )
        return replace(info, about=replace(info.about, verstat=verdict)) if verdict else info

    def _no_room_on_trunk(self, name: str) -> str:
        """Take one call on the trunk: "" where there is room."""
        trunks = self._services.trunks
        if trunks is None or trunks.by_name(name) is None:
            return ""
        return trunks.take(name, asyncio.get_running_loop().time())

    def _give_back(self, name: str) -> None:
        trunks = self._services.trunks
        if trunks is not None and trunks.by_name(name) is not None:
            trunks.give_back(name)

    def _arrival(self, info: CallInfo) -> Arrival:
        return Arrival(
            trunk=info.trunk,
            called=info.called,
            calling=info.calling,
            at=self._services.clock.utc().astimezone(),
            diverted=tuple(entry.number for entry in info.about.diversions),
            verstat=info.about.verstat,
            headers=info.offered,
            accept_language=info.headers.get("Accept-Language", ""),
            on_line=self._on_line,
            load=100 * len(self._sessions) / self._max_calls,
        )

    def _turn_away(self, leg: Leg, arrival: Arrival, line: Line | None) -> None:
        """Refuse a call that no line answers, or that its line refuses."""
        info = leg.info
        if line is not None and line.refuse is not None:
            logger.info("line %s refuses %s, from %s on trunk %s", line.name, info.called, info.calling, info.trunk)
            self._refuse(leg, "by_line", line.refuse.status, line.refuse.reason)
            return
        reasons = "; ".join(map(str, self.routing.passed_over(arrival, _REASONS)))
        more = len(self.routing.lines) - _REASONS
        if more > 0:
            reasons += f"; so {more} others: appliance route-test says more"
        logger.warning("no line answers %s on trunk %s: %s", info.called, info.trunk, reasons)
        self._refuse(leg, "no_line", 404, "Not Found")

    def _ended(self, session: CallSession, line: Line) -> None:
        del self._sessions[session]
        self._on_line -= Counter((line.name,))
        self._give_back(session.trunk)
        if not self._sessions:
            self._empty.set()

    def _full(self) -> str:
        if not self.accepting:
            return "the box is starting or draining"
        if len(self._sessions) >= self._max_calls:
            return f"limits.max_calls ({self._max_calls}) reached"
        return ""

    def _too_fast(self) -> str:
        """Asked last: a call that its trunk had no room for must not count against those of other trunks."""
        now = asyncio.get_running_loop().time()
        while self._recent and now - self._recent[0] > 1.0:
            self._recent.popleft()
        if len(self._recent) >= self._max_cps:
            return f"limits.max_cps ({self._max_cps:g}) reached"
        self._recent.append(now)
        return ""

    def _refuse(self, leg: Leg, cause: str, status: int, reason: str) -> None:
        self.refused[cause] += 1
        leg.reject(status, reason, retry_after_s=_RETRY_AFTER_S if status == 503 else None)
