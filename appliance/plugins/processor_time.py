"""How much the kernel has let a thread run, and had it wait for a core."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Ran(NamedTuple):
    """Seconds since the thread began: on a core, and ready but without one."""

    on_core_s: float
    waiting_s: float


def of_thread(pid: int, thread: int) -> Ran:
    """Of a thread of a process; zeros where it is gone, or the kernel does not count."""
    try:
        words = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
        return Ran(int(words[0]) / 1e9, int(words[1]) / 1e9)
    except (OSError, ValueError, IndexError):
        return Ran(0.0, 0.0)


def of_threads(pid: int) -> dict[int, Ran]:
    """Of every thread of a process, by its number; empty where the process is gone."""
    try:
        threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return {}
    return {thread: of_thread(pid, thread) for thread in threads}
