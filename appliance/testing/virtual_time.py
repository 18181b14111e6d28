"""An event loop whose clock jumps: whatever is waited for happens at once, at the time it was due.

While a thread works for the loop, time stands still, however long that takes. While somebody has asked for real time
(:meth:`VirtualLoop.in_real_time`) and sockets are open, it passes as it does elsewhere: what a plugin asks a server is
answered before the plugin's patience is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

T = TypeVar("T")

START_S: Final = 1000.0
_SLICE_S: Final = 0.002
_STUCK_S: Final = 120.0


class _JumpingSelector(selectors.SelectSelector):
    """Waits by moving the clock on, unless a socket has something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_S
        self.threads = 0
        self.real = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.threads:
            return self._stand_still()
        if self.real and len(self.get_map()) > 1:  # one is the loop's own
            return self._pass(timeout)
        if timeout is None:
            raise AssertionError("everybody waits, and nobody for a timer")
        self.now += timeout
        return []

    def _stand_still(self) -> list[tuple[selectors.SelectorKey, int]]:
        until = time.monotonic() + _STUCK_S
        while self.threads:
            ready = super().select(_SLICE_S)
            if ready:
                return ready
            if time.monotonic() > until:
                raise AssertionError(f"a thread has not come back for {_STUCK_S:.0f} s")
        return super().select(0)

    def _pass(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        limit = _STUCK_S if timeout is None else timeout
        ready = super().select(limit)
        passed = time.monotonic() - began
        self.now += min(passed, limit) if ready else limit
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its clock begins at 1000.0 s."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def thread_began(self) -> None:
        """Time stands still until :meth:`thread_ended`, which the thread itself may call."""
        self._jumping.threads += 1

    def thread_ended(self) -> None:
        self.call_soon_threadsafe(self._thread_ended)

    @contextlib.contextmanager
    def in_real_time(self) -> Iterator[None]:
        """Let time pass as it does elsewhere, as long as sockets are open."""
        self._jumping.real += 1
        try:
            yield
        finally:
            self._jumping.real -= 1

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, function: Callable[..., T], *arguments: Any
    ) -> asyncio.Future[T]:
        """Run it in a thread, for which time stands still."""
        future: asyncio.Future[T] = super().run_in_executor(executor, function, *arguments)
        self._jumping.threads += 1
        future.add_done_callback(lambda _: self._thread_ended())
        return future

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        self.thread_began()
        try:
            await super().shutdown_default_executor(*arguments)
        finally:
            self._thread_ended()

    def _thread_ended(self) -> None:
        self._jumping.threads -= 1


def run_virtual(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; the clock begins at 1000.0 s."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
