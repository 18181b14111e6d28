"""The models an operator has added: ``catalogue.yaml`` in the model directory.

``appliance models add`` writes it; it may be edited by hand, too.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, StringConstraints, model_validator

from appliance.config.load import read_document
from appliance.config.validation import Section, fault, validate
from appliance.errors import ConfigError, ModelFileError
from appliance.models.catalogue import (
    MODEL_FILES,
    MODEL_FOLDERS,
    PACKAGED_MODELS,
    WHISPER_REQUIRED,
    FolderSource,
    HubSource,
    ModelFolder,
    Pin,
    Source,
    UrlSource,
    WheelSource,
)
from appliance.models.paths import safe_path, sync_folder

FILE: Final = "catalogue.yaml"
MODEL_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

Quantization = Literal["int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"]
Text = Annotated[str, StringConstraints(max_length=300)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", to_lower=True)]

_HEAD: Final = """\
# Models of this box beside those that the appliance knows; see docs/models.md.
# `appliance models add` and `remove` write this file anew: comments in it are lost.
"""


class HubKeys(Section):
    """A repository of a hub."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="`OWNER/NAME` on the hub.")
    revision: str = Field(default="main", max_length=100, description="Branch, tag or commit.")
    folder: str = Field(default="", max_length=300, description="Only what is below this folder of it.")
    include: tuple[Text, ...] = Field(default=(), max_length=100, description="Patterns of the files to take.")


class FileKeys(Section):
    """A file: where it is, what it is, or both."""

    path: Text = Field(description="Its path within the model's folder.")
    url: str = Field(default="", pattern=r"^(https?://.+)?$", max_length=2000, description="Where it is fetched from.")
    size_bytes: int | None = Field(default=None, ge=0, description="Its length.")
    sha256: Sha256 | None = Field(default=None, description="Its SHA-256; without one, that of the first pull counts.")


class ModelKeys(Section):
    """One model, in a folder of its name."""

    purpose: Text = Field(default="", description="One line, for `appliance models list`.")
    licence: Text = Field(default="unknown", description="Its licence, as an SPDX name where there is one.")
    hub: HubKeys | None = Field(default=None, description="Fetch it from a hub.")
    wheel: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+==[\w.!+-]+:.+$",
        description="Take one file out of a Python wheel: `PROJECT==VERSION:PATH`.",
    )
    folder: Path | None = Field(default=None, description="Copy it from this folder or archive of the machine.")
    files: tuple[FileKeys, ...] = Field(
        default=(), max_length=10_000, description="Its files: where they are, where neither of the above says it."
    )
    convert: Quantization | None = Field(
        default=None, description="Convert Whisper from the format of `transformers` to CTranslate2, in this precision."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        for file in self.files:
            try:
                safe_path(file.path)
            except ModelFileError as error:
                raise fault(str(error), "give a path relative to the model's folder") from error
        ways = [name for name in ("hub", "wheel", "folder") if getattr(self, name) is not None]
        if any(file.url for file in self.files):
            ways.append("files with a url")
            if not all(file.url for file in self.files):
                raise fault("some files have a url and some have none", "give each one, or none")
        if len(ways) != 1:
            has = " and ".join(ways) or "none of them"
            raise fault(f"has {has}", "say in one way where it comes from: hub, wheel, folder, or files with a url")
        return self

    def entry(self, name: str) -> ModelFolder:
        """As the catalogue has it."""
        return ModelFolder(
            name=name,
            purpose=self.purpose,
            licence=self.licence,
            sources=(self._source(),),
            size_bytes=_sum([file.size_bytes for file in self.files]),
            required=WHISPER_REQUIRED if self.convert else tuple(file.path for file in self.files),
            pins=() if self.convert else tuple(Pin(one.path, one.size_bytes, one.sha256 or "") for one in self.files),
            convert=self.convert or "",
            added=True,
        )

    def _source(self) -> Source:
        if self.hub is not None:
            return HubSource(self.hub.repository, self.hub.revision, self.hub.folder, self.hub.include)
        if self.folder is not None:
            return FolderSource(self.folder.expanduser())
        if self.wheel is not None:
            project, version, member = re.split("==|:", self.wheel, maxsplit=2)
            return WheelSource(project, version, member)
        return UrlSource(tuple((file.path, file.url) for file in self.files))


class LocalCatalogue(Section):
    """``catalogue.yaml``."""

    models: dict[Annotated[str, StringConstraints(pattern=MODEL_NAME)], ModelKeys] = Field(
        default={}, max_length=1000, description="Each by its name, which is that of its folder."
    )

    @model_validator(mode="after")
    def _new_names(self) -> Self:
        for name in self.models:
            require_new_name(name)
        return self


def require_new_name(name: str) -> None:
    """See that the appliance has no model of this name.

    Raises:
        PydanticCustomError (a ValueError): it has; says so.
    """
    if any(name in (entry.name for entry in known) for known in (MODEL_FILES, MODEL_FOLDERS, PACKAGED_MODELS)):
        raise fault(f"{name!r} is a model that the appliance knows itself", "choose another name")


def read_added(directory: Path) -> tuple[ModelFolder, ...]:
    """The models added in ``directory``.

    Raises:
        ConfigError: the file is wrong; every mistake in it.
    """
    return tuple(keys.entry(name) for name, keys in read_catalogue(directory).models.items())


def read_catalogue(directory: Path) -> LocalCatalogue:
    """What ``catalogue.yaml`` in ``directory`` says; nothing where there is none.

    Raises:
        ConfigError: the file is wrong; every mistake in it.
    """
    path = directory / FILE
    if not path.exists():
        return LocalCatalogue()
    document = read_document(path)
    if document.data is None and not document.mistakes:
        return LocalCatalogue()
    if not isinstance(document.data, dict):
        mistakes = document.mistakes or [document.mistake((), "must hold `models:`", "see docs/models.md")]
        raise ConfigError(list(mistakes))
    checked = validate(LocalCatalogue, document)
    mistakes = [*document.mistakes, *checked.mistakes]
    if mistakes or checked.value is None:
        raise ConfigError(mistakes)
    return checked.value


def write_catalogue(directory: Path, models: dict[str, dict[str, Any]]) -> None:
    """Write ``catalogue.yaml`` anew, with the keys of each model as YAML has them.

    Raises:
        ModelFileError: it cannot be written.
    """
    path = directory / FILE
    text = _HEAD + yaml.safe_dump({"models": models}, sort_keys=False, allow_unicode=True, width=120)
    temporary: Path | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=f".{FILE}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(directory)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ModelFileError(f"{path} cannot be written ({error.strerror})") from error


def plain(catalogue: LocalCatalogue) -> dict[str, dict[str, Any]]:
    """What :func:`write_catalogue` takes."""
    return {
        name: keys.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        for name, keys in catalogue.models.items()
    }


def _sum(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if sizes and len(known) == len(sizes) else None
