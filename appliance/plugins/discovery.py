"""Which plugins there are, by name. Nothing of theirs is imported or read.

In order, the first to have a name wins: files and folders of ``plugins.paths``, the shipped ones, installed packages
(entry points ``appliance.plugins``).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from appliance.config.mcp import MCP_PLUGIN
from appliance.config.shipped import shipped_dir

logger = logging.getLogger(__name__)

GROUP: Final = "appliance.plugins"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_PLUGINS: Final = 1000
_MAX_FILES: Final = 10_000
_STARTS: Final = ("plugin.py", "__init__.py")


class Source(msgspec.Struct, frozen=True):
    """Where a plugin is.

    Attributes:
        name: what operators call it.
        kind: ``file``, ``package`` (a folder), ``entry_point`` or ``yaml``.
        where: the file that is imported or read; of an entry point, ``module`` or ``module:object``.
        shipped: it came with the appliance.
        code: tells one state of the program from another (:func:`stamped`); "" where nobody has looked.
    """

    name: str
    kind: str
    where: str
    shipped: bool = False
    code: str = ""

    @property
    def python(self) -> bool:
        return self.kind != "yaml"


_BUILT_IN: Final = (Source(MCP_PLUGIN, "entry_point", "appliance.plugins.mcp_tools", shipped=True),)


def find_sources(paths: Sequence[Path], *, installed: bool = True) -> dict[str, Source]:
    """The plugins below ``paths`` (files and folders), the shipped ones and, unless told otherwise, installed ones.

    Passed over are tests (``test_*``, ``conftest.py``), and what begins with a dot or an underscore or cannot be a
    plugin's name.
    """
    found: dict[str, Source] = {}
    shipped = shipped_dir("plugins")
    for path in (*paths, *(() if shipped in paths else (shipped,))):
        _take(found, _below(path, path == shipped))
    _take(found, _BUILT_IN)
    if installed:
        _take(found, (Source(entry.name, "entry_point", entry.value) for entry in entry_points(group=GROUP)))
    return found


def stamped(source: Source) -> Source:
    """The source with what tells whether its program has changed: of a file, or of every ``.py`` of a package.

    What is installed (``entry_point``) is left as it is: it changes with the appliance's environment, by a restart.
    """
    if source.kind not in ("file", "package"):
        return source
    where = Path(source.where)
    files = [where] if source.kind == "file" else sorted(islice(where.parent.rglob("*.py"), _MAX_FILES))
    seen = hashlib.blake2b(digest_size=12)
    for file in files:
        with contextlib.suppress(OSError):
            stat = file.stat()
            seen.update(f"{file}\0{stat.st_mtime_ns}\0{stat.st_size}\0{stat.st_ino}\n".encode())
    return msgspec.structs.replace(source, code=seen.hexdigest())


def _take(found: dict[str, Source], sources: Iterable[Source]) -> None:
    for source in sources:
        if not _NAME.fullmatch(source.name) or len(found) >= _MAX_PLUGINS:
            continue
        other = found.setdefault(source.name, source)
        if other is not source:
            logger.info("plugin %s at %s is hidden by the one at %s", source.name, source.where, other.where)


def _below(path: Path, shipped: bool) -> Iterable[Source]:
    try:
        entries = sorted(path.iterdir()) if path.is_dir() and not _start(path) else [path]
    except OSError as error:
        logger.warning("%s cannot be searched for plugins: %s", path, error.strerror)
        return
    for entry in entries:
        if entry.name.startswith((".", "_", "test_")) or entry.name == "conftest.py":
            continue
        if entry.suffix == ".py" and entry.is_file():
            yield Source(entry.stem, "file", str(entry.absolute()), shipped)
        elif entry.suffix in (".yaml", ".yml") and entry.is_file():
            yield Source(entry.stem, "yaml", str(entry.absolute()), shipped)
        elif entry.is_dir() and (start := _start(entry)):
            yield Source(entry.name, "package", str(start.absolute()), shipped)


def _start(folder: Path) -> Path | None:
    return next((folder / name for name in _STARTS if (folder / name).is_file()), None)
