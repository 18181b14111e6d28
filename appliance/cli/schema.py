"""``appliance schema``: the JSON Schema of a file that operators write, for editors."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from appliance.config import Settings
from appliance.config.json_schema import json_schema
from appliance.dialplan.json_schema import dialplan_schema

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``schema`` to the main command line."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of appliance.yaml or of a dialplan, for editors",
        description=__doc__,
        epilog="`appliance check` finds more: what no schema can say.",
    )
    parser.add_argument("file", choices=("config", "dialplan"), help="of which file: appliance.yaml, or a dialplan")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema(args.file), indent=2))
    return 0


def schema(file: str) -> dict[str, Any]:
    """The schema of "config" or "dialplan"."""
    return dialplan_schema() if file == "dialplan" else json_schema(Settings, "appliance.yaml")
