"""G.711 companding, both laws, over all calls at once.

Linear samples are 16-bit: the 14-bit µ-law and 13-bit A-law values of ITU-T G.711 shifted to the top, as every sound
card and file has them. Decoding gives the value the standard tabulates for each code; encoding picks the code whose
interval holds the sample, so that decode(encode(decode(code))) is exact for all 256 codes of either law.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ULAW_BIAS: Final = 33
_ULAW_CLIP: Final = 8158


def _ulaw_decoding() -> NDArray[np.int16]:
    """Value of each µ-law code (G.711 §3.2, table 2a): sign, 3 bits of segment, 4 of step, all inverted on the wire."""
    code = ~np.arange(256) & 0xFF
    segment = code >> 4 & 7
    magnitude = ((2 * (code & 15) + _ULAW_BIAS) << segment) - _ULAW_BIAS
    return (np.where(code & 0x80, -magnitude, magnitude) * 4).astype(np.int16)


def _alaw_decoding() -> NDArray[np.int16]:
    """Value of each A-law code (G.711 §3.1, table 1a): even bits inverted on the wire, sign bit set for positive."""
    code = np.arange(256) ^ 0x55
    segment = code >> 4 & 7
    step = 2 * (code & 15) + 1
    magnitude = np.where(segment == 0, step, (step + 32) << np.maximum(segment - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) * 8).astype(np.int16)


def _ulaw_encoding() -> NDArray[np.uint8]:
    """Code of each 16-bit sample, indexed by its bits as unsigned."""
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(sample) >> 2, _ULAW_CLIP) + _ULAW_BIAS
    segment = _log2(magnitude) - 5
    step = magnitude >> (segment + 1) & 15
    sign = np.where(sample < 0, 0x80, 0)
    code: NDArray[np.int32] = ~(sign | segment << 4 | step) & 0xFF
    return code.astype(np.uint8)


def _alaw_encoding() -> NDArray[np.uint8]:
    """Code of each 16-bit sample, indexed by its bits as unsigned."""
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(sample < 0, ~sample, sample) >> 3
    segment = np.maximum(_log2(np.maximum(magnitude, 16)) - 4, 0)
    step = magnitude >> np.maximum(segment, 1) & 15
    sign = np.where(sample < 0, 0, 0x80)
    code: NDArray[np.int32] = (sign | segment << 4 | step) ^ 0x55
    return code.astype(np.uint8)


def _log2(value: NDArray[np.int32]) -> NDArray[np.int32]:
    """Whole part of the binary logarithm of positive numbers."""
    return (np.frexp(value.astype(np.float64))[1] - 1).astype(np.int32)


_DECODING: Final = np.concatenate((_ulaw_decoding(), _alaw_decoding()))
_ENCODING: Final = np.concatenate((_ulaw_encoding(), _alaw_encoding()))


def decode(payload: NDArray[np.uint8], alaw: NDArray[np.bool_] | bool) -> NDArray[np.int16]:
    """Samples of coded bytes, one look-up for all rows.

    Args:
        payload: uint8 [calls, samples], or one call's [samples].
        alaw: bool [calls], True where the row is A-law; or one law for everything.

    Returns:
        int16 of the shape of ``payload``.
    """
    return _DECODING.take(payload + _offset(alaw, 256, payload.ndim), mode="clip")


def encode(samples: NDArray[np.int16], alaw: NDArray[np.bool_] | bool) -> NDArray[np.uint8]:
    """Coded bytes of samples, one look-up for all rows; arguments as in :func:`decode`, the other way round."""
    bits = np.ascontiguousarray(samples, np.int16).view(np.uint16)
    return _ENCODING.take(bits + _offset(alaw, 65536, samples.ndim), mode="clip")


def _offset(alaw: NDArray[np.bool_] | bool, size: int, dimensions: int) -> NDArray[np.int64]:
    """Start of each row's law in the stacked table."""
    start = np.asarray(alaw, np.int64) * size
    return start[:, None] if start.ndim and dimensions == 2 else start


_CODES: Final = np.arange(256, dtype=np.uint8)
OTHER_LAW: Final = tuple(encode(decode(_CODES, not alaw), alaw).tobytes() for alaw in (False, True))
"""For ``bytes.translate``: what is coded in the other law, as µ-law (0) and as A-law (1)."""
