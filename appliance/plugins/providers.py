"""Engines of operators' plugins, for the processes that may import them: engine workers, and media where it is told to.

A plugin is imported only where what it is wanted for is not built in, so that nobody else pays for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from appliance.config.settings import Plugins
from appliance.errors import EngineError, PluginError
from appliance.plugins.discovery import find_sources
from appliance.plugins.loading import load
from appliance.plugins.registry import ProviderRegistry

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
    sources = find_sources(settings.paths)
    found: list[tuple[str, object]] = []
    for name in settings.chosen:
        source = sources.get(name)
        if source is None or not source.python or (only is not None and name not in only):
            continue
        try:
            plugin = load(source)
        except PluginError as error:
            raise EngineError(f"engines.{kind}.provider: {missing[0]!r}: {error}", retryable=False) from error
        if f"{kind}_providers" in plugin.hooks:
            found.append((f"plugin:{name}", plugin.module))
    return registry.with_plugins(found)
