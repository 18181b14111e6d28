"""Which words of a text were heard: espeak-ng itself says where each begins, and the audio that came says the rest.

Shares nothing with the appliance's synthesis but the library: the clauses are synthesised here once more, found in a
whole reply as a caller heard it, and what was heard of an interrupted one is found in that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import espeakng_loader
import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.cli.playout import Pcm

Float = NDArray[np.float32]

RATE_HZ: Final = 8000
WORDS_PER_MINUTE: Final = 170
_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_UTF8: Final = 1
_RATE: Final = 1
_WORD_EVENT: Final = 1
_LAST_EVENT: Final = 0
_TAIL_S: Final = 0.5
_LOUD: Final = 256
_WINDOW: Final = 160
_HOP: Final = 40
_BANDS: Final = 10
_FLOOR: Final = 1e6
_ALIKE: Final = 0.8
"""Correlation from which on two stretches of audio are the same speech."""


class NotFound(Exception):
    """Something was heard that is not in the reply."""


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Spoken:
    """A text as speech at 8 kHz, and where each of its words (by white space) begins, in samples."""

    pcm: Float
    words: tuple[tuple[str, int], ...]


class Espeak:
    """The library, with the events that it gives. One per process."""

    def __init__(self, voice: str = "gmw/en-US") -> None:
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        data = espeakng_loader.get_data_path()
        self._rate_hz = int(self._library.espeak_Initialize(_SYNCHRONOUS, 60, str(data).encode(), _DONT_EXIT))
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        if self._rate_hz <= 0 or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError("espeak-ng or its voice cannot be loaded; pip install --force-reinstall espeakng-loader")
        self._library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
        self._blocks: list[bytes] = []
        self._starts: list[tuple[int, int]] = []

    def say(self, text: str) -> Spoken:
        """Synthesise a clause."""
        self._blocks, self._starts = [], []
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
        raw = np.frombuffer(b"".join(self._blocks), np.int16).astype(np.float32)
        ends = [*self._starts, (len(text), len(raw))]
        known = [position for position, _ in ends]
        words: list[tuple[str, int]] = []
        at = 0
        for word in text.split():
            first = text.index(word, at)
            at = first + len(word)
            # "in the" is one word to espeak-ng: what it does not tell of lies between, by characters.
            began = float(np.interp(first, [0, *known], [0, *(sample for _, sample in ends)]))
            words.append((word, round(began * RATE_HZ / self._rate_hz)))
        return Spoken(soxr.resample(raw, self._rate_hz, RATE_HZ, quality="HQ"), tuple(words))

    def _take(self, samples: int | None, count: int, events: Any) -> int:
        if samples and count > 0:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        number = 0
        while events[number].type != _LAST_EVENT:
            event = events[number]
            if event.type == _WORD_EVENT:
                self._starts.append((event.text_position - 1, event.sample))
            number += 1
        return 0


def _features(pcm: NDArray[Any]) -> NDArray[np.float64]:
    """Loudness of some bands in dB above a floor, every 5 ms: [frames, bands]. Alike however the voice's phase lay."""
    padded = np.concatenate([np.zeros(_WINDOW // 2), pcm.astype(np.float64), np.zeros(_WINDOW)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][: len(pcm) // _HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1)) ** 2
    edges = np.geomspace(2, _WINDOW // 2, _BANDS + 1).astype(int)
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    return np.asarray(np.log10(bands + _FLOOR) - np.log10(_FLOOR))


def find(needle: NDArray[Any], hay: NDArray[Any]) -> tuple[int, float]:
    """Where in ``hay`` (samples) ``needle`` is most alike to it, to 5 ms, and its normalised correlation there."""
    short, long = _features(needle), _features(hay)
    if not len(short) or len(long) < len(short):
        return 0, 0.0
    short = short - short.mean()
    product = sum(np.correlate(long[:, band], short[:, band], "valid") for band in range(_BANDS))
    count = short.size
    sums, squares = (np.concatenate([[0.0], np.cumsum(part.sum(axis=1))]) for part in (long, long**2))
    total, square = (part[len(short) :] - part[: -len(short)] for part in (sums, squares))
    spread = np.sqrt(np.maximum(square - total**2 / count, 1e-9)) * np.sqrt((short**2).sum() + 1e-9)
    alike = product / spread
    best = int(np.argmax(alike))
    return best * _HOP, float(alike[best])


@dataclass(frozen=True)
class Reply:
    """A whole reply as it was heard, with the stretch [start, end) of each of its words in it."""

    pcm: Pcm
    words: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, pcm: Pcm, clauses: Sequence[Spoken]) -> Reply:
        """Find the clauses, in their order, in what was heard.

        Raises:
            NotFound: one of them is not there.
        """
        words: list[tuple[str, int, int]] = []
        after = 0
        for clause in clauses:
            loud = np.flatnonzero(np.abs(clause.pcm) > _LOUD)
            first, last = int(loud[0]), int(loud[-1]) + 1
            at, alike = find(clause.pcm[first:last], pcm[after:])
            if alike < _ALIKE:
                raise NotFound(f"{clause.words[0][0]!r}... is not in what was heard (correlation {alike:.2f})")
            begins = after + at - first
            starts = [begins + max(start, first) for _, start in clause.words] + [begins + last]
            words += [(word, starts[n], starts[n + 1]) for n, (word, _) in enumerate(clause.words)]
            after = begins + last
        return cls(pcm, tuple(words))

    def heard(self, pcm: Pcm) -> list[str]:
        """The words of which at least half was heard, when this was all that was.

        Raises:
            NotFound: it ends in something else.
        """
        loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _LOUD)
        if not len(loud):
            return []
        tail = pcm[max(0, int(loud[-1]) + 1 - int(_TAIL_S * RATE_HZ)) : int(loud[-1]) + 1]
        at, alike = find(tail, self.pcm)
        if alike < _ALIKE:
            raise NotFound(f"the last {len(tail) / RATE_HZ:.2f} s are not in the reply (correlation {alike:.2f})")
        reached = at + len(tail)
        return [word for word, start, end in self.words if reached >= (start + end) / 2]
