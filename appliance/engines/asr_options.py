"""What can be set of the recognisers; apart from them, so that a configuration is checked without loading any."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from appliance.engines.api_address import api_address, socket_address
from appliance.engines.api_options import HttpApiOptions, RealtimeApiOptions
from appliance.hookspecs import ProviderOptions


def _http_address(value: str) -> str:
    return api_address(value, "/audio/transcriptions")


class WhisperOptions(ProviderOptions):
    """Whisper in this box, through CTranslate2."""

    model: str = Field(
        min_length=1, description="A folder in CTranslate2's format, or the name of one in the model directory."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="`auto` takes a CUDA device if it can.")
    compute_type: Literal["auto", "int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"] = Field(
        default="auto", description="`auto` is int8 on a CPU and float16 on a GPU."
    )
    threads: int = Field(
        default=0, ge=0, le=64, description="Of a CPU, over which batches are spread; 0: one per core, four at most."
    )
    max_batch: int = Field(default=8, ge=1, le=64, description="Requests run together at most.")
    max_wait_ms: float = Field(
        default=3.0, ge=0, le=1000, description="How long a request waits for company while nothing runs."
    )
    no_speech: float = Field(
        default=0.6, ge=0, le=1, description="From this probability of no speech on an unlikely transcript is dropped."
    )
    final_word_times: bool = Field(
        default=False, description="Say when each word was spoken in final results, too; costs about a tenth more."
    )


_PROMPT: Final = "Send the line's hints and expected phrases as a prompt."


class OpenAiAsrOptions(HttpApiOptions):
    """Recognition over HTTP, ``POST /audio/transcriptions``."""

    base_url: Annotated[str, AfterValidator(_http_address)] = Field(
        description="Where its API begins, such as `http://127.0.0.1:8000/v1`."
    )
    prompt: bool = Field(default=True, description=_PROMPT)
    response_format: Literal["verbose_json", "json"] = Field(
        default="verbose_json", description="`json` for services that know no other (OpenAI's gpt-4o-transcribe)."
    )
    word_times: bool = Field(default=True, description="Ask when each word was said, where the format can tell.")
    partials_every_s: float = Field(
        default=0.0, ge=0, le=10, description="Send what was said so far that often while the caller speaks; 0: never."
    )
    no_speech: float = Field(
        default=0.6, ge=0, le=1, description="From this probability of no speech on an unlikely transcript is dropped."
    )
    attempt_s: float = Field(default=4.0, gt=0, le=120, description="An attempt with no answer by then has failed.")
    retries: int = Field(default=2, ge=0, le=5, description="Attempts after the first, as far as time allows.")


class RealtimeAsrOptions(RealtimeApiOptions):
    """Recognition over a WebSocket, as OpenAI's Realtime API transcribes."""

    base_url: Annotated[str, AfterValidator(socket_address)] = Field(
        description="Where its API begins, such as `wss://api.openai.com/v1`."
    )
    prompt: bool = Field(default=True, description=_PROMPT)
    format: Literal["pcm", "pcmu", "pcma"] = Field(
        default="pcm", description="Of the audio: 16-bit samples, or a telephone's (an eighth of the traffic)."
    )
    rate_hz: Literal[8000, 16000, 24000] = Field(default=24000, description="Of `pcm`; OpenAI's takes 24000 only.")
    logprobs: bool = Field(default=False, description="Ask how sure the model is of its words, where it can say.")
    warm: int = Field(default=1, ge=0, le=16, description="Sockets kept ready for the next callers.")
    idle_s: float = Field(default=60.0, gt=0, le=3600, description="A call silent for so long lets go of its socket.")
