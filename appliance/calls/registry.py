"""All calls together: who is let in, who is on, and how they end when the box does."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from appliance.calls.session import CallSession, Services
from appliance.dialplan.matcher import match
from appliance.dialplan.schema import Line
from appliance.events import Disposition
from appliance.signalling.leg import Leg

logger = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 5
_END_TIMEOUT_S: Final = 6.0


class CallRegistry:
    """Admits calls and runs a session for each.

    Args:
        lines: of the dialplan, in order.
        services: what every call uses.
        max_calls, max_cps: what the box takes on; one more is answered 503 with Retry-After.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        services: Services,
        *,
        max_calls: int,
        max_cps: float,
    ) -> None:
        self._lines = lines
        self._services = services
        self._max_calls = max_calls
        self._max_cps = max_cps
        self._recent: deque[float] = deque()
        self._sessions: dict[CallSession, asyncio.Task[None]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.accepting = False

    @property
    def active(self) -> int:
        """Calls between INVITE and the end of their record."""
        return len(self._sessions)

    def admit(self, leg: Leg) -> None:
        """Take the call, or refuse it with a reason the peer can act on."""
        refusal = self._refusal()
        if refusal:
            logger.warning("call from %s refused: %s", leg.info.source, refusal)
            self._refuse(leg, 503, "Service Unavailable")
            return
        line, reasons = match(self._lines, leg.info.trunk, leg.info.called, leg.info.calling)
        if line is None:
            logger.warning("no line answers %s on trunk %s: %s", leg.info.called, leg.info.trunk, "; ".join(reasons))
            self._refuse(leg, 404, "Not Found")
            return
        session = CallSession(leg, line, self._services)
        task = asyncio.create_task(session.run(), name=f"call {session.call_id}")
        self._sessions[session] = task
        self._empty.clear()
        task.add_done_callback(lambda _: self._ended(session))
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

    def _ended(self, session: CallSession) -> None:
        del self._sessions[session]
        if not self._sessions:
            self._empty.set()

    def _refusal(self) -> str:
        if not self.accepting:
            return "the box is starting or draining"
        if len(self._sessions) >= self._max_calls:
            return f"limits.max_calls ({self._max_calls}) reached"
        now = asyncio.get_running_loop().time()
        while self._recent and now - self._recent[0] > 1.0:
            self._recent.popleft()
        if len(self._recent) >= self._max_cps:
            return f"limits.max_cps ({self._max_cps:g}) reached"
        self._recent.append(now)
        return ""

    def _refuse(self, leg: Leg, status: int, reason: str) -> None:
        leg.reject(status, reason, retry_after_s=_RETRY_AFTER_S if status == 503 else None)
