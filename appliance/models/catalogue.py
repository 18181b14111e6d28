"""Every model file the box can use: what it is for, where it comes from, under which licence.

Model files are never part of the source tree. A model is a *file*, one member out of a published Python wheel and
pinned by its SHA-256; a *folder* of several files, from a hub, by URLs, out of wheels or from this machine's disk; or
*packaged*, which means that it arrives with a dependency and needs no pulling. Folders that an operator has added are
in ``appliance.models.local_catalogue``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from appliance.errors import ModelFileError


@dataclass(frozen=True)
class WheelSource:
    """``member`` inside the wheel of ``project`` at ``version``, from whatever package index pip is set to."""

    project: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"

    def __str__(self) -> str:
        return f"{self.requirement}:{self.member}"


@dataclass(frozen=True)
class ModelFile:
    """A file that is pulled into the model directory.

    ``sources`` are tried in order until one of them yields the file whose SHA-256 is ``sha256`` (lower-case hex) and
    whose length is ``size_bytes``. Any source will do, because the content is pinned and not the place.
    """

    name: str
    purpose: str
    file_name: str
    size_bytes: int
    sha256: str
    licence: str
    sources: tuple[WheelSource, ...]


@dataclass(frozen=True)
class PackagedModel:
    """A model that comes inside the Python package ``distribution``, imported as ``module``.

    ``files`` are paths below the module's folder that have to be there.
    """

    name: str
    purpose: str
    distribution: str
    module: str
    files: tuple[str, ...]
    licence: str


@dataclass(frozen=True)
class HubSource:
    """Files of a repository on a hub that speaks Hugging Face's protocol (``$HF_ENDPOINT``).

    Attributes:
        repository: ``owner/name``.
        revision: branch, tag or commit; a branch is resolved to its commit at the first pull.
        folder: take what is below this folder of the repository, without its name.
        include: patterns of the files to take (``fnmatch``), relative to ``folder``; () for all.
    """

    repository: str
    revision: str = "main"
    folder: str = ""
    include: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"hub {self.repository}" + (f"/{self.folder}" if self.folder else "")


@dataclass(frozen=True)
class UrlSource:
    """Files by their addresses, each as (path in the model's folder, URL)."""

    files: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ", ".join(url for _, url in self.files)


@dataclass(frozen=True)
class FolderSource:
    """A folder or an archive on this machine's disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source: TypeAlias = HubSource | UrlSource | WheelSource | FolderSource


@dataclass(frozen=True)
class Pin:
    """What a file of a folder has to be: ``size_bytes`` None and ``sha256`` "" where nobody has said."""

    path: str
    size_bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class ModelFolder:
    """A model of several files, in a folder named as the model is.

    Attributes:
        name: of the model and its folder.
        purpose: one line.
        licence: an SPDX name where there is one.
        sources: tried in order.
        size_bytes: of all files, roughly; None where that is not known before the hub is asked.
        required: patterns that each want a file, or it is no such model.
        pins: of files whose content is known beforehand. What is not pinned here is pinned at the first pull.
        convert: CTranslate2's ``quantization`` for a model that comes in the format of ``transformers``; "" for one
            that is taken as it is.
        terms: what to know of the licence beside its name.
        added: by the operator.
    """

    name: str
    purpose: str
    licence: str
    sources: tuple[Source, ...]
    size_bytes: int | None = None
    required: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    convert: str = ""
    terms: str = ""
    added: bool = False

    @property
    def pinned(self) -> bool:
        """Whether the content is known before the first pull."""
        return any(pin.sha256 for pin in self.pins)


Entry: TypeAlias = ModelFile | ModelFolder | PackagedModel

SILERO_VAD: Final = ModelFile(
    name="silero_vad",
    purpose="finds speech in the caller's audio, 8 kHz, all calls in one batch",
    file_name="silero_vad.onnx",
    size_bytes=2327524,
    sha256="1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    licence="MIT",
    sources=(
        WheelSource("silero-vad", "6.2.3", "silero_vad/data/silero_vad.onnx"),
        WheelSource("pipecat-ai", "1.14.0", "pipecat/audio/vad/data/silero_vad.onnx"),
    ),
)

SMART_TURN: Final = ModelFile(
    name="smart_turn",
    purpose="judges from the sound whether the caller has finished the sentence, 16 kHz",
    file_name="smart-turn-v3.2-cpu.onnx",
    size_bytes=8679182,
    sha256="2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
    licence="BSD-2-Clause",
    sources=(WheelSource("pipecat-ai", "1.14.0", "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"),),
)

MODEL_FILES: Final[tuple[ModelFile, ...]] = (SILERO_VAD, SMART_TURN)

_WHISPER_FILES: Final = ("model.bin", "config.json", "tokenizer.json", "vocabulary.*", "preprocessor_config.json")
WHISPER_REQUIRED: Final = ("model.bin", "config.json", "vocabulary.*")
"""What CTranslate2 needs of a Whisper model."""
_PIPER_TERMS: Final = "the recordings it was trained on have terms of their own: see its MODEL_CARD"


def _whisper(size: str, repository: str, size_mb: int, note: str) -> ModelFolder:
    return ModelFolder(
        name=f"whisper-{size}",
        purpose=f"recognises free speech, {note}; CTranslate2 float16",
        licence="MIT",
        sources=(HubSource(repository, include=_WHISPER_FILES),),
        size_bytes=size_mb * 1_000_000,
        required=WHISPER_REQUIRED,
    )


def _piper(language: str, voice: str, quality: str, size_mb: int, licence: str) -> ModelFolder:
    name = f"{language}-{voice}-{quality}"
    return ModelFolder(
        name=f"piper-{name}",
        purpose=f"speaks {language.replace('_', '-').lower()}; the voice {name} for Piper",
        licence=licence,
        sources=(
            HubSource(
                "rhasspy/piper-voices",
                folder=f"{language.partition('_')[0]}/{language}/{voice}/{quality}",
                include=("*.onnx", "*.onnx.json", "MODEL_CARD"),
            ),
        ),
        size_bytes=size_mb * 1_000_000,
        required=("*.onnx", "*.onnx.json"),
        terms=_PIPER_TERMS,
    )


MODEL_FOLDERS: Final[tuple[ModelFolder, ...]] = (
    _whisper("tiny", "Systran/faster-whisper-tiny", 78, "99 languages, 39 M parameters"),
    _whisper("base", "Systran/faster-whisper-base", 148, "99 languages, 74 M parameters"),
    _whisper("small", "Systran/faster-whisper-small", 486, "99 languages, 244 M parameters"),
    _whisper("medium", "Systran/faster-whisper-medium", 1530, "99 languages, 769 M parameters"),
    _whisper("large-v3", "Systran/faster-whisper-large-v3", 3090, "99 languages, 1550 M parameters"),
    _whisper("distil-large-v3", "Systran/faster-distil-whisper-large-v3", 1520, "English, 756 M parameters"),
    _whisper("large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1620, "99 languages, 809 M parameters"),
    _piper("en_US", "ljspeech", "high", 114, "MIT"),
    _piper("en_US", "libritts_r", "medium", 79, "MIT"),
    _piper("en_GB", "alba", "medium", 63, "MIT"),
    _piper("de_DE", "thorsten", "medium", 63, "MIT"),
    ModelFolder(
        name="kokoro-82m",
        purpose="speaks nine languages in 54 voices, 82 M parameters; PyTorch",
        licence="Apache-2.0",
        sources=(HubSource("hexgrad/Kokoro-82M", include=("config.json", "kokoro-v1_0.pth", "voices/*.pt")),),
        size_bytes=356_000_000,
        required=("config.json", "kokoro-v1_0.pth", "voices/*.pt"),
    ),
    ModelFolder(
        name="csm-1b",
        purpose="speaks English as the conversation so far suggests, 1 B parameters; transformers",
        licence="Apache-2.0",
        sources=(HubSource("sesame/csm-1b", include=("*.json", "*.jinja", "*.safetensors")),),
        required=("config.json", "*.safetensors"),
        terms="not to be used to imitate a person without their consent, nor to deceive; the hub may ask to accept it",
    ),
)

PACKAGED_MODELS: Final[tuple[PackagedModel, ...]] = (
    PackagedModel(
        name="pocketsphinx_en_us",
        purpose="recognises English phrases that the dialplan expects",
        distribution="pocketsphinx",
        module="pocketsphinx",
        files=("model/en-us/en-us/mdef", "model/en-us/cmudict-en-us.dict"),
        licence="BSD-2-Clause",
    ),
    PackagedModel(
        name="espeak_ng",
        purpose="speaks, in over a hundred languages; its library runs in the synthesis process only",
        distribution="espeakng-loader",
        module="espeakng_loader",
        files=("espeak-ng-data/phontab", "espeak-ng-data/en_dict"),
        licence="GPL-3.0-or-later",
    ),
)


def model_file(name: str) -> ModelFile:
    """The file called ``name``.

    Raises:
        ModelFileError: no pulled file has that name; the message lists those that do.
    """
    found = find(name)
    if isinstance(found, ModelFile):
        return found
    if isinstance(found, ModelFolder):
        raise ModelFileError(f"model {name!r} is a folder of several files, and a single file is wanted here")
    known = ", ".join(entry.name for entry in MODEL_FILES)
    raise ModelFileError(f"there is no model called {name!r}; the files that can be pulled are: {known}")


def find(name: str, added: Sequence[ModelFolder] = ()) -> ModelFile | ModelFolder | None:
    """What can be pulled as ``name``, here or among those that the operator has ``added``; None if nothing can.

    Raises:
        ModelFileError: it comes with a Python package; says which.
    """
    for packaged in PACKAGED_MODELS:
        if packaged.name == name:
            raise ModelFileError(
                f"model {name!r} is not pulled: it comes with the Python package {packaged.distribution!r}; "
                f"run 'pip install {packaged.distribution}' if it is missing"
            )
    everything: tuple[ModelFile | ModelFolder, ...] = (*MODEL_FILES, *MODEL_FOLDERS, *added)
    return next((entry for entry in everything if entry.name == name), None)
