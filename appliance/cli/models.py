"""``appliance models``: list, pull and verify the model files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.errors import ModelFileError
from appliance.models.catalogue import MODEL_FILES, PACKAGED_MODELS, ModelFile, PackagedModel, model_file
from appliance.models.store import DIRECTORY_VARIABLE, Check, ModelStore, check_packaged, model_directory

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``models`` and its three actions to the main command line."""
    parser = subparsers.add_parser("models", help="list, pull and verify model files", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="every model: purpose, licence, source and whether it is here")
    verify = actions.add_parser("verify", help="check that the files are here and intact; exit status 1 if one is not")
    pull = actions.add_parser("pull", help="fetch the files that are missing or damaged")
    for action in (listing, verify, pull):
        action.add_argument(
            "--directory",
            type=Path,
            metavar="DIR",
            help=f"folder of the model files (default: ${DIRECTORY_VARIABLE}, else ~/.cache/appliance/models)",
        )
    for action in (verify, pull):
        action.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    for action in (listing, verify):
        action.add_argument("--json", action="store_true", help="print JSON")
    pull.add_argument("--force", action="store_true", help="fetch again what is here and intact")
    pull.add_argument("--wheel", type=Path, metavar="FILE", help="take one NAME out of this wheel, without a network")
    listing.set_defaults(run=_list)
    verify.set_defaults(run=_verify)
    pull.set_defaults(run=_pull)


def _list(args: argparse.Namespace) -> int:
    store = ModelStore(model_directory(args.directory))
    rows = [_row(entry, _check(store, entry)) for entry in _chosen(())]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:<20} {row['state']:<9} {row['licence']:<17} {row['purpose']}")
    print(f"files are in {store.directory}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    store = ModelStore(model_directory(args.directory))
    try:
        entries = _chosen(args.names)
    except ModelFileError as error:
        print(f"appliance models verify: {error}", file=sys.stderr)
        return 2
    checks = [(entry, _check(store, entry)) for entry in entries]
    if args.json:
        print(json.dumps([_row(entry, check) for entry, check in checks], indent=2))
    else:
        for entry, check in checks:
            print(f"{entry.name:<20} {check.state.value:<9} {check.detail or check.path}")
    return 0 if all(check.usable for _, check in checks) else 1


def _pull(args: argparse.Namespace) -> int:
    store = ModelStore(model_directory(args.directory))
    if args.wheel is not None and len(args.names) != 1:
        print("appliance models pull: --wheel needs exactly one NAME", file=sys.stderr)
        return 2
    status = 0
    for name in args.names or [entry.name for entry in MODEL_FILES]:
        try:
            entry = model_file(name)
            fetched = store.pull(entry, wheel=args.wheel, force=args.force)
        except ModelFileError as error:
            print(f"appliance models pull: {error}", file=sys.stderr)
            status = 1
        else:
            print(f"{name:<20} {'pulled' if fetched else 'here'}: {store.path(entry)}", flush=True)
    return status


def _chosen(names: Sequence[str]) -> list[ModelFile | PackagedModel]:
    if not names:
        return [*MODEL_FILES, *PACKAGED_MODELS]
    packaged = {model.name: model for model in PACKAGED_MODELS}
    return [packaged[name] if name in packaged else model_file(name) for name in names]


def _check(store: ModelStore, entry: ModelFile | PackagedModel) -> Check:
    return store.check(entry) if isinstance(entry, ModelFile) else check_packaged(entry)


def _row(entry: ModelFile | PackagedModel, check: Check) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "state": check.state.value,
        "purpose": entry.purpose,
        "licence": entry.licence,
        "path": str(check.path) if check.path else None,
        "detail": check.detail,
    }
    if isinstance(entry, ModelFile):
        row |= {
            "size_bytes": entry.size_bytes,
            "sha256": entry.sha256,
            "sources": [str(source) for source in entry.sources],
        }
    else:
        row["sources"] = [entry.distribution]
    return row
