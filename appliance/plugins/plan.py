"""Which plugin runs on which line, with which values; and what the plugin host says of the plugins. PURE.

Most lines have the same plugins with the same values, so the plan holds each such set once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec
from pydantic import TypeAdapter

from appliance.config.fields import Options
from appliance.plugins.discovery import Source

Values = Mapping[str, Any]
Chosen = Mapping[str, Values]
"""Plugins by name, in order, each with its values."""

BOX: Final = ""
"""The name under which the box as a whole stands among the lines."""

_OPTIONS: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(Options)


def effective(enabled: Chosen, of_line: Mapping[str, Values | Literal[False]]) -> dict[str, Values]:
    """The plugins of a line: the box's, with the line's values laid over key by key, and then the line's own."""
    found: dict[str, Values] = {}
    for name, values in enabled.items():
        over = of_line.get(name, {})
        if over is not False:
            found[name] = {**values, **over}
    return found | {name: own for name, own in of_line.items() if name not in enabled and own is not False}


class Set(msgspec.Struct, frozen=True):
    """Plugins with their values (secrets as ``{"!secret": TEXT}``), and the lines that have exactly these."""

    plugins: dict[str, dict[str, Any]]
    lines: tuple[str, ...]


class PluginPlan(msgspec.Struct, frozen=True):
    """Everything that the plugin host has to know of plugins and lines. The line ``BOX`` is the box itself."""

    sources: tuple[Source, ...]
    sets: tuple[Set, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing for a plugin host to do."""
        return not self.sources


def make_plan(
    sources: Mapping[str, Source],
    enabled: Chosen,
    lines: Iterable[tuple[str, Mapping[str, Values | Literal[False]]]],
) -> PluginPlan:
    """The plan of the Python plugins.

    Args:
        sources: where plugins are, by name; what is not among them, or is YAML, is left out.
        enabled: the box's plugins.
        lines: (name, plugins of the line) each.
    """
    grouped: dict[bytes, tuple[dict[str, dict[str, Any]], list[str]]] = {}

    def place(line: str, chosen: Chosen) -> None:
        python = {
            name: concealed(values) for name, values in chosen.items() if name in sources and sources[name].python
        }
        if python:
            grouped.setdefault(msgspec.json.encode(python), (python, []))[1].append(line)

    place(BOX, enabled)
    plain: list[str] = []
    for name, own in lines:
        if own:
            place(name, effective(enabled, own))
        else:
            plain.append(name)
    for _, members in grouped.values():
        if members[0] == BOX:
            members.extend(plain)
    used = {name: None for plugins, _ in grouped.values() for name in plugins}
    return PluginPlan(
        tuple(sources[name] for name in used),
        tuple(Set(plugins, tuple(members)) for plugins, members in grouped.values()),
    )


class PluginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one plugin once it has been looked at.

    Attributes:
        values: JSON schema of its values as text; "" where it takes none.
        hooks: names without ``appliance_``, in the manual's order.
        providers: kind of engine (or "stream", "carrier") to the names of the providers.
        routes: HTTP routes as ``METHOD /plugins/NAME/path``.
        commands: (name, summary) each.
        tools: names of the tools of a YAML plugin; those of others depend on the call.
        webhooks: of a YAML plugin, by name.
        problem: why it cannot be used; "" for one that can.
    """

    name: str
    source: Source
    summary: str = ""
    version: str = ""
    api: int = 0
    values: str = ""
    hooks: tuple[str, ...] = ()
    providers: dict[str, tuple[str, ...]] = {}
    routes: tuple[str, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    tools: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    problem: str = ""


class Unusable(msgspec.Struct, frozen=True):
    """A plugin is off on these lines (BOX among them: everywhere), and why."""

    plugin: str
    lines: tuple[str, ...]
    why: str


class Manifest(msgspec.Struct, frozen=True):
    """The plugin host's answer to a plan: the plugins as they are, and where they cannot be used."""

    plugins: tuple[PluginInfo, ...] = ()
    unusable: tuple[Unusable, ...] = ()


def concealed(values: Values) -> dict[str, Any]:
    """Values as JSON, secrets as ``{"!secret": TEXT}``: for the plugin host alone."""
    found: dict[str, Any] = _OPTIONS.dump_python(dict(values), mode="json", context={"reveal": True})
    return found


def revealed(values: Values) -> dict[str, Any]:
    """What :func:`concealed` was made of."""
    return _OPTIONS.validate_python(dict(values))
