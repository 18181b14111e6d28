"""A call that the box places, in virtual time: the real session, brain and detection seam; the far end is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from appliance.calls.orders import OutgoingOrder, OutgoingResult
from appliance.calls.placing import Placing
from appliance.calls.services import Services
from appliance.calls.session import CallSession
from appliance.conversation.answering import Event
from appliance.dialplan.schema import Line
from appliance.errors import DialError, StoreError
from appliance.signalling.leg import CallInfo, HangupCause
from appliance.testing.virtual_call import VirtualCall

NUMBER = "+12025550123"


class PlayedPlacing(Placing):
    """Its detection says nothing of its own: :meth:`PlacedCall.detects` plays it."""

    def open(self, *args: Any) -> None:
        super().open(*args)
        assert self._watch is not None
        self._watch.close()


class FarEnd:
    """The leg of a placed call, whose far end does what ``plays`` says: seconds of ringing, then an answer or not."""

    needs_rtp = True

    def __init__(self, info: CallInfo, rings_s: float, failure: DialError | None) -> None:
        self.info = info
        self.rings_s, self.failure = rings_s, failure
        self.on_hangup: Callable[[HangupCause], None] | None = None
        self.on_digits: Callable[[str], None] | None = None
        self.on_held: Callable[[bool], None] | None = None
        self.on_transfer: Callable[[Any], None] | None = None
        self.on_placed: Callable[[], None] | None = None
        self.on_ringing: Callable[[int], None] | None = None
        self.told: list[str] = []

    async def dial(self, media: Any, values: Any) -> None:
        self.told.append("INVITE")
        self.info = replace(self.info, protocol_call_id="cid", trunk="carrier")
        assert self.on_placed is not None and self.on_ringing is not None
        self.on_placed()
        self.on_ringing(100)
        if self.rings_s:
            self.on_ringing(180)
        try:
            await asyncio.sleep(self.rings_s)
        except asyncio.CancelledError:
            self.told.append("CANCEL")
            raise
        if self.failure is not None:
            raise self.failure
        self.told.append("answered")

    def ring(self) -> None: ...

    def answer(self, media: Any) -> None: ...

    def reject(self, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        self.told.append("reject")

    def hangup(self, reason: str = "") -> None:
        self.told.append("hangup")

    def send_digits(self, digits: str) -> bool:
        return False


class Unwanted:
    """The do-not-call list; ``failures`` times it cannot be written."""

    def __init__(self, failures: int = 0) -> None:
        self.numbers: list[tuple[str, str]] = []
        self.failures = failures

    async def refuse_calls(self, number: str, *, reason: str, call_id: str, line: str) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("locked")
        self.numbers.append((number, reason))

    async def refuses_calls(self, number: str) -> bool:
        return False


class PlacedCall(VirtualCall):
    """One call that the box places on ``line``."""

    def __init__(
        self,
        line: Line,
        order: OutgoingOrder | None = None,
        *,
        rings_s: float = 2.0,
        failure: DialError | None = None,
        known: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.unwanted = more.pop("callers", None) or Unwanted()
        self.progress: list[str] = []
        self.order = order or OutgoingOrder(call_id="leg1", number=NUMBER, line=line.name)
        info = CallInfo(
            "leg1", "sip", "carrier", NUMBER, "+12025550100", "", "", "", {}, outbound=True, known=known or {},
            zone="America/New_York",
        )  # fmt: skip
        self.far = FarEnd(info, rings_s, failure)

        def make(leg: Any, line: Line, services: Services) -> CallSession:
            far: Any = self.far
            self.placing = PlayedPlacing(self.order, far, line, services, lambda what, at: self.progress.append(what))
            return CallSession(far, line, services, placing=self.placing)

        super().__init__(line, make=make, callers=self.unwanted, **more)
        self.leg = self.far  # type: ignore[assignment]

    async def until_quiet(self) -> None:
        """It was answered, and the agent has said all it has to say."""
        await self.answered()
        await super().until_quiet()

    async def answered(self) -> None:
        await self.until(lambda: "answered" in self.far.told)

    def detects(self, event: Event) -> None:
        """The detection says so."""
        self.placing._event(event)

    async def result(self) -> OutgoingResult:
        """What came of it, once it is over."""
        await self.over(within_s=120.0)
        return self.placing.result
