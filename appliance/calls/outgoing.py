"""Who places calls of agents: a campaign's runner, the HTTP API and the command line all come here.

Whom the box may call at all is :mod:`appliance.signalling.dial_policy`'s to say, as of every number. Nobody who is on
the do-not-call list is called, whoever asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

import phonenumbers
from phonenumbers import timezone as number_zones

from appliance.calls.brains import LEAD
from appliance.calls.orders import OutgoingOrder, OutgoingResult, Progress, SlotValue
from appliance.calls.placing import Placing
from appliance.calls.registry import CallRegistry
from appliance.dialplan.schema import Line
from appliance.errors import DialError, StoreError
from appliance.events import Disposition
from appliance.signalling.leg import CallInfo
from appliance.signalling.outgoing_leg import OutgoingLeg
from appliance.signalling.routes import FORBIDDEN, Attempt, Dialler
from appliance.signalling.trunks import TrunkTable
from appliance.sip.uri import printable
from appliance.store.callers import plain_number

__all__ = ["BoxOriginator", "Originator", "OutgoingOrder", "OutgoingResult", "Progress", "SlotValue"]

logger = logging.getLogger(__name__)

_MAX_VALUE: Final = 2048
_MAX_VALUES: Final = 64
_LAST_S: Final = 8.0
"""A call that is no longer wanted is over by then."""


def nobody_follows(what: str, at: float) -> None:
    """A :data:`Progress` for those who wait for the result alone."""


class Originator(Protocol):
    """Places calls of agents. One for the box, in control."""

    def room(self, line: str = "", trunk: str = "") -> int:
        """How many more calls could be placed now, on that trunk where one is named; 0 while the box drains."""
        ...

    async def call(self, order: OutgoingOrder, progress: Progress = nobody_follows) -> OutgoingResult:
        """Place the call and stay until it is over and on record.

        Raises nothing but CancelledError: where it is cancelled, the one called is said goodbye to.
        """
        ...


class BoxOriginator:
    """The box's :class:`Originator`.

    Args:
        registry: admits the calls, and knows the lines.
        dialler: places them.
        trunks: what there is room for.
        now: seconds of the clock that ``trunks`` are asked by.
    """

    def __init__(self, registry: CallRegistry, dialler: Dialler, trunks: TrunkTable, now: Callable[[], float]) -> None:
        self._registry = registry
        self._dialler = dialler
        self._trunks = trunks
        self._now = now

    def room(self, line: str = "", trunk: str = "") -> int:
        """See :meth:`Originator.room`."""
        room = self._registry.room
        if line and self._registry.routing.line(line) is None:
            return 0
        if trunk:
            room = min(room, self._trunks.room(trunk, self._now()) if self._trunks.by_name(trunk) else 0)
        return max(0, room)

    async def call(self, order: OutgoingOrder, progress: Progress = nobody_follows) -> OutgoingResult:
        """See :meth:`Originator.call`."""
        try:
            refused = await self._unwanted(order)
            return OutgoingResult(problem=refused) if refused else await self._place(order, progress)
        except DialError as error:
            return OutgoingResult(problem=str(error))
        except Exception as error:
            logger.exception("call %s could not be placed", order.call_id)
            return OutgoingResult(problem=f"{type(error).__name__}: {error}")

    async def _unwanted(self, order: OutgoingOrder) -> str:
        """Why the one to be called must not be; "" where nothing says so."""
        callers, number = self._registry.services.callers, plain_number(order.number)
        if callers is None or not number:
            return ""
        try:
            unwanted = await callers.refuses_calls(number)
        except StoreError as error:
            return f"the do-not-call list cannot be read: {error}"
        return f"{number} is on the do-not-call list" if unwanted else ""

    async def _place(self, order: OutgoingOrder, progress: Progress) -> OutgoingResult:
        """Raises DialError where the number may not be dialled, or nothing leads there."""
        registry = self._registry
        line = registry.routing.line(order.line)
        if line is None:
            return OutgoingResult(problem=f"there is no line {order.line!r}; see `appliance check`")
        if line.refuse is not None:
            return OutgoingResult(problem=f"line {line.name!r} refuses calls: it has nobody to speak")
        attempts = _owning(order.caller_id, self._dialler.router.attempts(order.number, trunk=order.trunk))
        refused = registry.refusal()
        if refused:
            return OutgoingResult(problem=f"no room: {refused}")
        info = _info(order, line, attempts[0])
        leg = OutgoingLeg(info, self._dialler, attempts, order.ring_timeout_s, order.caller_id)
        placing = Placing(order, leg, line, registry.services, progress)
        session, task = registry.begin(leg, line, placing)
        over = asyncio.create_task(placing.kept.wait(), name=f"await {order.call_id}")
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            session.end(Disposition.INTERRUPTED, "the call is no longer wanted", politely=True)
            await asyncio.wait({task, over}, timeout=_LAST_S, return_when=asyncio.FIRST_COMPLETED)
            raise
        finally:
            over.cancel()
        return placing.result


def _info(order: OutgoingOrder, line: Line, attempt: Attempt) -> CallInfo:
    """Who is called by whom, as far as that is known before it is placed."""
    known = {
        f"{LEAD}{name}": printable(value, _MAX_VALUE) for name, value in list(order.variables.items())[:_MAX_VALUES]
    }
    known |= {"campaign.name": order.campaign, "campaign.owner": order.owner}
    is_uri = order.number.lower().startswith(("sip:", "sips:", "tel:"))
    return CallInfo(
        leg_id=order.call_id,
        protocol=attempt.trunk.kind,
        trunk=attempt.trunk.name,
        called=printable(attempt.number if is_uri else order.number, 128),
        calling=order.caller_id or attempt.trunk.caller_id,
        calling_name="",
        source="",
        protocol_call_id="",
        headers={},
        outbound=True,
        known={name: value for name, value in known.items() if value},
        zone=order.zone or zone_of(order.number) or line.timezone or "",
    )


def _owning(caller_id: str, attempts: list[Attempt]) -> list[Attempt]:
    """The ways on which ``caller_id`` may be shown.

    Raises:
        DialError: there is none: a number that is not ours is never shown.
    """
    if not caller_id:
        return attempts
    found = [one for one in attempts if caller_id in (one.trunk.caller_id, *one.trunk.caller_ids)]
    if not found:
        name = attempts[0].trunk.name
        what = f"{caller_id} is not ours to show; if it is, list it under trunks.{name}.caller_ids"
        raise DialError(what, status=FORBIDDEN, cause="denied")
    return found


def zone_of(number: str) -> str:
    """The IANA name of the one time zone that a number is in; "" where it may be in several, or in none."""
    try:
        zones = number_zones.time_zones_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return ""
    return zones[0] if len(zones) == 1 and zones[0] != "Etc/Unknown" else ""
