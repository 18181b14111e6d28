"""Noise suppression of one caller's audio at 8 kHz: WebRTC's suppressor, and RNNoise.

Both are C libraries with a state for each caller, called once a frame. What they cost decides where they can run: see
``docs/noise.md``.
"""

from __future__ import annotations

import ctypes
import importlib.util
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from webrtc_noise_gain import AudioProcessor

from appliance.audio.live_resample import LiveResampler
from appliance.errors import EngineError

FRAME_SAMPLES: Final = 160
"""20 ms at 8 kHz: what is taken and given at a time."""

_RNNOISE_FRAME: Final = 480
_RATE_HZ: Final = 8000
_RNNOISE_RATE_HZ: Final = 48_000


class WebRtcSuppressor:
    """WebRTC's noise suppression.

    The library takes 160 samples as 10 ms at 16 kHz. It is given 160 samples that are 20 ms at 8 kHz: its bands are
    then half as wide and its time constants twice as long, which serves telephone speech as well as resampled audio
    would (``docs/decisions/0018-noise-suppression.md``), at half the cost.

    Args:
        strength: 1 (mild) to 4; each step takes about 6 dB more off the noise.
    """

    delay_samples = 96

    def __init__(self, strength: int) -> None:
        self._processor = AudioProcessor(0, strength)

    def process(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        """The next frame [160] with less noise; ``delay_samples`` later than what came in."""
        return np.frombuffer(self._processor.Process10ms(frame.tobytes()).audio, np.int16)


class RnnoiseLibrary:
    """librnnoise, as the package pyrnnoise carries it. The package itself is not imported: it wants much that is not
    needed here.

    Raises:
        EngineError: it is not installed; says how to.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec("pyrnnoise")
        places = list(found.submodule_search_locations or ()) if found is not None else []
        if not places:
            raise EngineError("RNNoise is not installed; pip install 'appliance[rnnoise]'", retryable=False)
        try:
            library = ctypes.CDLL(f"{places[0]}/librnnoise.so")
        except OSError as error:
            raise EngineError(f"RNNoise cannot be loaded ({error}); reinstall pyrnnoise", retryable=False) from error
        library.rnnoise_create.argtypes = [ctypes.c_void_p]
        library.rnnoise_create.restype = ctypes.c_void_p
        library.rnnoise_destroy.argtypes = [ctypes.c_void_p]
        library.rnnoise_destroy.restype = None
        library.rnnoise_process_frame.argtypes = [ctypes.c_void_p] * 3
        library.rnnoise_process_frame.restype = ctypes.c_float
        self.create: Any = library.rnnoise_create
        self.destroy: Any = library.rnnoise_destroy
        self.process_frame: Any = library.rnnoise_process_frame


class RnnoiseSuppressor:
    """RNNoise, which is trained at 48 kHz: each frame is brought there and back."""

    delay_samples = 208

    def __init__(self, library: RnnoiseLibrary) -> None:
        self._library = library
        self._state = library.create(None)
        self._up = LiveResampler(_RATE_HZ, _RNNOISE_RATE_HZ)
        self._down = LiveResampler(_RNNOISE_RATE_HZ, _RATE_HZ)

    def process(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        """The next frame [160] with less noise; ``delay_samples`` later than what came in."""
        wide = self._up.push(frame).astype(np.float32)
        for start in range(0, len(wide), _RNNOISE_FRAME):
            at = wide[start:].ctypes.data
            self._library.process_frame(self._state, at, at)
        return self._down.push(np.clip(np.rint(wide), -32768, 32767).astype(np.int16))

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.destroy(self._state)
