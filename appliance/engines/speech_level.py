"""One level and clean edges for the speech of any synthesiser, piece by piece as it comes. 8 kHz.

A reply is spoken in pieces that were synthesised apart, by a model that does not keep its level from one to the next.
Each is brought to -20 dBFS while speaking, begins and ends with a stated length of quiet and a fade, and has no offset,
so that two of them can stand next to each other. What is known of a voice (:class:`VoiceLevels`) tells how loud the
beginning of a piece will be before the rest of it is there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8000
LEVEL: Final = 0.1
"""RMS while speaking: -20 dBFS."""
LEAD_S: Final = 0.01
TAIL_S: Final = 0.04
"""Quiet before the first and after the last sound of a piece, at most."""
FADE_S: Final = 0.005
CLAUSE_PAUSE_S: Final = 0.12
SENTENCE_PAUSE_S: Final = 0.25
"""What lies between two pieces of a text, at normal speed."""

_SPEECH_FLOOR: Final = 0.006  # -44 dBFS at the common level: what is quieter at either end is silence
_KNEE: Final = 0.6
_PEAK: Final = 0.89  # -1 dBFS
_FRAME: Final = 80
_SILENT_POWER: Final = 1e-7  # -70 dBFS: no speech that a gain should be derived from
_ACTIVE: Final = 1e-3  # -30 dB from the loudest frame
_MIN_GAIN: Final = 0.1
_MAX_GAIN: Final = 10.0
_RAMP_SAMPLES: Final = 800
_TRUSTED_FRAMES: Final = 12
_LEARNT_FRAMES: Final = 1000
_POLE: Final = 0.97  # a high-pass at 39 Hz

_LEAD: Final = round(LEAD_S * RATE_HZ)
_TAIL: Final = round(TAIL_S * RATE_HZ)
_FADE: Final = round(FADE_S * RATE_HZ)
_RISE: Final = (0.5 - 0.5 * np.cos(np.pi * (np.arange(_FADE) + 0.5) / _FADE)).astype(np.float32)
_STEPS: Final = np.arange(_FRAME)
_DECAY: Final = (_POLE ** (_STEPS + 1)).astype(np.float64)
_HIGH_PASS: Final = np.where(_STEPS[:, None] >= _STEPS, _POLE ** np.maximum(_STEPS[:, None] - _STEPS, 0), 0.0)

Pcm = NDArray[np.int16]
_Samples = NDArray[np.float32]


class VoiceLevels:
    """How loud each voice of a synthesiser is by itself, from the first ten seconds that it spoke."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, int]] = {}

    def power(self, voice: str) -> float | None:
        """Mean square while speaking; None where the voice has not spoken yet."""
        power, frames = self._heard.get(voice, (0.0, 0))
        return power / frames if frames else None

    def learn(self, voice: str, powers: NDArray[np.float64]) -> None:
        """Take the active frames of one piece into account, until enough are known."""
        power, frames = self._heard.get(voice, (0.0, 0))
        if len(powers) and frames < _LEARNT_FRAMES:
            self._heard[voice] = (power + float(powers.sum()), frames + len(powers))


class Shaper:
    """One piece of speech on its way to the caller: push what comes, then finish.

    Args:
        levels: what is known of the voices; learns from this piece.
        voice: whose piece it is.
    """

    def __init__(self, levels: VoiceLevels, voice: str) -> None:
        self._levels = levels
        self._voice = voice
        self._expected = levels.power(voice)
        self._powers = np.zeros(0)
        self._gain: float | None = None
        self._before: float | None = None
        self._carry = 0.0
        self._begun = False
        self._waiting = np.zeros(0, np.float32)

    def push(self, pcm: NDArray[np.int16]) -> Pcm:
        """The next samples in, those that are certain out: silence is kept back until speech follows it."""
        if not len(pcm):
            return np.zeros(0, np.int16)
        return self._out(limited(self._levelled(self._centred(pcm * np.float32(1 / 32768)))), last=False)

    def finish(self) -> Pcm:
        """What is left: the end of the speech, faded."""
        self._levels.learn(self._voice, _active(self._powers))
        return self._out(np.zeros(0, np.float32), last=True)

    def _centred(self, samples: _Samples) -> _Samples:
        """Without what lies below 39 Hz, an offset included."""
        before = float(samples[0]) if self._before is None else self._before
        self._before = float(samples[-1])
        steps = np.diff(samples, prepend=np.float32(before)).astype(np.float64)
        blocks = np.zeros((-(-len(steps) // _FRAME), _FRAME))
        blocks.reshape(-1)[: len(steps)] = steps
        filtered = blocks @ _HIGH_PASS.T
        carry = self._carry
        for index in range(len(filtered)):
            filtered[index] += _DECAY * carry
            carry = float(filtered[index, -1])
        centred = filtered.reshape(-1)[: len(steps)]
        self._carry = float(centred[-1])
        return centred.astype(np.float32)

    def _levelled(self, samples: _Samples) -> _Samples:
        frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
        self._powers = np.concatenate([self._powers, np.square(frames).mean(axis=1)])
        wanted = self._wanted_gain()
        if wanted is None:
            return samples
        if self._gain is None:
            self._gain = wanted
        gains = np.full(len(samples), wanted, np.float32)
        ramp = min(len(samples), _RAMP_SAMPLES)
        gains[:ramp] = np.linspace(self._gain, wanted, ramp, dtype=np.float32)
        self._gain = wanted
        return samples * gains

    def _wanted_gain(self) -> float | None:
        """What brings this piece to the common level: by what is known of the voice, and more and more by itself."""
        active = _active(self._powers)
        if not len(active):
            return LEVEL / float(np.sqrt(self._expected)) if self._expected is not None else None
        nepers = np.log(active.mean())
        if self._expected is not None:
            trust = 1.0 / (1.0 + (len(active) / _TRUSTED_FRAMES) ** 2)
            nepers = trust * np.log(self._expected) + (1.0 - trust) * nepers
        return float(min(max(LEVEL / np.exp(nepers / 2), _MIN_GAIN), _MAX_GAIN))

    def _out(self, samples: _Samples, *, last: bool) -> Pcm:
        waiting = np.concatenate([self._waiting, samples])
        loud = np.flatnonzero(np.abs(waiting) > _SPEECH_FLOOR)
        if not self._begun:
            if not len(loud):
                self._waiting = waiting[max(len(waiting) - _LEAD, 0) :]
                return np.zeros(0, np.int16)
            waiting = waiting[max(int(loud[0]) - _LEAD, 0) :].copy()
            loud = loud - (loud[0] - min(int(loud[0]), _LEAD))
            self._begun = len(waiting) >= 2 * _FADE or last
            if self._begun:
                rise = min(_FADE, len(waiting))
                waiting[:rise] *= _RISE[:rise]
            else:
                self._waiting = waiting
                return np.zeros(0, np.int16)
        if last:
            end = min(int(loud[-1]) + 1 + _TAIL, len(waiting)) if len(loud) else min(_TAIL, len(waiting))
            out = waiting[:end].copy()
            fall = min(_FADE, end)
            out[end - fall :] *= _RISE[:fall][::-1]
        else:
            end = max(int(loud[-1]) + 1 - _FADE, 0) if len(loud) else 0
            end = min(end, len(waiting) - _FADE)
            out, self._waiting = waiting[: max(end, 0)], waiting[max(end, 0) :]
        return to_pcm(out)


def _active(powers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The frames in which somebody speaks: within 30 dB of the loudest."""
    active: NDArray[np.float64] = powers[powers > max(float(powers.max(initial=0.0)) * _ACTIVE, _SILENT_POWER)]
    return active


def active_rms(samples: NDArray[np.float32]) -> float:
    """RMS over the 10 ms frames that are within 30 dB of the loudest; 0 for silence."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    active = _active(np.square(frames.astype(np.float64)).mean(axis=1))
    return float(np.sqrt(active.mean())) if len(active) else 0.0


def whole_piece(samples: _Samples) -> Pcm:
    """A piece that is there as a whole: at the common level, its ends cut and faded; empty if nothing is said in it."""
    samples = samples - samples.mean(dtype=np.float32) if len(samples) else samples
    level = active_rms(samples)
    if not level:
        return np.zeros(0, np.int16)
    samples = limited(samples * np.float32(min(max(LEVEL / level, _MIN_GAIN), _MAX_GAIN)))
    loud = np.flatnonzero(np.abs(samples) > _SPEECH_FLOOR)
    if not len(loud):
        return np.zeros(0, np.int16)
    piece = samples[max(int(loud[0]) - _LEAD, 0) : int(loud[-1]) + 1 + _TAIL].copy()
    fade = min(_FADE, len(piece) // 2)
    piece[:fade] *= _RISE[:fade]
    piece[len(piece) - fade :] *= _RISE[:fade][::-1]
    return to_pcm(piece)


def limited(samples: _Samples) -> _Samples:
    """What is louder than the knee is bent so that it stays below -1 dBFS."""
    size = np.abs(samples)
    if size.max(initial=0.0) <= _KNEE:
        return samples
    room = _PEAK - _KNEE
    bent = _KNEE + room * np.tanh((size - _KNEE) / room)
    return np.where(size > _KNEE, np.copysign(bent, samples), samples).astype(np.float32)


def to_pcm(samples: _Samples) -> Pcm:
    """-1..1 as 16-bit samples."""
    pcm: Pcm = np.rint(samples * np.float32(32767)).astype(np.int16)
    return pcm
