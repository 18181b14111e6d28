"""What can be set of ``engines.speech`` with ``provider: openai_realtime``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from appliance.engines.api_address import socket_address
from appliance.engines.api_options import RealtimeApiOptions


class OpenAiRealtimeOptions(RealtimeApiOptions):
    """A speech-to-speech model behind OpenAI's Realtime protocol, of OpenAI or of a server that speaks it as well."""

    base_url: Annotated[str, AfterValidator(socket_address)] = Field(
        default="wss://api.openai.com/v1", description="Where the server's API begins."
    )
    voice: str = Field(default="", max_length=64, description="Voice of lines that name none; empty: the model's own.")
    audio: Literal["pcm", "ulaw"] = Field(
        default="pcm", description="pcm: 24 kHz, 16 bits. ulaw: as on the telephone, a sixth of the bytes."
    )
    transcription_model: str = Field(
        default="gpt-4o-mini-transcribe",
        max_length=256,
        description="Writes down what callers say, for the record only; empty: nobody does.",
    )
    turn_detection: Literal["semantic_vad", "server_vad"] = Field(
        default="semantic_vad", description="How the model finds the end of a turn on lines with `turn.by: model`."
    )
    max_output_tokens: int | None = Field(default=None, ge=1, le=65_536, description="Longest reply, audio included.")
    connections: int = Field(default=1, ge=0, le=16, description="Connections that are kept open for the next calls.")
    first_audio_s: float = Field(
        default=6.0, gt=0, le=120, description="A reply that has not begun by then has failed."
    )
    stall_s: float = Field(default=4.0, gt=0, le=120, description="A reply that pauses for longer has broken off.")
