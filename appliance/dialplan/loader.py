"""Reading ``dialplans/*.yaml``: every mistake of every file at once, each at its line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from appliance.config import Settings
from appliance.config.load import display_name, read_document
from appliance.config.marks import Document, dotted
from appliance.config.marks import Path as KeyPath
from appliance.config.validation import locate, look_up, nearest, validate
from appliance.dialplan.checks import Draft, MissingWords, problems
from appliance.dialplan.schema import Line, TransferStep, TransferTarget
from appliance.engines.lexicon import Lexicon
from appliance.errors import ConfigError, Mistake

MAX_FILES = 1000


@dataclass(frozen=True)
class Dialplan:
    """All lines in the order in which they are tried.

    ``sources`` tells where each line was written, as ``file:line``. ``warnings`` are what an operator should know but
    what keeps no call from being answered as written.
    """

    lines: tuple[Line, ...]
    sources: dict[str, str]
    warnings: tuple[Mistake, ...] = ()

    def line(self, name: str) -> Line | None:
        """The line of that name."""
        return next((line for line in self.lines if line.name == name), None)


def load_dialplans(
    paths: Sequence[Path],
    *,
    missing_words: MissingWords | None = None,
    trunks: Collection[str] | None = None,
    languages: Collection[str] | None = None,
    llm: bool = True,
    speech: bool = True,
    routes: bool = True,
    open_vocabulary: bool = True,
) -> Dialplan:
    """Read the files, and the ``*.yaml`` files of the folders, sorted by name within each.

    Args:
        paths: files and folders, in order of priority.
        missing_words: tells which words of a phrase the recogniser does not know; None checks no words.
        trunks: names of the trunks there are; None checks none.
        languages: what the recogniser understands, as ``en`` for every English; None checks none.
        llm: whether there is a language model for lines with ``agent: llm``.
        speech: whether there is a model that hears and speaks for lines with ``agent: realtime``.
        routes: whether there are routes for transfers that name no trunk.
        open_vocabulary: whether the recogniser understands more than what is expected.

    Raises:
        ConfigError: with every mistake.
    """
    mistakes: list[Mistake] = []
    warnings: list[Mistake] = []
    lines: list[Line] = []
    sources: dict[str, str] = {}
    catch_all = ""
    files = _files(paths, mistakes)
    for path in files:
        document = read_document(path)
        mistakes += document.mistakes
        for root in _line_roots(document, mistakes):
            around = partial(
                _surroundings,
                document,
                root,
                trunks=trunks,
                languages=languages,
                llm=llm,
                speech=speech,
                routes=routes,
            )
            line, wrong = _read_line(document, root, missing_words, around)
            mistakes += wrong
            if line is None:
                continue
            file, number = document.origin(root)
            if line.name in sources:
                hint = "give each line a name of its own"
                what = f"{line.name!r} is already the line at {sources[line.name]}"
                mistakes.append(document.mistake((*root, "name"), what, hint))
            elif catch_all:
                what = f"line {line.name!r} never answers: {catch_all!r} above it matches every call"
                mistakes.append(document.mistake((*root, "match"), what, "move the line that matches all to the end"))
            if line.agent == "llm" and not open_vocabulary:
                what = "the recogniser understands expected phrases only, and a model's line expects none"
                hint = "name another engines.asr.provider in appliance.yaml"
                warnings.append(document.mistake((*root, "agent"), what, hint))
            sources.setdefault(line.name, f"{file}:{number}")
            lines.append(line)
            catch_all = catch_all or (line.name if line.catches_all else "")
    if mistakes:
        raise ConfigError(mistakes)
    if not catch_all:
        what, hint = "no line answers every call; others are refused with 404", "add a last line without match"
        warnings.append(Mistake(display_name(files[-1]), 1, "match", what, hint))
    return Dialplan(tuple(lines), sources, tuple(warnings))


def load_lines(settings: Settings) -> Dialplan:
    """The dialplans of a box, checked against its trunks and engines.

    Raises:
        ConfigError: with every mistake.
        ModelFileError: the recogniser's dictionary is missing.
    """
    embedded = settings.engines.asr.provider == "pocketsphinx"
    return load_dialplans(
        settings.dialplans.paths,
        missing_words=Lexicon().missing if embedded else None,
        trunks=settings.trunks,
        languages=("en",) if embedded else None,
        llm=settings.engines.llm.provider != "none",
        speech=settings.engines.speech.provider != "none",
        routes=bool(settings.routes),
        open_vocabulary=not embedded,
    )


def _files(paths: Sequence[Path], mistakes: list[Mistake]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        try:
            found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        except OSError as error:
            what = f"cannot be read: {(error.strerror or 'unreadable').lower()}"
            mistakes.append(Mistake(display_name(path), 1, "file", what, "check its permissions"))
            continue
        if not found:
            hint = "add one, or name another folder under dialplans.paths"
            mistakes.append(Mistake(display_name(path), 1, "file", "the folder holds no *.yaml file", hint))
        files += [file for file in found if file not in files]
    if not paths:
        mistakes.append(Mistake("dialplans", 1, "file", "there is no dialplan", "name a folder under dialplans.paths"))
    if len(files) > MAX_FILES:
        mistakes.append(
            Mistake(display_name(files[MAX_FILES]), 1, "file", f"more than {MAX_FILES} files", "merge some")
        )
    return files[:MAX_FILES]


def _line_roots(document: Document, mistakes: list[Mistake]) -> list[KeyPath]:
    """Where the lines of a file are: under ``lines:``, or the whole file is one."""
    data = document.data
    hint = "begin with `lines:` and a list, or with `name:`; see docs/dialplans.md"
    if data is None:
        if not document.mistakes:
            mistakes.append(document.mistake((), "is empty", hint))
        return []
    if not isinstance(data, dict):
        mistakes.append(document.mistake((), "is not a dialplan", hint))
        return []
    if "lines" not in data:
        return [()]
    for key in data:
        if key != "lines":
            what = "unknown key beside lines"
            mistakes.append(document.mistake((key,), what, "indent it, if it belongs to a line"))
    if not isinstance(data["lines"], list) or not data["lines"]:
        mistakes.append(document.mistake(("lines",), "must be a list of lines", "write each as `- name: ...`"))
        return []
    return [("lines", index) for index in range(len(data["lines"]))]


def _read_line(
    document: Document,
    root: KeyPath,
    missing_words: MissingWords | None,
    around: Callable[[Line], list[Mistake]],
) -> tuple[Line | None, list[Mistake]]:
    """The line at ``root``; None where it could not be understood, or has no name to go by."""
    raw = look_up(document.data, root)
    if not isinstance(raw, dict):
        return None, [document.mistake(root, "is not a line", "write `name:` and the other keys below it")]
    checked = validate(Line, document, root)
    mistakes = list(checked.mistakes)
    named = checked.value is not None
    if not named:
        # Without a usable name nothing is made of the line; with a makeshift one the rest of it can be checked.
        raw["name"] = "unnamed"
        checked = validate(Line, document, root)
    if checked.value is None:
        return None, mistakes
    inner = [path[len(root) :] for path in checked.broken]
    steps: dict[str, Any] = raw["flow"] if isinstance(raw.get("flow"), dict) else {}
    draft = Draft(
        line=checked.value,
        order=tuple(steps),
        broken={name: steps[name] for name in {str(p[1]) for p in inner if len(p) > 1 and p[0] == "flow"}},
        wrong_keys=frozenset(str(path[0]) for path in inner if path),
    )
    for problem in problems(draft, missing_words):
        origin = document.origin((*root, *locate(raw, problem.path)))
        mistakes.append(Mistake(*origin, dotted((*root, *problem.path)), problem.what, problem.hint))
    mistakes += around(checked.value)
    return checked.value if named else None, mistakes


def _transfers(line: Line) -> Iterator[tuple[KeyPath, TransferTarget]]:
    for name, step in line.flow.items():
        if isinstance(step, TransferStep):
            yield ("flow", name, "transfer"), step.transfer
    if line.fallback is not None and line.fallback.transfer is not None:
        yield ("fallback", "transfer"), line.fallback.transfer
    yield from ((("transfers", name), choice) for name, choice in line.transfers.items())


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _surroundings(
    document: Document,
    root: KeyPath,
    line: Line,
    *,
    trunks: Collection[str] | None,
    languages: Collection[str] | None,
    llm: bool,
    speech: bool,
    routes: bool,
) -> list[Mistake]:
    """Where the line does not fit the rest of the box."""
    found = []
    for index, trunk in enumerate(line.match.trunk or ()):
        if trunks is not None and trunk not in trunks and trunk != "*":
            path: KeyPath = (*root, "match", "trunk")
            if isinstance(look_up(document.data, path), list):
                path = (*path, index)
            found.append(document.mistake(path, f"there is no trunk {trunk!r}", nearest(trunk, trunks)))
    for where, target in _transfers(line):
        key: KeyPath = locate(look_up(document.data, root), (*where, "trunk"))
        wanted = target.trunk
        if wanted is not None and trunks is not None and wanted not in trunks:
            found.append(document.mistake((*root, *key), f"there is no trunk {wanted!r}", nearest(wanted, trunks)))
        elif wanted is None and not routes and not target.to.lower().startswith(("sip:", "sips:")):
            hint = "name a trunk here, or add routes to appliance.yaml"
            found.append(document.mistake((*root, *key), "nothing says by which trunk", hint))
    recognised = line.agent != "realtime" or (line.fallback is not None and line.fallback.step is not None)
    if recognised and languages is not None and line.language.partition("-")[0] not in languages:
        what = f"the recogniser does not understand {line.language!r}"
        hint = f"it understands {', '.join(sorted(languages))}; or name another engines.asr.provider in appliance.yaml"
        found.append(document.mistake((*root, "language"), what, hint))
    if line.timezone is not None and not _is_zone(line.timezone):
        what = f"{line.timezone!r} is not a time zone"
        found.append(document.mistake((*root, "timezone"), what, "write one such as Europe/Berlin"))
    if line.agent == "realtime" and not speech:
        hint = "set engines.speech.provider in appliance.yaml, or agent: flow"
        found.append(document.mistake((*root, "agent"), "there is no model that hears and speaks", hint))
    if line.agent == "llm" and not llm:
        hint = "set engines.llm.provider in appliance.yaml, or agent: flow"
        found.append(document.mistake((*root, "agent"), "there is no language model", hint))
    return found
