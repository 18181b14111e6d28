"""What a page is told of a call: each event as JSON."""

from __future__ import annotations

from typing import Any

from appliance.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallRinging,
    CallStarted,
    RecordingStarted,
    TurnFinished,
    TurnProgress,
)


def told(event: CallEvent) -> dict[str, Any] | None:
    """An event as JSON has it; None for what is of no interest to a page.

    ``type`` is "started", "ringing", "answered", "recorded", "progress", "turn" or "ended". "progress" is how a turn
    goes and is replaced by what comes later for the same ``turn.number``.
    """
    match event:
        case CallStarted():
            return {"type": "started", "call_id": event.call_id, "line": event.line, "called": event.called}
        case CallRinging():
            return {"type": "ringing"}
        case CallAnswered():
            return {"type": "answered"}
        case RecordingStarted():
            return {"type": "recorded"}
        case TurnProgress():
            return {"type": "progress", "doing": event.doing.value, "hearing": event.hearing, "turn": _turn(event.turn)}
        case TurnFinished():
            return {"type": "turn", "turn": _turn(event)}
        case CallEnded():
            return {
                "type": "ended",
                "disposition": event.disposition.value,
                "by": event.hangup_by.value,
                "code": event.hangup_code,
                "text": event.hangup_text,
                "slots": {name: value for name, value in event.slots.items() if not name.startswith("header.")},
            }
        case _:
            return None


def _turn(turn: TurnFinished) -> dict[str, Any]:
    """Times in ms; ``waterfall_ms`` is stage to [start, end] after speech end."""
    latency_s = turn.latency_s
    return {
        "number": turn.number,
        "by": turn.by.value,
        "caller_text": turn.caller_text,
        "confidence": turn.confidence,
        "accepted": turn.accepted,
        "agent_text": turn.agent_text,
        "heard_text": turn.heard_text,
        "interrupted": turn.interrupted,
        "latency_ms": None if latency_s is None else round(latency_s * 1000),
        "waterfall_ms": turn.waterfall_ms(),
    }
