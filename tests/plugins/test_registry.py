from __future__ import annotations

import subprocess
import sys
import types

import pytest

from appliance import hookspecs
from appliance.api import EngineError, Provider, ProviderOptions, hookimpl
from appliance.engines.adapters import NoEngine
from appliance.engines.builtin import provider_registry
from appliance.plugins.registry import KINDS, ProviderRegistry


class Models:
    def model(self, name: str) -> bytes:
        return name.encode()


class EchoOptions(ProviderOptions):
    words: int
    voice: str = "x"


def echo_plugin(name: str = "echo", factory=lambda options, resources: (options, resources.model("m"))):
    class Plugin:
        @hookimpl
        def appliance_asr_providers(self):
            return {name: Provider(factory, "says it back", EchoOptions)}

    return Plugin()


def test_the_built_in_providers():
    registry = provider_registry()
    assert {kind: sorted(registry.offers(kind)) for kind in KINDS} == {
        "denoise": ["none", "rnnoise", "webrtc"],
        "vad": ["none", "silero"],
        "turn": ["fake", "none", "smart_turn"],
        "asr": ["fake", "none", "openai_compatible", "openai_realtime", "pocketsphinx", "whisper"],
        "llm": ["fake", "none", "openai_compatible"],
        "tts": ["espeak", "fake", "none", "openai_compatible", "piper"],
        "speech": ["fake", "none", "openai_realtime"],
    }
    assert registry.problems == []
    assert registry.provider("turn", "smart_turn").models == ("smart_turn",)


def test_every_kind_has_a_documented_hook_and_the_manual_says_how_it_runs():
    for kind in KINDS:
        assert getattr(hookspecs, f"appliance_{kind}_providers").__doc__
    manual = hookspecs.__doc__ or ""
    for word in ("When:", "Budget:", "Result:", "Exception:"):
        assert word in manual


def test_a_plugin_registers_like_the_built_in_ones():
    registry = provider_registry([("mine", echo_plugin())])
    assert registry.offers("asr")["echo"].plugin == "mine"
    options, model = registry.create("asr", "echo", {"words": 2}, Models())
    assert options == EchoOptions(words=2)
    assert model == b"m"


def test_an_unknown_provider_lists_those_there_are():
    (mistake,) = provider_registry().validate_options("asr", "pocketsphynx", {})
    assert mistake == (
        "provider: there is no asr provider 'pocketsphynx'; there are: fake, none, openai_compatible, "
        "openai_realtime, pocketsphinx, whisper (did you mean 'pocketsphinx'?)"
    )
    with pytest.raises(EngineError, match="there is no engine kind 'ocr'; there are: denoise, vad, turn, asr"):
        provider_registry().offers("ocr")


def test_wrong_options_say_what_would_be_right():
    validate = provider_registry().validate_options
    assert validate("asr", "fake", {"delay_ms": 5, "text": "x"}) == []
    assert validate("asr", "fake", {"dely_ms": 5}) == [
        "dely_ms: unknown option; did you mean 'delay_ms'? provider 'fake' takes delay_ms, text, words_per_s"
    ]
    assert validate("asr", "fake", {"delay_ms": -1}) == [
        "delay_ms: -1 is wrong; input should be greater than or equal to 0"
    ]
    assert validate("turn", "smart_turn", {"x": 1}) == ["x: unknown option; provider 'smart_turn' takes no options"]
    registry = provider_registry([("mine", echo_plugin())])
    assert registry.validate_options("asr", "echo", {}) == ["words: is missing; provider 'echo' needs it"]
    assert len(validate("tts", "fake", {"chunk_ms": 0, "first_audio_ms": "soon"})) == 2


def test_creating_with_wrong_options_names_the_setting():
    with pytest.raises(EngineError, match=r"^engines\.llm\.token_ms: 'x' is wrong; input should be a valid number"):
        provider_registry().create("llm", "fake", {"token_ms": "x"}, Models())


def test_a_name_that_is_taken_is_refused_and_both_plugins_are_named():
    registry = provider_registry([("mine", echo_plugin("pocketsphinx"))])
    assert registry.offers("asr")["pocketsphinx"].plugin == "builtin"
    assert registry.problems == ["asr provider 'pocketsphinx' of plugin 'mine' (plugin 'builtin' has the name)"]


def test_a_hook_that_raises_leaves_only_its_own_providers_out(caplog):
    class Broken:
        @hookimpl
        def appliance_asr_providers(self):
            raise RuntimeError("no licence")

        @hookimpl
        def appliance_tts_providers(self):
            return {"hum": Provider(lambda options, resources: None, "hums")}

    registry = provider_registry([("broken", Broken()), ("mine", echo_plugin())])
    assert "echo" in registry.offers("asr")
    assert "hum" in registry.offers("tts")
    (mistake,) = registry.validate_options("asr", "super", {})
    assert mistake.endswith("left out: asr providers of plugin 'broken' (RuntimeError: no licence)")
    assert "plugin broken: appliance_asr_providers failed" in caplog.text


def test_a_result_that_is_no_provider_is_left_out():
    class Loose:
        @hookimpl
        def appliance_asr_providers(self):
            return {"loose": object}

    registry = provider_registry([("loose", Loose())])
    assert registry.problems == [
        "asr providers of plugin 'loose' (TypeError: 'loose' is a type, not an appliance.api.Provider)"
    ]


def test_a_hook_that_does_not_exist_is_refused():
    class Typo:
        @hookimpl
        def appliance_asr_provider(self):
            return {}

    with pytest.raises(EngineError, match="unknown hook 'appliance_asr_provider'"):
        ProviderRegistry([("typo", Typo())])


def test_a_missing_package_is_named():
    def factory(options, resources):
        import no_such_speech_package  # noqa: F401

    registry = provider_registry([("mine", echo_plugin("babble", factory))])
    with pytest.raises(EngineError, match="'babble' needs the Python package 'no_such_speech_package'"):
        registry.create("asr", "babble", {"words": 1}, Models())


@pytest.mark.parametrize("kind", ["turn", "asr", "llm", "tts"])
def test_none_makes_an_engine_that_refuses(kind):
    engine = provider_registry().create(kind, "none", {}, Models())
    assert isinstance(engine, NoEngine)
    assert engine.kind == kind


def test_the_voice_activity_model_is_data_not_code():
    registry = provider_registry()
    assert registry.create("vad", "silero", {}, Models()) == b"silero_vad"
    assert registry.create("vad", "none", {}, Models()) is None


def test_listing_the_providers_imports_nothing_heavy():
    heavy = "{'onnxruntime', 'pocketsphinx', 'espeakng_loader', 'soxr'} & set(sys.modules)"
    code = f"import sys; from appliance.engines.builtin import provider_registry; provider_registry(); print({heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "hook",
    [
        "appliance_denoise_providers",
        "appliance_vad_providers",
        "appliance_turn_providers",
        "appliance_asr_providers",
        "appliance_llm_providers",
        "appliance_tts_providers",
        "appliance_speech_providers",
    ],
)
def test_a_plugin_serves_the_kind_whose_hook_it_has(hook: str) -> None:
    providers = {"mine": Provider(lambda options, resources: 7, "seven")}
    plugin = types.ModuleType("mine")
    setattr(plugin, hook, hookimpl(lambda: providers))
    registry = ProviderRegistry([("mine", plugin)])
    kind = hook.removeprefix("appliance_").removesuffix("_providers")
    assert [name for name in KINDS if registry.offers(name)] == [kind]
    assert registry.create(kind, "mine", {}, None) == 7
