"""What can be wrong between the keys of a YAML plugin that are right by themselves. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import Field, SecretStr, create_model

from appliance.config.egress import Hosts, refusal
from appliance.config.validation import nearest
from appliance.hookspecs import ProviderOptions
from appliance.plugins.declarative import response, templates
from appliance.plugins.declarative.schema import HttpTool, PluginFile, ValueSpec, Webhook
from appliance.plugins.declarative.templates import CALL, Template, parse, url_parts, variables_in

Path: TypeAlias = tuple[str | int, ...]

_OPERATORS: Final = ("values", "secrets")
_ALL: Final = ("arguments", "values", "secrets", "call")


class Problem(NamedTuple):
    """One thing wrong, at ``path`` of the file."""

    path: Path
    what: str
    hint: str = ""


def problems(file: PluginFile) -> Iterator[Problem]:
    """All that is wrong with it, but for the tables' files."""
    if not (file.tools or file.tables or file.webhooks):
        yield Problem((), "does nothing", "give it tools, tables or webhooks")
    yield from _values(file)
    taken: dict[str, str] = {}
    for name, tool in file.tools.items():
        taken[name] = f"tools.{name}"
        yield from _tool(file, name, tool)
    for name, table in file.tables.items():
        called = tool_of_table(name, table.tool)
        if (other := taken.setdefault(called, f"tables.{name}")) != f"tables.{name}":
            path = ("tables", name, "tool") if table.tool else ("tables", name)
            yield Problem(path, f"{other} already offers the tool {called!r}", "give one another `tool` name")
        if table.region is not None and table.match != "phone":
            yield Problem(("tables", name, "region"), "is for `match: phone`", "remove it, or set match: phone")
    for name, hook in file.webhooks.items():
        yield from _webhook(file, name, hook)


def tool_of_table(name: str, tool: str | None) -> str:
    """What the tool of a table is called."""
    return tool or f"lookup_{name}"


def _values(file: PluginFile) -> Iterator[Problem]:
    for name, spec in file.values.items():
        path: Path = ("values", name)
        if spec.secret and spec.default is not None:
            yield Problem((*path, "default"), "a secret has no default", "use `secrets`, or let lines give it")
        if spec.secret and spec.kind != "text":
            yield Problem((*path, "type"), "a secret is text", "remove type")
        if spec.default is not None and not _fits(spec, spec.default):
            yield Problem((*path, "default"), f"is not of type {spec.kind}", "change it, or `type`")
        for index, choice in enumerate(spec.choices):
            if not _fits(spec, choice):
                yield Problem((*path, "choices", index), f"is not of type {spec.kind}", "change it, or `type`")
        if spec.choices and spec.default is not None and spec.default not in spec.choices:
            yield Problem((*path, "default"), "is not one of choices", "add it to choices, or change it")


def _fits(spec: ValueSpec, value: Any) -> bool:
    wanted = {"text": (str, int, float), "number": (int, float), "boolean": (bool,)}[spec.kind]
    return isinstance(value, wanted) and (spec.kind == "boolean" or not isinstance(value, bool))


def _tool(file: PluginFile, name: str, tool: HttpTool) -> Iterator[Problem]:
    path: Path = ("tools", name)
    yield from _parameters((*path, "parameters"), tool.parameters)
    given = tool.parameters.get("properties")
    arguments = given if isinstance(given, dict) else {}
    yield from _url(file, (*path, "url"), tool.url, arguments, _ALL)
    yield from _needed(path, tool, arguments)
    for where, allowed in (("headers", (*_OPERATORS, "call")), ("query", _ALL), ("body", _ALL)):
        for inner, template in variables_in(getattr(tool, where)):
            yield from _variables(
                file, (*path, where, *inner), template, arguments, allowed, line_only=where == "headers"
            )
    for where, value in (
        ("filler", tool.filler),
        *((f"response.errors.{k}", v) for k, v in tool.response.errors.items()),
    ):
        yield from _variables(file, (*path, *where.split(".")), parse(value), arguments, ("values",))
    if isinstance(tool.confirm, str):
        yield from _variables(file, (*path, "confirm"), parse(tool.confirm), arguments, ("arguments",))
        if any(len(variable.path) > 1 for variable in parse(tool.confirm).variables):
            yield Problem((*path, "confirm"), "names a part of an argument", "ask about whole ones: ${arguments.NAME}")
        if any("{" in part or "}" in part for part in parse(tool.confirm).parts if isinstance(part, str)):
            yield Problem((*path, "confirm"), "has a brace of its own", "write arguments as ${arguments.NAME}")
    if tool.method == "GET" and tool.body is not None:
        yield Problem((*path, "body"), "GET sends no body", "use `query`, or method: POST")
    if tool.body_as == "form" and tool.body is not None and not isinstance(tool.body, dict):
        whole = isinstance(tool.body, str) and str(parse(tool.body).alone) == "${arguments}"
        if not whole:
            yield Problem((*path, "body"), "a form is made of names and values", "write a mapping, or ${arguments}")
    if tool.retries and not tool.repeatable:
        what = f"{tool.method} must not be sent twice without the server's knowing"
        yield Problem(
            (*path, "retries"), what, "set idempotency_key: true if it honours Idempotency-Key, else remove it"
        )
    if tool.attempt_s is not None and tool.attempt_s > tool.timeout_s:
        yield Problem((*path, "attempt_s"), f"is more than timeout_s ({tool.timeout_s:g})", "lower it")
    for key, place in tool.response.tell.items():
        if problem := response.place_problem(place):
            yield Problem((*path, "response", "tell", key), problem, "write it as order.items.0.name")
    if tool.response.tell and tool.response.format == "text":
        yield Problem((*path, "response", "tell"), "picks from JSON", "remove it, or set format: json")


def _parameters(path: Path, schema: Mapping[str, Any]) -> Iterator[Problem]:
    if schema.get("type") != "object":
        yield Problem(path, "is not of type object", "begin with `type: object` and `properties:`")
        return
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = tuple(part for part in error.absolute_path)
        yield Problem((*path, *where), f"is no JSON schema: {error.message[:200]}", "see json-schema.org")
        return
    for where, pattern in _patterns(schema, ()):
        if not _is_bounded(pattern):
            what = f"{pattern[:60]!r} cannot be held against what a caller says in bounded time"
            yield Problem((*path, *where), what, "do without looking ahead or behind, and without references back")


def _patterns(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every regular expression of a schema, and where it is."""
    if isinstance(node, dict):
        for key, item in node.items():
            if key == "pattern" and isinstance(item, str):
                yield (*path, key), item
            elif key == "patternProperties" and isinstance(item, dict):
                yield from (((*path, key, pattern), pattern) for pattern in item)
            yield from _patterns(item, (*path, key))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _patterns(item, (*path, index))


def _is_bounded(pattern: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error:
        return False
    return True


def _needed(path: Path, tool: HttpTool, arguments: Mapping[str, Any]) -> Iterator[Problem]:
    required = tool.parameters.get("required")
    for variable in parse(url_parts(tool.url).path).variables:
        name = variable.path[0] if variable.path else ""
        if variable.root == "arguments" and name in arguments and name not in (required or ()):
            hint = f"add {name} to parameters.required"
            yield Problem((*path, "url"), f"the path needs {name!r}, which the model may leave out", hint)


def _url(
    file: PluginFile, path: Path, url: str, arguments: Collection[str], allowed: tuple[str, ...]
) -> Iterator[Problem]:
    parts = url_parts(url)
    if parts.problem:
        yield Problem(path, parts.problem, "write it as https://api.example.com/orders/${arguments.number}")
        return
    base = parse(parts.base)
    for variable in base.variables:
        if variable.root != "values":
            what = f"{variable} cannot say which server is asked"
            yield Problem(path, what, "write the host out, or use ${values.X}, which only operators set")
    yield from _variables(file, path, base, arguments, _ALL)
    for rest in (parts.path, parts.query):
        yield from _variables(file, path, parse(rest), arguments, allowed)
    if not base.variables:
        yield from _host(file, path, parts.base)


def _host(file: PluginFile, path: Path, base: str) -> Iterator[Problem]:
    """What can be said of a host that is written out."""
    if problem := templates.base_problem(base):
        yield Problem(path, problem, "write it as https://api.example.com")
        return
    host = urlsplit(base).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if refusal(host, address, Hosts.of(file.allow_hosts), None):
        yield Problem(path, f"{host} is not a public address", f"add allow_hosts: [{host}]")


def _webhook(file: PluginFile, name: str, hook: Webhook) -> Iterator[Problem]:
    path: Path = ("webhooks", name)
    yield from _url(file, (*path, "url"), hook.url, (), _OPERATORS)
    for inner, template in variables_in(hook.headers):
        yield from _variables(file, (*path, "headers", *inner), template, (), _OPERATORS)
    if len(hook.secret.get_secret_value()) < 16:
        yield Problem((*path, "secret"), "is shorter than 16 characters", "make one with `openssl rand -base64 32`")


def _variables(
    file: PluginFile,
    path: Path,
    template: Template,
    arguments: Collection[str],
    allowed: tuple[str, ...],
    *,
    line_only: bool = False,
) -> Iterator[Problem]:
    for loose in template.loose:
        yield Problem(path, f"{loose[:40]!r} is no variable", "write it as ${arguments.NAME}")
    known = {
        "arguments": list(arguments),
        "values": list(file.values),
        "secrets": list(file.secrets),
        "call": ["id", "line"] if line_only else list(CALL),
    }
    for variable in template.variables:
        if variable.root not in known:
            yield Problem(path, f"unknown variable {variable}", nearest(variable.root, allowed))
        elif variable.root not in allowed:
            shown = ", ".join(f"${{{root}.X}}" for root in allowed)
            yield Problem(path, f"{variable} cannot stand here", f"what can: {shown}")
        elif not variable.path:
            if variable.root != "arguments" or template.alone is None:
                yield Problem(path, f"{variable} names nothing", f"write ${{{variable.root}.NAME}}")
        elif variable.path[0] not in known[variable.root]:
            hint = nearest(variable.path[0], known[variable.root]) or f"there are no {variable.root}"
            yield Problem(path, f"unknown variable {variable}", hint)
        elif variable.root == "call" and (variable.path[0] == "lead") != (len(variable.path) > 1):
            yield Problem(path, f"unknown variable {variable}", "write ${call.lead.NAME} with the name of a column")


def values_model(name: str, specs: Mapping[str, ValueSpec]) -> type[ProviderOptions]:
    """What the box and its lines may set of plugin ``name``, as a schema like a Python plugin's ``Values``."""
    fields: dict[str, Any] = {}
    for key, spec in specs.items():
        kind: Any = SecretStr if spec.secret else {"text": str, "number": int | float, "boolean": bool}[spec.kind]
        if spec.choices:
            kind = Literal[tuple(spec.choices)]
        default = ... if spec.default is None else spec.default
        fields[key] = (kind, Field(default, description=spec.description))
    made: type[ProviderOptions] = create_model(f"{name}_values", __base__=ProviderOptions, **fields)
    return made
