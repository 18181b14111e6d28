"""YAML with its line numbers kept, so that every mistake can be reported where the operator made it.

Scalars follow the YAML 1.2 core rules, not PyYAML's 1.1 ones: ``yes``, ``no`` and ``on`` are words, ``12:30`` is not
a count of seconds, and ``0301234`` and ``+49301234`` are telephone numbers. Keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from pydantic import SecretStr

from appliance.errors import Mistake

Path: TypeAlias = tuple[str | int, ...]
Secrets: TypeAlias = Callable[[str], SecretStr | str]
"""A secret's name to its value, or to a sentence that says why there is none (a hint for the operator)."""

MAX_NODES = 100_000
MAX_DEPTH = 40

_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalar rules of the module docstring."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^-?(?:0|[1-9][0-9]{0,17})$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^-?[0-9]{1,17}\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?$"), list("-0123456789")
)


@dataclass
class Document:
    """One file as plain data, with the file and line of every value.

    ``data`` holds dict, list, str, int, float, bool, None and SecretStr. ``origins`` maps the path of each value to
    (file, line); lines count from 1.
    """

    file: str
    data: Any = None
    origins: dict[Path, tuple[str, int]] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def origin(self, path: Path) -> tuple[str, int]:
        """Where ``path``, or the nearest thing above it that exists, was written."""
        for length in range(len(path), -1, -1):
            if found := self.origins.get(path[:length]):
                return found
        return (self.file, 1)

    def mistake(self, path: Path, what: str, hint: str = "") -> Mistake:
        """A mistake about ``path``, at its line."""
        file, line = self.origin(path)
        return Mistake(file, line, dotted(path), what, hint)


def dotted(path: Path) -> str:
    """``("listen", "sip", 0)`` as ``listen.sip.0``; the empty path as ``file``."""
    return ".".join(str(part) for part in path) or "file"


def parse(text: str, file: str, *, secrets: Secrets | None = None, typed: bool = True) -> Document:
    """Read ``text``. What is wrong with it is in the result's ``mistakes``; nothing is raised.

    Args:
        text: the whole file.
        file: its name, for messages.
        secrets: looks up ``!secret NAME``; None where the file may hold none.
        typed: False keeps every scalar as the text it was written as.
    """
    document = Document(file)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        document.mistakes.append(_syntax_mistake(file, text, error))
        return document
    except yaml.reader.ReaderError as error:
        position = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, position) + 1
        what = "holds a character that is not allowed in YAML"
        document.mistakes.append(Mistake(file, line, "file", what, "remove it or write it as an escape in quotes"))
        return document
    except RecursionError:
        document.mistakes.append(Mistake(file, 1, "file", "is nested too deeply", f"use at most {MAX_DEPTH} levels"))
        return document
    except (yaml.YAMLError, ValueError, OverflowError):
        what, hint = "cannot be read as YAML", r"look for an impossible escape such as \UFFFFFFFF, or a bad directive"
        document.mistakes.append(Mistake(file, 1, "file", what, hint))
        return document
    if root is not None:
        builder = _Builder(document, secrets, typed)
        document.origins[()] = (file, root.start_mark.line + 1)
        try:
            document.data = builder.build(root, ())
        except _TooBig as error:
            document.data = None
            document.mistakes.append(Mistake(file, error.line, "file", error.what, error.hint))
    return document


def _syntax_mistake(file: str, text: str, error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    problem = error.problem or "is not YAML"
    lines = text.splitlines()
    near = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\\t" in problem or "\t" in near[: len(near) - len(near.lstrip())]:
        return Mistake(file, line, "syntax", "a tab is used for indentation", "use spaces")
    if "but got '?'" in problem:
        return Mistake(file, line, "syntax", "a '?' inside { } or [ ]", "put the text it belongs to in quotes")
    if "mapping values are not allowed" in problem:
        hint = "check the indentation, or put the text in quotes if it holds a colon"
        return Mistake(file, line, "syntax", "a ':' where none can be", hint)
    if "undefined alias" in problem:
        return Mistake(file, line, "syntax", problem, "define it with & above, or quote the text if it begins with *")
    if error.context and error.context_mark and error.context_mark.line + 1 != line:
        problem = f"{problem} {error.context} that began on line {error.context_mark.line + 1}"
    hint = "check the indentation, quotes and brackets here and on the line above"
    return Mistake(file, line, "syntax", problem, hint)


class _TooBig(Exception):
    def __init__(self, line: int, what: str, hint: str) -> None:
        self.line, self.what, self.hint = line, what, hint
        super().__init__(what)


class _Builder:
    def __init__(self, document: Document, secrets: Secrets | None, typed: bool) -> None:
        self._document = document
        self._secrets = secrets
        self._typed = typed
        self._left = MAX_NODES

    def build(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise _TooBig(line, f"holds more than {MAX_NODES} values", "check for aliases that multiply")
        if len(path) > MAX_DEPTH:
            raise _TooBig(line, "is nested too deeply", f"use at most {MAX_DEPTH} levels, and no alias inside itself")
        self._document.origins.setdefault(path, (self._document.file, line))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                hint = "quote the key, or check the braces"
                self._report(line, path, "a key that is itself a list or mapping", hint)
                continue
            key = self._text(key_node, path)
            inner = (*path, key)
            if key in result:
                first = self._document.origins[inner][1]
                self._report(line, inner, "is given twice", f"the first is on line {first}; keep one")
                continue
            self._document.origins[inner] = (self._document.file, line)
            result[key] = self.build(value_node, inner)
        return result

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = self._text(node, path)
        if node.tag == "!secret":
            return self._secret(node, path, text)
        if not self._typed or node.tag == _STR:
            return text
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        try:
            if node.tag == _INT:
                return int(text)
            if node.tag == _FLOAT:
                return float(text)
        except ValueError:
            self._report(node.start_mark.line + 1, path, f"{text[:40]!r} is not a number", "remove the tag")
            return None
        self._report(node.start_mark.line + 1, path, f"unknown tag {node.tag}", "the only tag is !secret NAME")
        return None

    def _secret(self, node: yaml.Node, path: Path, name: str) -> SecretStr | None:
        line = node.start_mark.line + 1
        if self._secrets is None:
            self._report(line, path, "!secret cannot be used here", "secrets belong in appliance.yaml")
            return None
        found = self._secrets(name)
        if isinstance(found, SecretStr):
            return found
        self._report(line, path, f"secret {name!r} is not defined", found)
        return None

    def _text(self, node: yaml.Node, path: Path) -> str:
        text = str(node.value)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self._report(node.start_mark.line + 1, path, r"a \u escape is half a character", "write the character")
            return text.encode("utf-8", "replace").decode()
        return text

    def _report(self, line: int, path: Path, what: str, hint: str) -> None:
        self._document.mistakes.append(Mistake(self._document.file, line, dotted(path), what, hint))
