"""A disk of a few megabytes that can be filled and emptied."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BLOCK = bytes(4096)


@contextlib.contextmanager
def small_disk(path: Path, size_mb: int = 4) -> Iterator[bool]:
    """Mount a tmpfs on ``path``; False, and a plain folder, where that is not permitted."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """Not a byte of room on the disk."""
    filler = path / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_BLOCK)
        yield
    finally:
        filler.unlink()
