"""Sets of engines and models for a kind of box, each with what it needs and the piece of ``appliance.yaml`` it means.

The memory is reckoned: weights at the stated precision, what the engine takes beside them, and for a language model
the cache of its conversations. ``appliance bench`` tells what a box really bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from appliance.config.validation import nearest
from appliance.errors import ModelFileError
from appliance.models.catalogue import MODEL_FILES, MODEL_FOLDERS, PACKAGED_MODELS, Entry

FOLDER: Final = "{models}/"
"""Begins an option's value that is a folder below the model directory."""

_SERVER: Final = "http://127.0.0.1:8000/v1"


@dataclass(frozen=True)
class Part:
    """One engine of a profile.

    Attributes:
        kind: vad, denoise, turn, asr, llm or tts.
        provider: the name it has in ``engines.<kind>.provider``.
        options: the other keys there.
        model: of the catalogue; "" where it needs none.
        ram_mb: main memory that it takes.
        device_mb: memory of the GPU that it takes.
        also: other models of the catalogue that it uses.
    """

    kind: str
    provider: str
    options: Mapping[str, Any]
    model: str
    ram_mb: int
    device_mb: int = 0
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """A program that runs beside the appliance and has models of its own.

    Attributes:
        program: what runs.
        model: as it calls it.
        licence: of the model.
        ram_mb: main memory that it takes.
        device_mb: memory of the GPU that it is to be given.
        start: the command that starts it.
    """

    program: str
    model: str
    licence: str
    ram_mb: int
    device_mb: int
    start: str


@dataclass(frozen=True)
class Later:
    """What this profile would have, once the appliance has such a provider."""

    kind: str
    provider: str
    model: str
    why: str


@dataclass(frozen=True)
class Profile:
    """A named set; ``device_gb`` is (least, most) memory of the GPU that it is made for, None for no GPU."""

    name: str
    summary: str
    parts: tuple[Part, ...]
    server: Server | None = None
    later: tuple[Later, ...] = ()
    device_gb: tuple[int, int | None] | None = None

    @property
    def models(self) -> tuple[Entry, ...]:
        """What its engines need of the catalogue."""
        everything: tuple[Entry, ...] = (*MODEL_FILES, *MODEL_FOLDERS, *PACKAGED_MODELS)
        known = {entry.name: entry for entry in everything}
        return tuple(known[name] for part in self.parts for name in (part.model, *part.also) if name)

    @property
    def ram_mb(self) -> int:
        """Main memory of all engines; the box itself takes about 400 MB more."""
        return sum(part.ram_mb for part in self.parts) + (self.server.ram_mb if self.server else 0)

    @property
    def device_mb(self) -> int:
        return sum(part.device_mb for part in self.parts) + (self.server.device_mb if self.server else 0)

    def settings(self, directory: Path, *, name_directory: bool = False) -> dict[str, Any]:
        """The piece of ``appliance.yaml``, for models below ``directory``; with ``models_dir`` if it is to be named."""
        engines = {
            part.kind: {
                "provider": part.provider,
                **{key: _placed(item, directory) for key, item in part.options.items()},
            }
            for part in self.parts
        }
        return {**({"models_dir": str(directory.absolute())} if name_directory else {}), "engines": engines}

    def yaml(self, directory: Path, *, name_directory: bool = False) -> str:
        """:meth:`settings` as a file has it, with what has to run beside it in comments."""
        lines = [f"# Profile {self.name}: {self.summary}"]
        if self.server is not None:
            lines += [f"# Beside it, {self.server.program}:", f"#   {self.server.start}"]
        lines += [f"# Not in this version: {one.provider} ({one.kind}): {one.why}" for one in self.later]
        return (
            "\n".join(lines)
            + "\n"
            + yaml.safe_dump(self.settings(directory, name_directory=name_directory), sort_keys=False, width=120)
        )


def profile(name: str) -> Profile:
    """The profile called ``name``.

    Raises:
        ModelFileError: there is none; says which there are.
    """
    for one in PROFILES:
        if one.name == name:
            return one
    raise ModelFileError(f"there is no profile called {name!r}; {nearest(name, [one.name for one in PROFILES])}")


def _placed(value: Any, directory: Path) -> Any:
    if isinstance(value, str) and value.startswith(FOLDER):
        return str(directory.absolute() / value.removeprefix(FOLDER))
    return value


def _asr(size: str, *, ram_mb: int, device_mb: int = 0, **options: Any) -> Part:
    model = f"whisper-{size}"
    return Part("asr", "whisper", {"model": model, **options}, model, ram_mb, device_mb)


def _llm(model: str) -> Part:
    quick = {"chat_template_kwargs": {"enable_thinking": False}}  # nobody waits on the telephone while it thinks
    return Part("llm", "openai_compatible", {"base_url": _SERVER, "model": model, "extra_body": quick}, "", 50)


def _vllm(model: str, licence: str, device_mb: int, share: float, *more: str) -> Server:
    arguments = " ".join((f"--gpu-memory-utilization {share:g}", "--max-model-len 8192", *more))
    return Server("vLLM", model, licence, 6_000, device_mb, f"vllm serve {model} --port 8000 {arguments}")


_SILERO: Final = Part("vad", "silero", {}, "silero_vad", 30)
_SMART_TURN: Final = Part("turn", "smart_turn", {}, "smart_turn", 150)
_ESPEAK: Final = Part("tts", "espeak", {"voice": "en-us"}, "espeak_ng", 60)
_PIPER: Final = Part(
    "tts",
    "piper",
    {"folder": f"{FOLDER}piper-en_US-ljspeech-high", "fallback": {"provider": "espeak", "voice": "en-us"}},
    "piper-en_US-ljspeech-high",
    500,
    also=("espeak_ng",),
)
_KOKORO: Final = Later("tts", "kokoro", "kokoro-82m", "Kokoro-82M in this box; until then behind openai_compatible")
_CSM: Final = Later("tts", "csm", "csm-1b", "CSM-1B, a voice that goes by the conversation so far")
_DENOISE: Final = Part("denoise", "webrtc", {}, "", 10)

PROFILES: Final[tuple[Profile, ...]] = (
    Profile(
        "embedded",
        "no GPU and no network: what the dialplan expects is understood, espeak-ng speaks",
        (
            _SILERO,
            _SMART_TURN,
            Part("asr", "pocketsphinx", {}, "pocketsphinx_en_us", 120),
            Part("llm", "none", {}, "", 0),
            _ESPEAK,
        ),
    ),
    Profile(
        "cpu",
        "four cores or more, no GPU: free speech, a small language model in llama.cpp",
        (
            *(_SILERO, _DENOISE, _SMART_TURN),
            _asr("base", ram_mb=500, device="cpu", compute_type="int8"),
            _llm("Qwen3-1.7B"),
            _PIPER,
        ),
        Server(
            "llama.cpp",
            "Qwen3-1.7B",
            "Apache-2.0",
            2_500,
            0,
            "llama-server -hf Qwen/Qwen3-1.7B-GGUF:Q8_0 --port 8000 --parallel 4 --ctx-size 16384 --reasoning-budget 0",
        ),
        (Later("llm", "ctranslate2", "", "a small language model in this box instead of llama.cpp"),),
    ),
    Profile(
        "gpu-small",
        "a GPU of 8 to 12 GB: Whisper small and a language model of 1.7 B share it, the voice is on the CPU",
        (
            *(_SILERO, _DENOISE, _SMART_TURN),
            _asr("small", ram_mb=900, device_mb=1_100, device="cuda", compute_type="int8_float16"),
            _llm("Qwen/Qwen3-1.7B"),
            _PIPER,
        ),
        _vllm("Qwen/Qwen3-1.7B", "Apache-2.0", 5_600, 0.7),
        (_KOKORO,),
        (8, 12),
    ),
    Profile(
        "gpu",
        "a GPU of 24 GB: Whisper large-v3-turbo and a language model of 8 B in 8 bits",
        (
            *(_SILERO, _DENOISE, _SMART_TURN),
            _asr("large-v3-turbo", ram_mb=1_500, device_mb=2_800, device="cuda", compute_type="float16"),
            _llm("Qwen/Qwen3-8B-FP8"),
            _PIPER,
        ),
        _vllm("Qwen/Qwen3-8B-FP8", "Apache-2.0", 16_800, 0.7, "--enable-prefix-caching"),
        (_KOKORO, _CSM),
        (24, 48),
    ),
    Profile(
        "gpu-large",
        "a GPU of 80 GB or more: Whisper large-v3 and a language model of 32 B in 8 bits",
        (
            *(_SILERO, _DENOISE, _SMART_TURN),
            _asr("large-v3", ram_mb=1_800, device_mb=6_500, device="cuda", compute_type="float16", max_batch=32),
            _llm("Qwen/Qwen3-32B-FP8"),
            _PIPER,
        ),
        _vllm("Qwen/Qwen3-32B-FP8", "Apache-2.0", 56_000, 0.7, "--enable-prefix-caching"),
        (_KOKORO, _CSM),
        (80, None),
    ),
)
