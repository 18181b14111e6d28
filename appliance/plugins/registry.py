"""Which providers there are, from which plugin, and making an engine or a carrier out of the settings."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import pluggy
from pydantic import ValidationError

from appliance import hookspecs
from appliance.api.carriers import CarrierBox, StreamKind
from appliance.config.trunks import CarrierTrunk
from appliance.config.validation import nearest, options_problems
from appliance.errors import ApplianceError, EngineError
from appliance.hookspecs import Provider, Resources

logger = logging.getLogger(__name__)

T = TypeVar("T")

KINDS: Final = ("denoise", "vad", "turn", "asr", "llm", "tts", "speech")
"""Engine kinds, in the order in which a caller's words meet them."""

MEDIA_KINDS: Final = ("denoise", "vad")
"""Those that run beside the audio."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RESERVED: Final = {"sip": "the box itself speaks SIP"}


@dataclass(frozen=True)
class Offer(Generic[T]):
    """A provider and the plugin that offers it."""

    provider: T
    plugin: str


class _Plugins:
    """The plugins, asked for what they offer.

    Args:
        plugins: (name, plugin object), in order of priority.

    Attributes:
        problems: what was left out and why, in words.

    Raises:
        EngineError: two plugins have one name, or a plugin implements a hook that does not exist.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.problems: list[str] = []
        try:
            for name, plugin in plugins:
                self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise EngineError(f"a plugin cannot be registered: {error}", retryable=False) from error
        self._names = [name for name, _ in plugins]

    def collect(self, kind: str, wanted: type[T], refused: Mapping[str, str] | None = None) -> dict[str, Offer[T]]:
        """What ``appliance_<kind>_providers`` offers, by name; the first to offer a name has it.

        ``refused`` are names that nobody may take, with why.
        """
        offers: dict[str, Offer[T]] = {}
        hook = f"appliance_{kind}_providers"
        plugins = [self._manager.get_plugin(name) for name in self._names]
        for name, plugin in zip(self._names, plugins, strict=True):
            others = [other for other in plugins if other is not plugin]
            try:
                for result in self._manager.subset_hook_caller(hook, others)():
                    self._take(kind, name, result, wanted, offers, refused or {})
            except Exception as error:
                logger.exception("plugin %s: %s failed; its %s providers are left out", name, hook, kind)
                self.problems.append(f"{kind} providers of plugin {name!r} ({type(error).__name__}: {error})")
        return offers

    def _take(
        self,
        kind: str,
        plugin: str,
        result: Mapping[str, Any],
        wanted: type[T],
        offers: dict[str, Offer[T]],
        refused: Mapping[str, str],
    ) -> None:
        for name, provider in result.items():
            if not isinstance(provider, wanted):
                raise TypeError(f"{name!r} is a {type(provider).__name__}, not an appliance.api.{wanted.__name__}")
            why = refused.get(name, "")
            if name in offers:
                why = f"plugin {offers[name].plugin!r} has the name"
            elif not _NAME.fullmatch(name):
                why = "a name has letters, digits, - and _"
            if why:
                problem = f"{kind} provider {name!r} of plugin {plugin!r} ({why})"
                logger.error("left out: %s", problem)
                self.problems.append(problem)
                continue
            offers[name] = Offer(provider, plugin)


class ProviderRegistry:
    """The engine providers of all plugins.

    Args:
        plugins: (name, plugin object), the built-in ones first: the first to offer a name has it.

    Raises:
        EngineError: two plugins have one name, or a plugin implements a hook that does not exist.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        collected = _Plugins(plugins)
        self._plugins = tuple(plugins)
        self._offers = {kind: collected.collect(kind, Provider) for kind in KINDS}
        self.problems = collected.problems
        """What was left out and why, in words."""

    def with_plugins(self, plugins: Sequence[tuple[str, object]]) -> ProviderRegistry:
        """The same with other plugins behind them; raises as when it was made."""
        return ProviderRegistry([*self._plugins, *plugins])

    def offers(self, kind: str) -> Mapping[str, Offer[Provider]]:
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

    def partials(self, kind: str, name: str, options: Mapping[str, Any]) -> bool:
        """Whether the provider, so configured, answers while the caller still speaks; false for options that are wrong.

        Raises:
            EngineError: there is no such provider.
        """
        provider = self.provider(kind, name)
        if not callable(provider.partials):
            return provider.partials
        if self.validate_options(kind, name, options):
            return False
        return provider.partials(provider.options.model_validate(dict(options)))

    def voice_problem(self, name: str, options: Mapping[str, Any]) -> Callable[[str, str], str] | None:
        """What tells whether the synthesiser ``name`` has a voice (its name, and the language); None: nobody knows.

        Its answer is ``what is wrong; what would be right``, "" where nothing is wrong.
        """
        offer = self.offers("tts").get(name)
        if offer is None or offer.provider.voice_problem is None or self.validate_options("tts", name, options):
            return None
        made = offer.provider.options.model_validate(dict(options))
        return partial(offer.provider.voice_problem, made)

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


class StreamRegistry:
    """The streams of all plugins, by kind of trunk. For the media process: it knows nothing of call control.

    Args and Raises: as for :class:`ProviderRegistry`.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        collected = _Plugins(plugins)
        self.streams: Mapping[str, StreamKind] = {
            kind: offer.provider for kind, offer in collected.collect("stream", StreamKind, _RESERVED).items()
        }
        self.problems = collected.problems


class CarrierRegistry:
    """The carriers of all plugins, by kind of trunk, and their streams.

    Args and Raises: as for :class:`ProviderRegistry`.

    Attributes:
        streams: how the audio of a kind is read; not every one of them can be configured.
        carriers: who controls the calls of a kind; not every one of them can be configured.
        problems: what was left out and why, in words.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        collected = _Plugins(plugins)
        self.streams: Mapping[str, Offer[StreamKind]] = collected.collect("stream", StreamKind, _RESERVED)
        self.carriers: Mapping[str, Offer[Provider]] = collected.collect("carrier", Provider, _RESERVED)
        self.problems = collected.problems

    @property
    def kinds(self) -> list[str]:
        """The kinds that a trunk may be of, beside sip."""
        return sorted(set(self.streams) & set(self.carriers))

    def mistakes(self, kind: str, options: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """What is wrong with a trunk of this kind and its own keys: (key, what, what would be right) each.

        The key is dotted, "" for the trunk as a whole. Nothing heavy is imported.
        """
        if kind not in self.streams or kind not in self.carriers:
            return [("kind", *self._unknown(kind))]
        shared = [name for name in CarrierTrunk.model_fields if name not in ("kind", "options")]
        found = options_problems(self.carriers[kind].provider.options, options, also_known=shared)
        return [(".".join(str(part) for part in path), what, hint) for path, what, hint in found]

    def create_carrier(self, kind: str, options: Mapping[str, Any], box: CarrierBox, trunk: str) -> Any:
        """What the kind's factory makes of the options: an ``appliance.api.Carrier``.

        Raises:
            ApplianceError: unknown kind, wrong options, or the factory failed; says how to fix it.
        """
        mistakes = self.mistakes(kind, options)
        if mistakes:
            words = (": ".join(filter(None, (key, "; ".join(filter(None, rest))))) for key, *rest in mistakes)
            raise ApplianceError("; ".join(f"trunks.{trunk}.{one}" for one in words))
        provider = self.carriers[kind].provider
        try:
            return provider.factory(provider.options.model_validate(dict(options)), box)
        except ApplianceError:
            raise
        except ImportError as error:
            raise ApplianceError(
                f"trunks.{trunk}.kind: {kind!r} needs the Python package {error.name!r}, which cannot be imported "
                f"({error}); install it into the appliance's environment"
            ) from error
        except Exception as error:
            logger.exception("trunk %s: the carrier of plugin %s failed", trunk, self.carriers[kind].plugin)
            raise ApplianceError(f"trunks.{trunk}: {kind!r} cannot be used: {type(error).__name__}: {error}") from error

    def _unknown(self, kind: str) -> tuple[str, str]:
        left_out = [problem for problem in self.problems if re.match(r"(?:stream|carrier) provider", problem)]
        if kind in self.streams:
            what = f"nobody controls the calls of kind {kind!r}"
            hint = f"plugin {self.streams[kind].plugin!r} needs appliance_carrier_providers beside its streams"
        elif kind in self.carriers:
            what = f"nobody reads the audio of kind {kind!r}"
            hint = f"plugin {self.carriers[kind].plugin!r} needs appliance_stream_providers beside its carriers"
        else:
            what = f"there is no trunk kind {kind!r}"
            hint = nearest(kind, ["sip", *self.kinds])
        return what, "; ".join((hint, *(f"left out: {problem}" for problem in left_out)))


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
    if detail["type"] == "value_error":
        return f"{key or 'provider'}: {detail['ctx']['error']}"
    return f"{key}: {detail['input']!r} is wrong; {detail['msg'][:1].lower()}{detail['msg'][1:]}"
