"""How a benchmark says what it found: figures as they come, then one line per bar with PASS or FAIL."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np


class Bar:
    """One numbered bar of the project; ``finish`` prints its line and gives the exit status."""

    def __init__(self, number: int | str, title: str) -> None:
        self.number = number
        self.title = title
        self.failures: list[str] = []
        self.figures: list[str] = []

    def note(self, text: str) -> None:
        """Something to know, at once."""
        print(f"  {text}", flush=True)

    def figure(self, text: str) -> None:
        """A measured figure, which the closing line repeats."""
        self.figures.append(text)
        self.note(text)

    def require(self, met: bool, what: str) -> None:
        """A condition of the bar; ``what`` says it in words."""
        if not met:
            self.failures.append(what)
            self.note(f"NOT MET: {what}")

    def finish(self) -> int:
        verdict = f"FAIL ({'; '.join(self.failures)})" if self.failures else "PASS"
        print(f"BAR {self.number}: {self.title}: {', '.join(self.figures)} {verdict}", flush=True)
        return 1 if self.failures else 0


def percentiles(values: Sequence[float], unit: str = "ms", scale: float = 1e3) -> str:
    """``p50 1.2 / p95 3.4 / p99 5.6 ms`` of ``values`` times ``scale``."""
    if not len(values):
        return "nothing measured"
    found = np.percentile(np.asarray(values) * scale, [50, 95, 99])
    return "p50 {:.2f} / p95 {:.2f} / p99 {:.2f} ".format(*found) + unit


def require_command(name: str) -> None:
    """Leave with status 77 (skipped) when a program that the benchmark needs is not installed."""
    import shutil

    if shutil.which(name) is None:
        print(f"skipped: {name} is not installed (make peers)")
        sys.exit(77)
