"""YAML with its line numbers kept, so that every mistake can be reported where the operator made it.

Scalars follow the YAML 1.2 core rules, not PyYAML's 1.1 ones: ``yes``, ``no`` and ``on`` are words, ``12:30`` is not
a count of seconds, and ``0301234`` and ``+49301234`` are telephone numbers. Keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import yaml
from pydantic import SecretStr

from appliance.errors import Mistake

Path: TypeAlias = tuple[str | int, ...]
Secrets: TypeAlias = Callable[[str], SecretStr | str]
"""A secret's name to its value, or to a sentence that says why there is none (a hint for the operator)."""

MAX_NODES = 100_000
MAX_DEPTH = 40

_SLOW_TO_READ = 200_000
"""Characters. The other parser words its mistakes better, but takes 20 s for a million characters."""

_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))


_FastParser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""LibYAML's parser, some ten times as fast; PyYAML's own where it is installed without."""


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalar rules of the module docstring."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^-?(?:0|[1-9][0-9]{0,17})$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^-?[0-9]{1,17}\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?$"), list("-0123456789")
)


_NO_TEXT = frozenset(("", *"~-0123456789nNtTfF"))


class _FastLoader(_FastParser):  # type: ignore[misc]
    """The same rules."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


class Document:
    """One file as plain data, with the file and line of every value.

    Args:
        file: its name, for messages.
        data: dict, list, str, int, float, bool, None and SecretStr.
        mistakes: what is wrong with it as YAML.
        made_of: its text, or what that was parsed to, for the lines.
    """

    def __init__(
        self, file: str, data: Any = None, mistakes: list[Mistake] | None = None, made_of: str | yaml.Node | None = None
    ) -> None:
        self.file = file
        self.data = data
        self.mistakes = mistakes if mistakes is not None else []
        self._made_of = made_of
        self._origins: dict[Path, tuple[str, int]] | None = None

    @property
    def origins(self) -> dict[Path, tuple[str, int]]:
        """The path of each value to (file, line); lines count from 1. Worked out when it is first asked for."""
        if self._origins is None:
            self._origins = {}
            root = self._made_of
            if isinstance(root, str):
                root = yaml.compose(root, Loader=_FastLoader)
            if root is not None:
                _find_origins(root, (), self.file, self._origins)
            self._made_of = None
        return self._origins

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


def _find_origins(node: yaml.Node, path: Path, file: str, origins: dict[Path, tuple[str, int]]) -> None:
    """Of what :class:`_Builder` made of ``node``. The line of a mapping's entry is that of its key."""
    origins.setdefault(path, (file, node.start_mark.line + 1))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _find_origins(child, (*path, index), file, origins)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            inner = (*path, str(key_node.value))
            if isinstance(key_node, yaml.ScalarNode) and inner not in origins:
                origins[inner] = (file, key_node.start_mark.line + 1)
                _find_origins(value_node, inner, file, origins)


def dotted(path: Path) -> str:
    """``("listen", "sip", 0)`` as ``listen.sip.0``; the empty path as ``file``."""
    return ".".join(str(part) for part in path) or "file"


def parse(
    text: str,
    file: str,
    *,
    secrets: Secrets | None = None,
    secret_at: Callable[[Path], bool] | None = None,
    typed: bool = True,
    max_nodes: int = MAX_NODES,
) -> Document:
    """Read ``text``. What is wrong with it is in the result's ``mistakes``; nothing is raised.

    Args:
        text: the whole file.
        file: its name, for messages.
        secrets: looks up ``!secret NAME``; None where the file may hold none.
        secret_at: whether a secret may stand at a path; everywhere unless given.
        typed: False keeps every scalar as the text it was written as.
        max_nodes: values that the file may hold.
    """
    depth = MAX_DEPTH + 1
    if typed and _FastParser is not yaml.SafeLoader:
        plain = _Plain(file, max_nodes)
        try:
            return plain.document(text)
        except _NotPlain as error:
            depth = error.depth
        except _TooBig as error:
            return Document(file, mistakes=[Mistake(file, error.line, "file", error.what, error.hint)])
        except yaml.MarkedYAMLError as error:
            if len(text) > _SLOW_TO_READ:
                return Document(file, mistakes=[_syntax_mistake(file, text, error)])
        except (yaml.YAMLError, UnicodeError):
            pass
    root, mistake = _composed(text, file, _FastLoader if depth <= MAX_DEPTH and len(text) > _SLOW_TO_READ else _Loader)
    if mistake is not None or root is None:
        return Document(file, mistakes=[mistake] if mistake is not None else [])
    document = Document(file, made_of=root)
    builder = _Builder(document, secrets, secret_at, typed, max_nodes)
    try:
        document.data = builder.build(root, ())
    except _TooBig as error:
        return Document(file, mistakes=[*document.mistakes, Mistake(file, error.line, "file", error.what, error.hint)])
    return document


def _composed(text: str, file: str, loader: type[yaml.SafeLoader]) -> tuple[yaml.Node | None, Mistake | None]:
    """The nodes of ``text``, or what is wrong with it."""
    try:
        return yaml.compose(text, Loader=loader), None
    except yaml.MarkedYAMLError as error:
        return None, _syntax_mistake(file, text, error)
    except yaml.reader.ReaderError as error:
        position = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, position) + 1
        what = "holds a character that is not allowed in YAML"
        return None, Mistake(file, line, "file", what, "remove it or write it as an escape in quotes")
    except RecursionError:
        return None, Mistake(file, 1, "file", "is nested too deeply", f"use at most {MAX_DEPTH} levels")
    except (yaml.YAMLError, ValueError, OverflowError):
        what, hint = "cannot be read as YAML", r"look for an impossible escape such as \UFFFFFFFF, or a bad directive"
        return None, Mistake(file, 1, "file", what, hint)


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


class _NotPlain(Exception):
    """There is something in the file that takes a closer look. The whole of it is ``depth`` levels deep."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


class _Plain:
    """Makes data of a file without mistakes, secrets and aliases; anything else is left to :class:`_Builder`.

    It is made of LibYAML's events, without its nodes: several times as fast, and never too deep for the stack.
    """

    def __init__(self, file: str, max_nodes: int) -> None:
        self._file = file
        self._left = max_nodes

    def document(self, text: str) -> Document:
        """
        Raises:
            _NotPlain: there may be a mistake, a secret or an alias.
            _TooBig: it is nested too deeply.
            yaml.YAMLError: it is not YAML; the other parser says it better.
        """
        parser = _FastLoader(text)
        try:
            next_event = parser.get_event
            next_event()  # of the stream
            if type(next_event()) is yaml.StreamEndEvent:
                return Document(self._file)
            document = Document(self._file, self._value(next_event), made_of=text)
            next_event()  # of the document
            if type(next_event()) is not yaml.StreamEndEvent:
                raise _NotPlain(MAX_DEPTH + 1)
            return document
        finally:
            parser.dispose()

    def _value(self, next_event: Callable[[], Any]) -> Any:
        """The root and all below it."""
        top: list[Any] = []
        # What is being filled, a list or a mapping, and the key that waits for its value; and what it is within.
        holder: Any = top
        key: str | None = None
        within: list[tuple[Any, str | None]] = []
        deepest, sound, left = 0, True, self._left
        while True:
            event = next_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                value: Any = event.value
                if event.tag is not None:
                    sound = False
                if key is None and type(holder) is dict:
                    if value in holder:
                        sound = False
                    key = value
                    continue
                left -= 1
                if event.implicit[0] and value[:1] in _NO_TEXT:
                    value = _resolved(value)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                if event.tag is not None or (key is None and type(holder) is dict):
                    sound = False
                left -= 1
                within.append((holder, key))
                holder, key = ({} if kind is yaml.MappingStartEvent else []), None
                deepest = max(deepest, len(within))
                if deepest > MAX_DEPTH + 1:
                    hint = f"use at most {MAX_DEPTH} levels, and no alias inside itself"
                    raise _TooBig(event.start_mark.line + 1, "is nested too deeply", hint)
                continue
            elif kind is yaml.AliasEvent:
                sound, value = False, None
            else:
                value = holder
                holder, key = within.pop()
            if type(holder) is list:
                holder.append(value)
            elif key is not None:
                holder[key] = value
                key = None
            if not within:
                break
        if not sound or left < 0 or deepest > MAX_DEPTH:
            raise _NotPlain(deepest)
        return top[0]


def _resolved(text: str) -> Any:
    """What a plain scalar is that may be more than text."""
    for tag, pattern in _Loader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            if tag == _NULL:
                return None
            if tag == _BOOL:
                return text.lower() == "true"
            return int(text) if tag == _INT else float(text)
    return text


class _Builder:
    def __init__(
        self,
        document: Document,
        secrets: Secrets | None,
        secret_at: Callable[[Path], bool] | None,
        typed: bool,
        max_nodes: int,
    ) -> None:
        self._document = document
        self._secrets = secrets
        self._secret_at = secret_at
        self._typed = typed
        self._left = self._most = max_nodes

    def build(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise _TooBig(line, f"holds more than {self._most} values", "check for aliases that multiply")
        if len(path) > MAX_DEPTH:
            raise _TooBig(line, "is nested too deeply", f"use at most {MAX_DEPTH} levels, and no alias inside itself")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                hint = "quote the key, or check the braces"
                self._report(line, path, "a key that is itself a list or mapping", hint)
                continue
            key = self._text(key_node, path)
            inner = (*path, key)
            if key in result:
                self._report(line, inner, "is given twice", f"the first is on line {lines[key]}; keep one")
                continue
            lines[key] = line
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
        if self._secret_at is not None and not self._secret_at(path):
            hint = "secrets belong in the values of a plugin, or in appliance.yaml"
            self._report(line, path, "!secret cannot be used here", hint)
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
