"""``appliance models profiles`` and ``profile``: sets of engines and models for a kind of box."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from appliance.models.catalogue import ModelFile, ModelFolder
from appliance.models.profiles import PROFILES, Later, Profile, profile
from appliance.models.store import model_directory


def list_profiles(args: argparse.Namespace) -> int:
    """Every profile with what it needs."""
    if args.json:
        print(json.dumps([row(one, model_directory(args.directory)) for one in PROFILES], indent=2))
        return 0
    for one in PROFILES:
        print(f"{one.name:<10} {one.summary}")
        print(f"{'':<10} {_needs(one)}")
    print("'appliance models profile NAME' tells more, 'appliance models pull --profile NAME' fetches its models")
    return 0


def show_profile(args: argparse.Namespace) -> int:
    """One profile: its engines, models and licences, or the piece of ``appliance.yaml``."""
    one = profile(args.name)
    directory = model_directory(args.directory)
    if args.json:
        print(json.dumps(row(one, directory), indent=2))
    elif args.yaml:
        print(one.yaml(directory, name_directory=args.directory is not None), end="")
    else:
        _show(one)
    return 0


def row(one: Profile, directory: Path) -> dict[str, Any]:
    """A profile as JSON has it."""
    server = one.server
    return {
        "name": one.name,
        "summary": one.summary,
        "ram_mb": one.ram_mb,
        "device_mb": one.device_mb,
        "device_gb": one.device_gb,
        "engines": [
            {"kind": part.kind, "provider": part.provider, "model": part.model or None, "ram_mb": part.ram_mb}
            | {"device_mb": part.device_mb}
            for part in one.parts
        ],
        "models": [
            {"name": entry.name, "licence": entry.licence, "size_bytes": getattr(entry, "size_bytes", None)}
            for entry in one.models
        ],
        "server": None
        if server is None
        else {"program": server.program, "model": server.model, "licence": server.licence, "start": server.start}
        | {"ram_mb": server.ram_mb, "device_mb": server.device_mb},
        "not_in_this_version": [
            {"kind": later.kind, "provider": later.provider, "model": later.model or None, "why": later.why}
            for later in absent(one)
        ],
        "settings": one.settings(directory),
    }


def absent(one: Profile) -> list[Later]:
    """What of ``later`` this version does not have."""
    from appliance.engines.builtin import provider_registry

    registry = provider_registry()
    return [later for later in one.later if later.provider not in registry.offers(later.kind)]


def _show(one: Profile) -> None:
    print(f"{one.name}: {one.summary}")
    print(_needs(one))
    print(f"\n{'engine':<8} {'provider':<18} {'model':<26} {'memory':>9} {'of GPU':>9}")
    for part in one.parts:
        print(f"{part.kind:<8} {part.provider:<18} {part.model or '-':<26} {_gb(part.ram_mb)} {_gb(part.device_mb)}")
    if one.server is not None:
        server = one.server
        print(f"{'':<8} {server.program:<18} {server.model:<26} {_gb(server.ram_mb)} {_gb(server.device_mb)}")
    print("\nlicences:")
    for entry in one.models:
        size = getattr(entry, "size_bytes", None)
        pulled = f", {size / 1e6:.0f} MB" if size and isinstance(entry, ModelFile | ModelFolder) else ""
        terms = f"; {entry.terms}" if isinstance(entry, ModelFolder) and entry.terms else ""
        print(f"  {entry.name:<26} {entry.licence}{pulled}{terms}")
    if one.server is not None:
        print(f"  {one.server.model:<26} {one.server.licence}, fetched by {one.server.program}")
        print(f"\nbeside the box: {one.server.start}")
    for later in absent(one):
        print(f"not in this version: {later.provider} ({later.kind}), {later.why}")
    print(f"\n'appliance models profile {one.name} --yaml' prints the piece of appliance.yaml")


def _needs(one: Profile) -> str:
    gpu = ""
    if one.device_gb is not None:
        least, most = one.device_gb
        gpu = f", {one.device_mb / 1000:.1f} GB of a GPU with {least}{f' to {most}' if most else ' or more'} GB"
    licences = sorted({entry.licence for entry in one.models} | ({one.server.licence} if one.server else set()))
    return f"about {one.ram_mb / 1000:.1f} GB of memory{gpu}; licences: {', '.join(licences)}"


def _gb(mb: int) -> str:
    return f"{mb / 1000:>6.1f} GB" if mb else f"{'-':>9}"
