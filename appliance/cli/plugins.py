"""``appliance plugins``: list and show plugins, begin a new one, and run the commands that plugins bring."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.cli.new_plugin import NewPluginError, write_plugin
from appliance.config import Settings, load_settings
from appliance.config.load import display_name, secrets_of
from appliance.config.validation import nearest
from appliance.errors import PluginError
from appliance.plugins.describe import PluginChecker
from appliance.plugins.plan import PluginInfo

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``plugins`` and its actions to the main command line."""
    parser = subparsers.add_parser("plugins", help="list and show plugins, and begin a new one", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every plugin there is: where it is, and whether it can be used")
    show = actions.add_parser("show", help="one plugin: its hooks, values, routes and commands")
    show.add_argument("name", metavar="NAME", help="the plugin's name")
    run = actions.add_parser("run", help="run a command that a plugin brings")
    run.add_argument("name", metavar="NAME", help="the plugin's name")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="the command and its arguments")
    for action in (listing, show, run):
        action.add_argument("-c", "--config", type=Path, metavar="FILE", help="appliance.yaml")
        action.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    for action in (listing, show):
        action.add_argument("--json", action="store_true", help="print JSON")
    new = actions.add_parser("new", help="write a plugin to begin with, and a test of it that passes")
    new.add_argument("name", metavar="NAME", help="what it is to be called: small letters, digits and _")
    new.add_argument(
        "--directory", type=Path, default=Path("plugins"), metavar="DIR", help="where to (default: ./plugins)"
    )
    listing.set_defaults(run=_list)
    show.set_defaults(run=_show)
    run.set_defaults(run=_run)
    new.set_defaults(run=_new)


def _list(args: argparse.Namespace) -> int:
    """1 where a plugin that is enabled cannot be used."""
    settings = load_settings(args.config, args.set)
    checker = _checker(settings)
    try:
        infos = [info for name in sorted(checker.sources) if (info := checker.info(name)) is not None]
    finally:
        checker.close()
    enabled = settings.plugins.enabled
    if args.json:
        print(json.dumps([_as_json(info, info.name in enabled) for info in infos], indent=2))
    else:
        for info in infos:
            print(f"{info.name:<20} {_state(info, info.name in enabled):<10} {_kind(info):<12} {info.summary}")
            if info.problem:
                print(f"    {info.problem}")
        if not infos:
            print("there are no plugins; `appliance plugins new NAME` writes one")
    return 1 if any(info.problem and info.name in enabled for info in infos) else 0


def _show(args: argparse.Namespace) -> int:
    """1 where it cannot be used."""
    settings = load_settings(args.config, args.set)
    checker = _checker(settings)
    try:
        info = checker.info(args.name)
        names = list(checker.sources)
    finally:
        checker.close()
    if info is None:
        raise PluginError(_unknown(args.name, names))
    if args.json:
        print(json.dumps(_as_json(info, info.name in settings.plugins.enabled), indent=2))
    else:
        _print(info, enabled=info.name in settings.plugins.enabled)
    return 1 if info.problem else 0


def _run(args: argparse.Namespace) -> int:
    """What the command returns."""
    from appliance.plugins.host.describing import describe
    from appliance.plugins.loading import load

    settings = load_settings(args.config, args.set)
    checker = _checker(settings)
    source = checker.sources.get(args.name)
    if source is None or not source.python:
        raise PluginError(_unknown(args.name, [name for name, one in checker.sources.items() if one.python]))
    listed = describe(load(source))
    if listed.info.problem:
        raise PluginError(listed.info.problem)
    parser = argparse.ArgumentParser(prog=f"appliance plugins run {args.name}", description=listed.info.summary)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in listed.commands:
        added = commands.add_parser(command.name, help=command.summary, description=command.summary)
        if command.add_arguments is not None:
            command.add_arguments(added)
        added.set_defaults(run_command=command.run)
    if not listed.commands:
        raise PluginError(f"plugin {args.name!r} brings no commands")
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    parsed = parser.parse_args(words)
    code: Any = parsed.run_command(parsed)
    return code if isinstance(code, int) else 0


def _new(args: argparse.Namespace) -> int:
    """2 where it cannot be written, or would overwrite something."""
    try:
        written = write_plugin(args.name, args.directory)
    except NewPluginError as error:
        print(f"appliance plugins new: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(f"wrote {display_name(path)}")
    print(f"test it:   python -m pytest {display_name(written[-1])}")
    print(f"enable it: plugins: {{paths: [{display_name(args.directory)}], enabled: [{args.name}]}} in appliance.yaml")
    return 0


def _checker(settings: Settings) -> PluginChecker:
    return PluginChecker(settings.plugins, secrets=secrets_of(settings))


def _unknown(name: str, names: list[str]) -> str:
    return f"there is no plugin {name!r}; {nearest(name, names) or '`appliance plugins new NAME` writes one'}"


def _state(info: PluginInfo, enabled: bool) -> str:
    return "unusable" if info.problem else "enabled" if enabled else "available"


def _kind(info: PluginInfo) -> str:
    return "shipped" if info.source.shipped else info.source.kind.replace("_", " ")


def _print(info: PluginInfo, *, enabled: bool) -> None:
    rows = {
        "name": info.name,
        "state": _state(info, enabled) + (" on every line" if enabled and not info.problem else ""),
        "problem": info.problem,
        "from": info.source.where,
        "version": info.version,
        "about": info.summary,
        "hooks": ", ".join(info.hooks),
        "providers": "; ".join(f"{kind}: {', '.join(names)}" for kind, names in info.providers.items()),
        "tools": ", ".join(info.tools),
        "webhooks": ", ".join(info.webhooks),
        "routes": ", ".join(info.routes),
        "commands": "; ".join(f"{name} ({summary})" for name, summary in info.commands),
    }
    for title, text in rows.items():
        if text:
            print(f"{title + ':':<12}{text}")
    schema = json.loads(info.values) if info.values else {}
    required = schema.get("required", [])
    for index, (key, value) in enumerate(schema.get("properties", {}).items()):
        kind = value.get("type", "value")
        default = "required" if key in required else f"default {json.dumps(value.get('default'))}"
        about = value.get("description", "")
        print(f"{'values:' if index == 0 else '':<12}{key} ({kind}, {default}) {about}".rstrip())


def _as_json(info: PluginInfo, enabled: bool) -> dict[str, object]:
    return {
        "name": info.name,
        "state": _state(info, enabled),
        "problem": info.problem,
        "kind": info.source.kind,
        "from": info.source.where,
        "shipped": info.source.shipped,
        "version": info.version,
        "api": info.api,
        "summary": info.summary,
        "hooks": list(info.hooks),
        "values": json.loads(info.values) if info.values else None,
        "providers": {kind: list(names) for kind, names in info.providers.items()},
        "tools": list(info.tools),
        "webhooks": list(info.webhooks),
        "routes": list(info.routes),
        "commands": [{"name": name, "summary": summary} for name, summary in info.commands],
    }
