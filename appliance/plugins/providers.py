"""What operators' plugins offer, for the processes that may import it: engines and kinds of trunk.

Engine workers import engines. The box's own processes, media and control, import what ``plugins.media`` names.

A plugin is imported only where what it is wanted for is not built in, so that nobody else pays for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from appliance.config.settings import Plugins, Settings
from appliance.errors import EngineError, PluginError
from appliance.plugins.discovery import find_sources
from appliance.plugins.loading import load
from appliance.plugins.registry import ProviderRegistry
from appliance.plugins.streams import stream_kinds

logger = logging.getLogger(__name__)


def with_own(
    registry: ProviderRegistry,
    settings: Plugins,
    kind: str,
    wanted: Collection[str],
    only: Collection[str] | None = None,
) -> ProviderRegistry:
    """The registry, with the providers of the enabled plugins where one of ``wanted`` is not in it.

    Args:
        registry: of what is built in.
        settings: ``plugins`` of ``appliance.yaml``.
        kind: of engine.
        wanted: names of providers.
        only: names of the plugins that may be imported here; None for every one that is enabled.

    Raises:
        EngineError: a plugin that is needed cannot be imported.
    """
    missing = [name for name in wanted if name not in registry.offers(kind)]
    if not missing:
        return registry
    try:
        return registry.with_plugins(_having(settings, {f"{kind}_providers"}, only))
    except PluginError as error:
        raise EngineError(f"engines.{kind}.provider: {missing[0]!r}: {error}", retryable=False) from error


def trunk_plugins(settings: Settings) -> list[tuple[str, object]]:
    """The enabled plugins, as (name, plugin), that the trunks of kinds that are not built in may be of.

    Only those that ``plugins.media`` names are imported; none where every kind is built in.

    Raises:
        PluginError: one cannot be imported.
    """
    builtin = stream_kinds()
    if all(trunk.kind in builtin for trunk in settings.carrier_trunks.values()):
        return []
    return _having(settings.plugins, {"stream_providers", "carrier_providers"}, settings.plugins.media)


def _having(settings: Plugins, hooks: Collection[str], only: Collection[str] | None) -> list[tuple[str, object]]:
    """The enabled plugins that have one of the hooks, of those in ``only`` where it is given."""
    sources = find_sources(settings.paths)
    found: list[tuple[str, object]] = []
    for name in settings.chosen:
        source = sources.get(name)
        if source is None or not source.python or (only is not None and name not in only):
            continue
        plugin = load(source)
        if not plugin.hooks.keys().isdisjoint(hooks):
            found.append((f"plugin:{name}", plugin.module))
    return found
