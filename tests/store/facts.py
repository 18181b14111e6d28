"""Events of an ordinary call, for tests."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from appliance.events import (
    CallAnswered,
    CallEnded,
    CallRinging,
    CallStarted,
    Direction,
    Disposition,
    HangupBy,
    InputBy,
    LineMeasured,
    RecordingFinished,
    RecordingStarted,
    Stage,
    StageTiming,
    TurnFinished,
)

NOON = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def started(call_id: str = "c1", at: float = 0.0, **changes: Any) -> CallStarted:
    values: dict[str, Any] = {
        "call_id": call_id,
        "started_at": 1000.0 + at,
        "started_utc": after(at),
        "direction": Direction.INBOUND,
        "protocol": "sip",
        "protocol_call_id": f"{call_id}@10.0.0.9",
        "trunk": "local",
        "line": "reception",
        "called": "sip:100@127.0.0.1",
        "calling": "sip:anna@10.0.0.9",
        "calling_name": "Anna",
    }
    return CallStarted(**{**values, **changes})


def ringing(call_id: str = "c1", at: float = 0.1) -> CallRinging:
    return CallRinging(call_id=call_id, ringing_at=1000.0 + at, ringing_utc=after(at))


def answered(call_id: str = "c1", at: float = 1.0) -> CallAnswered:
    return CallAnswered(call_id=call_id, answered_at=1000.0 + at, answered_utc=after(at))


def turn(call_id: str = "c1", number: int = 1, **changes: Any) -> TurnFinished:
    values: dict[str, Any] = {
        "call_id": call_id,
        "number": number,
        "finished_utc": after(6.0 * number),
        "answered_at": 1001.0,
        "by": InputBy.VOICE,
        "caller_text": "opening hours",
        "confidence": 0.9,
        "agent_text": "We open at nine. Anything else?",
        "heard_text": "We open at nine.",
        "interrupted": True,
        "speech_start_at": 1003.0,
        "speech_end_at": 1004.0,
        "reply_at": 1004.6,
        "stages": (
            StageTiming(Stage.ENDPOINTING, 1004.1, 1004.3),
            StageTiming(Stage.ASR, 1004.1, 1004.2),
            StageTiming(Stage.TTS, 1004.3, 1004.55),
            StageTiming(Stage.PLAYOUT, 1004.55, 1004.6),
        ),
    }
    return TurnFinished(**{**values, **changes})


def ended(call_id: str = "c1", at: float = 20.0, **changes: Any) -> CallEnded:
    values: dict[str, Any] = {
        "call_id": call_id,
        "ended_at": 1000.0 + at,
        "ended_utc": after(at),
        "disposition": Disposition.COMPLETED,
        "hangup_by": HangupBy.CALLER,
        "hangup_code": 200,
        "hangup_text": "BYE",
        "slots": {"day": "tuesday", "count": 3},
    }
    return CallEnded(**{**values, **changes})


def recording(call_id: str = "c1", path: str = "var/recordings/c1.wav") -> RecordingStarted:
    return RecordingStarted(call_id=call_id, path=path, start_frame=5)


def recorded(
    call_id: str = "c1", frames: int = 900, problem: str = "", path: str = "var/recordings/c1.wav"
) -> RecordingFinished:
    return RecordingFinished(call_id=call_id, path=path, frames=frames, problem=problem)


def measured(call_id: str = "c1") -> LineMeasured:
    return LineMeasured(call_id=call_id, mos=4.3, mos_far=None, loss_percent=0.5, jitter_ms=1.25, round_trip_ms=40.0)


@contextlib.contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond ``size_bytes``: a full disk, as far as it can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
