"""The metronome: a kernel timer on an absolute, monotonic 20 ms grid.

A timerfd keeps the grid whatever the event loop does: event-loop timers have a resolution of a millisecond, and a
sleep of 20 ms after every tick drifts by the time each tick takes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_NANOSECONDS: Final = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Metronome:
    """Calls ``on_tick(due, lateness_s)`` on the event loop: ``due`` is how many periods have begun since the last
    call (1 unless something held the loop up), ``lateness_s`` how long ago the first of them was to begin."""

    def __init__(self, period_s: float, on_tick: Callable[[int, float], None]) -> None:
        self._period_s = period_s
        self._on_tick = on_tick
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._next = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first tick comes one period from now."""
        self._next = time.monotonic() + self._period_s
        first_ns = int(self._next * _NANOSECONDS)
        period_ns = round(self._period_s * _NANOSECONDS)
        spec = _Itimerspec(
            _Timespec(period_ns // _NANOSECONDS, period_ns % _NANOSECONDS),
            _Timespec(first_ns // _NANOSECONDS, first_ns % _NANOSECONDS),
        )
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        loop.add_reader(self._fd, self._expired)

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        try:
            due = int.from_bytes(os.read(self._fd, 8), "little")
        except BlockingIOError:
            return
        lateness_s = time.monotonic() - self._next
        self._next += due * self._period_s
        self._on_tick(due, lateness_s)
