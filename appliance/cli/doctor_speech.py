"""What ``appliance doctor`` says of speech: whether somebody speaks, and how soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sized
from typing import Final

from appliance.api import Engine
from appliance.config import Settings
from appliance.engines.builtin import provider_registry
from appliance.errors import ApplianceError, EngineError
from appliance.ipc.messages import Synthesise
from appliance.models.store import ModelStore, model_directory

_SLOW_AUDIO_S: Final = 0.5
_SLOW_SPEECH: Final = 1.5
_RATE_HZ: Final = 8000
_SENTENCE: Final = "Thank you for calling. How can I help you today?"


def spoken(settings: Settings) -> Iterator[tuple[str, str, str, bool]]:
    """A sentence of the synthesiser, and of the one that takes its place: (what, detail, remedy, it works) each."""
    registry, tts = provider_registry(), settings.engines.tts
    resources = ModelStore(model_directory(settings.models_dir))
    several = {tts.provider: tts.options, tts.fallback.provider: tts.fallback.options}
    for place, (provider, options) in enumerate(several.items()):
        if registry.offers("tts").get(provider) is None or provider in ("fake", "none"):
            continue
        what = "speech" if place == 0 else "second voice"
        if registry.validate_options("tts", provider, options):
            yield what, f"{provider}: wrong options", "appliance check says more", False
            continue
        try:
            first_s, times = asyncio.run(_speak(registry.create("tts", provider, options, resources)))
        except ApplianceError as error:
            detail, _, remedy = f"{provider}: {error}".rpartition("; ")
            yield what, detail or remedy, remedy if detail else "see docs/tts.md", False
            continue
        detail = f"{provider}: first audio after {first_s:.2f} s, {times:.1f} times real time"
        slow = first_s > _SLOW_AUDIO_S or times < _SLOW_SPEECH
        remedy = "callers notice waits above half a second: more threads, a smaller voice, a faster server"
        yield what, detail, remedy if slow else "", True


async def _speak(engine: Engine) -> tuple[float, float]:
    """(seconds to the first audio, seconds of speech made in a second)."""
    taken = _Spoken()
    request = Synthesise(1, 0, 0, _SENTENCE, "en-us", "", 1.0, 0, 30 * _RATE_HZ, urgent=True)
    try:
        await engine.load()
        begun = time.monotonic()
        await engine.run([request], taken)  # type: ignore[arg-type]  # what a synthesiser uses of a context
    finally:
        await engine.close()
    if not taken.samples:
        raise EngineError("it said nothing", retryable=False)
    return taken.first - begun, taken.samples / _RATE_HZ / max(taken.last - begun, 1e-3)


class _Spoken:
    """Takes what a synthesiser says."""

    def __init__(self) -> None:
        self.first = self.last = 0.0
        self.samples = 0

    def cancelled(self, request: object) -> bool:
        return False

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)

    def speak(self, request: object, pcm: Sized, *, last: bool = False, cached: bool = False) -> bool:
        self.last = time.monotonic()
        if not self.samples and len(pcm):
            self.first = self.last
        self.samples += len(pcm)
        return True

    def failed(self, request: object, reason: str, *, retryable: bool) -> None:
        raise EngineError(reason, retryable=retryable)
