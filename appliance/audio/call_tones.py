"""What a network or a machine says in tones: SIT, busy, reorder, ringback, fax, the beep of a recording. PURE.

Every 20 ms the spectrum of the last 32 ms is looked at: how loud it is, how much of it lies in one narrow peak, and
where. Looks that show the same peak make a burst, and bursts make signals:

- **SIT** (ITU-T E.180, Telcordia GR-1162): three bursts that rise, at about 950, 1400 and 1800 Hz. Which of two
  frequencies and lengths the first two have says why the call failed.
- **busy, reorder, ringback** (ITU-T E.180 supplement 2): sound in 330 to 660 Hz alone, on and off in an even beat.
- **fax** (ITU-T T.30): 2100 Hz from the one called, or half a second of 1100 Hz every 3.5 s.
- **beep**: one pure tone of 0.15 to 1.5 s that keeps its pitch and level, with silence after it. Neither a vowel nor an
  instrument does all of that; see ``docs/answering-machines.md`` for how often something did.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8000

ToneKind = Literal["sit", "busy", "reorder", "ringback", "fax"]

_HOP: Final = 160
_HOP_S: Final = _HOP / RATE_HZ
_WINDOW: Final = 256
_BIN_HZ: Final = RATE_HZ / _WINDOW
_TAPER: Final = np.hanning(_WINDOW + 1)[:_WINDOW].astype(np.float32)
_LOWEST_BIN: Final = 3
_LEVEL_SCALE: Final = 1.0 / (32768.0**2 * _WINDOW)
_SILENT: Final = 1e-10
_BAND: Final = slice(round(330 / _BIN_HZ), round(660 / _BIN_HZ) + 1)

_MIN_DBFS: Final = -45.0
_MIN_SHARE: Final = 0.85
_WEAK_SHARE: Final = 0.45
_MAX_WEAK: Final = 2
"""Looks in a row in which noise may cover half of a tone that has begun."""
_SAME_HZ: Final = 0.015
_SAME_DB: Final = 3.0
_SOUNDING_LOOKS: Final = 3
_LOOK_S: Final = 0.01
"""By how much a burst is longer than its looks: one fits in whole only."""

_SIT_HZ: Final = ((900.0, 1000.0), (1350.0, 1450.0), (1750.0, 1830.0))
_SIT_S: Final = (0.2, 0.5)
_SIT_GAP_S: Final = 0.1
_SIT_LONG_S: Final = 0.327
_SIT_FIRST_HIGH_HZ, _SIT_SECOND_HIGH_HZ = 949.5, 1399.5
_SIT_PLACE_HZ: Final = 12.0
_SIT_FIRST, _SIT_SECOND = (913.8, 985.2), (1370.6, 1428.5)
_SIT_CAUSES: Final[dict[tuple[bool, bool, bool, bool], str]] = {
    # (first tone high, first tone long, second tone high, second tone long)
    (False, False, False, False): "intercept",
    (True, True, False, False): "vacant",
    (False, False, True, True): "reorder",
    (True, False, False, True): "reorder",
    (True, True, True, True): "no_circuit",
    (False, True, False, True): "no_circuit",
}

_BAND_SHARE: Final = 0.9
_BEAT_S: Final = (0.15, 0.8)
_BEAT_EVEN: Final = 0.2
_BEAT_SLACK_S: Final = 0.035
_BEAT_RATIO: Final = 1.7
_BUSY_PERIOD_S: Final = 0.6
_RING_S: Final = (0.75, 2.6)
_OFF_DB: Final = 10.0

_CED_HZ: Final = (2080.0, 2120.0)
_CED_S: Final = 0.6
_CNG_HZ: Final = (1062.0, 1138.0)
_CNG_S: Final = (0.42, 0.58)
_CNG_EVERY_S: Final = (3.0, 4.2)
_SOUND_DBFS: Final = -35.0

_BEEP_HZ: Final = (380.0, 2070.0)
_BEEP_S: Final = (0.14, 1.6)
_BEEP_SHARE: Final = 0.85
_BEEP_SPREAD: Final = 0.006
_BEEP_FALL_DB: Final = 6.0
_BEEP_DECAY_LOOKS: Final = 2
_BEEP_QUIET_S: Final = 0.28
_NETWORK_HZ: Final = (390.0, 460.0)
_NETWORK_QUIET_S: Final = 0.75


@dataclass(frozen=True, slots=True)
class Tone:
    """A signal of the network, or of a fax machine.

    Attributes:
        kind: which.
        at_s: when it was recognised, seconds on the listener's time.
        detail: of a ``sit`` its cause: "intercept", "vacant", "no_circuit", "reorder", or "unknown".
    """

    kind: ToneKind
    at_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Beep:
    """The single tone after which a machine records.

    Attributes:
        at_s: when it was certain, 0.3 to 0.8 s after its end, seconds on the listener's time.
        hz: its frequency.
        length_s: how long it was.
    """

    at_s: float
    hz: float
    length_s: float


class _Look(NamedTuple):
    """What 32 ms hold: their end, RMS dBFS, the strongest peak, its share of the power, and that of 330 to 660 Hz."""

    at_s: float
    dbfs: float
    hz: float
    share: float
    band: float


@dataclass(slots=True)
class _Burst:
    """Looks that show the same single tone."""

    start_s: float
    end_s: float
    hz: float
    dbfs: float
    looks: int = 1
    share: float = 1.0
    low_hz: float = 0.0
    high_hz: float = 0.0
    weak: int = 0

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    def fits(self, look: _Look) -> bool:
        """Whether the tone goes on in ``look``."""
        return abs(look.hz - self.hz) <= _SAME_HZ * self.hz and abs(look.dbfs - self.dbfs) <= _SAME_DB

    def covered(self, look: _Look) -> bool:
        """Whether the tone may go on in ``look`` under a noise."""
        steady = self.looks >= _SOUNDING_LOOKS and self.weak < _MAX_WEAK
        return steady and look.share >= _WEAK_SHARE and self.fits(look)

    def add(self, look: _Look) -> None:
        self.looks += 1
        self.weak = 0
        weight = 1.0 / self.looks
        self.hz += weight * (look.hz - self.hz)
        self.dbfs += weight * (look.dbfs - self.dbfs)
        self.share += weight * (look.share - self.share)
        self.low_hz, self.high_hz = min(self.low_hz, look.hz), max(self.high_hz, look.hz)
        self.end_s = look.at_s - _WINDOW / RATE_HZ / 2 + _LOOK_S


class CallTones:
    """Listens to one direction of one call. It is fed samples and knows no clock.

    Args:
        answered: whether what is heard comes after the answer. Before it nobody beeps; after it nothing rings.
    """

    def __init__(self, *, answered: bool = True) -> None:
        self._answered = answered
        self._left = np.zeros(0, np.int16)
        self._window = np.zeros(_WINDOW, np.float32)
        self._at_s = 0.0
        self._burst: _Burst | None = None
        self._bursts: deque[_Burst] = deque(maxlen=3)
        self._beat = _Beat()
        self._beep: _Burst | None = None
        self._sounded = False
        self._fax = False
        self._cng_s: float | None = None

    @property
    def sounding(self) -> bool:
        """Whether a single tone has been sounding for 60 ms or more: no voice."""
        return self._burst is not None and self._burst.looks >= _SOUNDING_LOOKS

    @property
    def undecided(self) -> bool:
        """Whether what is heard may turn out to be a beep."""
        return self.sounding or self._beep is not None

    def on_audio(self, at_s: float, samples: NDArray[np.int16]) -> list[Tone | Beep]:
        """Take the next samples.

        Args:
            at_s: when the first of them was heard, seconds.
            samples: int16 [n] at 8 kHz, any number of them.

        Returns:
            What has been recognised in them.
        """
        at_s -= len(self._left) / RATE_HZ
        if len(self._left):
            samples = np.concatenate((self._left, samples))
        found: list[Tone | Beep] = []
        start = 0
        while len(samples) - start >= _HOP:
            self._window[:-_HOP] = self._window[_HOP:]
            self._window[-_HOP:] = samples[start : start + _HOP]
            start += _HOP
            found += self._hear(_look(self._window, at_s + start / RATE_HZ))
        self._left = samples[start:].copy()
        return found

    def _hear(self, look: _Look) -> list[Tone | Beep]:
        found: list[Tone | Beep] = []
        single = look.share >= _MIN_SHARE and look.dbfs >= _MIN_DBFS
        burst = self._burst
        if burst is not None and single and burst.fits(look):
            burst.add(look)
            if not self._fax and _CED_HZ[0] <= burst.hz <= _CED_HZ[1] and burst.length_s >= _CED_S:
                self._fax = True
                found.append(Tone("fax", look.at_s))
        elif burst is not None and not single and burst.covered(look):
            burst.weak += 1
        else:
            if burst is not None:
                found += self._ended(burst, look.at_s)
            self._burst = _begun(look) if single else None
        if self._beep is not None:
            found += self._after_beep(self._beep, look)
        kind = self._beat.hear(look, rings=not self._answered)
        if kind is not None:
            found.append(Tone(kind, look.at_s))
        if look.dbfs >= _SOUND_DBFS and not single:
            self._sounded = True
        return found

    def _ended(self, burst: _Burst, at_s: float) -> list[Tone | Beep]:
        """What a burst that is over completes."""
        if burst.length_s < _BEEP_S[0]:
            return []
        before = self._bursts[-1] if self._bursts else None
        self._bursts.append(burst)
        cause = _sit(self._bursts)
        if cause is not None:
            self._bursts.clear()
            self._beep = None
            return [Tone("sit", at_s, cause)]
        if _CNG_HZ[0] <= burst.hz <= _CNG_HZ[1] and _CNG_S[0] <= burst.length_s <= _CNG_S[1] and not self._fax:
            again = self._cng_s is not None and _CNG_EVERY_S[0] <= burst.start_s - self._cng_s <= _CNG_EVERY_S[1]
            self._cng_s = burst.start_s
            if again or not self._sounded:
                self._fax = True
                self._beep = None
                return [Tone("fax", at_s)]
        if self._answered and not self._fax and self._is_beep(burst):
            same = before is not None and self._beep is before and burst.start_s - before.end_s < _BEEP_QUIET_S
            if self._beep is None or same:
                self._beep = burst
        return []

    def _is_beep(self, burst: _Burst) -> bool:
        return (
            _BEEP_HZ[0] <= burst.hz <= _BEEP_HZ[1]
            and _BEEP_S[0] <= burst.length_s <= _BEEP_S[1]
            and burst.share >= _BEEP_SHARE
            and burst.high_hz - burst.low_hz <= _BEEP_SPREAD * 2 * burst.hz
        )

    def _after_beep(self, beep: _Burst, look: _Look) -> list[Tone | Beep]:
        """A beep is one when it is followed by silence."""
        since_s = look.at_s - beep.end_s
        if since_s > (1 + _BEEP_DECAY_LOOKS) * _HOP_S + _WINDOW / RATE_HZ and look.dbfs > beep.dbfs - _BEEP_FALL_DB:
            self._beep = None
            return []
        network = _NETWORK_HZ[0] <= beep.hz <= _NETWORK_HZ[1]
        if since_s < (_NETWORK_QUIET_S if network else _BEEP_QUIET_S):
            return []
        self._beep = None
        return [Beep(look.at_s, beep.hz, beep.length_s)]


class _Beat:
    """Sound in the band of the network's tones, on and off."""

    def __init__(self) -> None:
        self._on_since: float | None = None
        self._off_since: float | None = None
        self._dbfs = 0.0
        self._ons: deque[tuple[float, float]] = deque(maxlen=3)
        self._last: ToneKind | None = None

    def hear(self, look: _Look, *, rings: bool) -> ToneKind | None:
        at_s = look.at_s - _WINDOW / RATE_HZ / 2
        if look.band >= _BAND_SHARE and look.dbfs >= _MIN_DBFS:
            if self._on_since is None:
                self._on_since = at_s
            self._dbfs = look.dbfs if self._off_since is not None else max(self._dbfs, look.dbfs)
            self._off_since = None
            return None
        if self._on_since is None:
            if look.dbfs > self._dbfs - _OFF_DB:
                self._ons.clear()
            return None
        on = (self._on_since, at_s)
        self._on_since, self._off_since = None, at_s
        if at_s - on[0] < _BEAT_S[0] / 2:
            self._ons.clear()
            return None
        self._ons.append(on)
        kind = self._kind(rings)
        if kind is None or kind == self._last:
            return None
        self._last = kind
        return kind

    def _kind(self, rings: bool) -> ToneKind | None:
        first, last = self._ons[-1]
        if rings and _RING_S[0] <= last - first <= _RING_S[1]:
            return "ringback"
        if len(self._ons) < 3:
            return None
        lengths = [end - start for start, end in self._ons]
        gaps = [self._ons[1][0] - self._ons[0][1], self._ons[2][0] - self._ons[1][1]]
        if not (_even(lengths) and _even(gaps)):
            return None
        on, off = sum(lengths) / 3, sum(gaps) / 2
        if on > _BEAT_RATIO * off + _BEAT_SLACK_S or off > _BEAT_RATIO * on + _BEAT_SLACK_S:
            return None
        return "busy" if on + off >= _BUSY_PERIOD_S else "reorder"


def _even(lengths: list[float]) -> bool:
    low, high = min(lengths), max(lengths)
    return _BEAT_S[0] <= low and high <= _BEAT_S[1] and high - low <= _BEAT_EVEN * high + _BEAT_SLACK_S


def _begun(look: _Look) -> _Burst:
    middle = look.at_s - _WINDOW / RATE_HZ / 2
    return _Burst(
        middle - _LOOK_S, middle + _LOOK_S, look.hz, look.dbfs, share=look.share, low_hz=look.hz, high_hz=look.hz
    )


def _sit(bursts: deque[_Burst]) -> str | None:
    """The cause that three bursts name, None where they are no special information tone."""
    if len(bursts) < 3:
        return None
    for burst, (low, high) in zip(bursts, _SIT_HZ, strict=True):
        if not (low <= burst.hz <= high and _SIT_S[0] <= burst.length_s <= _SIT_S[1]):
            return None
    first, second, third = bursts
    if second.start_s - first.end_s > _SIT_GAP_S or third.start_s - second.end_s > _SIT_GAP_S:
        return None
    for burst, places in ((first, _SIT_FIRST), (second, _SIT_SECOND)):
        if min(abs(burst.hz - place) for place in places) > _SIT_PLACE_HZ:
            return "unknown"
    key = (
        first.hz > _SIT_FIRST_HIGH_HZ,
        first.length_s > _SIT_LONG_S,
        second.hz > _SIT_SECOND_HIGH_HZ,
        second.length_s > _SIT_LONG_S,
    )
    return _SIT_CAUSES.get(key, "unknown")


def _look(window: NDArray[np.float32], at_s: float) -> _Look:
    spectrum = np.fft.rfft(window * _TAPER)
    power = spectrum.real**2 + spectrum.imag**2
    dbfs = 10.0 * np.log10(max(float(window @ window) * _LEVEL_SCALE, _SILENT))
    if dbfs < _MIN_DBFS:
        return _Look(at_s, dbfs, 0.0, 0.0, 0.0)
    peak = int(power[_LOWEST_BIN:-2].argmax()) + _LOWEST_BIN
    total = max(float(power.sum()), _SILENT)
    share = float(power[peak - 2 : peak + 3].sum()) / total
    if share < _WEAK_SHARE:
        return _Look(at_s, dbfs, 0.0, share, float(power[_BAND].sum()) / total)
    left, middle, right = np.log(power[peak - 1 : peak + 2] + _SILENT)
    curve = left - 2.0 * middle + right
    offset = 0.5 * float(left - right) / float(curve) if curve < 0 else 0.0
    return _Look(at_s, dbfs, (peak + offset) * _BIN_HZ, share, float(power[_BAND].sum()) / total)
