"""When the one who has answered speaks and pauses: the rhythm of a greeting. PURE.

It is fed a level and a speech probability per 20 ms frame. A voice is what the speech detector takes for one and what
stands out from the background; a pause begins where the energy falls, which it does some 140 ms before the detector's
probability does.
"""

from __future__ import annotations

from typing import Final

from appliance.conversation.levels import QUIETEST_DBFS, NoiseFloor

FRAME_S: Final = 0.02
PAUSE_S: Final = 0.2
"""A shorter silence belongs to the words around it."""
UTTERANCE_PAUSE_S: Final = 0.5
"""A silence of this length ends an utterance."""

_MARGIN_DB: Final = 7.0
_WITHIN_MARGIN_DB: Final = 5.0
_FALL_DB: Final = 28.0
_MIN_DBFS: Final = -52.0
_SPEECH_ON: Final = 0.5
_SPEECH_OFF: Final = 0.3
_ONSET_FRAMES: Final = 4
_ONSET_GAP: Final = 2
_LEARNING: Final = 0.3


class Cadence:
    """The rhythm of one side of one call. Times are seconds on the clock of whoever feeds it.

    Attributes:
        starts_s: when the first speech began; None before.
        last_s: the end of the last frame of speech.
        first_s: the length of the first utterance, to its first pause of half a second.
        pauses: the lengths of the pauses so far between one word and a later one, of at least ``PAUSE_S``.
        voiced_s: how much speech there was, without pauses.
        utterances: how many there were, the present one included.
        resumed_s: when the present utterance began.
        gap_s: the silence before it; 0 before the first.
    """

    def __init__(self) -> None:
        self.starts_s: float | None = None
        self.last_s = 0.0
        self.first_s = 0.0
        self.pauses: list[float] = []
        self.voiced_s = 0.0
        self.utterances = 0
        self.resumed_s = 0.0
        self.gap_s = 0.0
        self._noise = NoiseFloor()
        self._peak = QUIETEST_DBFS
        self._run = 0
        self._missed = 0
        self._run_from = 0.0
        self._in_run = False

    def tick(self, t: float, level_dbfs: float, speech: float) -> bool:
        """Take a frame that ends at ``t``; returns whether somebody speaks in it.

        Args:
            t: seconds.
            level_dbfs: RMS dBFS.
            speech: probability, 0 to 1; negative where nobody knows, and the level decides.
        """
        level = max(level_dbfs, QUIETEST_DBFS)
        floor = self._noise.follow(level, 0 <= speech < _SPEECH_OFF and not self._in_run)
        inside = self._in_run and t - self.last_s <= PAUSE_S
        if inside:
            loud = level >= max(self._peak - _FALL_DB, floor + _WITHIN_MARGIN_DB, _MIN_DBFS)
            voiced = loud and (speech < 0 or speech >= _SPEECH_OFF)
        else:
            voiced = level >= max(floor + _MARGIN_DB, _MIN_DBFS) and (speech < 0 or speech >= _SPEECH_ON)
        if not voiced:
            self._missed += 1
            if self._missed > _ONSET_GAP and not self._in_run:
                self._run = 0
            if self._in_run and t - self.last_s > PAUSE_S:
                self._in_run, self._run = False, 0
            return False
        self._missed = 0
        self._peak = level if level > self._peak else self._peak + _LEARNING * FRAME_S * (level - self._peak)
        if not self._in_run:
            if self._run == 0:
                self._run_from = t - FRAME_S
            self._run += 1
            if self._run < _ONSET_FRAMES:
                return False
            self._begin(self._run_from)
        self.voiced_s += t - max(self.last_s, self._run_from) if t - self.last_s < PAUSE_S else FRAME_S
        self.last_s = t
        if self.utterances == 1:
            self.first_s = t - (self.starts_s or 0.0)
        return True

    def silence_s(self, t: float) -> float:
        """How long nobody has spoken at ``t``; 0 before the first word."""
        return 0.0 if self.starts_s is None else max(0.0, t - self.last_s)

    @property
    def talk_s(self) -> float:
        """From the first word to the last, pauses and all."""
        return 0.0 if self.starts_s is None else self.last_s - self.starts_s

    def _begin(self, at_s: float) -> None:
        self._in_run = True
        if self.starts_s is None:
            self.starts_s = at_s
            self.utterances = 1
            self.resumed_s = at_s
            self.last_s = at_s
            return
        pause = at_s - self.last_s
        if pause >= PAUSE_S:
            self.pauses.append(pause)
        if pause >= UTTERANCE_PAUSE_S:
            self.utterances += 1
            self.resumed_s, self.gap_s = at_s, pause
