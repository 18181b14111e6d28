"""Stereo WAV files that play at any moment, whatever kills the process that writes them.

16-bit PCM at 8 kHz, caller left, agent right, behind the plain 44-byte header. Samples are written first and the
sizes in the header right after, both straight into the page cache: what a ``kill -9`` leaves is a file whose header
is at most one write behind its end, which any player opens, and :func:`repair` brings level.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from appliance.errors import StoreError

RATE_HZ: Final = 8000
FRAME_SAMPLES: Final = 160
CHANNELS: Final = 2
BYTES_PER_SAMPLE: Final = CHANNELS * 2
"""Of both channels together."""
FRAME_BYTES: Final = FRAME_SAMPLES * BYTES_PER_SAMPLE
HEADER_BYTES: Final = 44

_SILENCED_AT_ONCE: Final = 1000
"""Frames: 640 kB."""
_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MAX_DATA_BYTES: Final = 0xFFFF_FFFF - HEADER_BYTES
"""A RIFF size has 32 bits: 37 hours. A longer file keeps this size in its header."""


class StereoWavWriter:
    """Appends to one file. Positions count frames of 20 ms (160 samples of both channels) from the file's start.

    A failed write leaves the position where it was, so that it can be tried again; :meth:`skip` moves on without
    writing, and what was skipped reads as silence (a hole in the file, which takes no space on a full disk).
    """

    def __init__(self, fd: int, path: Path, frames: int) -> None:
        self._fd = fd
        self.path = path
        self.frames = frames
        """Position of the next write, in frames."""

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new file with an empty, valid header; folders are made.

        Raises:
            OSError: it cannot be created (FileExistsError where there is one).
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        writer = cls(fd, path, 0)
        try:
            writer._write_header()
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return writer

    @classmethod
    def resume(cls, path: Path) -> Self:
        """An existing recording, to be continued where it ends; ``frames`` says where that is.

        A frame of which only a part was written is written again.

        Raises:
            OSError: it cannot be opened.
            StoreError: it is not a recording of ours.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _check_header(fd, path)
            writer = cls(fd, path, max(0, os.fstat(fd).st_size - HEADER_BYTES) // FRAME_BYTES)
            writer._write_header()
        except BaseException:
            os.close(fd)
            raise
        return writer

    def append(self, caller: NDArray[np.int16], agent: NDArray[np.int16]) -> None:
        """Write whole frames: ``caller`` and ``agent`` are int16 at 8 kHz, as long as one another.

        Raises:
            OSError: the disk is full or broken; nothing has moved, the same frames can be given again.
        """
        both = np.empty((len(caller), CHANNELS), "<i2")
        both[:, 0] = caller
        both[:, 1] = agent
        _write_all(self._fd, memoryview(both.tobytes()), HEADER_BYTES + self.frames * FRAME_BYTES)
        count = len(caller) // FRAME_SAMPLES
        self.frames += count
        try:
            self._write_header()
        except OSError:
            self.frames -= count
            raise

    def skip(self, frames: int) -> None:
        """Leave ``frames`` frames of silence."""
        self.frames += frames

    def silence(self, start: int, end: int) -> None:
        """Overwrite the frames [start, end) of what has been written with silence.

        Raises:
            OSError: it could not be written.
        """
        end = min(end, self.frames)
        for frame in range(start, end, _SILENCED_AT_ONCE):
            count = min(_SILENCED_AT_ONCE, end - frame)
            _write_all(self._fd, memoryview(bytes(count * FRAME_BYTES)), HEADER_BYTES + frame * FRAME_BYTES)

    def close(self) -> None:
        """Give the file its full length and its final header.

        Raises:
            OSError: it could not be written; the file is closed all the same.
        """
        try:
            os.ftruncate(self._fd, HEADER_BYTES + self.frames * FRAME_BYTES)
            self._write_header()
        finally:
            os.close(self._fd)

    def abandon(self) -> None:
        """Close without touching the file."""
        os.close(self._fd)

    def _write_header(self) -> None:
        _write_all(self._fd, memoryview(_header(self.frames * FRAME_BYTES)), 0)


@dataclass(frozen=True, slots=True)
class Repaired:
    """``frames`` of 20 ms the file holds, the last one perhaps in part; ``changed``: its header was wrong before."""

    frames: int
    changed: bool


def repair(path: Path) -> Repaired:
    """Make the header of a recording agree with the file's size. A file that is right is not touched.

    Raises:
        OSError: it cannot be opened or written.
        StoreError: it is not a recording of ours.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _check_header(fd, path)
        size = os.fstat(fd).st_size
        data_bytes = max(0, size - HEADER_BYTES) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE
        right = _header(data_bytes)
        changed = size != HEADER_BYTES + data_bytes or os.pread(fd, HEADER_BYTES, 0) != right
        if changed:
            _write_all(fd, memoryview(right), 0)
            os.ftruncate(fd, HEADER_BYTES + data_bytes)
        return Repaired(-(-data_bytes // FRAME_BYTES), changed)
    finally:
        os.close(fd)


def _header(data_bytes: int) -> bytes:
    data_bytes = min(data_bytes, _MAX_DATA_BYTES)
    return _HEADER.pack(
        b"RIFF",
        HEADER_BYTES - 8 + data_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,
        CHANNELS,
        RATE_HZ,
        RATE_HZ * BYTES_PER_SAMPLE,
        BYTES_PER_SAMPLE,
        16,
        b"data",
        data_bytes,
    )


def _check_header(fd: int, path: Path) -> None:
    """Only the sizes may differ from what we write; a file shorter than a header is one that was being created."""
    found = os.pread(fd, HEADER_BYTES, 0)
    wanted = _header(0)
    if not (found[0:4] == wanted[0:4][: len(found)] and found[8:40] == wanted[8:40][: max(0, len(found) - 8)]):
        raise StoreError(f"{path} is not a recording of the appliance (stereo 16-bit PCM at 8 kHz); move it away")


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    """``os.pwrite`` until everything is written: a disk that fills up takes a part before it says no."""
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
