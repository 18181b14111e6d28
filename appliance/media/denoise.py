"""Whose noise is suppressed, and how: one suppressor a leg, from those that the box has.

What a suppressor gives is heard by the voice detector, and its level goes to control. The recording and the recognisers
read what came (``docs/decisions/0018-noise-suppression.md``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.api.noise import Suppression, Suppressor
from appliance.audio import level
from appliance.media.near_speech import NearSpeech
from appliance.media.vad import BatchVad

logger = logging.getLogger(__name__)

OFF: Final = "off"
FALLBACK: Final = "webrtc"
"""What a line gets when there is no room for a costly suppressor."""

_RELIEF_TICKS: Final = 50
_LATE_TICKS: Final = 10
_LATE_S: Final = 0.01
_RECOVERY_TICKS: Final = 3000


class LineDenoise:
    """The suppressors of all slots.

    Args:
        capacity: slots.
        suppressions: those that the box has, by name.
        default: the one for lines that name none; "none" and "off" are none.

    Attributes:
        on: [slot] whether its caller is heard through one.
        replaced: lines that got WebRTC's in place of a costly one, for want of room or of time.
    """

    def __init__(self, capacity: int, suppressions: Mapping[str, Suppression], default: str) -> None:
        self.on: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self.replaced = 0
        self._suppressions = suppressions
        self._default = default
        self._running: dict[int, tuple[Suppression, Suppressor]] = {}
        self._warned: set[str] = set()
        self._tick = 0
        self._late = 0.0
        self._relieved_until = 0

    def begin(self, slot: int, choice: str) -> None:
        """A new call takes ``slot`` over; ``choice`` is its line's, "" where it has none."""
        self.end(slot)
        name = choice or self._default
        if name in (OFF, "none"):
            return
        suppression = self._suppressions.get(name)
        if suppression is None:
            if name not in self._warned:
                self._warned.add(name)
                logger.error("no noise suppressor %r on this box; lines that ask for it get %s", name, FALLBACK)
            suppression = self._suppressions.get(FALLBACK)
        elif suppression.most_lines is not None and not self._room(suppression, suppression.most_lines):
            self.replaced += 1
            suppression = self._suppressions.get(FALLBACK)
        if suppression is not None:
            self._start(slot, suppression)

    def end(self, slot: int) -> None:
        """The call in ``slot`` is over."""
        self._running.pop(slot, None)
        self.on[slot] = False

    def lines(self) -> int:
        """Callers who are heard through a suppressor now."""
        return len(self._running)

    def suppress(self, rows: NDArray[np.int64], caller: NDArray[np.int16]) -> NDArray[np.int16]:
        """One tick of these slots [n] as it came, int16 [n, 160]: the same with less noise where that is wanted."""
        self._tick += 1
        if not self._running:
            return caller
        clean = caller.copy()
        running = self._running
        for row, slot in enumerate(rows.tolist()):
            one = running.get(slot)
            if one is None:
                continue
            try:
                clean[row] = one[1].process(caller[row])
            except Exception:
                logger.exception("slot %d: its noise suppressor failed; it goes on without", slot)
                clean[row] = caller[row]
                self.end(slot)
        return clean

    def began_late(self, lateness_s: float) -> None:
        """How late the audio clock was. Costly suppressors are given up when it is late again and again."""
        self._late *= 1.0 - 1.0 / _RELIEF_TICKS
        if lateness_s < _LATE_S:
            return
        self._late += 1.0
        if self._late < _LATE_TICKS:
            return
        self._late = 0.0
        self._relieved_until = self._tick + _RECOVERY_TICKS
        costly = [slot for slot, (one, _) in self._running.items() if one.most_lines is not None]
        fallback = self._suppressions.get(FALLBACK)
        for slot in costly:
            self.end(slot)
            if fallback is not None:
                self._start(slot, fallback)
        if costly:
            self.replaced += len(costly)
            logger.warning("the audio clock is late: %d lines give up their costly noise suppressor", len(costly))

    def _start(self, slot: int, suppression: Suppression) -> None:
        try:
            self._running[slot] = (suppression, suppression.open())
        except Exception:
            logger.exception("slot %d: its noise suppressor cannot be opened; it goes on without", slot)
        else:
            self.on[slot] = True

    def _room(self, suppression: Suppression, most: int) -> bool:
        if self._tick < self._relieved_until:
            return False
        return sum(one is suppression for one, _ in self._running.values()) < most


class CallerVoice:
    """What is known of every caller's voice after a tick: suppression, level, speech probability.

    Args:
        capacity: slots.
        vad: the voice detector, or None (``speech`` is then -1).
        denoise: the suppressors, or None.

    Attributes:
        heard: [slot] the voice detector's own probabilities, whoever speaks.
    """

    def __init__(self, capacity: int, vad: BatchVad | None, denoise: LineDenoise | None) -> None:
        self._vad = vad
        self._denoise = denoise
        self._near = NearSpeech(capacity)
        self.heard = vad.speech if vad is not None else np.full(capacity, -1.0, np.float32)

    def begin(self, slot: int, denoise: str) -> None:
        """A new call takes ``slot`` over; ``denoise`` is its line's choice, "" for the box's."""
        self.restart(slot)
        if self._denoise is not None:
            self._denoise.begin(slot, denoise)

    def restart(self, slot: int) -> None:
        """What ``slot`` hears from now on does not continue what it has heard."""
        self._near.reset(slot)
        if self._vad is not None:
            self._vad.reset(slot)

    def end(self, slot: int) -> None:
        """The call in ``slot`` is over."""
        if self._denoise is not None:
            self._denoise.end(slot)

    def began_late(self, lateness_s: float) -> None:
        """How late the audio clock was."""
        if self._denoise is not None:
            self._denoise.began_late(lateness_s)

    @property
    def denoised(self) -> int:
        """Callers whose noise is suppressed now."""
        return self._denoise.lines() if self._denoise is not None else 0

    def take_replaced(self) -> int:
        """Lines that got WebRTC's suppression in place of a costly one since the last call."""
        if self._denoise is None:
            return 0
        replaced, self._denoise.replaced = self._denoise.replaced, 0
        return replaced

    def tick(
        self, rows: NDArray[np.int64], caller: NDArray[np.int16]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take what came from these slots [n], int16 [n, 160].

        Returns:
            [n] levels in dBFS and [n] speech probabilities of the callers themselves: on lines with suppression without
            noise, and without people in the background.
        """
        denoise = self._denoise
        on = denoise.on[rows] if denoise is not None else None
        if denoise is None or on is None or not on.any():
            if self._vad is not None:
                self._vad.tick(rows, caller)
            return level.rms_dbfs(caller), self.heard[rows]
        clean = denoise.suppress(rows, caller)
        if self._vad is None:
            return level.rms_dbfs(clean), self.heard[rows]
        gain = np.ones(len(rows), np.float32)
        gain[on] = self._near.gain(rows[on])
        self._vad.tick(rows, clean, gain)
        speech = self.heard[rows]
        speech[on] = self._near.step(rows[on], level.rms_dbfs(caller[on]), speech[on])
        return level.rms_dbfs(clean), speech
