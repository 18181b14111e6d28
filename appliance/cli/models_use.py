"""Which models a configuration has a use for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from appliance.config import Settings
from appliance.engines.builtin import provider_registry
from appliance.plugins.registry import KINDS

INSTALLED: Final = Path("/etc/appliance/appliance.yaml")


def keys_using(settings: Settings, name: str, folder: Path) -> list[str]:
    """Keys of ``settings`` that want the model ``name``, which is, or would be, at ``folder``."""
    registry = provider_registry()
    found: list[str] = []
    for key, kind, provider, options in _engines(settings):
        offers = registry.offers(kind)
        if provider in offers and name in registry.provider(kind, provider).models:
            found.append(f"{key}.provider")
        for path, value in _texts(options, key):
            if value == name or ("/" in value and _same(value, folder)):
                found.append(path)
    return found


def _engines(settings: Settings) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for kind in KINDS:
        engine = getattr(settings.engines, kind)
        yield f"engines.{kind}", kind, engine.provider, engine.options
    tts = settings.engines.tts.fallback
    yield "engines.tts.fallback", "tts", tts.provider, tts.options
    for kind, name in settings.engines.all_named():
        engine = settings.engines.of(kind, name)
        yield f"engines.named.{kind}.{name}", kind, engine.provider, engine.options
    for name, voice in settings.engines.named.tts.items():
        key = f"engines.named.tts.{name}.fallback"
        yield key, "tts", voice.fallback.provider, voice.fallback.options


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}")
    elif isinstance(value, str | Path):
        yield key, str(value)


def _same(value: str, folder: Path) -> bool:
    try:
        return Path(value).expanduser().resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False
