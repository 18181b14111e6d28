"""How far a download is, on a terminal; nothing where the output goes elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Final, TextIO

_EVERY_S: Final = 0.1
_CELLS: Final = 24


class Bar:
    """A line on ``out`` that tells of one file at a time (``appliance.models.download.Progress``)."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stderr
        self._on = self._out.isatty()
        self._path = ""
        self._began = self._drawn = 0.0
        self._from = 0

    def __call__(self, path: str, done: int, total: int | None) -> None:
        if not self._on:
            return
        now = time.monotonic()
        if path != self._path:
            self.clear()
            self._path, self._began, self._from, self._drawn = path, now, done, 0.0
        if now - self._drawn < _EVERY_S and done != total:
            return
        self._drawn = now
        width = shutil.get_terminal_size().columns - 1
        self._out.write("\r" + line(path, done, total, done - self._from, now - self._began)[:width].ljust(width))
        self._out.flush()

    def say(self, words: str) -> None:
        """A line of its own."""
        self.clear()
        print(words, file=self._out, flush=True)

    def clear(self) -> None:
        """Leave the line empty for what is printed next."""
        if self._on and self._path:
            self._out.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._out.flush()
        self._path = ""


def line(path: str, done: int, total: int | None, came: int, seconds: float) -> str:
    """One state of the bar: ``came`` bytes in the last ``seconds``."""
    rate = came / seconds if seconds > 0 else 0.0
    speed = f"{rate / 1e6:.1f} MB/s"
    if not total:
        return f"{path}  {done / 1e6:.1f} MB  {speed}"
    full = min(int(_CELLS * done / total), _CELLS)
    bar = "#" * full + "." * (_CELLS - full)
    left = f"  {_clock((total - done) / rate)} left" if rate and done < total else ""
    return f"{path}  [{bar}] {100 * done // total:3d} %  {done / 1e6:.1f} of {total / 1e6:.1f} MB  {speed}{left}"


def _clock(seconds: float) -> str:
    whole = int(min(seconds, 359_999))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
