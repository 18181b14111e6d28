"""CTranslate2, with the widest vectors that the processor has.

Unless it is told so before it is loaded, it uses 256 bits even where there are 512, since the first such processors
lowered their clock for those; the ones with VNNI do not. Batches are an eighth faster with them. ``CT2_FORCE_CPU_ISA``
decides, where the environment has it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PROCESSOR: Final = Path("/proc/cpuinfo")
_WANTED: Final = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"})


def has_wide_vectors(cpuinfo: str) -> bool:
    """Whether Linux's description of the processor names AVX-512 with VNNI."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return set(flags.split()) >= _WANTED


if _PROCESSOR.exists() and has_wide_vectors(_PROCESSOR.read_text()):
    os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")

from ctranslate2 import Device, StorageView, contains_model, get_cuda_device_count  # noqa: E402
from ctranslate2.models import Whisper  # noqa: E402

__all__ = ["Device", "StorageView", "Whisper", "contains_model", "get_cuda_device_count"]
