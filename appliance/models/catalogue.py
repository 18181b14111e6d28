"""Every model file the box can use: what it is for, where it comes from, under which licence.

Model files are never part of the source tree. A file is either *pulled*, one member out of a published Python wheel
and pinned by its SHA-256, or *packaged*, which means that it arrives with a dependency and needs no pulling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
    """The catalogue entry called ``name``.

    Raises:
        ModelFileError: no pulled file has that name; the message lists those that do.
    """
    for entry in MODEL_FILES:
        if entry.name == name:
            return entry
    for packaged in PACKAGED_MODELS:
        if packaged.name == name:
            raise ModelFileError(
                f"model {name!r} is not pulled: it comes with the Python package {packaged.distribution!r}; "
                f"run 'pip install {packaged.distribution}' if it is missing"
            )
    known = ", ".join(entry.name for entry in MODEL_FILES)
    raise ModelFileError(f"there is no model called {name!r}; the files that can be pulled are: {known}")
