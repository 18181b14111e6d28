"""What can be set of ``engines.tts`` with ``provider: openai_compatible``."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from appliance.engines.api_address import api_address
from appliance.engines.api_options import HttpApiOptions

_OURS: Final = frozenset({"input", "model", "voice", "response_format", "speed"})


def _base_url(value: str) -> str:
    return api_address(value, "/audio/speech")


def _extra_body(value: dict[str, Any]) -> dict[str, Any]:
    for key in sorted(_OURS & set(value)):
        raise ValueError(f"{key!r} is what the appliance fills in itself; leave it out")
    return value


class OpenAiSpeechOptions(HttpApiOptions):
    """Speech from an OpenAI-compatible API: OpenAI's own, Kokoro-FastAPI, vLLM, LocalAI, Speaches."""

    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        description="Where its API begins, such as `http://127.0.0.1:8880/v1`."
    )
    voice: str = Field(default="alloy", min_length=1, max_length=256, description="Voice of lines that name none.")
    voices: dict[str, str] = Field(
        default={}, description="The same for each language, such as `{de: nova, en-gb: fable}`."
    )
    extra_body: Annotated[dict[str, Any], AfterValidator(_extra_body)] = Field(
        default={}, description="Further keys of the request, such as `{instructions: Speak calmly.}`."
    )
    format: Literal["pcm", "wav"] = Field(default="pcm", description="What is asked for; wav says its own rate.")
    rate_hz: int = Field(default=24_000, ge=8000, le=48_000, description="Sample rate of what comes as pcm.")
    first_audio_s: float = Field(
        default=2.0, gt=0, le=60, description="An attempt without audio by then has failed, and is made once more."
    )
    stall_s: float = Field(default=2.0, gt=0, le=60, description="Speech that pauses for longer has broken off.")
    total_s: float = Field(default=20.0, gt=0, le=300, description="A piece that takes longer has failed.")
    retries: int = Field(default=1, ge=0, le=3, description="Further attempts, as long as no audio has come.")
    concurrency: int = Field(default=16, ge=1, le=512, description="Pieces asked for at the same time.")
