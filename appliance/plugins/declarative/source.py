"""The YAML plugins as the rest of the box sees them: their tools, their webhooks, and others in their place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp.abc import AbstractResolver

from appliance.api.tools import Tool, ToolError
from appliance.config import Settings
from appliance.config.egress import Hosts
from appliance.plugins.declarative.http_client import HttpClient
from appliance.plugins.declarative.http_tools import tools_of
from appliance.plugins.declarative.loader import DeclarativePlugin
from appliance.plugins.declarative.schema import Webhook
from appliance.plugins.declarative.templates import Scope, render_text, render_url
from appliance.plugins.declarative.webhooks import Target

logger = logging.getLogger(__name__)


class Declarative:
    """All YAML plugins of a box.

    Args:
        plugins: by name, from :func:`~appliance.plugins.declarative.loader.load_declarative`.
        allow_hosts: private hosts that all of them may speak to.
        egress: hosts that the box may speak to; None for any.
        resolver: for tests.
    """

    def __init__(
        self,
        plugins: Mapping[str, DeclarativePlugin] | None = None,
        *,
        allow_hosts: tuple[str, ...] = (),
        egress: tuple[str, ...] | None = None,
        resolver: type[AbstractResolver] | None = None,
    ) -> None:
        self._allow_hosts = allow_hosts
        self._egress = None if egress is None else Hosts.of(egress)
        self._resolver = resolver
        self._plugins: dict[str, DeclarativePlugin] = {}
        self._clients: dict[str, HttpClient] = {}
        self._take(plugins or {})

    @classmethod
    def of(cls, settings: Settings, plugins: Mapping[str, DeclarativePlugin]) -> Declarative:
        """With the rules of ``settings``."""
        return cls(plugins, allow_hosts=settings.plugins.allow_hosts, egress=settings.egress)

    def names(self) -> tuple[str, ...]:
        """The plugins there are."""
        return tuple(self._plugins)

    def plugin(self, name: str) -> DeclarativePlugin | None:
        """The plugin of that name."""
        return self._plugins.get(name)

    def tool_names(self, name: str) -> tuple[str, ...]:
        """The tools of a plugin; none where there is no such YAML plugin."""
        plugin = self._plugins.get(name)
        return plugin.tools if plugin is not None else ()

    def tools_of(
        self, line: str, enabled: Mapping[str, Mapping[str, Any]], lead: Mapping[str, str] | None = None
    ) -> list[tuple[str, Tool]]:
        """The tools of a line as (plugin, tool), in the order of ``enabled``. Names of other plugins are passed over.

        Args:
            line: its name, for the log.
            enabled: plugins of the line to their values there, the box's and the line's laid over one another.
            lead: what is known of the one called, on a call that the box has placed.
        """
        found: list[tuple[str, Tool]] = []
        for name, values in enabled.items():
            plugin = self._plugins.get(name)
            if plugin is None:
                continue
            known = self.values_of(plugin, values, line)
            if known is not None:
                found += [(name, tool) for tool in tools_of(plugin, known, self._clients[name], lead)]
        return found

    def targets_of(self, line: str, enabled: Mapping[str, Mapping[str, Any]]) -> list[Target]:
        """The webhooks of a line. Arguments as for :meth:`tools_of`."""
        found: list[Target] = []
        for name, values in enabled.items():
            plugin = self._plugins.get(name)
            if plugin is None or not plugin.file.webhooks:
                continue
            known = self.values_of(plugin, values, line)
            if known is None:
                continue
            scope = Scope(values=known, secrets=plugin.file.secrets)
            for webhook, wanted in plugin.file.webhooks.items():
                try:
                    found.append(_target(name, webhook, wanted, scope))
                except (ValueError, ToolError) as error:
                    logger.error("line %s: webhook %s of plugin %s is left out: %s", line, webhook, name, error)
        return found

    def values_of(self, plugin: DeclarativePlugin, values: Mapping[str, Any], line: str) -> dict[str, Any] | None:
        """``values`` with the defaults filled in; None, and a line in the log, where they are wrong."""
        problems = plugin.values_problems(values)
        if problems:
            path, what, _ = problems[0]
            logger.error("line %s: plugin %s is left out: %s: %s", line, plugin.name, ".".join(map(str, path)), what)
            return None
        made = plugin.values.model_validate(dict(values))
        return {name: getattr(made, name) for name in type(made).model_fields}

    def client(self, name: str) -> HttpClient:
        """How plugin ``name`` connects. Raises KeyError where there is none."""
        return self._clients[name]

    def take(self, plugins: Mapping[str, DeclarativePlugin]) -> list[HttpClient]:
        """Take others from now on. Tools that calls already have go on as they are.

        Returns:
            The clients of those before, to be retired.
        """
        before, self._clients = self._clients, {}
        self._take(plugins)
        return list(before.values())

    async def swap(self, plugins: Mapping[str, DeclarativePlugin]) -> None:
        """Take others from now on, and retire the clients of those before."""
        for client in self.take(plugins):
            await client.retire()

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    def _take(self, plugins: Mapping[str, DeclarativePlugin]) -> None:
        self._plugins = dict(plugins)
        for name, plugin in plugins.items():
            allowed = Hosts.of((*self._allow_hosts, *plugin.file.allow_hosts))
            self._clients[name] = HttpClient(allowed, self._egress, plugin.authority, self._resolver)


def _target(plugin: str, name: str, webhook: Webhook, scope: Scope) -> Target:
    """The webhook with everything filled in.

    Raises:
        ValueError, ToolError: the operator's values make no URL.
    """
    texts = {
        key: render_text(value, scope) if isinstance(value, str) else value.get_secret_value().strip()
        for key, value in webhook.headers.items()
    }
    return Target(
        plugin=plugin,
        webhook=name,
        url=render_url(webhook.url, {}, scope),
        events=frozenset(webhook.events),
        secret=webhook.secret,
        headers=texts,
        timeout_s=webhook.timeout_s,
        attempts=webhook.attempts,
        concurrency=webhook.concurrency,
        max_waiting=webhook.max_waiting,
    )
