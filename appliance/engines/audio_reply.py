"""Speech out of an HTTP answer as it comes: bare samples or a WAV file, any rate, to 16-bit mono at 8 kHz. PURE."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio.live_resample import LiveResampler
from appliance.errors import EngineError

RATE_HZ: Final = 8000

_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE
_MAX_HEADER: Final = 65_536
_RATES_HZ: Final = (4000, 192_000)
"""Others cost more to bring to 8 kHz than speech is worth."""
_FILTER_S: Final = 0.006
_RATE_OF_TYPE: Final = re.compile(r"(?:^|;)\s*rate=(\d{4,6})")

Pcm = NDArray[np.int16]


class AudioReply:
    """One answer: feed it bytes, then finish.

    Args:
        content_type: of the answer. WAV is recognised by its first bytes, too.
        rate_hz: of bare samples, unless the content type says otherwise (``audio/L16;rate=16000``).

    Raises:
        EngineError: an answer of this type is no audio that could be played (not retryable).
    """

    def __init__(self, content_type: str, rate_hz: int) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        if kind.startswith("text/") or kind in ("application/json", "application/problem+json"):
            raise EngineError(f"answered with {kind} in place of audio", retryable=False)
        if kind in ("audio/mpeg", "audio/mp3", "audio/ogg", "audio/opus", "audio/aac", "audio/flac", "audio/webm"):
            raise EngineError(f"answered with {kind}; it must be able to send pcm or wav", retryable=False)
        named = _RATE_OF_TYPE.search(content_type)
        self._resampler: LiveResampler | None = None
        self._rate_hz = int(named[1]) if named else rate_hz
        self._format = (_PCM, 16, 1)
        self._header: bytearray | None = bytearray()
        self._rest = b""
        self._left: int | None = None

    def feed(self, data: bytes) -> Pcm:
        """The next bytes; the samples at 8 kHz that they make complete.

        Raises:
            EngineError: what stands in the WAV header cannot be played (not retryable).
        """
        if self._header is not None:
            self._header += data
            begun = self._after_header(bytes(self._header))
            if begun is None:
                return np.zeros(0, np.int16)
            self._header, data = None, begun
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        code, bits, channels = self._format
        size = bits // 8 * channels
        data = self._rest + data
        whole = len(data) // size * size
        self._rest = data[whole:]
        return self._resampled(_mono(data[:whole], code, bits, channels))

    def finish(self) -> Pcm:
        """Nothing follows: what the filter still holds."""
        if self._header:  # shorter than a WAV header: bare samples after all
            data, self._header = bytes(self._header), None
            first = self._resampled(_mono(data[: len(data) // 2 * 2], _PCM, 16, 1))
        else:
            first = np.zeros(0, np.int16)
        return np.concatenate([first, self._resampled(np.zeros(round(_FILTER_S * self._rate_hz), np.int16))])

    def _resampled(self, samples: Pcm) -> Pcm:
        if self._resampler is None:
            if not _RATES_HZ[0] <= self._rate_hz <= _RATES_HZ[1]:
                reason = f"answered with {self._rate_hz} Hz; it must send {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz"
                raise EngineError(reason, retryable=False)
            try:
                self._resampler = LiveResampler(self._rate_hz, RATE_HZ)
            except ValueError as error:
                raise EngineError(f"answered with {self._rate_hz} Hz: {error}", retryable=False) from None
        return self._resampler.push(samples)

    def _after_header(self, data: bytes) -> bytes | None:
        """What follows the header, once that is complete; all of it where there is none."""
        if data[:4] != b"RIFF"[: len(data)]:
            return data
        if len(data) < 12:
            return None
        if data[8:12] != b"WAVE":
            return data
        at = 12
        while at + 8 <= len(data):
            name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            body = data[at + 8 : at + 8 + size]
            if name == b"data":
                self._left = size if 0 < size < 0x7FFF0000 else None  # written before its length was known
                return data[at + 8 :]
            if len(body) < size:
                break
            if name == b"fmt ":
                self._take_format(body)
            at += 8 + size + size % 2
        if len(data) > _MAX_HEADER:
            raise EngineError("answered with a WAV file without data", retryable=False)
        return None

    def _take_format(self, body: bytes) -> None:
        code, channels = int.from_bytes(body[:2], "little"), int.from_bytes(body[2:4], "little")
        rate_hz, bits = int.from_bytes(body[4:8], "little"), int.from_bytes(body[14:16], "little")
        if code == _EXTENSIBLE:
            code = int.from_bytes(body[24:26], "little")
        if (code, bits) not in ((_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)) or not 1 <= channels <= 8:
            what = f"answered with a WAV file of format {code}, {bits} bits, {channels} channels"
            raise EngineError(f"{what}; it must be able to send 16-bit PCM", retryable=False)
        self._format = (code, bits, channels)
        self._rate_hz = rate_hz


def _mono(data: bytes, code: int, bits: int, channels: int) -> Pcm:
    if code == _FLOAT:
        wide = np.frombuffer(data, "<f4").astype(np.float64) * 32767
    elif bits == 8:
        wide = (np.frombuffer(data, np.uint8).astype(np.float64) - 128) * 256
    elif bits == 24:
        octets = np.frombuffer(data, np.uint8).reshape(-1, 3)
        words = octets[:, 1].astype(np.uint16) | octets[:, 2].astype(np.uint16) << 8
        wide = words.astype(np.int16).astype(np.float64)
    elif bits == 32:
        wide = np.frombuffer(data, "<i4").astype(np.float64) / 65536
    elif channels == 1:
        return np.frombuffer(data, "<i2").astype(np.int16)
    else:
        wide = np.frombuffer(data, "<i2").astype(np.float64)
    mean = np.nan_to_num(wide.reshape(-1, channels).mean(axis=1))
    mixed: Pcm = np.clip(np.rint(mean), -32768, 32767).astype(np.int16)
    return mixed
