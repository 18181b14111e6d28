"""Reading ``plugins/*.yaml``: every mistake of every file at once, each at its line."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from appliance.config.load import display_name, read_document, shown_files
from appliance.config.marks import Document, Secrets
from appliance.config.validation import locate, options_problems, validate
from appliance.errors import ConfigError, Mistake
from appliance.plugins.declarative import checks, tables
from appliance.plugins.declarative.schema import PluginFile

MAX_FILES: Final = 200
_NAME: Final = "letters, digits, - and _, at most 64 of them"


@dataclass(frozen=True)
class DeclarativePlugin:
    """A YAML plugin that has been checked.

    It can be pickled: a process of its own reads the files again while calls go on.

    Attributes:
        name: of its file, without ``.yaml``.
        origin: ``file:line`` of its beginning.
        file: what the operator wrote.
        rows: of its tables.
        authority: PEM text that its servers' certificates are held against, beside what the system knows; "" for none.
    """

    name: str
    origin: str
    file: PluginFile
    rows: Mapping[str, tables.Rows]
    authority: str = ""

    @cached_property
    def values(self) -> type[BaseModel]:
        """The schema of what the box and its lines may set."""
        return checks.values_model(self.name, self.file.values)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "values"}

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of its tools, in the order in which the model sees them."""
        of_tables = (checks.tool_of_table(name, table.tool) for name, table in self.file.tables.items())
        return (*self.file.tools, *of_tables)

    def values_problems(self, values: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str, str]]:
        """What is wrong with values for it: (path, what, what would be right) each; empty if nothing."""
        written_out = [
            ((name,), "is written out", "write `!secret NAME`, and NAME in secrets.yaml")
            for name, spec in self.file.values.items()
            if spec.secret and isinstance(values.get(name), str)
        ]
        return [*written_out, *options_problems(self.values, values)]


@dataclass(frozen=True)
class Found:
    """The YAML plugins of some folders.

    Attributes:
        plugins: those without a mistake, by name.
        mistakes: of the others, by name; "" for what belongs to no plugin.
        files: all that were read, tables among them.
    """

    plugins: Mapping[str, DeclarativePlugin] = field(default_factory=dict)
    mistakes: Mapping[str, tuple[Mistake, ...]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def mistakes_of(self, enabled: Collection[str]) -> list[Mistake]:
        """What is wrong with the plugins that are enabled, somewhere."""
        return sorted(one for name, found in self.mistakes.items() if not name or name in enabled for one in found)


def examine_declarative(paths: Sequence[Path], secrets: Secrets | None = None) -> Found:
    """Read the files, and the ``*.yaml`` files of the folders. Nothing is raised.

    Args:
        paths: files and folders; the first to have a name keeps it.
        secrets: looks up ``!secret NAME``.
    """
    plugins: dict[str, DeclarativePlugin] = {}
    mistakes: dict[str, tuple[Mistake, ...]] = {}
    sources: dict[str, Path] = {}
    files: list[Path] = []
    for path in _files(paths):
        name = path.stem
        if name in sources:
            hint = "rename one of the files"
            what = f"{name!r} is already the plugin in {display_name(sources[name])}"
            mistakes[name] = (*mistakes.get(name, ()), Mistake(display_name(path), 1, "file", what, hint))
            continue
        sources[name] = path
        files.append(path)
        plugin, found = read_plugin(path, secrets)
        if plugin is not None:
            files += [_beside(path, table.file) for table in plugin.file.tables.values()]
        if found or plugin is None:
            mistakes[name] = tuple(found)
        else:
            plugins[name] = plugin
    return Found({name: one for name, one in plugins.items() if name not in mistakes}, mistakes, tuple(files))


def load_declarative(
    paths: Sequence[Path], secrets: Secrets | None = None, enabled: Collection[str] | None = None
) -> dict[str, DeclarativePlugin]:
    """The YAML plugins by name.

    Args:
        paths, secrets: as for :func:`examine_declarative`.
        enabled: those that matter; None for all there are.

    Raises:
        ConfigError: with every mistake of those.
    """
    found = examine_declarative(paths, secrets)
    mistakes = found.mistakes_of(found.mistakes if enabled is None else enabled)
    if mistakes:
        raise ConfigError(mistakes)
    return {name: one for name, one in found.plugins.items() if enabled is None or name in enabled}


def read_plugin(path: Path, secrets: Secrets | None = None) -> tuple[DeclarativePlugin | None, list[Mistake]]:
    """One file, and what is wrong with it."""
    document = read_document(path, secrets=secrets)
    mistakes = list(document.mistakes)
    if not _is_name(path.stem):
        mistakes.append(document.mistake((), f"{path.stem!r} is not a name for a plugin", f"use {_NAME}"))
    if not isinstance(document.data, dict):
        if not mistakes:
            mistakes.append(document.mistake((), "is not a plugin", "see docs/plugins/yaml.md"))
        return None, mistakes
    reported = {(one.line, one.key) for one in mistakes}
    checked = validate(PluginFile, document)
    mistakes += [one for one in checked.mistakes if (one.line, one.key) not in reported]
    if checked.value is None:
        return None, mistakes
    # What could not be read is absent here, and would be reported a second time.
    broken = checked.broken | {tuple(one.key.split(".")) for one in document.mistakes}
    for problem in checks.problems(checked.value):
        if not any(_touches(problem.path, path) for path in broken) and (problem.path or not mistakes):
            key = locate(document.data, problem.path)
            mistakes.append(Mistake(*document.origin(key), _dotted(problem.path), problem.what, problem.hint))
    rows = dict(_rows(path, document, checked.value, mistakes))
    authority = _authority(path, document, checked.value.ca, mistakes) if checked.value.ca is not None else ""
    file, line = document.origin(())
    return DeclarativePlugin(path.stem, f"{file}:{line}", checked.value, rows, authority), mistakes


def _touches(path: tuple[str | int, ...], broken: tuple[str | int, ...]) -> bool:
    """Whether a problem at ``path`` may only follow from what is wrong at ``broken``."""
    shorter = min(len(path), len(broken))
    return not path or [str(part) for part in path[:shorter]] == [str(part) for part in broken[:shorter]]


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path)) or "file"


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        try:
            found = shown_files(path) if path.is_dir() else [path] if path.suffix in (".yaml", ".yml") else []
        except OSError:
            found = []
        files += [file for file in found if file not in files]
    return files[:MAX_FILES]


def _beside(path: Path, file: str) -> Path:
    return path.parent / Path(file).expanduser()


def _authority(path: Path, document: Document, file: str, mistakes: list[Mistake]) -> str:
    source = _beside(path, file)
    try:
        text = source.read_text("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except OSError as error:
        problem = "no PEM data" if isinstance(error, ssl.SSLError) else (error.strerror or "unreadable").lower()
        what = f"{display_name(source)} cannot be used: {problem}"
        mistakes.append(document.mistake(("ca",), what, "name a PEM file, relative to this one"))
        return ""
    except ValueError:
        what = f"{display_name(source)} holds no certificates"
        mistakes.append(document.mistake(("ca",), what, "name a PEM file, relative to this one"))
        return ""
    return text


def _rows(
    path: Path, document: Document, file: PluginFile, mistakes: list[Mistake]
) -> Iterator[tuple[str, tables.Rows]]:
    for name, table in file.tables.items():
        source = _beside(path, table.file)
        try:
            with source.open("rb") as opened:
                data = opened.read(tables.MAX_BYTES + 1)
            if len(data) > tables.MAX_BYTES:
                raise ValueError(f"is larger than {tables.MAX_BYTES // 1_048_576} MB")
            text = data.decode("utf-8-sig")
        except OSError as error:
            what = f"{display_name(source)} cannot be read: {(error.strerror or 'unreadable').lower()}"
            mistakes.append(document.mistake(("tables", name, "file"), what, "the path is relative to this file"))
        except UnicodeDecodeError:
            mistakes.append(document.mistake(("tables", name, "file"), "is not UTF-8 text", "save it as CSV UTF-8"))
        except ValueError as error:
            mistakes.append(document.mistake(("tables", name, "file"), str(error), "keep it in a database"))
        else:
            rows, wrong = tables.read(table, text)
            mistakes += [Mistake(display_name(source), one.line, table.key, one.what, one.hint) for one in wrong]
            if rows is not None:
                yield name, rows
