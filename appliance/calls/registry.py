"""All calls together: who is let in, who is on, and how they end when the box does."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from dataclasses import replace
from typing import Final

from appliance.calls.brains import number_of
from appliance.calls.facts import record_refused
from appliance.calls.hook_calls import hook_call
from appliance.calls.placing import Placing
from appliance.calls.services import Services
from appliance.calls.session import CallSession
from appliance.dialplan.matcher import Arrival
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from appliance.events import Disposition
from appliance.hook_types import Refusal
from appliance.hookspecs import IdentityClaim
from appliance.ipc.hook_messages import HookOutcome
from appliance.plugins.hooks import Hooks
from appliance.signalling.headers import Passport
from appliance.signalling.leg import CallInfo, HangupCause, Leg

logger = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 5
_END_TIMEOUT_S: Final = 6.0
_REASONS: Final = 5
_MAX_VERDICT: Final = 64
_DECLINED: Final = 603
_MAX_REASON: Final = 200


class CallRegistry:
    """Admits calls and runs a session for each.

    Plugins may have a say in who is let in and which line answers: then the call waits for them, and only then. It
    counts as a call meanwhile.

    Args:
        routing: chooses the line of each call. A new one may be put in its place (:attr:`routing`) at any time.
        services: what every call uses.
        max_calls, max_cps: what the box takes on; one more is answered 503 with Retry-After.
    """

    def __init__(
        self,
        routing: Routing,
        services: Services,
        *,
        max_calls: int,
        max_cps: float,
    ) -> None:
        self.routing = routing
        self._services = services
        self._max_calls = max_calls
        self._max_cps = max_cps
        self._recent: deque[float] = deque()
        self._sessions: dict[CallSession, asyncio.Task[None]] = {}
        self._waiting: dict[asyncio.Task[None], Leg] = {}
        """Calls about which plugins are being asked."""
        self._troubles: dict[str, list[tuple[str, HookOutcome]]] = {}
        """Of those: what went wrong, for the record of the call that comes of it."""
        self._on_line: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self.accepting = False
        self.refused: Counter[str] = Counter()
        """Calls without a session, by cause: "no_line", "by_line" (one that refuses), "no_room" or "plugin"."""

    @property
    def active(self) -> int:
        """Calls between INVITE and the end of their record."""
        return len(self._sessions) + len(self._waiting)

    @property
    def services(self) -> Services:
        """What new calls use."""
        return self._services

    @property
    def room(self) -> int:
        """How many calls could begin now: of those at once and of those in a second."""
        if not self.accepting:
            return 0
        self._forget_old()
        return max(0, min(self._max_calls - self.active, math.ceil(self._max_cps - len(self._recent))))

    def refusal(self) -> str:
        """Why the box takes on no call now; "" where it does, and then one is counted as begun in this second."""
        return self._full() or self._too_fast()

    def begin(self, leg: Leg, line: Line, placing: Placing) -> tuple[CallSession, asyncio.Task[None]]:
        """Begin a call that the box places, once :meth:`refusal` has nothing against it."""
        session = CallSession(leg, line, self._services, placing=placing)
        logger.info("call %s to %s on line %s", session.call_id, leg.info.called, line.name)
        return session, self._run(session, line)

    @property
    def hooks(self) -> Hooks:
        """Of the plugins that new calls have."""
        return self._services.hooks

    def take_over(self, routing: Routing, hooks: Hooks) -> None:
        """Begin new calls by another dialplan, and with its plugins. Those that are here go on as they began."""
        self.routing = routing
        self._services = replace(self._services, hooks=hooks)

    def admit(self, leg: Leg) -> None:
        """Take the call, or refuse it with a reason the peer can act on."""
        refusal = self._full() or self._no_room_on_trunk(leg.info.trunk)
        if not refusal and (refusal := self._too_fast()):
            self._give_back(leg.info.trunk)
        if refusal:
            logger.warning("call from %s refused: %s", leg.info.source, refusal)
            self._refuse(leg, "no_room", 503, "Service Unavailable")
            return
        hooks = self._services.hooks
        passport = next(iter(leg.info.about.identity), None)
        if (passport and hooks.wanted("verify_identity")) or hooks.wanted("admit") or hooks.wanted("route"):
            self._empty.clear()
            asking = self._ask(leg, passport, self.routing, self._services)
            task = asyncio.create_task(asking, name=f"admit {leg.info.leg_id}")
            self._waiting[task] = leg
            task.add_done_callback(self._asked)
        else:
            self._take(leg, self.routing, self._services)

    def _take(self, leg: Leg, routing: Routing, services: Services, wanted: str | None = None) -> bool:
        """Begin the call on the line ``wanted``, or on the one that the dialplan has for it; whether there is one."""
        info = leg.info
        arrival = self._arrival(info)
        line: Line | None = None
        if wanted is not None:
            line = routing.line(wanted)
            if line is None:
                logger.error("call %s: a plugin wants line %r, which there is not", info.leg_id, wanted[:64])
        line, closed = line or routing.decide(arrival), ""
        if line is not None:
            line, closed = routing.in_force(line, arrival)
        if line is None or line.refuse is not None:
            self._give_back(info.trunk)
            self._turn_away(leg, arrival, line)
            return False
        session = CallSession(leg, line, services, closed=closed, lines=routing.line)
        self._run(session, line)
        for hook, outcome in self._troubles.pop(info.leg_id, ()):
            session.note_trouble(hook, outcome)
        called, name = leg.info.called, f"{line.name} ({closed})" if closed else line.name
        logger.info("call %s from %s to %s on line %s", session.call_id, leg.info.calling, called, name)
        return True

    def _run(self, session: CallSession, line: Line) -> asyncio.Task[None]:
        task = self._sessions[session] = asyncio.create_task(session.run(), name=f"call {session.call_id}")
        self._on_line[line.name] += 1
        self._empty.clear()
        task.add_done_callback(lambda _: self._ended(session, line))
        return task

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
        for waiting in list(self._waiting):
            waiting.cancel()
        for session in list(self._sessions):
            session.end(Disposition.INTERRUPTED, text)
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self._empty.wait()
        except TimeoutError:
            logger.error("%d calls did not end in time", self.active)
            for task in self._sessions.values():
                task.cancel()

    def trouble(self, call_id: str, hook: str, outcome: HookOutcome) -> None:
        """A hook of a call was no success: its record says so. See :class:`appliance.plugins.hooks.Hooks`."""
        session = next((session for session in self._sessions if session.call_id == call_id), None)
        if session is not None:
            session.note_trouble(hook, outcome)
        elif any(leg.info.leg_id == call_id for leg in self._waiting.values()):
            self._troubles.setdefault(call_id, []).append((hook, outcome))

    # --- what plugins say -----------------------------------------------------------------------------------------

    async def _ask(self, leg: Leg, passport: Passport | None, routing: Routing, services: Services) -> None:
        """Have plugins decide about a call; never raises."""
        gone: list[HangupCause] = []
        leg.on_hangup = gone.append
        hooks = services.hooks
        try:
            if passport is not None and hooks.wanted("verify_identity"):
                leg.info = await _verified(leg.info, passport, hooks)
            call = hook_call(leg.info, number_of(leg.info))
            refusal: Refusal | None = None
            if hooks.wanted("admit"):
                refusal = await hooks.first("admit", call)
            wanted: str | None = None
            if refusal is None and hooks.wanted("route"):
                wanted = await hooks.first("route", call)
        except asyncio.CancelledError:
            self._give_back(leg.info.trunk)
            self._refuse(leg, "no_room", 503, "Service Unavailable")
            hooks.over(leg.info.leg_id)
            return
        leg.on_hangup = None
        if refusal is not None:
            self._refused_by_plugin(leg, refusal, services)
        elif self._take(leg, routing, services, wanted):
            if gone and leg.on_hangup is not None:
                leg.on_hangup(gone[0])
            return
        hooks.over(leg.info.leg_id)

    def _asked(self, task: asyncio.Task[None]) -> None:
        leg = self._waiting.pop(task)
        self._troubles.pop(leg.info.leg_id, None)
        if task.cancelled():  # before it had begun
            self._give_back(leg.info.trunk)
            self._refuse(leg, "no_room", 503, "Service Unavailable")
        self._perhaps_empty()

    def _refused_by_plugin(self, leg: Leg, refusal: Refusal, services: Services) -> None:
        """A plugin does not want the call. It is on record all the same."""
        self._give_back(leg.info.trunk)
        status = refusal.status if 400 <= refusal.status <= 699 else _DECLINED
        why = refusal.reason[:_MAX_REASON] or "a plugin has refused the call"
        logger.warning("call %s from %s refused by a plugin: %s", leg.info.leg_id, leg.info.source, why)
        self._refuse(leg, "plugin", status, "")
        record_refused(leg.info, services, status, why)

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
        if not session.placed:  # what dials gives back by itself
            self._give_back(session.trunk)
        self._perhaps_empty()

    def _perhaps_empty(self) -> None:
        if not self.active:
            self._empty.set()

    def _full(self) -> str:
        if not self.accepting:
            return "the box is starting or draining"
        if self.active >= self._max_calls:
            return f"limits.max_calls ({self._max_calls}) reached"
        return ""

    def _too_fast(self) -> str:
        """Asked last: a call that its trunk had no room for must not count against those of other trunks."""
        now = asyncio.get_running_loop().time()
        self._forget_old()
        if len(self._recent) >= self._max_cps:
            return f"limits.max_cps ({self._max_cps:g}) reached"
        self._recent.append(now)
        return ""

    def _forget_old(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._recent and now - self._recent[0] > 1.0:
            self._recent.popleft()

    def _refuse(self, leg: Leg, cause: str, status: int, reason: str) -> None:
        self.refused[cause] += 1
        leg.reject(status, reason, retry_after_s=_RETRY_AFTER_S if status == 503 else None)


async def _verified(info: CallInfo, passport: Passport, hooks: Hooks) -> CallInfo:
    """The call with a plugin's verdict on its number, where one has any."""
    claim = IdentityClaim(
        token=passport.token,
        certificate=passport.certificate,
        attest=passport.attest,
        origin=passport.origin,
        destinations=passport.destinations,
        issued_at=passport.issued_at,
        calling=info.calling,
        called=info.called,
    )
    verdict = await hooks.first("verify_identity", hook_call(info, number_of(info)), claim=claim)
    if not isinstance(verdict, str) or not verdict.isprintable():
        return info
    return replace(info, about=replace(info.about, verstat=verdict[:_MAX_VERDICT])) if verdict else info
