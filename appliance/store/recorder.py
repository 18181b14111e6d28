"""What the recorder process does: copies the calls' audio out of shared memory into WAV files.

Media never waits for a disk. It writes each frame into the rings, and this follows behind: every
:data:`POLL_S` the frames that came since go to the file of each recording. The rings hold 32 s, so a recorder that
is restarted, or a disk that is full for a while, costs nothing if it is over by then; what is older than that when
the disk comes back is silence, so that both channels and the clock stay aligned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.clock import Clock, SystemClock
from appliance.errors import StaleSlot, StoreError
from appliance.ipc.messages import AnyMessage, RecordingStopped, SilenceRecording, StartRecording, StopRecording
from appliance.ipc.recorder_messages import Part
from appliance.ipc.rings import FRAME_SAMPLES, RING_FRAMES, AudioRings
from appliance.store.wav import StereoWavWriter

log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""How often :meth:`Recorder.poll` should run."""

RETRY_S: Final = 1.0
"""A file that could not be opened or written is tried again this much later."""

STOP_PATIENCE_S: Final = 3.0
"""A stopped recording whose disk fails, or whose last frames do not come, is closed as it is after this long."""

FLUSH_FRAMES: Final = 250
"""Most frames (5 s) written for one call before the others have their turn."""

FRAME_S: Final = 0.02

_MARGIN_FRAMES: Final = 50
"""Frames this near to being overwritten are given up: 1 s to copy the rest in."""


@dataclass(slots=True)
class _Recording:
    """One file on its way."""

    name: str
    slot: int
    generation: int
    path: Path
    start_frame: int
    writer: StereoWavWriter | None = None
    done_frames: int = 0
    """Frames of the recording that are in the file, or skipped."""
    end_frame: int | None = None
    """Frame of the leg to stop at, once StopRecording has come."""
    give_up_at: float = 0.0
    retry_at: float = 0.0
    failing: str = ""
    cause: str = ""
    """The last failure that was overcome; told only if audio was lost."""
    lost_frames: int = 0
    problems: list[str] = field(default_factory=list)
    silent: tuple[Part, ...] = ()
    """Frames of the leg that are silence in the file."""

    @property
    def next_frame(self) -> int:
        return self.start_frame + self.done_frames

    def silent_within(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of the leg's frames [start, end) is silence, counted from ``start``."""
        parts = [(max(a, start), end if b is None else min(b, end)) for a, b in self.silent]
        return [(a - start, b - start) for a, b in parts if a < b]


@dataclass(slots=True)
class RecorderStats:
    """Counters since the start of the process."""

    frames: int = 0
    lost_frames: int = 0
    write_errors: int = 0


class Recorder:
    """All recordings of the box. Not thread-safe; give it messages and poll it from one loop.

    Args:
        rings: the calls' audio.
        clock: for retries.
    """

    def __init__(self, rings: AudioRings, clock: Clock | None = None) -> None:
        self._rings = rings
        self._clock = clock or SystemClock()
        self._recordings: dict[str, _Recording] = {}
        self._answers: list[AnyMessage] = []
        self.stats = RecorderStats()

    @property
    def active(self) -> int:
        """Recordings that are open."""
        return len(self._recordings)

    def handle(self, message: AnyMessage) -> None:
        """Take StartRecording, SilenceRecording or StopRecording; the answers come from :meth:`poll`.

        Raises:
            ValueError: any other message.
        """
        match message:
            case StartRecording():
                self._start(message)
            case SilenceRecording(recording=name, silent=silent):
                recording = self._recordings.get(name)
                if recording is not None:
                    recording.silent = silent
                    self._silence(recording)
            case StopRecording():
                self._stop(message)
            case _:
                raise ValueError(f"the recorder does not take {type(message).__name__}")

    def poll(self) -> list[AnyMessage]:
        """Write what is new, for every recording in turn; give back what is to be sent to control."""
        now = self._clock.monotonic()
        behind = list(self._recordings.values())
        while behind:
            behind = [recording for recording in behind if self._advance(recording, now)]
        return self._take_answers()

    def close(self) -> list[AnyMessage]:
        """Write what there is and close every file: control is gone, or the box stops."""
        now = self._clock.monotonic()
        for recording in list(self._recordings.values()):
            if recording.end_frame is None:
                recording.end_frame = recording.start_frame + recording.done_frames
                try:
                    recording.end_frame = self._rings.frame_count(recording.slot, recording.generation)
                except StaleSlot:
                    log.info("recording %s: its call is over", recording.name)
            recording.give_up_at = now
            recording.retry_at = now
        answers = self.poll()
        for recording in list(self._recordings.values()):
            self._finish(recording)
        return answers + self._take_answers()

    # --- one recording --------------------------------------------------------------------------------------------

    def _start(self, start: StartRecording) -> None:
        old = self._recordings.get(start.recording)
        if old is not None:
            if (old.slot, old.generation) == (start.slot, start.generation):
                return
            old.problems.append("another call was given the same recording")
            self._finish(old)
        recording = _Recording(start.recording, start.slot, start.generation, Path(start.path), start.start_frame)
        recording.silent = start.silent
        self._recordings[start.recording] = recording
        self._open(recording, self._clock.monotonic())

    def _stop(self, stop: StopRecording) -> None:
        recording = self._recordings.get(stop.recording)
        if recording is None:
            self._answers.append(RecordingStopped(stop.recording, "", 0, "the recorder does not know this recording"))
            return
        now = self._clock.monotonic()
        recording.end_frame = max(stop.end_frame, recording.start_frame)
        recording.give_up_at = now + STOP_PATIENCE_S

    def _open(self, recording: _Recording, now: float) -> bool:
        try:
            try:
                recording.writer = StereoWavWriter.create(recording.path)
            except FileExistsError:
                recording.writer = StereoWavWriter.resume(recording.path)
        except (OSError, StoreError) as error:
            self._failed(recording, error, now)
            return False
        writer = recording.writer
        if recording.done_frames > writer.frames:
            writer.skip(recording.done_frames - writer.frames)
        recording.done_frames = writer.frames
        self._silence(recording)
        self._recovered(recording)
        return True

    def _silence(self, recording: _Recording) -> None:
        """Take out of the file what is to be silence and was written before that was known."""
        if recording.writer is None:
            return
        try:
            for start, end in recording.silent_within(recording.start_frame, recording.next_frame):
                recording.writer.silence(start, end)
        except OSError as error:
            self.stats.write_errors += 1
            log.error("recording %s: a part could not be silenced: %s", recording.name, _words(error))
            recording.problems.append(f"a part that was to be silence may be heard: {_words(error)}")

    def _advance(self, recording: _Recording, now: float) -> bool:
        """Write at most FLUSH_FRAMES frames; True when this recording has more to write at once."""
        if self._recordings.get(recording.name) is not recording:
            return False
        if recording.failing and now < recording.retry_at:
            self._finish_if_due(recording, now)
            return False
        if recording.writer is None and not self._open(recording, now):
            self._finish_if_due(recording, now)
            return False
        frame_count = self._rings.settled_count if recording.end_frame is None else self._rings.frame_count
        try:
            count = frame_count(recording.slot, recording.generation)
        except StaleSlot:
            self._slot_is_gone(recording)
            return False
        self._skip_overwritten(recording, count)
        limit = count if recording.end_frame is None else min(count, recording.end_frame)
        end = min(limit, recording.next_frame + FLUSH_FRAMES)
        if end > recording.next_frame and not self._copy(recording, end, now):
            self._finish_if_due(recording, now)
            return False
        if recording.next_frame < limit:
            return True
        self._finish_if_due(recording, now)
        return False

    def _copy(self, recording: _Recording, end: int, now: float) -> bool:
        """Frames [next_frame, end) from the rings to the file; False when it has to be tried again later."""
        writer = recording.writer
        assert writer is not None
        start = recording.next_frame
        try:
            caller, agent = self._rings.read_frames(recording.slot, recording.generation, start, end)
        except StaleSlot:
            return False
        for first, last in recording.silent_within(start, end):
            caller[first * FRAME_SAMPLES : last * FRAME_SAMPLES] = 0
            agent[first * FRAME_SAMPLES : last * FRAME_SAMPLES] = 0
        try:
            writer.append(caller, agent)
        except OSError as error:
            self._failed(recording, error, now)
            return False
        finally:
            recording.done_frames = writer.frames
        self.stats.frames += end - start
        self._recovered(recording)
        return True

    def _skip_overwritten(self, recording: _Recording, count: int) -> None:
        oldest = count - RING_FRAMES + _MARGIN_FRAMES
        if recording.next_frame < oldest:
            self._lose(recording, oldest - recording.next_frame)

    def _lose(self, recording: _Recording, frames: int) -> None:
        assert recording.writer is not None
        recording.writer.skip(frames)
        recording.done_frames += frames
        recording.lost_frames += frames
        self.stats.lost_frames += frames

    def _slot_is_gone(self, recording: _Recording) -> None:
        """The slot has a new owner: what was not copied is silence. The length is known once StopRecording comes."""
        if recording.end_frame is None:
            return
        missing = min(recording.end_frame - recording.next_frame, RING_FRAMES)
        if missing > 0:
            recording.cause = recording.cause or "the call's audio was gone before it was copied"
            self._lose(recording, missing)
        self._finish(recording)

    def _finish_if_due(self, recording: _Recording, now: float) -> None:
        if recording.end_frame is None:
            return
        if recording.next_frame >= recording.end_frame or now >= recording.give_up_at:
            self._finish(recording)

    def _finish(self, recording: _Recording) -> None:
        """Close the file and say so. Frames that are still missing from it become silence."""
        del self._recordings[recording.name]
        writer = recording.writer
        if recording.failing:
            self._lose_what_is_there(recording)
        if writer is None:
            recording.problems.append(f"there is no file: {recording.failing}")
        else:
            try:
                writer.close()
            except OSError as error:
                recording.problems.append(f"could not be closed: {_words(error)}")
        if recording.lost_frames:
            why = recording.failing or recording.cause or "the recorder fell behind"
            recording.problems.append(f"{recording.lost_frames * FRAME_S:.1f} s of it are silence: {why}")
        problem = "; ".join(dict.fromkeys(recording.problems))
        if problem:
            log.warning("recording %s is incomplete: %s", recording.name, problem)
        self._answers.append(
            RecordingStopped(recording.name, str(recording.path), recording.done_frames if writer else 0, problem)
        )

    def _lose_what_is_there(self, recording: _Recording) -> None:
        if recording.writer is None or recording.end_frame is None:
            return
        try:
            count = self._rings.frame_count(recording.slot, recording.generation)
        except StaleSlot:
            count = recording.end_frame
        missing = min(recording.end_frame, count) - recording.next_frame
        if missing > 0:
            self._lose(recording, missing)

    def _failed(self, recording: _Recording, error: Exception, now: float) -> None:
        self.stats.write_errors += 1
        recording.retry_at = now + RETRY_S
        words = _words(error)
        if not recording.failing:
            log.error(
                "recording %s: %s cannot be written: %s; the call goes on, trying again every %.0f s",
                recording.name,
                recording.path,
                words,
                RETRY_S,
            )
        recording.failing = words

    def _recovered(self, recording: _Recording) -> None:
        if recording.failing:
            log.warning("recording %s: %s is being written again", recording.name, recording.path)
            recording.cause = recording.failing
            recording.failing = ""

    def _take_answers(self) -> list[AnyMessage]:
        answers, self._answers = self._answers, []
        return answers


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
