"""Waiting until what a test needs has happened, however slow the machine is; how fast it is, benchmarks say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 30.0
"""A machine may stand still for seconds; what has not happened by then will not."""

_AGAIN_S: Final = 0.01
_AGAIN_BLOCKING_S: Final = 0.05

Words = str | Callable[[], str]


async def eventually(met: Callable[[], object], otherwise: Words = "", limit_s: float = LIMIT_S) -> None:
    """Wait until ``met()`` is true.

    Args:
        otherwise: what is wrong when it never is, or who says so then.

    Raises:
        AssertionError: not within ``limit_s``.
    """
    until = time.monotonic() + limit_s
    while not met():
        _in_time(until, limit_s, otherwise)
        await asyncio.sleep(_AGAIN_S)


def block_until(met: Callable[[], object], otherwise: Words = "", limit_s: float = LIMIT_S) -> None:
    """The same where no loop runs; raises the same."""
    until = time.monotonic() + limit_s
    while not met():
        _in_time(until, limit_s, otherwise)
        time.sleep(_AGAIN_BLOCKING_S)


def _in_time(until: float, limit_s: float, otherwise: Words) -> None:
    if time.monotonic() > until:
        raise AssertionError(f"not within {limit_s:.0f} s: {otherwise if isinstance(otherwise, str) else otherwise()}")
