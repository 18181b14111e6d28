"""A Whisper model in CTranslate2's format: from a folder to tokens, in batches.

Every method computes in the calling thread and lets go of the interpreter's lock while it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.engines.ctranslate import Device, StorageView, Whisper, contains_model, get_cuda_device_count
from appliance.engines.whisper_features import LogMel
from appliance.engines.whisper_tokens import Vocabulary
from appliance.errors import EngineError, ModelFileError

CONVERT: Final = (
    "make one with `ct2-transformers-converter --model openai/whisper-base --output_dir FOLDER --quantization int8` "
    "(pip install transformers torch), or fetch a converted one, and set engines.asr.model to its folder"
)
TOKENS_PER_S: Final = 10
"""Of speech, at most; a transcript that grows faster repeats itself."""

_FIRST_TOKENS: Final = 12
_MAX_LENGTH: Final = 448
_MAX_THREADS: Final = 4
_PARALLEL: Final = 2
_CACHED_FRAMES: Final = 600
"""What is encoded at a time on a CPU. The encoder has enough to do with one window, and its layers' results stay in the
cache; the decoder is what gains by a batch."""
_ENCODED_PER_FRAME: Final = 2
_ENCODED_S: Final = 0.02

Encoded: TypeAlias = Any
"""A batch of windows as the encoder left them, on the device."""


@dataclass(frozen=True)
class Asked:
    """One transcript to write.

    Attributes:
        prompt: tokens that went before: hints, and text of the same caller.
        beginning: the tokens every transcript in this language begins with.
        prefix: what this transcript is known to begin with.
        frames: of audio in the window (10 ms), without the silence after it.
    """

    prompt: tuple[int, ...]
    beginning: tuple[int, ...]
    prefix: tuple[int, ...]
    frames: int


@dataclass(frozen=True)
class Written:
    """A transcript.

    Attributes:
        tokens: of the text, the prefix included.
        log_probability: mean of the tokens that the model chose itself; 0.0 where it chose none.
        no_speech: the probability that there is no speech at all.
        cut: it had not ended after as many tokens as the audio can hold.
    """

    tokens: tuple[int, ...]
    log_probability: float
    no_speech: float
    cut: bool


class WhisperModel:
    """One loaded model.

    Args:
        folder: made by ``ct2-transformers-converter``.
        device: auto, cpu or cuda.
        compute_type: CTranslate2's; "auto" is int8 on a CPU and float16 on a GPU.
        threads: of a CPU; 0 for one per core of this process, four at most.

    Attributes:
        parallel: batches that can be computed at the same time, each with its share of the threads. A batch is spread
            over cores better in parts than by its operations.

    Raises:
        ModelFileError: there is no such model, or it is damaged; says how to get one.
        EngineError: the device or the type of computation is not to be had here.
    """

    def __init__(self, folder: Path, *, device: str = "auto", compute_type: str = "auto", threads: int = 0) -> None:
        if not folder.is_dir() or not contains_model(str(folder)):
            what = "holds no CTranslate2 model (model.bin)" if folder.is_dir() else "does not exist"
            raise ModelFileError(f"the Whisper model folder {folder} {what}; {CONVERT}")
        self.folder = folder
        self.vocabulary = Vocabulary(read_vocabulary(folder), str(folder))
        self.device = _device(device)
        if compute_type == "auto":
            compute_type = "float16" if self.device == "cuda" else "int8"
        self.threads = threads or min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self.parallel = _PARALLEL if self.device == "cpu" and self.threads >= _PARALLEL else 1
        try:
            self._model = Whisper(
                str(folder),
                device=self.device,
                compute_type=compute_type,
                inter_threads=self.parallel,
                intra_threads=max(self.threads // self.parallel, 1),
            )
        except ValueError as error:
            raise EngineError(f"engines.asr.compute_type: {error}", retryable=False) from error
        except RuntimeError as error:
            raise ModelFileError(f"the Whisper model in {folder} cannot be loaded ({error}); {CONVERT}") from error
        self._features = LogMel(self._model.n_mels)

    @property
    def description(self) -> str:
        """What was loaded, for a log line."""
        kind = "English only" if self.vocabulary.english_only else f"{len(self.vocabulary.languages)} languages"
        return (
            f"Whisper of {self.folder.name}: {kind}, {self._model.n_mels} mel bands, {self._model.compute_type} on "
            f"{self.device}, {self.threads} threads"
        )

    def encode(self, windows: Sequence[NDArray[np.float32]], frames: int) -> Encoded:
        """Features and encoder of 16 kHz audio, each window padded to ``frames`` (10 ms)."""
        features = np.stack([self._features(window, frames) for window in windows])
        together = len(windows) if self.device != "cpu" else max(_CACHED_FRAMES // frames, 1)
        encoded = [
            self._model.encode(StorageView.from_array(features[at : at + together]))
            for at in range(0, len(windows), together)
        ]
        if len(encoded) == 1:
            return encoded[0]
        return StorageView.from_array(np.concatenate([np.asarray(part) for part in encoded]))

    def write(self, encoded: Encoded, asked: Sequence[Asked]) -> list[Written]:
        """The transcripts of an encoded batch, in order."""
        written: list[Written | None] = [None] * len(asked)
        for rows in _of_equal_prompts(asked):
            part = encoded if len(rows) == len(asked) else _rows(encoded, rows)
            of_rows = [asked[row] for row in rows]
            for row, result in zip(rows, self._generate(part, of_rows), strict=True):
                written[row] = result
        return [one for one in written if one is not None]

    def align(
        self,
        encoded: Encoded,
        rows: Sequence[int],
        beginning: tuple[int, ...],
        texts: Sequence[Sequence[int]],
        frames: Sequence[int],
    ) -> list[list[tuple[float, float]]]:
        """When each token of each text is said, as (start, end) seconds into its window.

        Args:
            encoded: as :meth:`encode` gave it.
            rows: which windows of it.
            beginning: of all the texts.
            texts: one for each row, none of them empty.
            frames: of audio (10 ms) in each of the windows.
        """
        part = encoded if len(rows) == encoded.shape[0] else _rows(encoded, rows)
        start = [token for token in beginning if token != self.vocabulary.no_timestamps]
        found = self._model.align(part, start, [list(text) for text in texts], list(frames))
        return [
            _spans(one.alignments, len(text), frame_count)
            for one, text, frame_count in zip(found, texts, frames, strict=True)
        ]

    def detect_language(self, encoded: Encoded, row: int) -> str:
        """The language of one window; English where the model cannot tell."""
        if self.vocabulary.english_only or not self._model.is_multilingual:
            return "en"
        ((best, *_),) = self._model.detect_language(_rows(encoded, [row]))
        return str(best[0]).strip("<|>")

    def _generate(self, encoded: Encoded, asked: Sequence[Asked]) -> Iterator[Written]:
        prompts = []
        for one in asked:
            before = (self.vocabulary.previous, *one.prompt) if one.prompt else ()
            prompts.append([*before, *one.beginning, *one.prefix])
        most = max(_FIRST_TOKENS + one.frames * TOKENS_PER_S // 100 + len(one.prefix) for one in asked)
        # CTranslate2 gives the transcript half of max_length, or what the prompt leaves of it.
        longest = max(2 * most, most + max(map(len, prompts)))
        results = self._model.generate(
            encoded,
            prompts,
            beam_size=1,
            max_length=min(longest, _MAX_LENGTH),
            return_scores=True,
            return_no_speech_prob=True,
        )
        for one, result in zip(asked, results, strict=True):
            tokens = tuple(token for token in result.sequences_ids[0] if token < self.vocabulary.end)
            chosen = len(result.sequences_ids[0]) - len(one.prefix)
            score = result.scores[0] * len(result.sequences_ids[0]) / chosen if chosen > 0 else 0.0
            cut = chosen >= _FIRST_TOKENS + one.frames * TOKENS_PER_S // 100
            yield Written(tokens, score, result.no_speech_prob, cut)


def read_vocabulary(folder: Path) -> list[str]:
    """The tokens of the model in ``folder``, in order.

    Raises:
        ModelFileError: there is no vocabulary, or it cannot be read.
    """
    path = folder / "vocabulary.json"
    try:
        if path.exists():
            tokens = json.loads(path.read_text(encoding="utf-8"))
        else:
            path = folder / "vocabulary.txt"
            tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"the vocabulary {path} cannot be read ({error}); {CONVERT}") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelFileError(f"the vocabulary {path} is not a list of tokens; {CONVERT}")
    return tokens[:-1] if path.suffix == ".txt" and tokens[-1] == "" else tokens


def _device(wanted: str) -> str:
    found = get_cuda_device_count() if wanted != "cpu" else 0
    if wanted == "cuda" and not found:
        raise EngineError(
            "engines.asr.device: there is no CUDA device that CTranslate2 can use; set it to cpu, or install NVIDIA's "
            "driver, cuBLAS and cuDNN",
            retryable=False,
        )
    return "cuda" if found else "cpu"


def _of_equal_prompts(asked: Sequence[Asked]) -> list[list[int]]:
    """Rows that can be generated together: all their transcripts have to begin at one place."""
    groups: dict[int, list[int]] = {}
    for row, one in enumerate(asked):
        groups.setdefault(len(one.prompt), []).append(row)
    return list(groups.values())


def _rows(encoded: Encoded, rows: Sequence[int]) -> Encoded:
    return StorageView.from_array(np.ascontiguousarray(np.asarray(encoded.to_device(Device.cpu))[list(rows)]))


def _spans(alignments: Sequence[tuple[int, int]], tokens: int, frames: int) -> list[tuple[float, float]]:
    """(start, end) seconds of each token out of the path through (token, encoder frame)."""
    first: dict[int, int] = {}
    for token, at in alignments:
        first.setdefault(token, at)
    length = frames / _ENCODED_PER_FRAME
    starts = [first.get(token, length) for token in range(tokens)] + [first.get(tokens, length)]
    return [
        (min(starts[token], length) * _ENCODED_S, min(starts[token + 1], length) * _ENCODED_S)
        for token in range(tokens)
    ]
