"""Whisper from the format of ``transformers`` to that of CTranslate2, in a process of its own.

The converter loads PyTorch and unpacks the whole model into memory, so it never runs in a process of the box.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.errors import ModelFileError

TIMEOUT_S: Final = 3600.0
SOURCE_FILES: Final = (
    *("config.json", "generation_config.json", "preprocessor_config.json"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "normalizer.json"),
    *("added_tokens.json", "special_tokens_map.json"),
)
"""What the converter reads of a repository, without other frameworks' copies of the weights."""

_NEEDS: Final = ("ctranslate2", "torch", "transformers")
_COPIED: Final = ("tokenizer.json", "preprocessor_config.json")


def require_converter() -> None:
    """See that what the converter needs is installed.

    Raises:
        ModelFileError: it is not; says what to install.
    """
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelFileError(
            f"converting a model needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed here; run `pip install 'appliance[convert]'`, or convert it on another machine and bring the "
            "folder over with `appliance models add NAME --from FOLDER`"
        )


def is_transformers_whisper(folder: Path) -> bool:
    """Whether ``folder`` holds a Whisper in the format of ``transformers``."""
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return False
    return kind == "whisper" and not (folder / "model.bin").exists()


def convert_whisper(
    source: Path, target: Path, quantization: str, *, command: Sequence[str] | None = None, timeout_s: float = TIMEOUT_S
) -> None:
    """Convert the model in ``source`` into the new folder ``target``.

    Args:
        source: holds the model in the format of ``transformers``.
        target: does not exist; its parent does.
        quantization: CTranslate2's.
        command: the converter, before its arguments; CTranslate2's by default.
        timeout_s: for all of it.

    Raises:
        ModelFileError: there is no converter, or no such model, or it failed; with what it said last.
    """
    if not is_transformers_whisper(source):
        raise ModelFileError(f"{source} holds no Whisper model in the format of transformers (config.json says so)")
    if command is None:
        require_converter()
        command = (sys.executable, "-m", "ctranslate2.converters.transformers")
    copied = [name for name in _COPIED if (source / name).is_file()]
    arguments = ["--model", str(source), "--output_dir", str(target), "--quantization", quantization]
    if copied:
        arguments += ["--copy_files", *copied]
    try:
        result = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(f"the conversion took longer than {timeout_s:.0f} s") from error
    except OSError as error:
        raise ModelFileError(f"the converter {command[0]} cannot be started ({error.strerror})") from error
    if result.returncode != 0 or not (target / "model.bin").is_file():
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        why = lines[-1][:400] if lines else f"it ended with status {result.returncode}"
        raise ModelFileError(f"the model cannot be converted: {why}")
