"""``${...}`` in the URLs, headers and bodies of YAML plugins. PURE.

What a call says (arguments of a tool, numbers of the call) is data wherever it goes: percent-encoded in a path or a
query, one JSON value in a body, and nowhere else. Only an operator's values may name a host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
from pydantic import SecretStr

from appliance.errors import ToolError

ROOTS: Final = ("arguments", "values", "secrets", "call")
CALL: Final = ("id", "line", "caller", "called", "lead")

_VARIABLE: Final = re.compile(r"\$\{\s*([A-Za-z_][A-Za-z0-9_-]*)((?:\.[A-Za-z0-9_-]+)*)\s*\}")
_LOOSE: Final = re.compile(r"\$\{[^}]*\}?")
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE: Final = _PATH_SAFE + "?"
MAX_VALUE: Final = 2000

OMITTED: Final = object()
"""Stands for a value that is not there."""


@dataclass(frozen=True)
class Variable:
    """``${root.path}``."""

    root: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return "${" + ".".join((self.root, *self.path)) + "}"


@dataclass(frozen=True)
class Template:
    """Text with variables: ``parts`` are the pieces between them and they themselves."""

    parts: tuple[str | Variable, ...]
    loose: tuple[str, ...] = ()
    """What begins like a variable and is none."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(part for part in self.parts if isinstance(part, Variable))

    @property
    def alone(self) -> Variable | None:
        """The variable, where the text is nothing else."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return only if isinstance(only, Variable) else None


@lru_cache(maxsize=4096)
def parse(text: str) -> Template:
    """``text`` in pieces."""
    parts: list[str | Variable] = []
    loose: list[str] = []
    at = 0
    for found in _VARIABLE.finditer(text):
        if found.start() > at:
            parts.append(text[at : found.start()])
        parts.append(Variable(found[1], tuple(filter(None, found[2].split(".")))))
        at = found.end()
    if at < len(text):
        parts.append(text[at:])
    for part in parts:
        if isinstance(part, str):
            loose += _LOOSE.findall(part)
    return Template(tuple(parts), tuple(loose))


def variables_in(node: Any) -> Iterator[tuple[tuple[str | int, ...], Template]]:
    """Every text inside ``node`` that holds ``${``, with its path."""
    if isinstance(node, str) and "${" in node:
        yield (), parse(node)
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from (((str(key), *path), template) for path, template in variables_in(item))
    elif isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from (((index, *path), template) for path, template in variables_in(item))


@dataclass(frozen=True)
class Scope:
    """What variables stand for: the model's ``arguments``, and what the operator and the call provide."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)

    def get(self, variable: Variable) -> Any:
        """The value; OMITTED where there is none."""
        found: Any = getattr(self, variable.root) if variable.root in ROOTS else OMITTED
        for key in variable.path:
            if not isinstance(found, Mapping) or key not in found:
                return OMITTED
            found = found[key]
        return found.get_secret_value() if isinstance(found, SecretStr) else found


@dataclass(frozen=True)
class UrlParts:
    """A URL template cut where what may stand there changes. ``problem`` says what is wrong with its shape."""

    base: str = ""
    path: str = ""
    query: str = ""
    problem: str = ""


@lru_cache(maxsize=1024)
def url_parts(url: str) -> UrlParts:
    """``https://HOST`` or ``${values.X}`` (an address up to the host), then the path, then the query."""
    if "#" in url or any(char.isspace() for char in _VARIABLE.sub("x", url)):
        return UrlParts(problem="holds a # or a space")
    found = re.match(r"https?://((?:\$\{[^}]*\}|[^/?$])*)", url, re.IGNORECASE)
    if found is None:
        found = re.match(r"\$\{[^}]*\}(?=[/?]|$)", url)
    if found is None:
        return UrlParts(problem="does not begin with https:// and a host")
    base, rest = found[0], url[found.end() :]
    path, _, query = rest.partition("?")
    return UrlParts(base, path, query)


def base_problem(base: str) -> str:
    """What is wrong with the part of a URL up to the host, once filled in: "" if nothing."""
    if not base.isascii() or not base.isprintable() or " " in base or "\\" in base:
        return f"{base[:100]!r} holds a character that no address has"
    try:
        parts = urlsplit(base)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{base[:100]!r} is not the address of a server"
    if parts.scheme.lower() not in ("http", "https"):
        return f"{base[:100]!r} does not begin with https:// or http://"
    if "@" in parts.netloc:
        return "holds a user or a password; send it in a header"
    if parts.query or parts.fragment or "?" in base or "#" in base:
        return f"{base[:100]!r} has something behind the path"
    if not host or not _HOST.fullmatch(parts.netloc) or (port is not None and not 0 < port < 65536):
        return f"{base[:100]!r} names no host"
    return ""


def render_url(url: str, query: Mapping[str, Any], scope: Scope) -> str:
    """The URL to ask: nothing that a call says can change its host, or leave the path it was put in.

    Raises:
        ToolError: a value that the path needs is missing or would leave its place; the message is for the model.
        ValueError: the operator's values make no URL.
    """
    parts = url_parts(url)
    base = "".join(part if isinstance(part, str) else text_of(scope.get(part)) for part in parse(parts.base).parts)
    base = base.rstrip("/")
    if problem := parts.problem or base_problem(base):
        raise ValueError(f"url: {problem}")
    path = "".join(
        quote(part, safe=_PATH_SAFE) if isinstance(part, str) else quote(_for_path(part, scope), safe="")
        for part in parse(parts.path).parts
    )
    if any(segment in (".", "..") for segment in path.split("/")):
        raise ToolError("the arguments cannot stand in the path; use other ones")
    pairs = [_pair(piece, scope) for piece in parts.query.split("&") if piece]
    for name, value in query.items():
        filled = render_json(value, scope)
        items = filled if isinstance(filled, list) else [filled]
        pairs += [f"{quote(name, safe='')}={quote(_bounded(item), safe='')}" for item in items if item is not OMITTED]
    return f"{base}{path or '/'}" + ("?" + "&".join(pairs) if pairs else "")


def _pair(piece: str, scope: Scope) -> str:
    return "".join(
        quote(part, safe=_QUERY_SAFE) if isinstance(part, str) else quote(_bounded(scope.get(part)), safe="")
        for part in parse(piece).parts
    )


def _for_path(variable: Variable, scope: Scope) -> str:
    text = _bounded(scope.get(variable))
    if not text.strip():
        raise ToolError(f"{variable.path[-1] if variable.path else variable.root} is missing, and it is needed")
    if any(segment.strip() in (".", "..") for segment in re.split(r"[/\\]", text)):
        raise ToolError(f"{variable.path[-1] if variable.path else variable.root} cannot be {text[:40]!r}")
    return text


def _bounded(value: Any) -> str:
    text = _CONTROL.sub(" ", text_of(value))
    if len(text) > MAX_VALUE:
        raise ToolError(f"an argument is longer than {MAX_VALUE} characters")
    return text


def render_text(text: str, scope: Scope) -> str:
    """``text`` with its variables filled in, in one pass, control characters taken out."""
    filled = "".join(part if isinstance(part, str) else text_of(scope.get(part)) for part in parse(text).parts)
    return _CONTROL.sub(" ", filled)


def render_json(node: Any, scope: Scope) -> Any:
    """``node`` with its variables filled in. A text that is one variable becomes its value, whatever its type; what
    is OMITTED is left out of mappings and lists."""
    if isinstance(node, str):
        template = parse(node)
        if template.alone is not None:
            return scope.get(template.alone)
        return "".join(part if isinstance(part, str) else text_of(scope.get(part)) for part in template.parts)
    if isinstance(node, SecretStr):
        return node.get_secret_value()
    if isinstance(node, Mapping):
        filled = ((key, render_json(item, scope)) for key, item in node.items())
        return {key: item for key, item in filled if item is not OMITTED}
    if isinstance(node, list | tuple):
        return [item for item in (render_json(one, scope) for one in node) if item is not OMITTED]
    return node


def text_of(value: Any) -> str:
    """A value as it is written inside of text: JSON, but for text itself; nothing where there is none."""
    if value is OMITTED or value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
