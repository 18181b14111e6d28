"""``appliance check``: every mistake in the configuration and the dialplans at once, without starting anything."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.config import Settings, examine_settings
from appliance.config.load import secrets_of
from appliance.dialplan.compiler import examine_lines
from appliance.dialplan.loader import Dialplan
from appliance.engines.builtin import provider_registry
from appliance.errors import Mistake
from appliance.plugins.describe import PluginChecker
from appliance.plugins.registry import KINDS, MEDIA_KINDS, CarrierRegistry
from appliance.signalling.builtin_carriers import carrier_registry
from appliance.sip.uri import join_host_port

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


@dataclass(frozen=True)
class Report:
    """What the operator's files say. ``settings`` and ``dialplan`` are None where they could not be made out."""

    settings: Settings | None
    dialplan: Dialplan | None
    mistakes: tuple[Mistake, ...]

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        return self.dialplan.warnings if self.dialplan else ()


def add_parser(subparsers: Subparsers) -> None:
    """Add ``check`` to the main command line."""
    parser = subparsers.add_parser(
        "check",
        help="check the configuration and the dialplans without starting anything",
        description=__doc__,
        epilog="Exit status 1 when there is a mistake; warnings do not count.",
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration to check")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every mistake, or one line that sums up what is configured; 1 if there is a mistake."""
    report = examine(args.config, args.set)
    if args.json:
        print(json.dumps(_as_json(report), indent=2))
        return 1 if report.mistakes else 0
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for mistake in report.mistakes:
        print(mistake)
    if report.mistakes:
        count = len(report.mistakes)
        print(f"appliance check: {count} mistake{'s' if count > 1 else ''}", file=sys.stderr)
        return 1
    print(summary(report))
    return 0


def examine(config: Path | None, overrides: list[str]) -> Report:
    """Read everything. Where the settings are wrong, the dialplans are checked against what is right of them."""
    settings, found = examine_settings(config, overrides)
    mistakes = list(found)
    dialplan = None
    if settings is not None:
        plugins = PluginChecker(settings.plugins, secrets=secrets_of(settings))
        mistakes += trunk_mistakes(settings, carrier_registry(), plugins)
        mistakes += _engine_mistakes(settings, plugins)
        dialplan, wrong = examine_lines(settings, plugins)
        mistakes += wrong
    return Report(settings, dialplan, tuple(sorted(mistakes)))


def _engine_mistakes(settings: Settings, plugins: PluginChecker) -> list[Mistake]:
    """Providers that do not exist, and options that they do not take."""
    registry = provider_registry()
    found = []
    chosen: list[tuple[str, str, Any]] = [(f"engines.{kind}", kind, getattr(settings.engines, kind)) for kind in KINDS]
    for kind, name in settings.engines.all_named():
        chosen.append((f"engines.named.{kind}.{name}", kind, settings.engines.of(kind, name)))
    chosen += [(f"{where}.fallback", kind, engine.fallback) for where, kind, engine in chosen if kind == "tts"]
    for where, kind, engine in chosen:
        problems = registry.validate_options(kind, engine.provider, engine.options)
        if engine.provider not in registry.offers(kind) and (owner := plugins.provides(kind, engine.provider)):
            problems = plugins.option_problems(owner, kind, engine.provider, engine.options)
            if kind in MEDIA_KINDS and owner not in settings.plugins.media:
                problems.append(f"provider: plugin {owner!r} may not run beside the audio; add it to plugins.media")
        for problem in problems:
            key, _, words = problem.partition(": ")
            what, _, hint = words.partition("; ")
            found.append(settings.mistake(f"{where}.{key}", what, hint))
    return found


def trunk_mistakes(
    settings: Settings, registry: CarrierRegistry, plugins: PluginChecker | None = None
) -> list[Mistake]:
    """Kinds of trunk that do not exist or lack a part, keys that they do not take, and audio that would not arrive.

    Args:
        settings: of the box.
        registry: of what is built in.
        plugins: those of the operator; without, their kinds do not exist.
    """
    found = []
    transports: dict[str, str] = {kind: offer.provider.transport for kind, offer in registry.streams.items()}
    unasked = {kind for kind, offer in registry.streams.items() if offer.provider.unasked}
    for name, trunk in settings.carrier_trunks.items():
        built_in = trunk.kind in registry.streams or trunk.kind in registry.carriers
        own = None if built_in or plugins is None else plugins.trunk(trunk.kind, trunk.options)
        if own is None:
            problems = registry.mistakes(trunk.kind, trunk.options)
        else:
            problems = [(".".join(map(str, path)), what, hint) for path, what, hint in own.problems]
            if own.plugin not in settings.plugins.media:
                what = f"plugin {own.plugin!r} may not run beside the audio"
                problems.append(("kind", what, "add it to plugins.media"))
            if own.transport:
                transports[trunk.kind] = own.transport
            if own.unasked:
                unasked.add(trunk.kind)
        for key, what, hint in problems:
            found.append(settings.mistake(f"trunks.{name}.{key}".rstrip("."), what, hint))
        if trunk.kind in unasked and not trunk.allow:
            hint = "add allow: with the address of the PBX that they come from"
            found.append(settings.mistake(f"trunks.{name}.allow", "is empty: nobody's streams would be taken", hint))
        heard = any(one.kind == trunk.kind for one in settings.listen.streams)
        if transports.get(trunk.kind) == "tcp" and not heard:
            hint = f"add listen.streams: [{{kind: {trunk.kind}, port: 9092}}]"
            found.append(settings.mistake(f"trunks.{name}.kind", "has no socket for its audio", hint))
    for index, listener in enumerate(settings.listen.streams):
        if transports.get(listener.kind, "tcp") != "tcp":
            what = f"the audio of kind {listener.kind!r} comes by WebSocket, at listen.media"
            found.append(settings.mistake(f"listen.streams.{index}.kind", what, "remove this entry"))
    return found


def summary(report: Report) -> str:
    """One line about a configuration without mistakes."""
    if report.settings is None or report.dialplan is None:
        return "nothing could be read"
    listen = report.settings.listen
    sip = ", ".join(f"{join_host_port(one.host, one.port)}/{one.transport}" for one in listen.sip)
    trunks = ", ".join(report.settings.trunks) or "none"
    lines = ", ".join(line.name for line in report.dialplan.lines)
    return f"ok: SIP {sip}, HTTP {join_host_port(listen.http.host, listen.http.port)}; trunks: {trunks}; lines: {lines}"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "ok": not report.mistakes,
        "mistakes": [asdict(mistake) for mistake in report.mistakes],
        "warnings": [asdict(warning) for warning in report.warnings],
        "trunks": list(report.settings.trunks) if report.settings else [],
        "lines": [line.name for line in report.dialplan.lines] if report.dialplan else [],
    }
