"""The recording of one call: begun when the caller's consent is there, silent while something private is said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from appliance.calls.recording import RecorderClient
from appliance.clock import Clock
from appliance.dialplan.schema import Recording
from appliance.events import (
    CallEvent,
    Consent,
    RecordingConsent,
    RecordingFinished,
    RecordingPaused,
    RecordingStarted,
)
from appliance.media.client import MediaLegHandle

TAIL_FRAMES: Final = 25
"""What is private stays silent for so much longer, 0.5 s: a tone ends after the key is known, a word after its text."""


class CallRecording:
    """Starts and stops it.

    Args:
        call_id: names the recording, too.
        rule: of the line.
        recorder: writes the file; None where the box has none.
        folder: of all recordings.
        clock: for the path, and for when the file is deleted.
        say: takes the call's events.
    """

    def __init__(
        self,
        call_id: str,
        rule: Recording,
        recorder: RecorderClient | None,
        folder: Path,
        clock: Clock,
        say: Callable[[CallEvent], None],
    ) -> None:
        self._call_id = call_id
        self._rule = rule
        self._recorder = recorder if rule.enabled else None
        self._folder = folder
        self._clock = clock
        self._say = say
        self._media: MediaLegHandle | None = None
        self._start_frame = 0
        self.refused = False
        """Whether the caller has been asked, and has not agreed."""
        self._silent: tuple[tuple[int, int | None], ...] = ()

    @property
    def asks(self) -> bool:
        """Whether the caller has to be told or asked before it begins."""
        return self._recorder is not None and self._rule.consent != "none" and not self.begun

    @property
    def begun(self) -> bool:
        """Whether there is a file."""
        return self._recorder is not None and self._recorder.active(self._call_id)

    def answered(self, media: MediaLegHandle, *, late: bool = False) -> None:
        """The call begins; ``late``: it has been going on, and this line has it from now on."""
        self._media = media
        if not self.asks and self._recorder is not None:
            self._start(self._frame if late else 0)

    def consented(self, consent: Consent) -> None:
        """The caller has been told, or has answered."""
        self._say(RecordingConsent(call_id=self._call_id, consent=consent))
        self.refused = consent not in (Consent.ANNOUNCED, Consent.GIVEN)
        if self._recorder is not None and consent in (Consent.ANNOUNCED, Consent.GIVEN):
            self._start(self._frame)

    def private(self, begins: bool) -> None:
        """What is private begins, or has ended."""
        if self._media is None or self._recorder is None:
            return
        if begins:
            self._silent += ((self._frame, None),)
        elif self._silent and self._silent[-1][1] is None:
            self._silent = (*self._silent[:-1], (self._silent[-1][0], self._frame + TAIL_FRAMES))
        if self._recorder.active(self._call_id):
            self._recorder.silence(self._call_id, self._silent)
            self._tell()

    async def stop(self, media: MediaLegHandle) -> RecordingFinished | None:
        """Close the file, once media has closed the leg and while its slot is still the call's."""
        self._media = None
        if self._recorder is None or not self._recorder.active(self._call_id):
            return None
        recorded = await self._recorder.stop(self._call_id, media)
        return RecordingFinished(
            call_id=self._call_id, path=recorded.path, frames=recorded.frames, problem=recorded.problem
        )

    @property
    def _frame(self) -> int:
        """The leg's newest frame."""
        assert self._recorder is not None and self._media is not None
        return self._recorder.frame(self._media)

    def _start(self, frame: int) -> None:
        recorder, media = self._recorder, self._media
        if recorder is None or media is None or recorder.active(self._call_id):
            return
        now = self._clock.utc()
        path = self._folder / now.strftime("%Y/%m/%d") / f"{self._call_id}.wav"
        self._start_frame = frame
        recorder.start(self._call_id, media.slot, media.generation, path, frame, self._silent)
        days = self._rule.keep_days
        delete_utc = None if days is None else now + timedelta(days=days)
        self._say(RecordingStarted(call_id=self._call_id, path=str(path), start_frame=frame, delete_utc=delete_utc))
        self._tell()

    def _tell(self) -> None:
        start = self._start_frame
        parts = [(max(a - start, 0), b if b is None else b - start) for a, b in self._silent]
        kept = tuple(part for part in parts if part[1] is None or part[1] > part[0])
        if kept:
            self._say(RecordingPaused(call_id=self._call_id, parts=kept))
