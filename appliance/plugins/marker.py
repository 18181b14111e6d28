"""A page of memory that says whose code runs in the plugin host now, for when the host can no longer say so itself.

A backtracking regular expression, or JSON of many megabytes, holds the interpreter's lock: every thread of the host
stands still, the one that would answer included. The page is a file that both sides map, so that control reads it
while the host stands, and after it is gone.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = "plugins.marker"

_SLOTS: Final = 64
_SLOT_BYTES: Final = 256
_HEAD: Final = struct.Struct("<BxHId")
"""Whether somebody runs, length of the text, thread, since when (CLOCK_MONOTONIC)."""


class Mark(NamedTuple):
    """Plugin code that runs, or ran when the host ended. ``thread`` is the kernel's number of the thread."""

    thread: int
    since: float
    plugin: str
    hook: str
    line: str


def text_of(plugin: str, hook: str, line: str) -> bytes:
    """What a slot is given for a hook."""
    return "\0".join((plugin[:64], hook[:40], line[:64])).encode()[: _SLOT_BYTES - _HEAD.size]


class Slot:
    """The place of one thread on the page."""

    __slots__ = ("_memory", "_offset", "_thread")

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self._thread = threading.get_native_id()

    def set(self, text: bytes) -> None:
        """From now on it is the plugin's code that runs in this thread."""
        start = self._offset + _HEAD.size
        self._memory[start : start + len(text)] = text
        _HEAD.pack_into(self._memory, self._offset, 1, len(text), self._thread, time.monotonic())

    def clear(self) -> None:
        """It has returned."""
        self._memory[self._offset] = 0

    def runs(self, text: bytes) -> bool:
        """Whether this is what the thread runs now."""
        start = self._offset + _HEAD.size
        return bool(self._memory[self._offset]) and self._memory[start : start + len(text)] == text


class MarkerPage:
    """The host's side: a new page in ``directory``, in place of one that another host left."""

    def __init__(self, directory: Path) -> None:
        path = directory / FILE
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, _SLOTS * _SLOT_BYTES)
            self._memory = mmap.mmap(file, _SLOTS * _SLOT_BYTES)
        finally:
            os.close(file)
        self._next = 0

    def slot(self) -> Slot:
        """One for the thread that asks; beyond the last one, threads share."""
        number = min(self._next, _SLOTS - 1)
        self._next += 1
        return Slot(self._memory, number * _SLOT_BYTES)


class MarkerReader:
    """Control's side of a host's page.

    Raises:
        OSError: there is none.
    """

    def __init__(self, directory: Path) -> None:
        file = os.open(directory / FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(file, _SLOTS * _SLOT_BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(file)

    def marks(self) -> list[Mark]:
        """Who runs, the latest first."""
        found: list[Mark] = []
        for offset in range(0, _SLOTS * _SLOT_BYTES, _SLOT_BYTES):
            active, length, thread, since = _HEAD.unpack_from(self._memory, offset)
            if active:
                start = offset + _HEAD.size
                words = self._memory[start : start + length].decode(errors="replace").split("\0")
                if len(words) == 3:
                    found.append(Mark(thread, since, *words))
        return sorted(found, key=lambda mark: -mark.since)

    def close(self) -> None:
        self._memory.close()
