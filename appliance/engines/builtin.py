"""The engines that come with the appliance, registered through the same hooks as everyone else's.

Nothing heavy is imported here: each factory imports what it needs, in the worker that runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from appliance.api import Engine
from appliance.config.validation import nearest
from appliance.engines import fake
from appliance.engines.adapters import (
    EspeakEngine,
    EspeakOptions,
    NoEngine,
    PocketSphinxEngine,
    PocketSphinxOptions,
    SmartTurnEngine,
)
from appliance.engines.asr_options import OpenAiAsrOptions, RealtimeAsrOptions, WhisperOptions
from appliance.engines.openai_llm_options import OpenAiLlmOptions
from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions
from appliance.engines.openai_tts_options import OpenAiSpeechOptions
from appliance.engines.piper_options import PiperOptions
from appliance.hookspecs import Provider, ProviderOptions, Providers, Resources, hookimpl
from appliance.plugins import noise_suppressors, vad_models
from appliance.plugins.registry import ProviderRegistry

if TYPE_CHECKING:
    from appliance.engines.openai_llm import OpenAiLlm
    from appliance.engines.openai_realtime import OpenAiRealtime
    from appliance.engines.openai_tts import OpenAiSpeech
    from appliance.engines.piper_tts import PiperEngine


def provider_registry(plugins: Sequence[tuple[str, object]] = ()) -> ProviderRegistry:
    """The built-in providers, and those of ``plugins`` as (name, plugin) after them."""
    return ProviderRegistry(
        [("noise_suppressors", noise_suppressors), ("vad_models", vad_models), ("builtin", BuiltinEngines()), *plugins]
    )


def _pocketsphinx(options: PocketSphinxOptions, resources: Resources) -> PocketSphinxEngine:
    from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser

    return PocketSphinxEngine(PocketSphinxRecogniser(), options.denoise)


def _whisper(options: WhisperOptions, resources: Resources) -> Engine:
    from appliance.engines.whisper_asr import WhisperAsr
    from appliance.engines.whisper_model import WhisperModel

    folder, how = resources.folder(options.model), options.model_dump(include={"device", "compute_type", "threads"})
    return WhisperAsr(lambda: WhisperModel(folder, **how), options)


def _openai_asr(options: OpenAiAsrOptions, resources: Resources) -> Engine:
    from appliance.engines.openai_asr import OpenAiAsr

    return OpenAiAsr(options)


def _openai_partials(options: OpenAiAsrOptions) -> bool:
    return options.partials_every_s > 0


def _realtime_asr(options: RealtimeAsrOptions, resources: Resources) -> Engine:
    from appliance.engines.realtime_asr import OpenAiRealtimeAsr

    return OpenAiRealtimeAsr(options)


def _smart_turn(options: ProviderOptions, resources: Resources) -> SmartTurnEngine:
    from appliance.engines.smart_turn import SmartTurn

    return SmartTurnEngine(SmartTurn(resources.model("smart_turn")))


def _espeak(options: EspeakOptions, resources: Resources) -> EspeakEngine:
    from appliance.engines.espeak_tts import EspeakSynthesiser

    return EspeakEngine(EspeakSynthesiser(), options.voice)


def _openai_llm(options: OpenAiLlmOptions, resources: Resources) -> OpenAiLlm:
    from appliance.engines.openai_llm import OpenAiLlm

    return OpenAiLlm(options)


def _piper(options: PiperOptions, resources: Resources) -> PiperEngine:
    from appliance.engines.piper_tts import PiperEngine

    return PiperEngine(options)


def _openai_tts(options: OpenAiSpeechOptions, resources: Resources) -> OpenAiSpeech:
    from appliance.engines.openai_tts import OpenAiSpeech

    return OpenAiSpeech(options)


def _openai_realtime(options: OpenAiRealtimeOptions, resources: Resources) -> OpenAiRealtime:
    from appliance.engines.openai_realtime import OpenAiRealtime

    return OpenAiRealtime(options)


def _fake(
    engine: Callable[[Any], Any],
    options: type[ProviderOptions],
    partials: bool | Callable[[Any], bool] = False,
) -> Provider:
    made = "obeys its delays exactly; for benchmarks"
    return Provider(lambda given, resources: engine(given), made, options, partials=partials)


def _fake_partials(options: fake.FakeAsrOptions) -> bool:
    return options.words_per_s > 0


def _espeak_voice_problem(options: EspeakOptions, name: str, language: str) -> str:
    from appliance.engines.espeak_tts import voice_problem

    return voice_problem(name or language)


def _piper_voice_problem(options: PiperOptions, name: str, language: str) -> str:
    folder, voice = options.folder.expanduser(), name.partition("+")[0]
    known = sorted(path.name.removesuffix(".onnx") for path in folder.glob("*.onnx")) if folder.is_dir() else []
    if not voice or not known or voice in known:
        return ""  # a folder without voices is a mistake of the box, not of the line
    return f"there is no voice {voice!r} in {folder}; {nearest(voice, known)}"


def _none(kind: str) -> Provider:
    return Provider(lambda options, resources: NoEngine(kind), "no engine: requests are refused")


class BuiltinEngines:
    """The plugin object."""

    @hookimpl
    def appliance_turn_providers(self) -> Providers:
        return {
            "smart_turn": Provider(_smart_turn, "Smart Turn v3.2 on one CPU thread", models=("smart_turn",)),
            "fake": _fake(fake.FakeTurn, fake.FakeTurnOptions),
            "none": _none("turn"),
        }

    @hookimpl
    def appliance_asr_providers(self) -> Providers:
        return {
            "pocketsphinx": Provider(
                _pocketsphinx, "PocketSphinx: expected phrases and digits, English", PocketSphinxOptions
            ),
            "whisper": Provider(
                _whisper, "Whisper through CTranslate2: free speech, many languages", WhisperOptions, partials=True
            ),
            "openai_compatible": Provider(
                _openai_asr,
                "services with OpenAI's API over HTTP: free speech",
                OpenAiAsrOptions,
                partials=_openai_partials,
            ),
            "openai_realtime": Provider(
                _realtime_asr,
                "services with OpenAI's Realtime API over a WebSocket: free speech",
                RealtimeAsrOptions,
                partials=True,
            ),
            "fake": _fake(fake.FakeAsr, fake.FakeAsrOptions, partials=_fake_partials),
            "none": _none("asr"),
        }

    @hookimpl
    def appliance_llm_providers(self) -> Providers:
        return {
            "openai_compatible": Provider(
                _openai_llm, "vLLM, SGLang, llama.cpp, Ollama, clouds: HTTP", OpenAiLlmOptions
            ),
            "fake": _fake(fake.FakeLlm, fake.FakeLlmOptions),
            "none": _none("llm"),
        }

    @hookimpl
    def appliance_speech_providers(self) -> Providers:
        return {
            "openai_realtime": Provider(
                _openai_realtime, "OpenAI's Realtime protocol: WebSocket, audio in and out", OpenAiRealtimeOptions
            ),
            "fake": _fake(fake.FakeSpeech, fake.FakeSpeechOptions),
            "none": _none("speech"),
        }

    @hookimpl
    def appliance_tts_providers(self) -> Providers:
        return {
            "openai_compatible": Provider(
                _openai_tts, "OpenAI's speech API: clouds, Kokoro-FastAPI, vLLM, LocalAI", OpenAiSpeechOptions
            ),
            "piper": Provider(
                _piper,
                "Piper voices (ONNX) on the processor",
                PiperOptions,
                levelled=True,
                voice_problem=_piper_voice_problem,
            ),
            "espeak": Provider(
                _espeak,
                "espeak-ng, over a hundred languages",
                EspeakOptions,
                levelled=True,
                voice_problem=_espeak_voice_problem,
            ),
            "fake": replace(_fake(fake.FakeTts, fake.FakeTtsOptions), exact=True),
            "none": _none("tts"),
        }
