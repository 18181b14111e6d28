"""What the record gives back: a call and its turns, as read by the command line and the API."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One row of ``turns``. Seconds are after the answer; ``waterfall`` is stage to [start, end] in ms after speech
    end, and so are ``start_ms`` and ``end_ms`` of ``tools``; docs/records.md has the rest."""

    number: int
    finished_at: datetime
    by: str
    caller_text: str
    confidence: float | None
    accepted: bool
    agent_text: str
    heard_text: str
    interrupted: bool
    speech_start_s: float | None
    speech_end_s: float | None
    latency_ms: float | None
    waterfall: dict[str, list[float]]
    ended_by: str = ""
    probability: float | None = None
    pauses: int = 0
    speculation: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)
    asked: str = ""
    server: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One row of ``calls``, with its turns when one call was asked for."""

    id: str
    box: str
    protocol: str
    protocol_call_id: str
    trunk: str
    line: str
    called: str
    calling: str
    calling_name: str
    direction: str
    started_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    disposition: str
    hangup_by: str
    hangup_code: int
    hangup_text: str
    slots: dict[str, Any]
    recording_path: str | None
    recording_started_frame: int | None
    recording_frames: int | None
    recording_problem: str
    recording_consent: str = ""
    recording_paused: list[list[int | None]] = field(default_factory=list)
    recording_delete_at: datetime | None = None
    mos: float | None = None
    mos_far: float | None = None
    loss_percent: float | None = None
    jitter_ms: float | None = None
    round_trip_ms: float | None = None
    turns: tuple[TurnRecord, ...] = ()

    @property
    def talk_s(self) -> float | None:
        """Seconds from answer to end; None while the call goes on or when it was not answered."""
        if self.answered_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.answered_at).total_seconds()

    def as_json(self) -> dict[str, Any]:
        """Plain values: times in ISO 8601 with offset, ``talk_s`` included."""
        plain: dict[str, Any] = {**asdict(self), "talk_s": self.talk_s}
        plain["turns"] = [_times_as_text(turn) for turn in plain["turns"]]
        return _times_as_text(plain)


def _times_as_text(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
