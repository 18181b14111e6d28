"""What hooks are told of a call: the call itself, how it went, and whom a plugin wants its caller handed on to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from appliance.calls.brains import lead_of, transfer_to
from appliance.calls.storing import CallKeeping
from appliance.conversation.brain import Transfer
from appliance.dialplan.schema import Line
from appliance.hook_types import CallSummary
from appliance.plugins.hooks import HookCall
from appliance.signalling.leg import CallInfo

_MAX_RECORD: Final = 150_000
"""Bytes: a message between processes has its limit."""


def hook_call(info: CallInfo, caller: str, line: Line | None = None) -> HookCall:
    """The call as plugins are told of it.

    Args:
        info: who calls whom.
        caller: the number that whoever is at the far end is known by; "" where it is withheld, and the name is withheld
            with it.
        line: who answers; None while that is not known, when plugins see the headers that the trunk lets through.
    """
    return HookCall(
        info.leg_id,
        line.name if line is not None else "",
        info.trunk,
        caller,
        info.called,
        line.language if line is not None else "",
        "outbound" if info.outbound else "inbound",
        caller_name=info.calling_name if caller else "",
        headers=dict(info.offered) if line is None else {},
        lead=lead_of(info),
    )


def summary_of(kept: CallKeeping, answered_at: float | None, transferred_to: str) -> CallSummary:
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
        transferred_to=transferred_to,
        recording=kept.recording,
    )


def record_told(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a call as plugins are told it: of a very long call, without what would make it too long."""
    told = {**record, "turns": [dict(turn) for turn in record.get("turns", ())]}
    for without in ("asked", "waterfall", "tools"):
        if _size(told) <= _MAX_RECORD:
            return told
        for turn in told["turns"]:
            turn.pop(without, None)
    while told["turns"] and _size(told) > _MAX_RECORD:
        del told["turns"][: max(1, len(told["turns"]) // 4)]
    return told


def _size(record: Mapping[str, Any]) -> int:
    return len(msgspec.json.encode(record))


def other_transfer(transfer: Transfer, wanted: str, line: Line, values: Mapping[str, str]) -> Transfer:
    """The transfer that a plugin wants instead: to one of the line's ``transfers`` by name, or to a number or URI."""
    if wanted == transfer.to:
        return transfer
    if wanted in line.transfers:
        return transfer_to(line.transfers[wanted], values)
    return replace(transfer, to=wanted, trunk="")
