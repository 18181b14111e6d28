"""Messages between control and the recorder."""

from __future__ import annotations

from typing import TypeAlias

from appliance.ipc.message_base import Message


class StartRecording(Message, frozen=True):
    """Write the slot's audio from ``start_frame`` on into ``path`` (stereo WAV, caller left, agent right).

    Sent again for the same path after a restart of the recorder: it continues where the file ends.
    """

    recording: str
    slot: int
    generation: int
    path: str
    start_frame: int


class StopRecording(Message, frozen=True):
    """The leg is over; write up to ``end_frame`` and close. Answered by RecordingStopped."""

    recording: str
    end_frame: int


class RecordingStopped(Message, frozen=True):
    """``problem`` is empty, or says in words why the file is incomplete (a full disk, say)."""

    recording: str
    path: str
    frames: int
    problem: str


RecorderMessage: TypeAlias = (
    StartRecording | StopRecording | RecordingStopped
)  # fmt: skip
