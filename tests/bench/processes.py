"""What the kernel says about the processes of a box: processor time, memory, files, threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """One process now. ``resident_kib`` is all of it, what it has touched of the calls' shared audio included."""

    resident_kib: int
    files: int
    segments: int
    threads: int


def processor_s(pid: int) -> float:
    """Seconds of processor time that the process has used, children not included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def all_processor_s(pids: Mapping[str, int]) -> dict[str, float]:
    """The same of several; one that has gone (a starved worker, restarted by the supervisor) is left out."""
    found = {}
    for name, pid in pids.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[name] = processor_s(pid)
    return found


def processor_shares(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> str:
    """``media 0.31, control 0.12`` in cores, busiest first."""
    shares = {name: (after[name] - before[name]) / seconds for name in after if name in before}
    return ", ".join(f"{name} {share:.2f}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))


def all_resident_mib(pids: Mapping[str, int]) -> str:
    """``media 85, control 70`` in MiB of resident memory, largest first."""
    found: dict[str, int] = {}
    for name, pid in pids.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
            found[name] = usage(pid).resident_kib >> 10
    return ", ".join(f"{name} {mib}" for name, mib in sorted(found.items(), key=lambda item: -item[1]))


def cores() -> tuple[int, list[int]]:
    """The core of the audio, and those of everybody else; the same one where there is only one."""
    found = sorted(os.sched_getaffinity(0))
    return found[-1], found[:-1] or found


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """Who measures must not wait for what is measured: off the core of the audio, and before everybody else.

    Processes that are started within get no more than anybody.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores()[1])
    policy = os.sched_getscheduler(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, policy & ~os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.sched_setaffinity(0, before)


def usage(pid: int) -> Usage:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )  # fmt: skip
    resident = int(status["VmRSS"].split()[0])
    maps = {
        line.split(None, 5)[5]
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if "memfd:" in line or "/dev/shm/" in line
    }
    return Usage(
        resident_kib=resident,
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        segments=len(maps),
        threads=int(status["Threads"]),
    )


def private_kib(pid: int) -> int:
    """Memory that is the process's own: all of it but the calls' shared audio and what it maps of files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
