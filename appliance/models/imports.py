"""Models that come by hand, on a stick or another machine's disk: out of a folder or an archive, into a new folder."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from appliance.errors import ModelFileError
from appliance.models.download import Progress, require_room
from appliance.models.hub import MOST_FILES
from appliance.models.paths import safe_path

_CHUNK: Final = 1 << 20
_ARCHIVES: Final = "a folder, or a .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip file"


@dataclass(frozen=True)
class _Member:
    path: str
    size_bytes: int
    opener: Path | tarfile.TarInfo | zipfile.ZipInfo


def bring(origin: Path, target: Path, *, progress: Progress) -> None:
    """Copy every file of ``origin``, a folder or an archive, into the existing folder ``target``.

    A folder that holds nothing but one folder stands for that one. Links in a folder are followed to files; in an
    archive they are refused, as is whatever is neither a file nor a folder.

    Raises:
        ModelFileError: it cannot be read, holds what no model holds, or there is no room.
    """
    try:
        if origin.is_dir():
            _copy_all(_of_folder(origin), target, None, progress)
        elif zipfile.is_zipfile(origin):
            with zipfile.ZipFile(origin) as archive:
                _copy_all(_of_zip(archive), target, archive, progress)
        elif tarfile.is_tarfile(origin):
            with tarfile.open(origin) as tar:
                _copy_all(_of_tar(tar), target, tar, progress)
        else:
            raise ModelFileError(f"{origin} is no model to bring in; give {_ARCHIVES}")
    except FileNotFoundError as error:
        raise ModelFileError(f"{error.filename or origin} does not exist; give {_ARCHIVES}") from error
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, shutil.Error) as error:
        raise ModelFileError(f"{origin} cannot be brought in ({getattr(error, 'strerror', None) or error})") from error


def _copy_all(
    members: list[_Member], target: Path, archive: tarfile.TarFile | zipfile.ZipFile | None, progress: Progress
) -> None:
    if not members:
        raise ModelFileError("it holds no file")
    if len(members) > MOST_FILES:
        raise ModelFileError(f"it holds {len(members)} files; a model has {MOST_FILES} at most")
    members = _without_top(members)
    require_room(target, sum(member.size_bytes for member in members), "the model")
    for member in members:
        destination = target / safe_path(member.path)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _opened(member, archive) as source, destination.open("wb") as file:
            done = 0
            progress(member.path, 0, member.size_bytes)
            while chunk := source.read(min(_CHUNK, member.size_bytes - done + 1)):
                done += len(chunk)
                if done > member.size_bytes:
                    raise ModelFileError(f"{member.path} is longer than it says")
                file.write(chunk)
                progress(member.path, done, member.size_bytes)
            file.flush()
            os.fsync(file.fileno())


def _opened(member: _Member, archive: tarfile.TarFile | zipfile.ZipFile | None) -> BinaryIO:
    if isinstance(member.opener, Path):
        return member.opener.open("rb")
    if isinstance(archive, tarfile.TarFile):
        extracted = archive.extractfile(cast(tarfile.TarInfo, member.opener))
        if extracted is None:
            raise ModelFileError(f"{member.path} is no file")
        return cast(BinaryIO, extracted)
    return cast(BinaryIO, cast(zipfile.ZipFile, archive).open(cast(zipfile.ZipInfo, member.opener)))


def _without_top(members: list[_Member]) -> list[_Member]:
    """Without the one folder that all of them are in, if there is one."""
    tops = {member.path.partition("/")[0] for member in members}
    if len(tops) != 1 or any("/" not in member.path for member in members):
        return members
    return _without_top(
        [_Member(member.path.partition("/")[2], member.size_bytes, member.opener) for member in members]
    )


def _of_folder(origin: Path) -> list[_Member]:
    found: list[_Member] = []
    for folder, folders, names in os.walk(origin):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if name.startswith("."):
                continue
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{path} is no regular file")
            found.append(_Member(path.relative_to(origin).as_posix(), status.st_size, path))
    return found


def _of_zip(archive: zipfile.ZipFile) -> list[_Member]:
    return [
        _Member(_plain(info.filename), info.file_size, info)
        for info in archive.infolist()
        if not info.is_dir() and not _hidden(info.filename)
    ]


def _of_tar(archive: tarfile.TarFile) -> list[_Member]:
    return [_Member(_plain(info.name), info.size, info) for info in _files(archive) if not _hidden(info.name)]


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for info in archive:
        if info.isdir():
            continue
        if not info.isreg():
            raise ModelFileError(f"{info.name} in the archive is no regular file; pack it with links followed (tar -h)")
        yield info


def _plain(name: str) -> str:
    return safe_path(name.removeprefix("./"))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
