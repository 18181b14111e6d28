"""What can be set of the recognisers; apart from them, so that a configuration is checked without loading any."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.hookspecs import ProviderOptions


class WhisperOptions(ProviderOptions):
    """``model`` is a folder in CTranslate2's format, or its name below the model directory.

    Attributes:
        device: auto takes a CUDA device where there is one.
        compute_type: auto is int8 on a CPU and float16 on a GPU.
        threads: of a batch on a CPU; 0 for one per core, four at most.
        max_batch: requests run together at most.
        max_wait_ms: how long a request waits for company while nothing runs.
        no_speech: from this probability of there being no speech on, an unlikely transcript is dropped.
        final_word_times: say when each word was spoken in final results, too; costs about a tenth more.
    """

    model: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: Literal["auto", "int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"] = "auto"
    threads: int = Field(0, ge=0, le=64)
    max_batch: int = Field(8, ge=1, le=64)
    max_wait_ms: float = Field(3.0, ge=0, le=1000)
    no_speech: float = Field(0.6, ge=0, le=1)
    final_word_times: bool = False
