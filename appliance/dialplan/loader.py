"""Reading ``dialplans/*.yaml``: every mistake of every file at once, each at its line."""

from __future__ import annotations

import gc
import marshal
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from appliance.config import Settings
from appliance.config.load import display_name, read_document, secrets_of, shown_files
from appliance.config.marks import Document
from appliance.config.settings import SpeechEngine
from appliance.config.validation import locate, nearest, validate
from appliance.dialplan.checks import Draft, Problem, problems
from appliance.dialplan.extends import OWN_KEYS, Family, Inherited, Piece, Whole
from appliance.dialplan.matcher import Lists
from appliance.dialplan.number_files import NumberFiles
from appliance.dialplan.planned import Written, head_of, like
from appliance.dialplan.routing import Routing, RoutingIndex
from appliance.dialplan.schema import BUILTIN_TOOLS, Line
from appliance.dialplan.shadows import shadows
from appliance.dialplan.steps import NAME_PATTERN
from appliance.dialplan.surroundings import Recogniser, Surroundings, misfits, trunk_misfits
from appliance.engines.lexicon import Lexicon
from appliance.errors import ConfigError, Mistake
from appliance.plugins.describe import PluginChecker

MAX_FILES: Final = 1000
MAX_FILE_BYTES: Final = 16_000_000
MAX_NODES: Final = 1_000_000
MAX_MISTAKES: Final = 1000
"""Lines are read no further once so much is wrong."""

_FILE_KEYS: Final = ("lines", "bases", "defaults")
_NAME: Final = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Dialplan:
    """All lines in the order in which they are tried.

    Attributes:
        lines: in that order.
        places: where each line was written.
        written: each line as it was written.
        warnings: what an operator should know but what keeps no call from being answered as written.
        numbers: the files of numbers that lines match on.
        files: the files read, for whoever watches them.
    """

    lines: tuple[Line, ...]
    places: Mapping[str, Piece]
    written: tuple[Written, ...]
    warnings: tuple[Mistake, ...] = ()
    numbers: NumberFiles = field(default_factory=NumberFiles)
    files: tuple[Path, ...] = ()

    @property
    def sources(self) -> dict[str, str]:
        """Where each line was written, as ``file:line``."""
        return {name: _place(piece) for name, piece in self.places.items()}

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
    # What is made here stays, and it is much: looking for rubbish among it over and over takes most of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _Reader(around or Surroundings()).read(paths)
    finally:
        if collecting:
            gc.enable()


class _Reader:
    """Reads the files of one dialplan, once."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._family = Family()
        self._pieces: list[Piece] = []
        self._lines: dict[str, Line] = {}
        self._places: dict[str, Piece] = {}
        self._numbers = NumberFiles()
        self._warnings: list[Mistake] = []
        self._mistakes: dict[Mistake, None] = {}
        """As a mapping: what is wrong with something inherited is wrong once."""
        self._catch_all = ""
        self._named: list[tuple[Whole, tuple[str, ...], str]] = []
        """Lines that others name, and where."""
        self._unmatched: list[tuple[str, Mistake]] = []
        """Lines that no call matches: no mistake where another line leads to them."""
        self._written: list[Mapping[str, Any]] = []
        self._model_of: dict[str, str] = {}
        self._models: dict[tuple[int, bytes], Line | None] = {}
        """Lines by what they inherit and all that they say but who they answer; None where what they inherit has
        mistakes."""

    def read(self, paths: Sequence[Path]) -> Dialplan:
        """
        Raises:
            ConfigError: with every mistake.
        """
        files = self._files(paths)
        for path in files:
            self._pieces_of(
                read_document(
                    path,
                    secrets=self._around.secrets,
                    secret_at=lambda at: "plugins" in at,
                    max_bytes=MAX_FILE_BYTES,
                    max_nodes=MAX_NODES,
                )
            )
        for piece in self._pieces:
            if len(self._mistakes) > MAX_MISTAKES:
                hint = "mend those above first"
                self._wrong(piece.mistake((), f"is not read: more than {MAX_MISTAKES} mistakes were found", hint))
                break
            self._line(piece)
        self._wrong(*self._family.mistakes, *self._nameless())
        led_to = {name for _, _, name in self._named}
        self._wrong(*(mistake for name, mistake in self._unmatched if name not in led_to))
        for name, piece in self._family.pieces.items():
            if piece.root[:1] == ("bases",) and name not in self._family.used:
                self._by_itself(name, piece)
        for piece in self._family.defaults.values():
            if not any(one.document is piece.document for one in self._pieces):
                self._wrong(piece.mistake((), "has no effect without lines", "put it into the file with the lines"))
        if self._mistakes:
            raise ConfigError(sorted(self._mistakes))
        if not self._catch_all:
            what, hint = "no line answers every call; others are refused with 404", "add a last line without match"
            self._warnings.append(Mistake(display_name(files[-1]), 1, "match", what, hint))
        lines = tuple(self._lines.values())
        for line, above in shadows(lines):
            if line.name in led_to:
                continue
            what = f"line {line.name!r} never answers: {above.name!r} above it takes all its calls"
            hint = "move it up, or ask for something else"
            self._warnings.append(self._places[line.name].mistake(("match",), what, hint))
        numbers = {line.name: number for number, line in enumerate(lines)}
        written = tuple(
            Written(data, numbers[self._model_of.get(line.name, line.name)])
            for line, data in zip(lines, self._written, strict=True)
        )
        return Dialplan(lines, self._places, written, tuple(dict.fromkeys(self._warnings)), self._numbers, tuple(files))

    def _nameless(self) -> Iterator[Mistake]:
        """Lines that others name, and that there are not."""
        names = [name for name, piece in self._family.pieces.items() if _kind(piece) == "line"]
        known = frozenset(names)
        for whole, path, name in self._named:
            if name not in known:
                base = "it is a base; " if name in self._family.pieces else ""
                yield whole.mistake(path, f"there is no line {name!r}", base + nearest(name, names))

    def _wrong(self, *mistakes: Mistake) -> None:
        self._mistakes.update(dict.fromkeys(mistakes))

    # --- files ----------------------------------------------------------------------------------------------------

    def _files(self, paths: Sequence[Path]) -> list[Path]:
        files: list[Path] = []
        for path in paths:
            try:
                found = shown_files(path) if path.is_dir() else [path]
            except OSError as error:
                what = f"cannot be read: {(error.strerror or 'unreadable').lower()}"
                self._wrong(Mistake(display_name(path), 1, "file", what, "check its permissions"))
                continue
            if not found:
                hint = "add one, or name another folder under dialplans.paths"
                self._wrong(Mistake(display_name(path), 1, "file", "the folder holds no *.yaml file", hint))
            files += [file for file in found if file not in files]
        if not paths:
            hint = "name a folder under dialplans.paths"
            self._wrong(Mistake("dialplans", 1, "file", "there is no dialplan", hint))
        if len(files) > MAX_FILES:
            self._wrong(
                Mistake(display_name(files[MAX_FILES]), 1, "file", f"more than {MAX_FILES} files", "merge some")
            )
        return files[:MAX_FILES]

    def _pieces_of(self, document: Document) -> None:
        """The lines, bases and defaults of a file: each under its key, or the whole file is one line."""
        self._wrong(*document.mistakes)
        data = document.data
        hint = "begin with `lines:` and a list, or with `name:`; see docs/dialplans.md"
        if data is None and not document.mistakes:
            self._wrong(document.mistake((), "is empty", hint))
        if data is None:
            return
        if not isinstance(data, dict):
            self._wrong(document.mistake((), "is not a dialplan", hint))
            return
        if not any(key in data for key in _FILE_KEYS):
            self._add_line(Piece(document, (), OWN_KEYS))
            return
        beside = next(key for key in _FILE_KEYS if key in data)
        for key in data:
            if key not in _FILE_KEYS:
                self._wrong(
                    document.mistake((key,), f"unknown key beside {beside}", "indent it, if it belongs to a line")
                )
        self._add_defaults(document)
        self._add_bases(document)
        lines = data.get("lines", [])
        if not isinstance(lines, list) or ("lines" in data and not lines):
            self._wrong(document.mistake(("lines",), "must be a list of lines", "write each as `- name: ...`"))
            return
        for index in range(len(lines)):
            self._add_line(Piece(document, ("lines", index), OWN_KEYS))

    def _add_defaults(self, document: Document) -> None:
        if "defaults" not in document.data:
            return
        piece = Piece(document, ("defaults",))
        if not isinstance(piece.written, dict):
            self._wrong(piece.mistake((), "must be a mapping (key: value)", "write keys of a line below it"))
            return
        for key in ("name", "description", "extends"):
            if key in piece.written:
                self._wrong(piece.mistake((key,), "has no effect in defaults", "write it in the line"))
                del piece.written[key]
        self._family.defaults[id(document)] = piece

    def _add_bases(self, document: Document) -> None:
        bases = document.data.get("bases", {})
        if not isinstance(bases, dict):
            hint = "write each as `NAME:` with keys of a line below it"
            self._wrong(document.mistake(("bases",), "must be a mapping of bases", hint))
            return
        for name in bases:
            piece = Piece(document, ("bases", name), ("description", "extends"))
            if not isinstance(piece.written, dict):
                self._wrong(piece.mistake((), "is not a base", "write keys of a line below it"))
                continue
            if "name" in piece.written:
                self._wrong(piece.mistake(("name",), f"a base has no name but its key, {name!r}", "remove it"))
                del piece.written["name"]
            if not _NAME.match(name):
                self._wrong(piece.mistake((), f"{name!r} is not a name", "use letters, digits, - and _"))
                continue
            self._name(name, piece, "base")

    def _add_line(self, piece: Piece) -> None:
        if not isinstance(piece.written, dict):
            self._wrong(piece.mistake((), "is not a line", "write `name:` and the other keys below it"))
            return
        self._pieces.append(piece)
        name = piece.written.get("name")
        if isinstance(name, str | int):
            self._name(str(name), piece, "line")

    def _name(self, name: str, piece: Piece, kind: str) -> None:
        other = self._family.pieces.setdefault(name, piece)
        if other is not piece:
            what = f"{name!r} is already the {_kind(other)} at {_place(other)}"
            key = ("name",) if kind == "line" else ()
            self._wrong(piece.mistake(key, what, f"give each {kind} a name of its own"))

    # --- lines ----------------------------------------------------------------------------------------------------

    def _line(self, piece: Piece) -> None:
        """Read one line, and see how it stands to those above it."""
        inherited, complete = self._family.beneath(piece)
        whole = Whole(piece, inherited)
        line = self._as_its_model(whole, inherited) if complete else self._examined(whole, complete=False)
        if line is None:
            return
        if line.closed is not None and line.closed.line is not None:
            self._named.append((whole, ("closed", "line"), line.closed.line))
        if line.on_engine_failure is not None and line.on_engine_failure.line is not None:
            self._named.append((whole, ("on_engine_failure", "line"), line.on_engine_failure.line))
        self._wrong(*self._numbers.add(line, whole, ()))
        if self._catch_all and line.name not in self._lines:
            what = f"line {line.name!r} never answers: {self._catch_all!r} above it matches every call"
            hint = "move the line that matches all to the end"
            self._unmatched.append((line.name, whole.mistake(("match",), what, hint)))
        if line.agent == "llm" and not self._around.of(line).open_vocabulary:
            what = "the recogniser understands expected phrases only, and a model's line expects none"
            hint = "name another engines.asr.provider in appliance.yaml"
            self._warnings.append(whole.mistake(("agent",), what, hint))
        if line.name not in self._lines:
            self._written.append(whole.data)
        self._lines.setdefault(line.name, line)
        self._places.setdefault(line.name, piece)
        self._catch_all = self._catch_all or (line.name if line.catches_all else "")

    def _as_its_model(self, whole: Whole, inherited: Inherited | None) -> Line | None:
        """The line, of which only who it answers is looked at where the rest has been looked at in another."""
        rest = {key: value for key, value in whole.written.items() if key not in OWN_KEYS}
        try:
            key = (id(inherited) if inherited is not None else 0, marshal.dumps(rest))
        except ValueError:  # a secret, say
            return self._examined(whole)
        if key not in self._models:
            found = len(self._mistakes)
            line = self._examined(whole)
            if not whole.at_fault:
                self._models[key] = line if len(self._mistakes) == found else None
            return line
        model = self._models[key]
        try:
            head = head_of(whole.data)
        except ValidationError:
            return self._examined(whole)
        if model is None:
            return None
        line = like(model, head)
        self._model_of[line.name] = model.name
        for problem in trunk_misfits(line, self._around):
            self._wrong(_reported(whole, problem))
        return line

    def _examined(self, whole: Whole, *, complete: bool = True) -> Line | None:
        """As :meth:`_looked_at`, and the line that it is while it is closed."""
        changed = whole.while_closed()
        line = self._looked_at(whole, complete=complete)
        if changed is not None and line is not None:
            self._looked_at(changed, complete=complete)
            whole.at_fault |= changed.at_fault
        return line

    def _looked_at(self, whole: Whole, *, complete: bool) -> Line | None:
        """The line, looked at as a whole; None where it could not be understood, or has no name to go by.

        Args:
            whole: the line.
            complete: False where something of what it inherits is missing: then only what is there is looked at.
        """
        try:
            line = Line.model_validate(whole.data)
        except ValidationError:
            pass
        else:
            if complete:
                draft = Draft(line=line, order=tuple(line.flow))
                self._wrong(*(_reported(whole, problem) for problem in self._problems(draft, whole)))
            return line
        checked = validate(Line, whole)
        self._wrong(*checked.mistakes)
        named = checked.value is not None
        if not named:
            # Without a usable name nothing is made of the line; with a makeshift one the rest of it can be checked.
            whole.data = whole.data | {"name": "unnamed"}
            checked = validate(Line, whole)
        if checked.value is None or not complete:
            return None
        raw = whole.data
        steps: dict[str, Any] = raw["flow"] if isinstance(raw.get("flow"), dict) else {}
        draft = Draft(
            line=checked.value,
            order=tuple(steps),
            broken={name: steps[name] for name in {str(p[1]) for p in checked.broken if len(p) > 1 and p[0] == "flow"}},
            wrong_keys=frozenset(str(path[0]) for path in checked.broken if path),
        )
        self._wrong(*(_reported(whole, problem) for problem in self._problems(draft, whole)))
        return checked.value if named else None

    def _problems(self, draft: Draft, whole: Whole) -> list[Problem]:
        found = problems(draft, self._around.of(draft.line).missing_words)
        return [*found, *misfits(draft.line, whole.data, self._around)]

    def _by_itself(self, name: str, base: Piece) -> None:
        """Look at a base that no line extends, as far as that can be done, and say that none does."""
        inherited, _ = self._family.beneath(base)
        whole = Whole(base, inherited)
        whole.data = whole.data | {"name": name}
        self._wrong(*validate(Line, whole).mistakes)
        hint = f"write extends: {name} in a line, or remove it"
        self._warnings.append(base.mistake((), f"no line extends {name!r}", hint))


def _kind(piece: Piece) -> str:
    return "base" if piece.root[:1] == ("bases",) else "line"


def _place(piece: Piece) -> str:
    file, number = piece.document.origin(piece.root)
    return f"{file}:{number}"


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
    engines = settings.engines
    usual = _recogniser(engines.asr.provider)
    secrets = secrets_of(settings)
    checker = plugins or PluginChecker(settings.plugins, secrets=secrets)
    return Surroundings(
        missing_words=usual.missing_words,
        trunks=tuple(settings.trunks),
        languages=usual.languages,
        llm=engines.llm.provider != "none",
        speech=engines.speech.provider != "none",
        routes=bool(settings.routes),
        open_vocabulary=usual.open_vocabulary,
        secrets=secrets,
        voice=lru_cache(maxsize=1000)(partial(_voice_problem, engines.tts)),
        tools=lambda line: checker.tools_of(line.name, line.plugins),
        checks=(partial(_plugin_problems, checker), partial(_tool_clashes, checker)),
        recognisers={name: _recogniser(engine.provider) for name, engine in engines.named.asr.items()},
        voices={
            name: lru_cache(maxsize=1000)(partial(_voice_problem, engine)) for name, engine in engines.named.tts.items()
        },
        models=tuple(engines.named.llm),
    )


def _recogniser(provider: str) -> Recogniser:
    if provider != "pocketsphinx":
        return Recogniser()
    return Recogniser(Lexicon().missing, languages=("en",), open_vocabulary=False)


def _voice_problem(tts: SpeechEngine, name: str, language: str) -> str:
    # Only now: few lines say anything about the voice, and it takes a third of a second to import.
    from appliance.engines.builtin import provider_registry

    problem = provider_registry().voice_problem(tts.provider, tts.options)
    return problem(name, language) if problem is not None else ""


def routing_of(plan: Dialplan, settings: Settings) -> Routing:
    """The choice among the lines of ``plan``, on the box that ``settings`` are of."""
    return routing_among(plan.lines, plan.numbers.found, settings)


def routing_among(
    lines: Sequence[Line], lists: Lists, settings: Settings, index: RoutingIndex | None = None
) -> Routing:
    """The choice among ``lines``, which name ``lists``; ``index`` where there is one already."""
    trunks = settings.trunks.items()
    return Routing(
        lines,
        lists=lists,
        region=settings.dialplans.region or "",
        trunk_regions={name: trunk.region for name, trunk in trunks if trunk.region},
        trunk_languages={name: trunk.language for name, trunk in trunks if trunk.language},
        index=index,
    )


def _plugin_problems(checker: PluginChecker, line: Line, written: Mapping[str, Any]) -> Iterator[Problem]:
    for path, what, hint in checker.line_problems(line.plugins):
        yield Problem(("plugins", *path), what, hint)


def _tool_clashes(checker: PluginChecker, line: Line, written: Mapping[str, Any]) -> Iterator[Problem]:
    """Tools of one name, of which the line could have only the first."""
    if line.agent == "flow":
        return
    taken = dict.fromkeys(BUILTIN_TOOLS, "")
    for plugin, names in checker.tools_by_plugin(line.name, line.plugins).items():
        for name in names:
            first = taken.setdefault(name, plugin)
            if first == plugin or (line.tools is not None and name not in line.tools):
                continue
            other = f"plugin {first!r} has" if first else "the box has"
            what = f"has a tool {name!r}, and {other} one, too"
            hint = f"rename one of them, or switch the plugin off here: `{plugin}: false`"
            yield Problem(("plugins", plugin), what, hint)


def _reported(whole: Whole, problem: Problem) -> Mistake:
    """The problem at the line where it was written."""
    written = locate(whole.data, problem.path)
    in_short = isinstance(problem.path[-1], int) and written == problem.path[:-1]  # one item instead of a list
    return whole.mistake_at(written, written if in_short else problem.path, problem.what, problem.hint)
