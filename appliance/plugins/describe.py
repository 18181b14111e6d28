"""Asking about plugins without running any of their code in this process: ``check``, ``plugins``, ``route-test``.

A child process imports them, answers, and is gone with whoever asked. It is killed where it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from appliance.config.marks import Secrets
from appliance.config.settings import Plugins
from appliance.config.validation import nearest
from appliance.errors import Mistake
from appliance.plugins.declarative.loader import DeclarativePlugin, Found, examine_declarative
from appliance.plugins.discovery import Source, find_sources
from appliance.plugins.plan import PluginInfo, Values, concealed, effective

MODULE: Final = "appliance.plugins.host"
TIMEOUT_S: Final = 20.0
_OWN_END_S: Final = 10.0
"""So long after a question has timed out, the child ends by itself, should nobody be there any more to end it."""
_MAX_ANSWER: Final = 16_000_000

Problem = tuple[tuple[str | int, ...], str, str]
"""Path of a value, what is wrong, what would be right."""


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line to the child: ``about`` is describe, values, tools, options (of ``provider`` of a ``kind``) or trunk.

    Of a trunk, ``kind`` is its kind and ``values`` are its own keys.
    """

    about: str
    source: Source
    line: str = ""
    values: dict[str, Any] = {}
    kind: str = ""
    provider: str = ""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line back."""

    info: PluginInfo | None = None
    problems: tuple[tuple[tuple[str | int, ...], str, str], ...] = ()
    tools: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    transport: str = ""
    unasked: bool = False
    failed: str = ""


class _Child:
    """The process that imports the plugins; started when something is asked."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def ask(self, question: Question, timeout_s: float) -> Reply:
        """The answer; ``failed`` where there is none, and the next question goes to a new process."""
        try:
            process = self._started(timeout_s)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            process.stdin.flush()
            return msgspec.json.decode(self._line(process, time.monotonic() + timeout_s), type=Reply)
        except TimeoutError:
            self.stop()
            return Reply(failed=f"does not come back within {timeout_s:g} s; import and do nothing slow at its start")
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            code = self.stop()
            how = f"killed by signal {-code}" if code < 0 else f"status {code}"
            return Reply(failed=f"ends the process that imports it ({how})" + ("" if code else f": {error}"))

    def stop(self) -> int:
        process, self._process, self._read = self._process, None, b""
        return 0 if process is None else _ended(process)

    def _started(self, timeout_s: float) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._read = b""
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", MODULE, "--describe"),
                    *("--memory-mb", str(self._memory_mb), "--limit-s", str(timeout_s + _OWN_END_S)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            weakref.finalize(self, _ended, self._process)
        return self._process

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        while b"\n" not in self._read:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or len(self._read) > _MAX_ANSWER:
                raise TimeoutError
            if not select.select([process.stdout], [], [], left_s)[0]:
                continue
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Kill it with all that it started; its exit status."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
        process.wait(0.5)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


@dataclass(frozen=True)
class PluginTrunk:
    """A trunk whose kind is a plugin's.

    Attributes:
        plugin: whose.
        problems: what is wrong with the trunk's own keys; the path is of keys below the trunk.
        transport: of its streams, as of ``appliance.api.StreamKind``; "" where that is not known.
        unasked: the same.
    """

    plugin: str
    problems: tuple[Problem, ...]
    transport: str
    unasked: bool


class PluginChecker:
    """What there is of plugins, and whether what the operator wrote fits them. Answers are kept.

    Args:
        settings: ``plugins`` of ``appliance.yaml``.
        secrets: looks up ``!secret NAME`` of YAML plugins.
        timeout_s: a plugin that takes longer to import or to answer is a mistake.
    """

    def __init__(self, settings: Plugins, *, secrets: Secrets | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.enabled: Mapping[str, Values] = settings.chosen
        self.sources = find_sources(settings.paths)
        self._timeout_s = timeout_s
        self._secrets = secrets
        self._used: set[str] = set()
        self._child = _Child(settings.memory_mb)
        self._infos: dict[str, PluginInfo] = {}
        self._checked: dict[tuple[str, bytes], tuple[Problem, ...]] = {}
        self._tools: dict[tuple[str, str, bytes], tuple[str, ...]] = {}

    def close(self) -> None:
        """End the child process, if there is one. It is started again where something is asked."""
        self._child.stop()

    @cached_property
    def yaml(self) -> Found:
        """The YAML plugins, read when they are first asked for."""
        files = [Path(source.where) for source in self.sources.values() if not source.python]
        return examine_declarative(files, self._secrets)

    @property
    def used_yaml(self) -> dict[str, DeclarativePlugin]:
        """The YAML plugins without mistakes that the box, or a line asked about so far, uses."""
        return {name: plugin for name, plugin in self.yaml.plugins.items() if name in self._used}

    def file_mistakes(self) -> list[Mistake]:
        """What is wrong inside of the YAML plugins that the box, or a line asked about so far, uses."""
        return self.yaml.mistakes_of(self._used) if self._used else []

    def info(self, name: str) -> PluginInfo | None:
        """What the plugin is; None where there is none of the name."""
        source = self.sources.get(name)
        if source is None:
            return None
        if name not in self._infos:
            info = PluginInfo(name=name, source=source)
            if source.python:
                reply = self._child.ask(Question("describe", source), self._timeout_s)
                info = reply.info or PluginInfo(name=name, source=source, problem=f"plugin {name!r} {reply.failed}")
            else:
                info = _of_yaml(source, self.yaml)
            self._infos[name] = info
        return self._infos[name]

    def provides(self, kind: str, provider: str) -> str:
        """The enabled plugin that has an engine of the name; "" for none."""
        for name in self.enabled:
            info = self.info(name)
            if info is not None and provider in info.providers.get(kind, ()):
                return name
        return ""

    def option_problems(self, name: str, kind: str, provider: str, options: Values) -> list[str]:
        """What is wrong with the options of a plugin's engine, as ``key: what is wrong; what would be right``."""
        question = Question("options", self.sources[name], values=concealed(options), kind=kind, provider=provider)
        reply = self._child.ask(question, self._timeout_s)
        return [*reply.wrong, *([f"provider: plugin {name!r} {reply.failed}"] if reply.failed else [])]

    def trunk(self, kind: str, options: Values) -> PluginTrunk | None:
        """What the enabled plugin that has this kind of trunk says of one; None where there is no such plugin."""
        name = self.provides("stream", kind) or self.provides("carrier", kind)
        if not name:
            return None
        question = Question("trunk", self.sources[name], values=concealed(options), kind=kind)
        reply = self._child.ask(question, self._timeout_s)
        problems = ((("kind",), f"plugin {name!r} {reply.failed}", ""),) if reply.failed else reply.problems
        return PluginTrunk(name, problems, reply.transport, reply.unasked)

    def box_problems(self, *, python: bool = True) -> list[Problem]:
        """What is wrong with ``plugins.enabled``; paths begin with the plugin's name.

        Args:
            python: False looks at the YAML plugins alone, and starts nothing.
        """
        found: list[Problem] = []
        for name, values in self.enabled.items():
            source = self.sources.get(name)
            if python or (source is not None and not source.python):
                found += self._problems(name, values)
        return found

    def line_problems(self, plugins: Mapping[str, Values | Literal[False]]) -> list[Problem]:
        """What is wrong with a line's ``plugins``; paths begin with the plugin's name."""
        found: list[Problem] = []
        for name, own in plugins.items():
            if own is False:
                if name not in self.enabled:
                    hint = nearest(name, self.enabled) or "remove it"
                    found.append(((name,), "switches off a plugin that the box does not enable", hint))
                continue
            found += self._problems(name, {**self.enabled.get(name, {}), **own})
        return found

    def tools_of(self, line: str, plugins: Mapping[str, Values | Literal[False]]) -> tuple[str, ...]:
        """Names of the tools that plugins offer on a line; those that cannot be asked have none."""
        offered = self.tools_by_plugin(line, plugins).values()
        return tuple(dict.fromkeys(name for names in offered for name in names))

    def tools_by_plugin(self, line: str, plugins: Mapping[str, Values | Literal[False]]) -> dict[str, tuple[str, ...]]:
        """The same by plugin, in the order in which they are asked."""
        found: dict[str, tuple[str, ...]] = {}
        for name, values in effective(self.enabled, plugins).items():
            info = self.info(name)
            if info is None or info.problem or "tools" not in info.hooks:
                continue
            if not info.source.python:
                found[name] = tuple(self.yaml.plugins[name].tools)
                continue
            written = concealed(values)
            key = (name, line, msgspec.json.encode(written))
            if key not in self._tools:
                reply = self._child.ask(Question("tools", info.source, line, written), self._timeout_s)
                self._tools[key] = reply.tools
            found[name] = self._tools[key]
        return found

    def _problems(self, name: str, values: Values) -> Sequence[Problem]:
        self._used.add(name)
        info = self.info(name)
        if info is None:
            return [
                ((name,), f"there is no plugin {name!r}", nearest(name, self.sources) or "see `appliance plugins list`")
            ]
        if info.problem:
            what, _, hint = info.problem.partition("; ")
            return [((name,), what, hint)]
        if not info.source.python:
            found = self.yaml.plugins[name].values_problems(values)
            return [((name, *path), what, hint) for path, what, hint in found]
        written = concealed(values)
        key = (name, msgspec.json.encode(written))
        if key not in self._checked:
            reply = self._child.ask(Question("values", info.source, values=written), self._timeout_s)
            problems = reply.problems or ((((), f"plugin {name!r} {reply.failed}", ""),) if reply.failed else ())
            self._checked[key] = tuple(((name, *path), what, hint) for path, what, hint in problems)
        return self._checked[key]


def _of_yaml(source: Source, found: Found) -> PluginInfo:
    plugin = found.plugins.get(source.name)
    if plugin is None:
        mistakes = found.mistakes.get(source.name, ())
        where = f"{mistakes[0].file}:{mistakes[0].line}" if mistakes else source.where
        problem = f"plugin {source.name!r} has mistakes in its file; correct {where}"
        return PluginInfo(name=source.name, source=source, problem=problem)
    schema = plugin.values.model_json_schema() if plugin.values.model_fields else None
    return PluginInfo(
        name=source.name,
        source=source,
        summary=plugin.file.summary,
        values="" if schema is None else json.dumps(schema),
        hooks=("tools",) if plugin.tools else (),
        tools=plugin.tools,
        webhooks=tuple(plugin.file.webhooks),
    )
