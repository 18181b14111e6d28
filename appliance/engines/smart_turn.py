"""Smart Turn: from the sound of it, has the caller finished?

The model hears up to eight seconds ending at the pause, as the log-mel spectrogram of the Whisper family: 16 kHz,
400-point transforms every 160 samples, 80 bands on Slaney's scale. Shorter audio is preceded by silence, and the
waveform is brought to zero mean and unit variance, silence included, before the transform. All of this is fixed by
how the model was trained; a wrong rate or silence on the wrong side raises no error, it only makes verdicts worse.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnxruntime
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from appliance.engines.mel import FFT_SAMPLES, HOP_SAMPLES, RATE_HZ, mel_filters, taper

MODEL_RATE_HZ: Final = RATE_HZ
WINDOW_S: Final = 8
MEL_BANDS: Final = 80

_WINDOW_SAMPLES: Final = WINDOW_S * MODEL_RATE_HZ
_FRAMES: Final = _WINDOW_SAMPLES // HOP_SAMPLES
_EDGE: Final = FFT_SAMPLES // 2
_POWER_FLOOR: Final = 1e-10
_VARIANCE_FLOOR: Final = 1e-7
_DYNAMIC_RANGE_DECADES: Final = 8.0


class SmartTurn:
    """The end-of-turn model, in the calling thread only. One instance serves all calls, one verdict at a time.

    Args:
        model: content of ``smart-turn-v3.2-cpu.onnx``.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._features = LogMel()

    def probability(self, pcm: NDArray[np.int16], *, rate_hz: int) -> float:
        """How likely it is that the turn is over, 0..1.

        Args:
            pcm: the caller's samples up to the pause; what is older than eight seconds is not heard.
            rate_hz: the rate of ``pcm``, 8000 for telephone audio. It is resampled here; there is no default, because
                the model accepts audio at the wrong rate without complaint.
        """
        samples = pcm[-WINDOW_S * rate_hz :] * np.float32(1 / 32768)
        if rate_hz != MODEL_RATE_HZ and len(samples):
            samples = soxr.resample(samples, rate_hz, MODEL_RATE_HZ, quality="HQ")
        features = self._features(samples)
        (probabilities,) = self._session.run(None, {"input_features": features[np.newaxis]})
        return float(probabilities[0, 0])

    def warm_up(self) -> None:
        """Judge silence once, so that the first caller does not pay for allocation."""
        self.probability(np.zeros(8000, np.int16), rate_hz=8000)


class LogMel:
    """Log-mel features of the last eight seconds, with buffers that are kept from call to call.

    Frames that lie wholly in the leading silence are all alike: one is transformed and the rest are copies, so that
    the cost follows the length of the speech.
    """

    def __init__(self) -> None:
        self._filters = mel_filters(MEL_BANDS)
        self._taper = taper()
        self._padded = np.zeros(_WINDOW_SAMPLES + 2 * _EDGE, np.float32)
        self._frames = sliding_window_view(self._padded, FFT_SAMPLES)[::HOP_SAMPLES][:_FRAMES]
        self._tapered = np.zeros((_FRAMES, FFT_SAMPLES), np.float32)
        self._result = np.zeros((MEL_BANDS, _FRAMES), np.float32)

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """[80, 800] features of ``samples`` (16 kHz, -1..1; the last eight seconds count).

        The array is overwritten by the next call.
        """
        heard = samples[-_WINDOW_SAMPLES:]
        silence = _WINDOW_SAMPLES - len(heard)
        mean = float(heard.sum(dtype=np.float64)) / _WINDOW_SAMPLES
        power = float(np.square(heard, dtype=np.float64).sum()) / _WINDOW_SAMPLES
        scale = 1.0 / np.sqrt(max(power - mean * mean, 0.0) + _VARIANCE_FLOOR)
        window = self._padded[_EDGE:-_EDGE]
        window[:silence] = -mean * scale
        np.subtract(heard, np.float32(mean), out=window[silence:])
        window[silence:] *= np.float32(scale)
        self._padded[:_EDGE] = window[_EDGE:0:-1]
        self._padded[-_EDGE:] = window[-2 : -_EDGE - 2 : -1]

        # Frame i covers padded samples 160 i .. 160 i + 399, which are silence while they end before the speech.
        alike = max((silence + _EDGE - FFT_SAMPLES) // HOP_SAMPLES + 1, 0) if silence > FFT_SAMPLES else 0
        first = max(min(alike, _FRAMES) - 1, 0)
        tapered = np.multiply(self._frames[first:], self._taper, out=self._tapered[first:])
        spectrum = np.fft.rfft(tapered, axis=-1)
        bands = (spectrum.real**2 + spectrum.imag**2) @ self._filters
        np.maximum(bands, np.float32(_POWER_FLOOR), out=bands)
        np.log10(bands, out=bands)
        np.maximum(bands, bands.max() - np.float32(_DYNAMIC_RANGE_DECADES), out=bands)
        bands += 4.0
        bands *= 0.25
        self._result[:, first:] = bands.T
        self._result[:, :first] = bands[:1].T
        return self._result
