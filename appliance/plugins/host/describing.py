"""Answers questions about plugins on standard input, one JSON document a line, until it is closed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from appliance.api import Call, Command, Provider, Route, StreamKind, Tool
from appliance.errors import PluginError
from appliance.plugins.describe import Question, Reply
from appliance.plugins.discovery import Source
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.loading import Implementation, Plugin, load
from appliance.plugins.plan import PluginInfo, revealed
from appliance.plugins.registry import CarrierRegistry, ProviderRegistry

_PROVIDERS = "_providers"


def serve(limit_s: float) -> None:
    """Answer until standard input ends. What plugins print goes to standard error.

    Whoever asks ends this process where a plugin does not come back. Should it be gone itself, killed in the middle of
    a question, the kernel's alarm does: it needs neither the interpreter nor anybody who waits.

    Args:
        limit_s: the longest that one question may take.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    plugins: dict[Source, Plugin | PluginError] = {}
    for line in sys.stdin.buffer:
        question = msgspec.json.decode(line, type=Question)
        source = question.source
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        if source not in plugins:
            try:
                plugins[source] = load(source)
            except PluginError as error:
                plugins[source] = error
        answers.write(msgspec.json.encode(_answer(question, plugins[source])) + b"\n")
        answers.flush()
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _answer(question: Question, plugin: Plugin | PluginError) -> Reply:
    if isinstance(plugin, PluginError):
        info = PluginInfo(name=question.source.name, source=question.source, problem=str(plugin))
        return Reply(info=info, failed="cannot be used")
    if question.about == "values":
        return Reply(problems=tuple(plugin.value_problems(revealed(question.values))))
    if question.about == "options":
        registry = ProviderRegistry([(plugin.name, plugin.module)])
        options = revealed(question.values)
        return Reply(wrong=tuple(registry.validate_options(question.kind, question.provider, options)))
    if question.about == "trunk":
        return _trunk(plugin, question)
    if question.about == "tools":
        return Reply(tools=_tools(plugin, question))
    return Reply(info=describe(plugin).info)


class Listed(NamedTuple):
    """What a plugin is, in words for the operator, and what is behind the words."""

    info: PluginInfo
    routes: tuple[Route, ...]
    commands: tuple[Command, ...]


def describe(plugin: Plugin) -> Listed:
    """All that can be said of a plugin; its listing hooks are called. Runs in a thread without an event loop."""
    problems: list[str] = []

    def listed(hook: str, empty: Any, check: Callable[[Any], object]) -> Any:
        """What the hook returns, each item checked; ``empty`` where it fails."""
        implementation = plugin.hooks.get(hook)
        if implementation is None:
            return empty
        try:
            result = type(empty)(called(implementation) or empty)
            for item in result.items() if isinstance(result, dict) else result:
                check(item)
        except Exception as error:
            problems.append(f"appliance_{hook} failed: {type(error).__name__}: {error}")
            return empty
        return result

    providers = {
        hook.removesuffix(_PROVIDERS): tuple(listed(hook, {}, _named))
        for hook in plugin.hooks
        if hook.endswith(_PROVIDERS)
    }
    routes = listed("http_routes", (), lambda route: route_name(plugin.name, route))
    commands = listed("cli_commands", (), _command)
    schema = ""
    if plugin.values is not None:
        try:
            schema = json.dumps(plugin.values.model_json_schema())
        except Exception as error:
            problems.append(f"Values has no JSON schema: {type(error).__name__}: {error}")
    order = [*HOOKS, *sorted(plugin.hooks)]
    info = PluginInfo(
        name=plugin.name,
        source=plugin.source,
        summary=plugin.summary,
        version=plugin.version,
        api=plugin.api,
        values=schema,
        hooks=tuple(dict.fromkeys(hook for hook in order if hook in plugin.hooks)),
        providers=providers,
        routes=tuple(route_name(plugin.name, route) for route in routes),
        commands=tuple((command.name, command.summary) for command in commands),
        problem=f"plugin {plugin.name!r}: {'; '.join(problems)}" if problems else "",
    )
    return Listed(info, routes, commands)


def route_name(plugin: str, route: object) -> str:
    """``METHOD /plugins/NAME/path``.

    Raises:
        TypeError: it is no route, or its path cannot be one.
    """
    if not isinstance(route, Route):
        raise TypeError(f"{route!r} is not an appliance.api.Route")
    if not route.path.startswith("/") or any(char in route.path for char in "{}?# "):
        raise TypeError(f"{route.path!r} is not a path: it begins with / and has no patterns, query or spaces")
    if route.method.upper() not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        raise TypeError(f"{route.method!r} is no method of HTTP")
    return f"{route.method.upper()} /plugins/{plugin}{route.path}"


def called(implementation: Implementation, **given: Any) -> Any:
    """What a hook returns that is called outside of any call, be it plain or ``async``."""
    result = implementation.function(*(given[name] for name in implementation.arguments))
    return asyncio.run(result) if implementation.is_async else result


def _named(item: tuple[str, Any]) -> None:
    name, value = item
    if not isinstance(name, str) or not (callable(value) or isinstance(value, Provider | StreamKind)):
        raise TypeError(f"{name!r} is a {type(value).__name__}")


def _command(command: object) -> None:
    if not isinstance(command, Command):
        raise TypeError(f"{command!r} is not an appliance.api.Command")


def _trunk(plugin: Plugin, question: Question) -> Reply:
    registry = CarrierRegistry([(plugin.name, plugin.module)])
    mistakes = registry.mistakes(question.kind, revealed(question.values))
    problems = tuple(((key,), what, hint) for key, what, hint in mistakes)
    offer = registry.streams.get(question.kind)
    if offer is None:
        return Reply(problems=problems)
    return Reply(problems=problems, transport=offer.provider.transport, unasked=offer.provider.unasked)


def _tools(plugin: Plugin, question: Question) -> tuple[str, ...]:
    implementation = plugin.hooks.get("tools")
    if implementation is None:
        return ()
    try:
        call = Call("", line=question.line, values=plugin.validated(revealed(question.values)))
        return tuple(tool.name for tool in called(implementation, call=call) or () if isinstance(tool, Tool))
    except Exception:
        return ()
