"""Messages between control and the recorder."""

from __future__ import annotations

from typing import TypeAlias

from appliance.ipc.message_base import Message

Part: TypeAlias = tuple[int, int | None]
"""Frames of the leg from the first number up to the second, or up to the end."""


class StartRecording(Message, frozen=True):
    """Write the slot's audio from ``start_frame`` on into ``path`` (stereo WAV, caller left, agent right).

    Sent again for the same path after a restart of the recorder: it continues where the file ends. ``silent`` are the
    parts that are silence in the file.
    """

    recording: str
    slot: int
    generation: int
    path: str
    start_frame: int
    silent: tuple[Part, ...] = ()


class SilenceRecording(Message, frozen=True):
    """The parts that are silence in the file, all of them, also where they have been written already."""

    recording: str
    silent: tuple[Part, ...]


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
    StartRecording | SilenceRecording | StopRecording | RecordingStopped
)  # fmt: skip
