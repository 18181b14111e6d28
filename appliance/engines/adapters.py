"""Engines out of the recogniser, synthesiser and turn model of the embedded default.

The three compute in the calling thread: requests run one at a time, and between chunks of speech cancellations are
let in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from appliance.api import EngineContext, JudgeTurnRequest, Pcm, RecogniseRequest, SynthesiseRequest
from appliance.engines.greetings import GREETING
from appliance.errors import EngineError
from appliance.hookspecs import ProviderOptions

if TYPE_CHECKING:
    from appliance.engines.espeak_tts import EspeakSynthesiser
    from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser
    from appliance.engines.smart_turn import SmartTurn

RATE_HZ: Final = 8000
LEAD_SAMPLES: Final = 12_000
"""What is heard of the line before an utterance, so that its noise is known when the words begin."""
_STRENGTH: Final = 2
_NO_SAMPLES: Final = np.zeros(0, np.int16)


class PocketSphinxOptions(ProviderOptions):
    """``denoise``: whether noise is taken off the caller's words before they are recognised, on every line."""

    denoise: bool = True


def without_noise(pcm: Pcm, lead: int) -> Pcm:
    """The samples behind the first ``lead`` of ``pcm`` (int16, 8 kHz), with less noise; all tells what noise is."""
    from appliance.audio.suppression import FRAME_SAMPLES, WebRtcSuppressor

    suppressor = WebRtcSuppressor(_STRENGTH)
    late = suppressor.delay_samples
    frames = -(-(len(pcm) + late) // FRAME_SAMPLES)
    padded = np.zeros(frames * FRAME_SAMPLES, np.int16)
    padded[: len(pcm)] = pcm
    clean = np.concatenate([suppressor.process(frame) for frame in padded.reshape(-1, FRAME_SAMPLES)])
    return clean[lead + late : len(pcm) + late]


class EspeakOptions(ProviderOptions):
    """``voice`` is used where neither the line nor its language names one."""

    voice: str = "en-us"


class _Inline:
    """One request at a time, computed in this process."""

    kind = ""
    max_batch = 1
    max_wait_s = 0.0
    concurrency = 1
    cpu_bound = True

    async def close(self) -> None:
        return


class PocketSphinxEngine(_Inline):
    """Recognises the phrases that the dialplan expects, in English."""

    kind = "asr"

    def __init__(self, recogniser: PocketSphinxRecogniser, denoise: bool = False) -> None:
        self._recogniser = recogniser
        self._denoise = denoise

    async def load(self) -> None:
        self._recogniser.recognise(np.zeros(RATE_HZ // 2, np.int16), ("yes", "no"), (), reject=True)

    async def run(self, batch: Sequence[RecogniseRequest], context: EngineContext) -> None:
        for request in batch:
            if request.language.partition("-")[0].lower() not in ("en", ""):
                raise EngineError(
                    f"PocketSphinx understands English, not {request.language!r}; name another engines.asr.provider",
                    retryable=False,
                )
            if not request.phrases:
                raise EngineError(
                    "PocketSphinx needs the phrases to expect; an open question needs another engines.asr.provider",
                    retryable=False,
                )
            await context.checkpoint()
            if context.cancelled(request):
                continue
            if request.phrases == (GREETING,):
                spotted = self._recogniser.spot(self._audio(request, context))
                context.recognised(request, spotted, confidence=float(bool(spotted)), accepted=bool(spotted))
                continue
            heard = self._recogniser.recognise(
                self._audio(request, context), request.phrases, request.pronunciations, reject=request.reject
            )
            context.recognised(request, heard.text, confidence=heard.confidence, accepted=heard.accepted)

    def _audio(self, request: RecogniseRequest, context: EngineContext) -> Pcm:
        if not self._denoise:
            return context.caller_audio(request)
        start = max(0, request.start - LEAD_SAMPLES)
        return without_noise(context.caller_audio(request, start), request.start - start)


class SmartTurnEngine(_Inline):
    """Judges turns with Smart Turn."""

    kind = "turn"

    def __init__(self, model: SmartTurn) -> None:
        self._model = model

    async def load(self) -> None:
        self._model.warm_up()

    async def run(self, batch: Sequence[JudgeTurnRequest], context: EngineContext) -> None:
        for request in batch:
            await context.checkpoint()
            if context.cancelled(request):
                continue
            pcm = context.caller_audio(request)
            context.verdict(request, self._model.probability(pcm, rate_hz=RATE_HZ))


class EspeakEngine(_Inline):
    """Speaks with espeak-ng."""

    kind = "tts"

    def __init__(self, synthesiser: EspeakSynthesiser, default_voice: str) -> None:
        self._synthesiser = synthesiser
        self._default_voice = default_voice

    async def load(self) -> None:
        for _ in self._synthesiser.synthesise("Ready.", voice=self._default_voice):
            continue

    async def run(self, batch: Sequence[SynthesiseRequest], context: EngineContext) -> None:
        for request in batch:
            await self._speak(request, context)

    async def _speak(self, request: SynthesiseRequest, context: EngineContext) -> None:
        voice = request.voice or request.language or self._default_voice
        for chunk in self._synthesiser.synthesise(request.text, voice=voice, rate=request.rate):
            if not context.speak(request, chunk):
                return
            await context.checkpoint()
        context.speak(request, _NO_SAMPLES, last=True)


class NoEngine:
    """Refuses every request, saying which setting would change that."""

    max_batch = 1
    max_wait_s = 0.0
    concurrency = 1
    cpu_bound = False

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def load(self) -> None:
        return

    async def close(self) -> None:
        return

    async def run(self, batch: Sequence[Any], context: EngineContext) -> None:
        for request in batch:
            context.failed(request, f"engines.{self.kind}.provider is none; name a provider", retryable=False)
