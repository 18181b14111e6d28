"""Reading ``dialplans/*.yaml``: every mistake of every file at once, each at its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from appliance.config import Settings
from appliance.config.load import display_name, read_document, secrets_of
from appliance.config.marks import Document, dotted
from appliance.config.marks import Path as KeyPath
from appliance.config.validation import locate, look_up, validate
from appliance.dialplan.checks import Draft, Problem, problems
from appliance.dialplan.number_files import NumberFiles
from appliance.dialplan.routing import Routing
from appliance.dialplan.schema import Line
from appliance.dialplan.surroundings import Surroundings, misfits
from appliance.engines.lexicon import Lexicon
from appliance.errors import ConfigError, Mistake
from appliance.plugins.describe import PluginChecker

MAX_FILES = 1000


@dataclass(frozen=True)
class Dialplan:
    """All lines in the order in which they are tried.

    ``sources`` tells where each line was written, as ``file:line``. ``warnings`` are what an operator should know but
    what keeps no call from being answered as written. ``numbers`` are the files of numbers that lines match on.
    """

    lines: tuple[Line, ...]
    sources: dict[str, str]
    warnings: tuple[Mistake, ...] = ()
    numbers: NumberFiles = field(default_factory=NumberFiles)

    def line(self, name: str) -> Line | None:
        """The line of that name."""
        return next((line for line in self.lines if line.name == name), None)


def load_dialplans(paths: Sequence[Path], around: Surroundings | None = None) -> Dialplan:
    """Read the files, and the ``*.yaml`` files of the folders, sorted by name within each.

    Args:
        paths: files and folders, in order of priority.
        around: what the lines may refer to.

    Raises:
        ConfigError: with every mistake.
    """
    around = around or Surroundings()
    mistakes: list[Mistake] = []
    warnings: list[Mistake] = []
    lines: list[Line] = []
    sources: dict[str, str] = {}
    numbers = NumberFiles()
    catch_all = ""
    files = _files(paths, mistakes)
    for path in files:
        document = read_document(path, secrets=around.secrets)
        mistakes += document.mistakes
        for root in _line_roots(document, mistakes):
            line, wrong = _read_line(document, root, around)
            mistakes += wrong
            if line is None:
                continue
            mistakes += numbers.add(line, document, root)
            file, number = document.origin(root)
            if line.name in sources:
                hint = "give each line a name of its own"
                what = f"{line.name!r} is already the line at {sources[line.name]}"
                mistakes.append(document.mistake((*root, "name"), what, hint))
            elif catch_all:
                what = f"line {line.name!r} never answers: {catch_all!r} above it matches every call"
                mistakes.append(document.mistake((*root, "match"), what, "move the line that matches all to the end"))
            if line.agent == "llm" and not around.open_vocabulary:
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
    return Dialplan(tuple(lines), sources, tuple(warnings), numbers)


def load_lines(settings: Settings, around: Surroundings | None = None) -> Dialplan:
    """The dialplans of a box, checked against its trunks and engines.

    Args:
        settings: of the box.
        around: what there is, where that is more than :func:`surroundings_of` can tell.

    Raises:
        ConfigError: with every mistake.
        ModelFileError: the recogniser's dictionary is missing.
    """
    return load_dialplans(settings.dialplans.paths, around or surroundings_of(settings))


def surroundings_of(settings: Settings, plugins: PluginChecker | None = None) -> Surroundings:
    """What the settings say of the box that lines answer on. ``plugins`` looks into plugins; None makes one that does.

    Raises:
        ModelFileError: the recogniser's dictionary is missing.
    """
    embedded = settings.engines.asr.provider == "pocketsphinx"
    checker = plugins or PluginChecker(settings.plugins, secrets=secrets_of(settings))
    return Surroundings(
        missing_words=Lexicon().missing if embedded else None,
        trunks=tuple(settings.trunks),
        languages=("en",) if embedded else None,
        llm=settings.engines.llm.provider != "none",
        speech=settings.engines.speech.provider != "none",
        routes=bool(settings.routes),
        open_vocabulary=not embedded,
        tools=lambda line: checker.tools_of(line.name, line.plugins),
        checks=(partial(_plugin_problems, checker),),
    )


def routing_of(plan: Dialplan, settings: Settings) -> Routing:
    """The choice among the lines of ``plan``, on the box that ``settings`` are of."""
    trunks = settings.trunks.items()
    return Routing(
        plan.lines,
        lists=plan.numbers.found,
        region=settings.dialplans.region or "",
        trunk_regions={name: trunk.region for name, trunk in trunks if trunk.region},
        trunk_languages={name: trunk.language for name, trunk in trunks if trunk.language},
    )


def _plugin_problems(checker: PluginChecker, line: Line, written: Mapping[str, Any]) -> Iterator[Problem]:
    for path, what, hint in checker.line_problems(line.plugins):
        yield Problem(("plugins", *path), what, hint)


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


def _read_line(document: Document, root: KeyPath, around: Surroundings) -> tuple[Line | None, list[Mistake]]:
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
    found = (*problems(draft, around.missing_words), *misfits(checked.value, raw, around))
    mistakes += [_reported(document, root, raw, problem) for problem in found]
    return checked.value if named else None, mistakes


def _reported(document: Document, root: KeyPath, raw: dict[str, Any], problem: Problem) -> Mistake:
    """The problem at the line where it was written."""
    written = locate(raw, problem.path)
    origin = document.origin((*root, *written))
    in_short = isinstance(problem.path[-1], int) and written == problem.path[:-1]  # one item instead of a list
    return Mistake(*origin, dotted((*root, *(written if in_short else problem.path))), problem.what, problem.hint)
