"""What can be set of ``engines.tts`` with ``provider: piper``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from appliance.hookspecs import ProviderOptions


class PiperOptions(ProviderOptions):
    """Piper voices on this machine's processor."""

    folder: Path = Field(
        description="Folder of the voices, each `NAME.onnx` and `NAME.onnx.json`; relative to the working directory."
    )
    voice: str = Field(
        default="", description="Voice of lines that name none, as `NAME` or `NAME+SPEAKER`; by default the first."
    )
    voices: dict[str, str] = Field(
        default={}, description="The same for each language; by default a voice that speaks it, where there is one."
    )
    threads: int = Field(default=2, ge=1, le=32, description="Threads that a computation may use.")
