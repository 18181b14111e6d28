"""What a line refers to outside of its file: trunks, languages, tools, plugins, voices. PURE."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from appliance.config.marks import Secrets
from appliance.config.validation import nearest
from appliance.dialplan.checks import MissingWords, Path, Problem
from appliance.dialplan.schema import BUILTIN_TOOLS, Line
from appliance.dialplan.steps import ConverseStep, TransferStep, TransferTarget

_USUAL_LANGUAGE: Final = "en-us"

LineCheck: TypeAlias = Callable[[Line, Mapping[str, Any]], Iterable[Problem]]
"""What is wrong with a line, which is given as it was understood and as it was written (whole, with all inherited)."""
NamesFor: TypeAlias = Callable[[Line], Collection[str] | None]
"""The names that exist for a line; None where they are not known."""


@dataclass(frozen=True)
class Recogniser:
    """What a recogniser understands: ``missing_words``, ``languages`` and ``open_vocabulary`` of the surroundings."""

    missing_words: MissingWords | None = None
    languages: Collection[str] | None = None
    open_vocabulary: bool = True


@dataclass(frozen=True)
class Surroundings:
    """What there is beside the dialplans. What is left out is not checked.

    Args:
        missing_words: tells which words of a phrase the recogniser does not know.
        trunks: names of the trunks there are.
        languages: what the recogniser understands, as ``en`` for every English.
        tools: names of the tools that a line can use beside the built-in ones; without it there are no others.
        voice: what is wrong with a voice, by its name and the language, as ``what is wrong; what would be right``.
        llm: whether there is a language model for lines with ``agent: llm``.
        speech: whether there is a model that hears and speaks for lines with ``agent: realtime``.
        routes: whether there are routes for transfers that name no trunk.
        open_vocabulary: whether the recogniser understands more than what is expected.
        secrets: looks up ``!secret NAME``; None where dialplans may hold none.
        checks: what else a line must fulfil, the values of its plugins for one.
        recognisers: those that lines can name.
        voices: as ``voice``, of the synthesisers that lines can name.
        models: names of language models that lines can name.
    """

    missing_words: MissingWords | None = None
    trunks: Collection[str] | None = None
    languages: Collection[str] | None = None
    tools: NamesFor | None = None
    voice: Callable[[str, str], str] | None = None
    llm: bool = True
    speech: bool = True
    routes: bool = True
    open_vocabulary: bool = True
    secrets: Secrets | None = None
    checks: tuple[LineCheck, ...] = ()
    recognisers: Mapping[str, Recogniser] | None = None
    voices: Mapping[str, Callable[[str, str], str]] | None = None
    models: Collection[str] | None = None

    def of(self, line: Line) -> Surroundings:
        """What there is for a line that names engines."""
        changes: dict[str, Any] = {}
        recogniser = (self.recognisers or {}).get(line.engines.asr)
        if recogniser is not None:
            changes |= {field.name: getattr(recogniser, field.name) for field in fields(Recogniser)}
        voice = (self.voices or {}).get(line.engines.tts)
        if voice is not None:
            changes["voice"] = voice
        if line.engines.llm:
            changes["llm"] = True
        return replace(self, **changes) if changes else self


def misfits(line: Line, written: Mapping[str, Any], around: Surroundings) -> list[Problem]:
    """Where the line does not fit what is around it.

    Args:
        line: as it was understood.
        written: as it was written.
        around: what there is.
    """
    found = [*trunk_misfits(line, around), *_targets(line, around), *_named_engines(line, around)]
    found += [*_engines(line, around.of(line)), *_tools(line, around)]
    if line.timezone is not None and not _is_zone(line.timezone):
        what = f"{line.timezone!r} is not a time zone"
        found.append(Problem(("timezone",), what, "write one such as Europe/Berlin"))
    for check in around.checks:
        found += check(line, written)
    return found


def _transfers(line: Line) -> Iterator[tuple[Path, TransferTarget]]:
    for name, step in line.flow.items():
        if isinstance(step, TransferStep):
            yield ("flow", name, "transfer"), step.transfer
    if line.on_engine_failure is not None and line.on_engine_failure.transfer is not None:
        yield ("on_engine_failure", "transfer"), line.on_engine_failure.transfer
    if line.closed is not None and line.closed.transfer is not None:
        yield ("closed", "transfer"), line.closed.transfer
    for key, shortcut in line.keys.items():
        if shortcut.transfer is not None:
            yield ("keys", key, "transfer"), shortcut.transfer
    yield from ((("transfers", name), choice) for name, choice in line.transfers.items())


def targets_of(line: Line) -> frozenset[str]:
    """Whom the line hands callers on to, where that is written out and no value of a call is part of it."""
    return frozenset(target.to for _, target in _transfers(line) if "${" not in target.to)


def trunk_misfits(line: Line, around: Surroundings) -> Iterator[Problem]:
    """Trunks that the line answers on, and that there are not."""
    trunks = around.trunks
    for index, trunk in enumerate(line.match.trunk or ()):
        if trunks is not None and trunk not in trunks and trunk != "*":
            yield Problem(("match", "trunk", index), f"there is no trunk {trunk!r}", nearest(trunk, trunks))


def _targets(line: Line, around: Surroundings) -> Iterator[Problem]:
    trunks = around.trunks
    for path, target in _transfers(line):
        wanted = target.trunk
        if wanted is not None and trunks is not None and wanted not in trunks:
            yield Problem((*path, "trunk"), f"there is no trunk {wanted!r}", nearest(wanted, trunks))
        elif wanted is None and not around.routes and not target.to.lower().startswith(("sip:", "sips:")):
            yield Problem(path, "nothing says by which trunk", "name a trunk here, or add routes to appliance.yaml")


def _engines(line: Line, around: Surroundings) -> Iterator[Problem]:
    languages = around.languages
    recognised = line.agent != "realtime" or (
        line.on_engine_failure is not None and line.on_engine_failure.step is not None
    )
    if recognised and languages is not None and line.language.partition("-")[0] not in languages:
        what = f"the recogniser does not understand {line.language!r}"
        hint = f"it understands {', '.join(sorted(languages))}; or name another engines.asr.provider in appliance.yaml"
        yield Problem(("language",), what, hint)
    if line.agent == "realtime" and not around.speech:
        hint = "set engines.speech.provider in appliance.yaml, or agent: flow"
        yield Problem(("agent",), "there is no model that hears and speaks", hint)
    if line.agent == "llm" and not around.llm:
        hint = "set engines.llm.provider in appliance.yaml, or agent: flow"
        yield Problem(("agent",), "there is no language model", hint)
    if line.agent == "flow" and line.converses and not around.llm:
        name = next(name for name, step in line.flow.items() if isinstance(step, ConverseStep))
        hint = "set engines.llm.provider in appliance.yaml, or ask"
        yield Problem(("flow", name, "converse"), "there is no language model", hint)
    yield from _voice(line, around)


def _named_engines(line: Line, around: Surroundings) -> Iterator[Problem]:
    there: dict[str, Collection[str] | None] = {
        "asr": around.recognisers, "llm": around.models, "tts": around.voices
    }  # fmt: skip
    for kind, known in there.items():
        name = getattr(line.engines, kind)
        if name and known is not None and name not in known:
            hint = nearest(name, known) or f"add it to engines.named.{kind} in appliance.yaml"
            yield Problem(("engines", kind), f"there is no engine {name!r}", hint)
    if line.engines.llm and line.agent == "realtime":
        hint = "remove it, or set agent: llm"
        yield Problem(("engines", "llm"), "has no effect with agent: realtime", hint)
    elif line.engines.llm and line.agent == "flow" and not line.converses:
        yield Problem(("engines", "llm"), "has no effect without a language model", "remove it, or set agent: llm")


def _voice(line: Line, around: Surroundings) -> Iterator[Problem]:
    language = line.voice.language or line.language
    spoken = line.agent != "realtime" or (
        line.on_engine_failure is not None and line.on_engine_failure.step is not None
    )
    if around.voice is None or not spoken or (not line.voice.name and language == _USUAL_LANGUAGE):
        return
    what, _, hint = around.voice(line.voice.name, language).partition("; ")
    if what:
        key: Path = (
            ("voice", "name") if line.voice.name else ("voice", "language") if line.voice.language else ("language",)
        )
        yield Problem(key, what, hint)


def _tools(line: Line, around: Surroundings) -> Iterator[Problem]:
    if line.agent == "flow" and not line.converses:
        return
    others = (around.tools(line) if around.tools is not None else None) or ()
    known = (*BUILTIN_TOOLS, *others)
    for index, name in enumerate(line.tools or ()):
        if name not in known:
            yield Problem(("tools", index), f"there is no tool {name!r}", nearest(name, known))
    for number, private in line.private.items():
        for index, name in enumerate(private.tools):
            if name not in others:
                at: Path = ("private", number, "tools", index)
                yield Problem(at, f"no plugin of this line has a tool {name!r}", nearest(name, others))
    for step_name, step in line.flow.items():
        for index, name in enumerate(step.tools if isinstance(step, ConverseStep) else ()):
            if name not in known:
                path = ("flow", step_name, "tools", index)
                yield Problem(path, f"there is no tool {name!r}", nearest(name, known))


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
