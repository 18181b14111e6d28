"""The last dialplan that was in order, kept for a control process that is started again while the files are not.

It lies in an anonymous file of the supervisor's, which only control is given: never on disk, where somebody else could
write what is unpickled here, or read the secrets in it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from typing import Final

from appliance.config import Settings
from appliance.server.compiling import Plan, opened

logger = logging.getLogger(__name__)

_DIGEST: Final = 32
_HEADER: Final = struct.Struct(f"<Q{_DIGEST}s")
_NOTHING: Final = bytes(_HEADER.size)


class KeptPlan:
    """A place for one plan, which outlives the process that writes it.

    Args:
        fd: an anonymous file, empty at first.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def keep(self, plan: Plan) -> None:
        """Put ``plan`` in the place of the one before. What keeps it from being kept is logged: all else goes on."""
        try:
            # A process that is killed on the way leaves nothing that looks like a plan.
            os.pwrite(self._fd, _NOTHING, 0)
            os.ftruncate(self._fd, _HEADER.size + len(plan.raw))
            _write(self._fd, plan.raw, _HEADER.size)
            os.pwrite(self._fd, _HEADER.pack(len(plan.raw), _digest(plan.raw)), 0)
        except OSError as error:
            logger.warning("the dialplan cannot be kept for a restart: %s", error.strerror)

    def last(self, settings: Settings) -> Plan | None:
        """The plan that was kept; None where there is none that could be used."""
        try:
            header = os.pread(self._fd, _HEADER.size, 0)
            length, digest = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, b"")
            if not length or os.fstat(self._fd).st_size < _HEADER.size + length:
                return None
            data = _read(self._fd, length, _HEADER.size)
            return opened(memoryview(data), settings) if _digest(data) == digest else None
        except Exception:
            # Whatever it is, why the files cannot be used is the better reason to tell.
            logger.exception("the dialplan that was kept cannot be used")
            return None


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _write(fd: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _read(fd: int, length: int, offset: int) -> bytes:
    pieces: list[bytes] = []
    done = 0
    while done < length and (piece := os.pread(fd, length - done, offset + done)):
        pieces.append(piece)
        done += len(piece)
    return b"".join(pieces)
