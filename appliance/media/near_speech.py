"""Which speech on a line is the caller's: the nearest, which is the loudest; and a level at which models hear it best.

A television, a colleague and a crowd are speech to any voice detector. What tells them from the caller is how loud they
are. For every call this keeps

* ``usual``, how loud the caller's peaks are (0.3 s means): up within a second of speech, down slowly;
* ``evidence``, how much of late was speech well below that: a caller's own softer words are short, a television is not;
* ``background``, how loud the peaks of that softer speech are;
* ``floor``, the quietest moment of the last seconds: speech of many mouths has no pauses, one speaker's has;
* ``noise``, a level that what is heard between the words seldom exceeds.

On a line without background speech whatever lies within 18 dB of the caller's usual level counts, so a soft "yes" does.
With evidence of background speech the voice must rise above it, at most to 1.5 dB below the usual level. Where speech
goes on without a pause, or has done so since the call began, it must also rise 7 dB above the floor. On a noisy line it
must rise above the noise and last a moment, and longer among other voices: music and machines sound like speech for an
instant, and a crowd is as loud as the caller for one. What falls short of that has its speech probability
lowered. For the first six seconds a voice is held to what was known before it began, so that a sentence softer than the
last is not cut off. All of it is array arithmetic over the calls; nothing here is a model.

The voice detector hears soft callers worse: at -45 dBFS it misses half of their short words. :meth:`NearSpeech.gain`
brings the usual level to where it misses least.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Slots = NDArray[np.integer]

_TICK_S: Final = 0.02
_SPEECH: Final = 0.5
_NO_SPEECH: Final = 0.35
_LOWERED: Final = 0.1
"""The most that the probability of background speech is."""

_SURE: Final = 0.9
_SURE_TICKS: Final = 8
"""In noise, speech that the detector is less than sure of must last this long."""
_LASTS_TICKS: Final = 3
"""In noise, a voice must have been loud enough for so long; among other voices so much longer."""
_LASTS_AMONG_TICKS: Final = 3
_RISE_DB: Final = 1.0
"""How far a voice must rise above what the noise itself does."""
_NOISE_RISE_DB: Final = 0.285
_NOISE_FALL_DB: Final = 0.015
"""In each tick without speech. Their ratio makes it the level that 95 % of the noise stays below."""
_NOISE_MOST_DB: Final = 5.0
"""Noise that is further above the floor than this (bangs, a caller who was not noticed) makes nobody speak up."""
_AFTER_SPEECH_TICKS: Final = 20
"""For so long after speech what is heard is not taken for noise."""
_NOISY_DB: Final = 24.0
"""Below the usual level: where the floor is higher, the line is noisy."""
_NOISY_DBFS: Final = -48.0
"""The same while the usual level is not known."""

_SMOOTHING: Final = 0.07
_POWER_FLOOR: Final = 1e-9
_START_DBFS: Final = -60.0
_WIDE_DB: Final = 18.0
_NARROW_DB: Final = 1.5
_SOFTER_DB: Final = 4.0
"""Speech whose peaks are this far below the usual level is evidence of background speech."""
_MARGIN_DB: Final = 3.0
"""How far the caller must rise above known background speech."""
_HYSTERESIS_DB: Final = 3.0
_HOLD_TICKS: Final = 15
_EVIDENCE_S: Final = 8.0
_EVIDENCE: Final = (0.3, 0.6)
_TRUSTED_TICKS: Final = 300
"""For so long after a voice has begun, only what was known before counts against it: a sentence that is softer than the
last one is no television."""
_RUN_GAP_TICKS: Final = 10
_PEAK_FALL_DB: Final = 6.0 * _TICK_S
_USUAL_RISE_DB: Final = 0.3
_FIRST_RISE_DB: Final = 3.0
_FIRST_TICKS: Final = 15
"""Ticks of speech in which a new caller's level is found."""
_USUAL_FALL_DB: Final = 0.3 * _TICK_S
_BACKGROUND_RISE_DB: Final = 0.2
_BACKGROUND_RISE_OPEN_DB: Final = 0.1
_BACKGROUND_FALL_DB: Final = 1.0 * _TICK_S
_CROWD_DB: Final = 7.0
_CROWD_S: Final = 3.0
_CROWD_SHARE: Final = 0.85
_FIRST_SHARE: Final = 1.3
"""What is loud from the first moment of a call on is no caller who has just begun."""
_BLOCKS: Final = 5
_BLOCK_TICKS: Final = 50
_NEVER_DBFS: Final = 99.0

_BEST_DBFS: Final = -10.0
_FIRST_GAIN_DB: Final = 6.0
_LEAST_GAIN_DB: Final = -6.0
_MOST_GAIN_DB: Final = 30.0
_GAIN_STEP_DB: Final = 0.5


class NearSpeech:
    """The state of ``capacity`` slots.

    Attributes:
        near: [slot] whether what is heard now counts as the caller's.
    """

    def __init__(self, capacity: int) -> None:
        self.near: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self._power = np.zeros(capacity, np.float32)
        self._usual = np.zeros(capacity, np.float32)
        self._heard = np.zeros(capacity, np.int32)
        self._evidence = np.zeros(capacity, np.float32)
        self._background = np.zeros(capacity, np.float32)
        self._peak = np.zeros(capacity, np.float32)
        self._gap = np.zeros(capacity, np.int32)
        self._share = np.zeros(capacity, np.float32)
        self._away = np.zeros(capacity, np.int32)
        self._run = np.zeros(capacity, np.int32)
        self._age = np.zeros(capacity, np.int32)
        self._before = np.zeros((capacity, 2), np.float32)
        self._least = np.zeros((capacity, _BLOCKS), np.float32)
        self._gain_db = np.zeros(capacity, np.float32)
        self._noise = np.zeros(capacity, np.float32)
        self._loud = np.zeros(capacity, np.int32)
        self._tick = 0
        for slot in range(capacity):
            self.reset(slot)

    def reset(self, slot: int) -> None:
        """A new call takes ``slot`` over."""
        self.near[slot] = False
        self._power[slot] = 0.0
        self._usual[slot] = _START_DBFS
        self._heard[slot] = 0
        self._evidence[slot] = 0.0
        self._background[slot] = _START_DBFS
        self._peak[slot] = _START_DBFS
        self._gap[slot] = _RUN_GAP_TICKS + 1
        self._share[slot] = _FIRST_SHARE
        self._away[slot] = 0
        self._run[slot] = 0
        self._age[slot] = 0
        self._before[slot] = 0.0
        self._least[slot] = _NEVER_DBFS
        self._gain_db[slot] = _FIRST_GAIN_DB
        self._noise[slot] = _NEVER_DBFS
        self._loud[slot] = 0

    def usual_dbfs(self, slot: int) -> float:
        """How loud the caller's peaks are, as far as is known."""
        return float(self._usual[slot])

    def gain(self, rows: Slots) -> Floats:
        """What to multiply the audio of these slots [n] with, [n], before the voice detector hears it."""
        known = self._heard[rows] >= _FIRST_TICKS
        wanted = np.where(known, np.clip(_BEST_DBFS - self._usual[rows], _LEAST_GAIN_DB, _MOST_GAIN_DB), _FIRST_GAIN_DB)
        now = self._gain_db[rows]
        now += np.clip(wanted - now, -_GAIN_STEP_DB, _GAIN_STEP_DB)
        self._gain_db[rows] = now
        linear: Floats = np.power(np.float32(10.0), now * np.float32(0.05))
        return linear

    def step(self, rows: Slots, levels: Floats, speech: Floats) -> Floats:
        """Take one tick.

        Args:
            rows: [n] slots, each once.
            levels: [n] RMS of what came, before any suppression, dBFS.
            speech: [n] the voice detector's newest probabilities.

        Returns:
            [n] the probabilities that the caller speaks: lowered where it is somebody in the background.
        """
        self._tick += 1
        power = self._power[rows]
        came = np.power(np.float32(10.0), levels * np.float32(0.1))
        power += np.where(power > 0, np.float32(_SMOOTHING), np.float32(1.0)) * (came - power)
        self._power[rows] = power
        level = np.float32(10.0) * np.log10(np.maximum(power, np.float32(_POWER_FLOOR)))
        spoken = speech >= _SPEECH
        floor = self._floor(rows, level)
        soft = self._runs(rows, level, spoken)
        self._follow_noise(rows, level)
        known = self._heard[rows] >= _FIRST_TICKS
        quiet = floor < np.where(known, self._usual[rows] - np.float32(_NOISY_DB), np.float32(_NOISY_DBFS))
        threshold, weight = self._threshold(rows, spoken, soft, floor, quiet)
        self._learn(rows, level, spoken, soft)

        near = self.near[rows]
        holds = near & (level >= threshold - _HYSTERESIS_DB) & (speech >= _NO_SPEECH)
        away = np.where(holds, 0, self._away[rows] + 1)
        run = np.where(spoken, self._run[rows] + 1, 0)
        self._run[rows] = run
        noise = np.minimum(self._noise[rows], floor + np.float32(_NOISE_MOST_DB))
        least = np.where(quiet, threshold, np.maximum(threshold, noise + np.float32(_RISE_DB)))
        loud = np.where(spoken & (level >= least), self._loud[rows] + 1, 0)
        self._loud[rows] = loud
        lasts = loud >= _LASTS_TICKS + _LASTS_AMONG_TICKS * weight
        sure = quiet | (((speech >= _SURE) | (run >= _SURE_TICKS)) & lasts)
        begins = ~near & sure & (loud > 0)
        away[begins] = 0
        self._age[rows] = np.where(begins, 0, self._age[rows] + 1)
        begun = rows[begins]
        self._before[begun, 0] = self._evidence[begun]
        self._before[begun, 1] = self._share[begun]
        near = begins | (near & (away <= _HOLD_TICKS))
        self._away[rows] = away
        self.near[rows] = near
        lowered: Floats = np.where(near, speech, np.minimum(speech, np.float32(_LOWERED)))
        return lowered

    def _floor(self, rows: Slots, level: Floats) -> Floats:
        """The least level of the last four to five seconds."""
        block = self._tick // _BLOCK_TICKS % _BLOCKS
        if self._tick % _BLOCK_TICKS == 0:
            self._least[:, block] = _NEVER_DBFS
        self._least[rows, block] = np.minimum(self._least[rows, block], level)
        least: Floats = self._least[rows].min(axis=1)
        return least

    def _follow_noise(self, rows: Slots, level: Floats) -> None:
        """The level that the noise between the words seldom exceeds."""
        noise = self._noise[rows]
        noise = np.where(noise == _NEVER_DBFS, level, noise)
        between = self._gap[rows] > _AFTER_SPEECH_TICKS
        step = np.where(level > noise, np.float32(_NOISE_RISE_DB), np.float32(-_NOISE_FALL_DB))
        self._noise[rows] = noise + np.where(between, step, np.float32(0.0))

    def _runs(self, rows: Slots, level: Floats, spoken: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Follow the peaks of each run of speech; whether the one under way has been soft of late."""
        gap = self._gap[rows]
        peak = self._peak[rows] - np.float32(_PEAK_FALL_DB)
        again = spoken & (gap > _RUN_GAP_TICKS)
        peak = np.where(again | (spoken & (level > peak)), level, peak)
        gap = np.where(spoken, 0, gap + 1)
        self._gap[rows] = gap
        self._peak[rows] = peak
        soft: NDArray[np.bool_] = (gap <= _RUN_GAP_TICKS) & (peak < self._usual[rows] - _SOFTER_DB)
        return soft

    def _threshold(
        self, rows: Slots, spoken: NDArray[np.bool_], soft: NDArray[np.bool_], floor: Floats, quiet: NDArray[np.bool_]
    ) -> tuple[Floats, Floats]:
        """The level that the caller's voice must have, and how certain it is that there are other voices, 0 to 1."""
        evidence = self._evidence[rows]
        evidence += (soft - evidence) * np.float32(_TICK_S / _EVIDENCE_S)
        self._evidence[rows] = evidence
        share = self._share[rows]
        share += (spoken - share) * np.float32(_TICK_S / _CROWD_S)
        self._share[rows] = share
        trusted = self.near[rows] & (self._age[rows] < _TRUSTED_TICKS)
        evidence = np.where(trusted, self._before[rows, 0], evidence)
        share = np.where(trusted, self._before[rows, 1], share)
        low, high = _EVIDENCE
        crowd = share >= _CROWD_SHARE
        weight = np.where(crowd & ~quiet, 1.0, np.clip((evidence - low) / (high - low), 0.0, 1.0))
        usual = self._usual[rows]
        widest = usual - np.float32(_WIDE_DB)
        above = np.clip(self._background[rows] + np.float32(_MARGIN_DB), widest, usual - np.float32(_NARROW_DB))
        threshold = widest + weight * (above - widest)
        crowded: Floats = np.where(crowd, np.maximum(threshold, floor + np.float32(_CROWD_DB)), threshold).astype(
            np.float32
        )
        return crowded, weight

    def _learn(self, rows: Slots, level: Floats, spoken: NDArray[np.bool_], soft: NDArray[np.bool_]) -> None:
        usual, background = self._usual[rows], self._background[rows]
        new = self._heard[rows] < _FIRST_TICKS
        above = np.minimum(level - usual, np.where(new, np.float32(_FIRST_RISE_DB), np.float32(_USUAL_RISE_DB)))
        self._usual[rows] = usual + np.where(
            spoken & (above > 0), above, np.where(spoken & soft, -np.float32(_USUAL_FALL_DB), np.float32(0.0))
        )
        self._heard[rows] += spoken
        rise = np.where(self.near[rows], np.float32(_BACKGROUND_RISE_OPEN_DB), np.float32(_BACKGROUND_RISE_DB))
        beyond = np.minimum(self._peak[rows], usual - np.float32(_SOFTER_DB)) - background
        change = np.where(beyond > 0, np.minimum(rise, beyond), -np.float32(_BACKGROUND_FALL_DB))
        self._background[rows] = background + np.where(soft, change, np.float32(0.0))
