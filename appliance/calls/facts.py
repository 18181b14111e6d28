"""Facts of a call, put into the words of its record."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.calls.services import Services
from appliance.clock import Clock
from appliance.conversation.inputs import PRIVATE
from appliance.dialplan.text import SUMMARY
from appliance.errors import StoreError
from appliance.events import CallEnded, CallStarted, Direction, Disposition, HangupBy, LineMeasured
from appliance.ipc.messages import LegClosed
from appliance.signalling.leg import CallInfo

logger = logging.getLogger(__name__)

_MAX_SUMMARY: Final = 300


@dataclass(frozen=True)
class Outcome:
    """How a call ended, in the record's words."""

    disposition: Disposition
    by: HangupBy
    code: int = 0
    text: str = ""


def line_measured(call_id: str, leg: LegClosed) -> LineMeasured:
    """What media says of a line, with None for what it does not know."""
    return LineMeasured(
        call_id=call_id,
        mos=leg.mos or None,
        mos_far=leg.mos_far or None,
        loss_percent=leg.loss_percent,
        jitter_ms=leg.jitter_ms,
        round_trip_ms=leg.round_trip_ms if leg.round_trip_ms >= 0.0 else None,
    )


def started_event(info: CallInfo, line: str, clock: Clock) -> CallStarted:
    """A call has come, or is about to be placed, and ``line`` has it; "" where none has."""
    return CallStarted(
        call_id=info.leg_id,
        started_at=clock.monotonic(),
        started_utc=clock.utc(),
        direction=Direction.OUTBOUND if info.outbound else Direction.INBOUND,
        protocol=info.protocol,
        protocol_call_id=info.protocol_call_id,
        trunk=info.trunk,
        line=line,
        called=info.called,
        calling=info.calling,
        calling_name=info.calling_name,
    )


def record_refused(info: CallInfo, services: Services, status: int, reason: str) -> None:
    """Put a call on record that no line has answered."""
    clock = services.clock
    try:
        started = services.log.started(started_event(info, "", clock))
    except StoreError as error:
        logger.error("call %s is not on record: %s", info.leg_id, error)
        return
    started.add_done_callback(lambda done: done.cancelled() or done.exception())
    services.log.say(
        CallEnded(
            call_id=info.leg_id,
            ended_at=clock.monotonic(),
            ended_utc=clock.utc(),
            disposition=Disposition.REJECTED,
            hangup_by=HangupBy.BOX,
            hangup_code=status,
            hangup_text=reason,
        )
    )


def summary_in(slots: Mapping[str, str]) -> str:
    """What a call has been about, in words for a human: a model's own, else what has been found out."""
    if slots.get(SUMMARY):
        return slots[SUMMARY]
    told = [f"{name.replace('_', ' ')}: {value}" for name, value in slots.items() if value not in ("", PRIVATE)]
    return "; ".join(one for one in told if not one.startswith("ending: "))[:_MAX_SUMMARY]
