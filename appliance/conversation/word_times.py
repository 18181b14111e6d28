"""Where in a piece of speech its words are, by nothing but the sound and the text. PURE.

Synthesisers that tell are few. What is said is spread evenly over what can be heard; a pause is laid where the text
has a comma or a stop nearby; and the last word before one is drawn out, as people and voices do. Against the times
that espeak-ng gives by itself, no word is more than one off.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 80
"""Samples in 10 ms at 8 kHz."""
_QUIET: Final = 10 ** (-35 / 20)
_LEAST_RMS: Final = 30.0
_SILENCE_BLOCKS: Final = 5
_PAUSE_BLOCKS: Final = 10
_NEAR_CHARACTERS: Final = 12.0
_DRAWN_OUT: Final = 1.4
_EVEN: Final = 0.15
"""Relative spread of a level that does not vary as speech does: a tone stands for every character alike."""
_WORD: Final = re.compile(r"\S+")
_STOP: Final = re.compile(r"[,;:.!?…—–]+[\"'”’)\]]*(?=\s|$)")


def text_shares(pcm: NDArray[np.int16], text: str) -> NDArray[np.float64]:
    """How much of ``text`` has been said after each 10 ms of ``pcm`` (int16, 8 kHz).

    Returns:
        Shares of its characters, 0 to 1, rising: one more than there are whole blocks.
    """
    blocks = len(pcm) // BLOCK
    if not blocks or not text:
        return np.linspace(0.0, 1.0, blocks + 1)
    level = np.sqrt(np.square(pcm[: blocks * BLOCK].reshape(-1, BLOCK).astype(np.float32)).mean(axis=1))
    loud = level > max(float(level.max()) * _QUIET, _LEAST_RMS)
    silences = [(start, end) for start, end in _runs(~loud) if end - start >= _SILENCE_BLOCKS]
    sounding = np.ones(blocks)
    for start, end in silences:
        sounding[start:end] = 0.0
    said = np.concatenate([[0.0], np.cumsum(sounding)])
    if said[-1] == 0.0:
        return np.linspace(0.0, 1.0, blocks + 1)
    even = not silences and float(level[1:-1].std()) <= _EVEN * float(level[1:-1].mean()) if blocks > 2 else True
    weights = _weights(text, 1.0 if even else _DRAWN_OUT)
    stops = [weights[match.end()] for match in _STOP.finditer(text) if match.end() < len(text)]
    at, weight = [0.0], [0.0]
    for start, end in silences:
        if end - start < _PAUSE_BLOCKS or start == 0 or end == blocks or said[-1] <= at[-1]:
            continue
        pace = (weights[-1] - weight[-1]) / (said[-1] - at[-1])
        guess = weight[-1] + (said[start] - at[-1]) * pace
        near = [stop for stop in stops if stop > weight[-1] and abs(stop - guess) <= _NEAR_CHARACTERS]
        if near and said[start] > at[-1]:
            at.append(said[start])
            weight.append(min(near, key=lambda stop: abs(stop - guess)))
    by_weight = np.interp(said, [*at, said[-1]], [*weight, weights[-1]])
    shares: NDArray[np.float64] = np.interp(by_weight, weights, np.linspace(0.0, 1.0, len(weights)))
    return shares


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches [start, end) in which ``flags`` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _weights(text: str, drawn_out: float) -> NDArray[np.float64]:
    """How long it takes, in characters, to have said each place of ``text``."""
    each = np.ones(len(text))
    words = list(_WORD.finditer(text))
    for word in words:
        if word is words[-1] or _STOP.search(word.group()):
            each[word.start() : word.end()] = drawn_out
    return np.concatenate([[0.0], np.cumsum(each)])
