"""Names of files below the model directory."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Final

from appliance.errors import ModelFileError

PARTIAL: Final = ".partial"
"""Ends the name of what is not whole yet."""


def safe_path(path: str) -> str:
    """``path`` if a file of a model may be called so.

    Raises:
        ModelFileError: it leads out of the model's folder, or is none.
    """
    parts = PurePosixPath(path).parts
    bad = not parts or path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable()
    if bad or len(path) > 400 or path != "/".join(parts):
        raise ModelFileError(f"a file of a model cannot be called {path[:80]!r}")
    return path


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
