"""What a caller on hold hears: the operator's WAV file, or a quiet melody made here."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.audio.tones import sine
from appliance.errors import MediaError
from appliance.ipc.rings import FRAME_SAMPLES, RATE_HZ

_MAX_S: Final = 600
_NOTES_HZ: Final = (392.0, 523.25, 659.25, 523.25)
_NOTE_SAMPLES: Final = 4800
_REST_SAMPLES: Final = 16000
_LEVEL_DBFS: Final = -32.0


def load(path: Path | None) -> NDArray[np.int16]:
    """The clip to loop, int16 at 8 kHz, whole frames.

    Raises:
        MediaError: the file is no WAV of 16-bit samples, or too long; says which.
    """
    samples = _melody() if path is None else _read(path)
    missing = -len(samples) % FRAME_SAMPLES
    return np.concatenate((samples, np.zeros(missing, np.int16)))


def _read(path: Path) -> NDArray[np.int16]:
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            data = file.readframes(min(count, _MAX_S * rate + 1))
    except (OSError, EOFError, wave.Error) as error:
        raise MediaError(f"media.hold_music: {path} cannot be read as WAV: {error}") from error
    if width != 2 or not count:
        raise MediaError(f"media.hold_music: {path} must hold 16-bit samples (`sox IN -b 16 OUT.wav`)")
    if count > _MAX_S * rate:
        raise MediaError(f"media.hold_music: {path} is longer than {_MAX_S // 60} minutes; cut it")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1).astype(np.int16)
    if rate != RATE_HZ:
        samples = soxr.resample(samples, rate, RATE_HZ)
    return np.ascontiguousarray(samples, np.int16)


def _melody() -> NDArray[np.int16]:
    """Four soft notes and a rest of two seconds."""
    fade = np.minimum(1.0, np.minimum(np.arange(_NOTE_SAMPLES), np.arange(_NOTE_SAMPLES)[::-1]) / 400.0)
    notes = [(sine(hz, _NOTE_SAMPLES, _LEVEL_DBFS) * fade).astype(np.int16) for hz in _NOTES_HZ]
    return np.concatenate((*notes, np.zeros(_REST_SAMPLES, np.int16)))
