"""Phrases that have been spoken, for all calls and all synthesisers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Key: TypeAlias = tuple[str, str, str, float]
"""Text, voice, language, rate."""

_ENTRY_BYTES: Final = 400


@dataclass
class _Phrase:
    pcm: NDArray[np.int16]
    kept: bool


class PhraseCache:
    """Phrases already synthesised, the least recently used forgotten first.

    Args:
        max_bytes: the most audio to keep.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes_held = 0
        self.hits = 0
        self.misses = 0
        self._kept_bytes = 0
        self._phrases: OrderedDict[Key, _Phrase] = OrderedDict()

    def get(self, key: Key) -> NDArray[np.int16] | None:
        """The whole phrase, int16 [samples] at 8 kHz, read-only, or None."""
        phrase = self._phrases.get(key)
        if phrase is None:
            self.misses += 1
            return None
        self.hits += 1
        self._phrases.move_to_end(key)
        return phrase.pcm

    def at_any_rate(self, key: Key) -> NDArray[np.int16] | None:
        """The same phrase in the same voice, faster or slower, if it has been spoken so: better than none at all."""
        return next((phrase.pcm for other, phrase in self._phrases.items() if other[:3] == key[:3]), None)

    def put(self, key: Key, pcm: NDArray[np.int16], *, keep: bool = False) -> None:
        """Hold a copy of ``pcm`` unless it alone would take more than half of the cache.

        With ``keep`` it is not forgotten whatever else comes, as long as such phrases take less than half of it.
        """
        size = _held_bytes(key, pcm)
        if size > self.max_bytes // 2:
            return
        self._remove(key)
        held = pcm.copy()
        held.flags.writeable = False
        keep = keep and self._kept_bytes + size <= self.max_bytes // 2
        self._phrases[key] = _Phrase(held, keep)
        self.bytes_held += size
        self._kept_bytes += size if keep else 0
        while self.bytes_held > self.max_bytes:
            self._remove(next(other for other, phrase in self._phrases.items() if not phrase.kept))

    def keep(self, key: Key) -> None:
        """A phrase that is here is not to be forgotten from now on."""
        phrase = self._phrases.get(key)
        if phrase is not None and not phrase.kept:
            self.put(key, phrase.pcm, keep=True)

    def _remove(self, key: Key) -> None:
        phrase = self._phrases.pop(key, None)
        if phrase is not None:
            size = _held_bytes(key, phrase.pcm)
            self.bytes_held -= size
            self._kept_bytes -= size if phrase.kept else 0

    def __len__(self) -> int:
        return len(self._phrases)


def _held_bytes(key: Key, pcm: NDArray[np.int16]) -> int:
    return pcm.nbytes + 4 * len(key[0]) + _ENTRY_BYTES
