"""``appliance schema``: the JSON Schema of a file that operators write, for editors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from appliance.campaigns.definition import Definition
from appliance.config import Settings
from appliance.config.json_schema import json_schema
from appliance.config.settings import Engines
from appliance.dialplan.json_schema import dialplan_schema
from appliance.engines.builtin import provider_registry
from appliance.plugins.declarative.schema import PluginFile
from appliance.plugins.registry import KINDS
from appliance.signalling.builtin_carriers import carrier_registry

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``schema`` to the main command line."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of appliance.yaml, a dialplan, a plugin in YAML or a campaign, for editors",
        description=__doc__,
        epilog="`appliance check` finds more: what no schema can say.",
    )
    parser.add_argument(
        "file",
        choices=tuple(SCHEMAS),
        help="of which file: appliance.yaml, a dialplan, a plugin in YAML, or a campaign",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema(args.file), indent=2))
    return 0


def schema(file: str) -> dict[str, Any]:
    """The schema of one of :data:`SCHEMAS`."""
    return SCHEMAS[file]()


def config_schema() -> dict[str, Any]:
    """The schema of appliance.yaml, with the keys that the engines and carriers of the box take beside their own."""
    made = json_schema(Settings, "appliance.yaml")
    defs = made["$defs"]
    registry, carriers = provider_registry(), carrier_registry()
    engines = defs["Engines"]["properties"]
    for kind in KINDS:
        default = getattr(Engines(), kind).provider
        offers = registry.offers(kind)
        known = [(name, offers[name].provider.options) for name in sorted(offers) if name != "fake"]
        ways = [_where("provider", name, options, defs, name == default) for name, options in known]
        described = {"description": engines[kind].pop("description", "")}
        engines[kind] = {**described, "allOf": [engines[kind], *ways]}
    trunks = made["properties"]["trunks"]["patternProperties"]
    for pattern, trunk in trunks.items():
        ways = [_where("kind", name, carriers.carriers[name].provider.options, defs) for name in carriers.kinds]
        trunks[pattern] = {**trunk, "else": {"allOf": [trunk["else"], *ways]}}
    return made


def _where(
    key: str, name: str, options: type[BaseModel], defs: dict[str, Any], default: bool = False
) -> dict[str, Any]:
    """What holds where ``key`` is ``name``, or, for a default, is not given: ``options`` stand beside it."""
    made = json_schema(options, name)
    prefix = f"{key}.{name}."
    defs.update({prefix + inner: _prefixed(model, prefix) for inner, model in made.get("$defs", {}).items()})
    wanted: dict[str, Any] = {"properties": {key: {"const": name}}}
    told = {part: _prefixed(made[part], prefix) for part in ("properties", "required") if part in made}
    return {"if": wanted if default else {**wanted, "required": [key]}, "then": told}


def _prefixed(node: Any, prefix: str) -> Any:
    """``node`` with what it refers to under names of its own."""
    if isinstance(node, list):
        return [_prefixed(item, prefix) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: value.replace("#/$defs/", f"#/$defs/{prefix}") if key == "$ref" else _prefixed(value, prefix)
        for key, value in node.items()
    }


SCHEMAS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "config": config_schema,
    "dialplan": dialplan_schema,
    "plugin": lambda: json_schema(PluginFile, "A plugin in YAML"),
    "campaign": lambda: json_schema(Definition, "A campaign"),
}
"""How the schema of each file is made."""
