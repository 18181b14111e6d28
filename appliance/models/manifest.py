"""What a model's folder has to hold: every file with its length and SHA-256, in ``appliance-model.json`` within it.

The manifest is written when all files are there and right, and read before any of them is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ModelFileError
from appliance.models.paths import safe_path, sync_folder

MANIFEST: Final = "appliance-model.json"
_MOST_BYTES: Final = 16_000_000


@dataclass(frozen=True)
class ListedFile:
    """A file of the folder; ``path`` is relative to it, ``sha256`` in lower-case hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and where it came from.

    Attributes:
        name: of the model.
        licence: as the catalogue had it when the files came.
        origin: the source, in words.
        commit: of the hub's repository; "" for another source.
        pinned_by: ``catalogue`` where the content was known beforehand, else ``first pull`` or ``import``.
        files: in order of their paths.
    """

    name: str
    licence: str
    origin: str
    commit: str
    pinned_by: str
    files: tuple[ListedFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def write(self, folder: Path) -> None:
        """Write it into ``folder``, whose files are there and on the disk."""
        path = folder / MANIFEST
        temporary = path.with_name(f".{MANIFEST}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"format": 1, **asdict(self)}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of ``folder``; None if it has none.

    Raises:
        ModelFileError: it cannot be read as one.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too long")
        data = json.loads(path.read_text("utf-8"))
        if data["format"] != 1:
            raise ValueError(f"its format is {data['format']!r}, and this version knows 1")
        files = tuple(
            ListedFile(safe_path(one["path"]), int(one["size_bytes"]), _sha(one["sha256"])) for one in data["files"]
        )
        words = {key: str(data[key]) for key in ("name", "licence", "origin", "commit", "pinned_by")}
        return Manifest(**words, files=files)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, ModelFileError) as error:
        raise ModelFileError(f"{path} cannot be read as the list of a model's files ({error})") from error


def sha256_of(path: Path, told: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in lower-case hex; ``told`` of every megabyte."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
            if told is not None:
                told(len(chunk))
    return found.hexdigest()


def difference(folder: Path, manifest: Manifest, *, deep: bool) -> str:
    """What sets the folder apart from its manifest, in words; "" when nothing does.

    Args:
        folder: holds the files.
        manifest: what they should be.
        deep: read every byte; otherwise only the lengths are compared.
    """
    wrong: list[str] = []
    for listed in manifest.files:
        path = folder / listed.path
        try:
            size = path.stat().st_size
            if not path.is_file():
                wrong.append(f"{listed.path} is no file")
            elif size != listed.size_bytes:
                wrong.append(f"{listed.path} has {size} bytes instead of {listed.size_bytes}")
            elif deep and (found := sha256_of(path)) != listed.sha256:
                wrong.append(f"{listed.path} has SHA-256 {found[:12]}... instead of {listed.sha256[:12]}...")
        except FileNotFoundError:
            wrong.append(f"{listed.path} is missing")
        except OSError as error:
            wrong.append(f"{listed.path} cannot be read ({error.strerror})")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + more


def files_below(folder: Path) -> list[str]:
    """Paths of all files below ``folder``, in order, the manifest excepted."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path not in (MANIFEST, f".{MANIFEST}"))


def _sha(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is no SHA-256")
    return value
