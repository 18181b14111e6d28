"""What hooks are told of a call: the call itself, how it went, and whom a plugin wants its caller handed on to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from appliance.calls.brains import transfer_to
from appliance.calls.storing import CallKeeping
from appliance.conversation.brain import Transfer
from appliance.dialplan.schema import Line
from appliance.hook_types import CallSummary
from appliance.plugins.hooks import HookCall
from appliance.signalling.leg import CallInfo


def hook_call(info: CallInfo, caller: str, line: Line | None = None) -> HookCall:
    """The call as plugins are told of it.

    Args:
        info: who calls whom.
        caller: the number that the caller is known by; "" where it is withheld, and the name is withheld with it.
        line: who answers; None while that is not known, when plugins see the headers that the trunk lets through.
    """
    return HookCall(
        info.leg_id,
        line.name if line is not None else "",
        info.trunk,
        caller,
        info.called,
        line.language if line is not None else "",
        caller_name=info.calling_name if caller else "",
        headers=dict(info.offered) if line is None else {},
    )


def summary_of(kept: CallKeeping, answered_at: float | None) -> CallSummary:
    """How a call went that is over; of it, what may be kept."""
    ended = kept.ended
    assert ended is not None
    slots = dict(ended.slots)
    return CallSummary(
        disposition=ended.disposition.value,
        hangup_by=ended.hangup_by.value,
        hangup_text=ended.hangup_text,
        duration_s=round(ended.ended_at - answered_at, 3) if answered_at is not None else 0.0,
        turns=kept.turns,
        slots=slots,
        transcript=tuple(kept.transcript),
        transferred_to=str(slots.get("transferred_to") or slots.get("transfer") or ""),
        recording=kept.recording,
    )


def other_transfer(transfer: Transfer, wanted: str, line: Line, values: Mapping[str, str]) -> Transfer:
    """The transfer that a plugin wants instead: to one of the line's ``transfers`` by name, or to a number or URI."""
    if wanted == transfer.to:
        return transfer
    if wanted in line.transfers:
        return transfer_to(line.transfers[wanted], values)
    return replace(transfer, to=wanted, trunk="")
