"""Log lines: one format for every process, on standard error, where systemd or the terminal picks them up."""

from __future__ import annotations

import logging
import sys
from typing import Final


class _BrokenBodies(logging.Filter):
    """Takes out what aiohttp's server says, with a traceback, of bodies that are not packed as their headers have it.

    Whoever reaches a port may send them, as many as they like; the request itself has been answered.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        broken = record.exc_info[1] if record.exc_info else None
        return type(broken).__name__ != "RequestPayloadError"


BROKEN_BODIES: Final = _BrokenBodies()


def configure_logging(process: str, level: str) -> None:
    """Log to standard error as ``time level process logger: message``."""
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)-7s {process} %(name)s: %(message)s",
        force=True,
    )
    for library in ("asyncio", "aiosqlite", "aiohttp.access", "alembic", "sqlalchemy"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(BROKEN_BODIES)
