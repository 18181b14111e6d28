"""Which providers there are, from which plugin, and making an engine out of the settings."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pluggy
from pydantic import ValidationError

from appliance import hookspecs
from appliance.errors import EngineError
from appliance.hookspecs import Provider, Resources

logger = logging.getLogger(__name__)

KINDS: Final = ("vad", "turn", "asr", "llm", "tts")
"""Engine kinds, in the order in which a caller's words meet them."""


@dataclass(frozen=True)
class Offer:
    """A provider and the plugin that offers it."""

    provider: Provider
    plugin: str


class ProviderRegistry:
    """The providers of all plugins.

    Args:
        plugins: (name, plugin object), the built-in ones first: the first to offer a name has it.

    Raises:
        EngineError: two plugins have one name, or a plugin implements a hook that does not exist.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.problems: list[str] = []
        """What was left out and why, in words."""
        try:
            for name, plugin in plugins:
                self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise EngineError(f"a plugin cannot be registered: {error}", retryable=False) from error
        names = [name for name, _ in plugins]
        self._offers = {kind: self._collect(kind, names) for kind in KINDS}

    def offers(self, kind: str) -> Mapping[str, Offer]:
        """The providers of ``kind`` by name.

        Raises:
            EngineError: there is no such kind.
        """
        if kind not in self._offers:
            raise EngineError(f"there is no engine kind {kind!r}; there are: {', '.join(KINDS)}", retryable=False)
        return self._offers[kind]

    def provider(self, kind: str, name: str) -> Provider:
        """The provider called ``name``.

        Raises:
            EngineError: there is none; the message lists those there are, and what was left out.
        """
        offers = self.offers(kind)
        if name in offers:
            return offers[name].provider
        message = f"provider: there is no {kind} provider {name!r}; there are: {', '.join(sorted(offers))}"
        near = difflib.get_close_matches(name, offers, 1)
        if near:
            message += f" (did you mean {near[0]!r}?)"
        left_out = [problem for problem in self.problems if problem.startswith(f"{kind} ")]
        if left_out:
            message += "; left out: " + "; ".join(left_out)
        raise EngineError(message, retryable=False)

    def validate_options(self, kind: str, name: str, options: Mapping[str, Any]) -> list[str]:
        """What is wrong with a provider's options, as ``key: what is wrong; what would be right``; empty if nothing.

        Nothing heavy is imported and no model is read.
        """
        try:
            provider = self.provider(kind, name)
        except EngineError as error:
            return [str(error)]
        try:
            provider.options.model_validate(dict(options))
        except ValidationError as error:
            return [_in_words(name, provider, detail) for detail in error.errors()]
        return []

    def create(self, kind: str, name: str, options: Mapping[str, Any], resources: Resources) -> Any:
        """What the provider's factory makes of the options.

        Raises:
            EngineError: unknown provider, wrong options, or the factory failed; says how to fix it.
            ModelFileError: a model file is missing or corrupt.
        """
        mistakes = self.validate_options(kind, name, options)
        if mistakes:
            raise EngineError("; ".join(f"engines.{kind}.{mistake}" for mistake in mistakes), retryable=False)
        provider = self.provider(kind, name)
        try:
            return provider.factory(provider.options.model_validate(dict(options)), resources)
        except ImportError as error:
            raise EngineError(
                f"engines.{kind}.provider: {name!r} needs the Python package {error.name!r}, which cannot be imported "
                f"({error}); install it into the appliance's environment",
                retryable=False,
            ) from error

    def _collect(self, kind: str, names: list[str]) -> dict[str, Offer]:
        offers: dict[str, Offer] = {}
        hook = f"appliance_{kind}_providers"
        plugins = [self._manager.get_plugin(name) for name in names]
        for name, plugin in zip(names, plugins, strict=True):
            others = [other for other in plugins if other is not plugin]
            try:
                results = self._manager.subset_hook_caller(hook, others)()
                for result in results:
                    self._take(kind, name, result, offers)
            except Exception as error:
                logger.exception("plugin %s: %s failed; its %s providers are left out", name, hook, kind)
                self.problems.append(f"{kind} providers of plugin {name!r} ({type(error).__name__}: {error})")
        return offers

    def _take(self, kind: str, plugin: str, result: Mapping[str, Provider], offers: dict[str, Offer]) -> None:
        for name, provider in result.items():
            if not isinstance(provider, Provider):
                raise TypeError(f"{name!r} is a {type(provider).__name__}, not an appliance.api.Provider")
            if name in offers:
                problem = f"{kind} provider {name!r} of plugin {plugin!r} (plugin {offers[name].plugin!r} has the name)"
                logger.error("left out: %s", problem)
                self.problems.append(problem)
                continue
            offers[name] = Offer(provider, plugin)


def _in_words(name: str, provider: Provider, detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    known = list(provider.options.model_fields)
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        takes = f"takes {', '.join(known)}" if known else "takes no options"
        return f"{key}: unknown option; {meant}provider {name!r} {takes}"
    if detail["type"] == "missing":
        return f"{key}: is missing; provider {name!r} needs it"
    return f"{key}: {detail['input']!r} is wrong; {detail['msg'][:1].lower()}{detail['msg'][1:]}"
