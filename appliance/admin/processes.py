"""What the kernel knows about a process of the box."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """``resident_bytes`` counts shared pages too; ``cpu_s`` is user and system time since the process began."""

    resident_bytes: int
    cpu_s: float
    open_files: int
    threads: int


def usage(pid: int) -> Usage | None:
    """What process ``pid`` uses; None where it is gone, is not ours, or the system has no /proc."""
    folder = Path("/proc") / str(pid)
    try:
        # The name of the program, in parentheses, may itself hold spaces and parentheses (proc(5)).
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        open_files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - as many Path objects as files are not needed
    except (OSError, ValueError):
        return None
    return Usage(
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        open_files=open_files,
        threads=int(fields[17]),
    )
