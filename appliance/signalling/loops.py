"""Work that goes on as long as the endpoint does: no mistake in it may end it unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

logger = logging.getLogger(__name__)

PAUSE_S: Final = 1.0


def keep_running(work: Callable[[], Awaitable[None]], name: str, *, pause_s: float = PAUSE_S) -> asyncio.Task[None]:
    """A task that does ``work`` until it returns or the task is cancelled.

    Any exception of it is logged as an error, and the work begins anew after ``pause_s`` seconds.
    """

    async def run() -> None:
        while True:
            try:
                await work()
            except Exception:
                logger.exception("%s failed; it begins again in %g s", name, pause_s)
                await asyncio.sleep(pause_s)
            else:
                return

    return asyncio.get_running_loop().create_task(run(), name=name)
