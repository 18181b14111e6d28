"""Opus for one leg (RFC 6716, RFC 7587), mono, taken and given at 8 kHz; libopus does the change of rate.

Whatever a peer sends (any bandwidth, mono or stereo, 2.5 to 120 ms a packet) is decoded to 8 kHz mono.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from opuslib_next import api

from appliance.errors import RtpError

BIT_RATE: Final = 24_000
"""What we send, bit/s: enough for telephone speech and a coarse copy of the packet before (in-band FEC)."""
COMPLEXITY: Final = 1
"""Of 0 to 10. On telephone speech more gives no better PESQ, and costs up to four times the time."""
EXPECTED_LOSS_PERCENT: Final = 10
"""What the encoder is told; at less, and at this bit rate and complexity, it makes no copies at all."""

MAX_SAMPLES: Final = 960
"""In one packet at 8 kHz: 120 ms (RFC 6716 §3.2.5)."""
MAX_PACKET_BYTES: Final = 1275

_RATE_HZ: Final = 8000
_APPLICATION_VOIP: Final = 2048
_SIGNAL_VOICE: Final = 3001
_SET_BITRATE: Final = 4002
_SET_COMPLEXITY: Final = 4010
_SET_INBAND_FEC: Final = 4012
_SET_PACKET_LOSS: Final = 4014
_SET_SIGNAL: Final = 4024
_SETTINGS: Final = (
    (_SET_BITRATE, BIT_RATE),
    (_SET_COMPLEXITY, COMPLEXITY),
    (_SET_INBAND_FEC, 1),
    (_SET_PACKET_LOSS, EXPECTED_LOSS_PERCENT),
    (_SET_SIGNAL, _SIGNAL_VOICE),
)


def _function(name: str, *arguments: Any) -> Any:
    function = api.libopus[name]
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function


_P, _INT = ctypes.c_void_p, ctypes.c_int
_encoder_size: Final = _function("opus_encoder_get_size", _INT)
_encoder_init: Final = _function("opus_encoder_init", _P, ctypes.c_int32, _INT, _INT)
_encoder_ctl: Final = _function("opus_encoder_ctl", _P, _INT)
_encode: Final = _function("opus_encode", _P, _P, _INT, _P, ctypes.c_int32)
_decoder_size: Final = _function("opus_decoder_get_size", _INT)
_decoder_init: Final = _function("opus_decoder_init", _P, ctypes.c_int32, _INT)
_decode: Final = _function("opus_decode", _P, _P, ctypes.c_int32, _P, _INT, _INT)

_packet: Final = ctypes.create_string_buffer(MAX_PACKET_BYTES)
_samples: Final = np.zeros(MAX_SAMPLES, np.int16)
_samples_at: Final = _samples.ctypes.data


class OpusCodec:
    """The ``Codec`` protocol of ``audio/codec.py``. Encoder and decoder state live in buffers of this object."""

    name: Final = "opus"
    rtp_clock_hz: Final = 48_000

    def __init__(self) -> None:
        self._encoder = ctypes.create_string_buffer(_encoder_size(1))
        self._decoder = ctypes.create_string_buffer(_decoder_size(1))
        _check(_encoder_init(self._encoder, _RATE_HZ, 1, _APPLICATION_VOIP))
        _check(_decoder_init(self._decoder, _RATE_HZ, 1))
        for request, value in _SETTINGS:
            _check(_encoder_ctl(self._encoder, request, ctypes.c_int32(value)))

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        """As the protocol says.

        Raises:
            ValueError: if libopus has no frame of this length.
        """
        frame = np.ascontiguousarray(samples, np.int16)
        length = _encode(self._encoder, frame.ctypes.data, len(frame), _packet, MAX_PACKET_BYTES)
        if length < 0:
            raise ValueError(f"Opus has no packet of {len(frame)} samples at 8 kHz; give it 80, 160, 320 or 480")
        return _packet.raw[:length]

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        # libopus takes an empty payload for a lost packet.
        count = _decode(self._decoder, payload, len(payload), _samples_at, MAX_SAMPLES, 0) if payload else -1
        if count < 0:
            raise RtpError("a payload that is no Opus packet")
        return _samples[:count].copy()

    def plc(self, samples: int, following: bytes = b"") -> NDArray[np.int16]:
        spare = _decode(self._decoder, following, len(following), _samples_at, samples, 1) if following else -1
        if spare != samples and _decode(self._decoder, None, 0, _samples_at, samples, 0) != samples:
            raise ValueError(f"Opus conceals 80 to {MAX_SAMPLES} samples at 8 kHz, in steps of 80, not {samples}")
        return _samples[:samples].copy()

    def samples_in(self, payload: bytes) -> int:
        return packet_samples(payload)


def packet_samples(payload: bytes) -> int:
    """Samples at 8 kHz in an Opus packet by its first two octets (RFC 6716 §3.1, §3.2); 0 where it cannot be one."""
    if not payload:
        return 0
    configuration, code = payload[0] >> 3, payload[0] & 3
    if configuration < 12:
        frame = (80, 160, 320, 480)[configuration & 3]
    elif configuration < 16:
        frame = (80, 160)[configuration & 1]
    else:
        frame = (20, 40, 80, 160)[configuration & 3]
    if code < 3:
        return frame * (1, 2, 2)[code]
    frames = payload[1] & 0x3F if len(payload) > 1 else 0
    return frame * frames if frame * frames <= MAX_SAMPLES else 0


def _check(status: int) -> None:
    if status < 0:
        raise ValueError(f"libopus refused a setting with {status}; install opuslib-next-bundled again")
