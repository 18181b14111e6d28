"""Log lines: one format for every process, on standard error, where systemd or the terminal picks them up."""

from __future__ import annotations

import logging
import sys


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
