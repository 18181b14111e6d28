"""A voice in Piper's format: ``NAME.onnx`` and ``NAME.onnx.json`` beside it.

The model turns numbers of phonemes into samples. Which number a phoneme has, which language its phonemes are of, the
sample rate and the names of the speakers stand in the JSON file.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray

from appliance.errors import EngineError

logger = logging.getLogger(__name__)

RATE_HZ: Final = 8000

_BEGIN: Final = "^"
_END: Final = "$"
_PAD: Final = "_"
_SWITCH: Final = re.compile(r"\([^)]*\)")
_FULL_WIDTH: Final = {"。": ".", "！": "!", "？": "?", "、": ",", "，": ",", "；": ";", "：": ":", "…": "."}
_MAX_IDS: Final = 4000


class _Audio(msgspec.Struct):
    sample_rate: int


class _Espeak(msgspec.Struct):
    voice: str = "en-us"


class _Inference(msgspec.Struct):
    noise_scale: float = 0.667
    length_scale: float = 1.0
    noise_w: float = 0.8


class _Language(msgspec.Struct):
    code: str = ""


class VoiceFile(msgspec.Struct):
    """``NAME.onnx.json``, as far as it is used."""

    audio: _Audio
    phoneme_id_map: dict[str, list[int]]
    espeak: _Espeak = msgspec.field(default_factory=_Espeak)
    inference: _Inference = msgspec.field(default_factory=_Inference)
    language: _Language = msgspec.field(default_factory=_Language)
    phoneme_type: str = "espeak"
    num_speakers: int = 1
    speaker_id_map: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def tag(self) -> str:
        """Its language, such as ``en-us``."""
        return (self.language.code or self.espeak.voice).replace("_", "-").lower()


def read_voice_file(path: Path) -> VoiceFile:
    """``path`` is that of the model.

    Raises:
        EngineError: there is no such voice, or its file is not one of Piper's; says what would be right.
    """
    beside = path.with_name(f"{path.name}.json")
    try:
        made = msgspec.json.decode(beside.read_bytes(), type=VoiceFile)
    except OSError as error:
        reason = f"{beside} cannot be read ({error.strerror}); a voice is NAME.onnx and NAME.onnx.json"
        raise EngineError(reason, retryable=False) from None
    except msgspec.MsgspecError as error:
        reason = f"{beside} is not the description of a Piper voice ({error}); download it again"
        raise EngineError(reason, retryable=False) from None
    missing = [mark for mark in (_BEGIN, _END, _PAD) if mark not in made.phoneme_id_map]
    if missing or not 8000 <= made.audio.sample_rate <= 48_000:
        what = f"has no phoneme {missing[0]!r}" if missing else f"has a sample rate of {made.audio.sample_rate} Hz"
        raise EngineError(f"{beside} is not the description of a Piper voice: it {what}", retryable=False)
    if made.phoneme_type not in ("espeak", "text"):
        reason = f"{beside}: phoneme_type {made.phoneme_type!r} is not supported; take a voice with espeak or text"
        raise EngineError(reason, retryable=False)
    return made


class PiperVoice:
    """A loaded voice. :meth:`speech` computes in the calling thread, without Python's lock for most of the time.

    Args:
        path: of the model.
        threads: that a computation may use.

    Raises:
        EngineError: a file is missing or is no voice.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self.name = path.name.removesuffix(".onnx")
        self.file = read_voice_file(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own have no common base
            reason = f"{path} cannot be loaded ({str(error).splitlines()[0]}); download it again"
            raise EngineError(reason, retryable=False) from None
        self._inputs = {one.name for one in self._session.get_inputs()}
        if not {"input", "input_lengths", "scales"} <= self._inputs:
            raise EngineError(f"{path} has not the inputs of a Piper voice", retryable=False)
        self._unknown: set[str] = set()

    def speaker(self, name: str) -> int:
        """The number of a speaker by name or number; of none, the first.

        Raises:
            EngineError: there is no such speaker.
        """
        if not name:
            return 0
        if name in self.file.speaker_id_map:
            return self.file.speaker_id_map[name]
        if name.isdecimal() and int(name) < self.file.num_speakers:
            return int(name)
        known = ", ".join(list(self.file.speaker_id_map)[:8]) or f"0 to {self.file.num_speakers - 1}"
        raise EngineError(f"voice {self.name!r} has no speaker {name!r}; it has {known}", retryable=False)

    def phoneme_ids(self, phonemes: str) -> list[int]:
        """The model's numbers: begin, each phoneme with a pad after it, end. Unknown ones are left out."""
        known = self.file.phoneme_id_map
        pad = known[_PAD]
        ids = [*known[_BEGIN], *pad]
        for phoneme in unicodedata.normalize("NFD", _SWITCH.sub("", phonemes)):
            found = known.get(_FULL_WIDTH.get(phoneme, phoneme))
            if found is not None:
                ids += [*found, *pad]
            elif phoneme not in self._unknown:
                self._unknown.add(phoneme)
                logger.info("voice %s does not know the phoneme %r", self.name, phoneme)
        return [*ids[:_MAX_IDS], *known[_END]]

    def speech(self, phonemes: str, rate: float, speaker: int, run_options: Any) -> NDArray[np.float32]:
        """Samples at 8 kHz, about -1 to 1.

        Args:
            phonemes: IPA with punctuation, or text for voices that are trained on text.
            rate: 1.0 is the voice's own speed.
            run_options: onnxruntime's; setting its ``terminate`` ends the computation with an exception.
        """
        ids = np.array([self.phoneme_ids(phonemes)], np.int64)
        inference = self.file.inference
        scales = (inference.noise_scale, inference.length_scale / rate, inference.noise_w)
        inputs: dict[str, NDArray[Any]] = {
            "input": ids,
            "input_lengths": np.array([ids.shape[1]], np.int64),
            "scales": np.array(scales, np.float32),
        }
        if "sid" in self._inputs:
            inputs["sid"] = np.array([speaker], np.int64)
        (samples,) = self._session.run(None, inputs, run_options)[:1]
        flat = np.ascontiguousarray(np.asarray(samples, np.float32).reshape(-1))
        out: NDArray[np.float32] = soxr.resample(flat, self.file.audio.sample_rate, RATE_HZ, quality="HQ")
        return out
