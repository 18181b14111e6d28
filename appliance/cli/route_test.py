"""``appliance route-test``: which line answers a call, and why those before it do not. No call is placed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.config import Settings, load_settings
from appliance.config.load import secrets_of
from appliance.config.validation import nearest
from appliance.dialplan.loader import Dialplan, load_lines, routing_of, surroundings_of
from appliance.dialplan.matcher import Arrival
from appliance.dialplan.routing import Explanation, InForce
from appliance.dialplan.schema import Line
from appliance.errors import ApplianceError
from appliance.plugins.describe import PluginChecker

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_SHOWN: Final = 10
_ACCEPT_LANGUAGE: Final = "accept-language"


@dataclass(frozen=True)
class Load:
    """Calls that are on: ``calls`` on the box (``line`` ""), or on one line."""

    line: str
    calls: int


def add_parser(subparsers: Subparsers) -> None:
    """Add ``route-test`` to the main command line."""
    parser = subparsers.add_parser(
        "route-test",
        help="tell which line answers a call, and why those before it do not",
        description=__doc__,
        epilog="Exit status 1 when the call would be refused. Plugins, which may choose a line before the "
        "dialplan does, are not asked.",
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration of the box")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--called", required=True, metavar="NUMBER", help="the number dialled")
    parser.add_argument("--calling", default="", metavar="NUMBER", help="the caller's number (default: none)")
    parser.add_argument("--trunk", metavar="NAME", help="the trunk it comes by (default: the first one)")
    parser.add_argument(
        "--at",
        type=_time,
        metavar="TIME",
        help="when: 2026-12-24T18:00 where the box is, or with an offset such as +01:00 (default: now)",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="a header that it brings; repeat for more",
    )
    parser.add_argument(
        "--diverted",
        action="append",
        default=[],
        metavar="NUMBER",
        help="a number it was sent on from; repeat for more",
    )
    parser.add_argument("--verstat", default="", metavar="VERDICT", help="the verdict on the caller's number")
    parser.add_argument(
        "--load",
        action="append",
        default=[],
        type=_load,
        metavar="[LINE=]CALLS",
        help="calls that are on the box, or on a line, at that time; repeat for more (default: none)",
    )
    parser.add_argument(
        "--nearest", type=_count, default=_SHOWN, metavar="N", help=f"tell of so many lines (default: {_SHOWN})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the line that answers, and why others do not; 1 where the call would be refused.

    Raises:
        ConfigError: something is wrong with the configuration or a dialplan.
        ApplianceError: there is no such trunk or line.
    """
    settings = load_settings(args.config, args.set)
    plugins = PluginChecker(settings.plugins, secrets=secrets_of(settings))
    try:
        plan = load_lines(settings, surroundings_of(settings, plugins))
        notes = list(_deciding(plugins))
    finally:
        plugins.close()
    arrival, unseen = _arrival(args, settings, plan)
    routing = routing_of(plan, settings)
    told = routing.explain(arrival, nearest=args.nearest)
    now = routing.in_force(told.line, arrival) if told.line is not None else None
    for note in (*notes, *unseen):
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(_as_json(told, now, arrival, plan.sources), indent=2))
    else:
        print("\n".join(_text(told, now, plan.sources)))
    return 1 if now is None or now.line.refuse is not None else 0


def _deciding(plugins: PluginChecker) -> Iterator[str]:
    """What plugins of the whole box may decide before the dialplan does."""
    for name in plugins.enabled:
        info = plugins.info(name)
        hooks = [hook for hook in ("admit", "route") if info is not None and hook in info.hooks]
        if hooks:
            yield f"plugin {name} may decide otherwise (hook {' and '.join(hooks)}); it is not asked here"


def _arrival(args: argparse.Namespace, settings: Settings, plan: Dialplan) -> tuple[Arrival, list[str]]:
    """The call that was asked about, and what of it no line will see."""
    trunk = args.trunk or next(iter(settings.trunks), "")
    if trunk not in settings.trunks:
        raise ApplianceError(f"there is no trunk {trunk!r}; {nearest(trunk, settings.trunks) or 'there are none'}")
    on_line: dict[str, int] = {}
    total = 0
    for load in args.load:
        if load.line and plan.line(load.line) is None:
            raise ApplianceError(
                f"there is no line {load.line!r}; {nearest(load.line, [line.name for line in plan.lines])}"
            )
        if load.line:
            on_line[load.line] = load.calls
        else:
            total = load.calls
    offered = {name.lower() for name in settings.trunks[trunk].headers_in}
    headers = dict(args.header)
    unseen = [name for name in headers if name.lower() not in offered and name.lower() != _ACCEPT_LANGUAGE]
    notes = [f"lines do not see {name}: trunks.{trunk}.headers_in does not list it" for name in unseen]
    arrival = Arrival(
        trunk=trunk,
        called=args.called,
        calling=args.calling,
        at=(args.at or datetime.now(UTC)).astimezone(),
        diverted=tuple(args.diverted),
        verstat=args.verstat,
        headers={name: value for name, value in headers.items() if name.lower() in offered},
        accept_language=next((value for name, value in headers.items() if name.lower() == _ACCEPT_LANGUAGE), ""),
        on_line=on_line,
        load=100 * max(total, sum(on_line.values())) / settings.limits.max_calls,
    )
    return arrival, notes


def _text(told: Explanation, now: InForce | None, sources: Mapping[str, str]) -> Iterator[str]:
    line = told.line
    if line is None:
        yield "no line answers: the call is refused with 404"
    elif line.refuse is not None:
        reason = f" ({line.refuse.reason})" if line.refuse.reason else ""
        yield f"{line.name} ({sources[line.name]}) refuses the call with {line.refuse.status}{reason}"
    else:
        yield f"{line.name} ({sources[line.name]}) answers"
        if now is not None and now.closed:
            yield f"  closed: {now.closed}; {_while_closed(line, now.line, sources)}"
    for passed in told.nearest:
        yield f"  not {passed.line.name} ({sources[passed.line.name]}): {'; '.join(passed.reasons)}"
    more = told.tried - len(told.nearest)
    if more:
        by_key = ", ".join(f"{count:,} by {key}" for key, count in told.counts.items())
        yield f"  nor {more:,} others, which differ in more; of all {told.tried:,} tried: {by_key}"


def _while_closed(line: Line, now: Line, sources: Mapping[str, str]) -> str:
    """What a line that is closed does; ``now`` is what it is then."""
    if now.name == line.name:
        changed = line.closed is not None and line.closed.instead
        return "is as closed.instead says" if changed else "says that it is closed"
    does = f"refuses the call with {now.refuse.status}" if now.refuse is not None else "answers"
    return f"{now.name} ({sources[now.name]}) {does} instead"


def _as_json(told: Explanation, now: InForce | None, arrival: Arrival, sources: Mapping[str, str]) -> dict[str, Any]:
    line = told.line
    return {
        "line": line.name if line is not None else None,
        "source": sources[line.name] if line is not None else None,
        "closed": now.closed if now is not None else "",
        "in_place": now.line.name if now is not None else None,
        "refused": 404 if now is None else now.line.refuse.status if now.line.refuse is not None else None,
        "trunk": arrival.trunk,
        "at": arrival.at.isoformat(),
        "tried": told.tried,
        "by_key": dict(told.counts),
        "nearest": [
            {
                "line": passed.line.name,
                "source": sources[passed.line.name],
                "unmet": [
                    {"key": criterion.key, "why": why}
                    for criterion, why in zip(passed.unmet, passed.reasons, strict=True)
                ],
            }
            for passed in told.nearest
        ],
    }


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it as 2026-12-24T18:00") from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE; write it as X-Account=gold")
    return name.strip(), value


def _load(text: str) -> Load:
    line, _, number = text.rpartition("=")
    return Load(line, _count(number))


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; write it as 10")
    return int(text)
