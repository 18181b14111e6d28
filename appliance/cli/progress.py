"""A line that shows how far a long piece of work is, on a terminal and nowhere else."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

_EVERY_S: Final = 0.1
_WIDTH: Final = 24


class ProgressBar:
    """Drawn on standard error while its ``with`` block runs, and wiped out after it.

    Args:
        what: what is counted: ``rows``.
        shown: False draws nothing. Nothing is drawn either where standard error is no terminal.
        to: another stream.
    """

    def __init__(self, what: str, *, shown: bool = True, to: TextIO | None = None) -> None:
        self._what = what
        self._to = to if to is not None else sys.stderr
        self._shown = shown and self._to.isatty()
        self._begun = time.monotonic()
        self._drawn = -_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._to.write("\r\x1b[K")
            self._to.flush()

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` are."""
        now = time.monotonic()
        if not self._shown or (done < total and now - self._drawn < _EVERY_S):
            return
        self._drawn = now
        width = shutil.get_terminal_size().columns - 1
        self._to.write("\r" + bar(self._what, done, total, now - self._begun)[:width] + "\x1b[K")
        self._to.flush()


def bar(what: str, done: int, total: int, took_s: float) -> str:
    """``[#######.......]  30 %  30,000 of 100,000 rows, 5 s left``."""
    share = min(1.0, done / total) if total else 1.0
    full = round(share * _WIDTH)
    text = f"[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%}  {done:,} of {total:,} {what}"
    if 0 < done < total and took_s > 2:
        text += f", {_spoken(took_s / done * (total - done))} left"
    return text


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
