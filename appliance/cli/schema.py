"""``appliance schema``: the JSON Schema of a file that operators write, for editors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from appliance.config import Settings
from appliance.config.json_schema import json_schema
from appliance.dialplan.json_schema import dialplan_schema
from appliance.plugins.declarative.schema import PluginFile

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


_MADE: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "config": lambda: json_schema(Settings, "appliance.yaml"),
    "dialplan": dialplan_schema,
    "plugin": lambda: json_schema(PluginFile, "A plugin in YAML"),
}


def add_parser(subparsers: Subparsers) -> None:
    """Add ``schema`` to the main command line."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of appliance.yaml, a dialplan or a plugin in YAML, for editors",
        description=__doc__,
        epilog="`appliance check` finds more: what no schema can say.",
    )
    parser.add_argument(
        "file", choices=tuple(_MADE), help="of which file: appliance.yaml, a dialplan, or a plugin in YAML"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema(args.file), indent=2))
    return 0


def schema(file: str) -> dict[str, Any]:
    """The schema of "config", "dialplan" or "plugin"."""
    return _MADE[file]()
