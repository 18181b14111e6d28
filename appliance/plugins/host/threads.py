"""The threads that plain functions of plugins run in.

A thread cannot be stopped. One whose function is over its budget is left to itself, and another takes its place; when
the function returns after all, the thread is used again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from appliance.plugins.marker import MarkerPage, Slot
from appliance.plugins.processor_time import of_thread

logger = logging.getLogger(__name__)

MAX_THREADS: Final = 40


class Worker:
    """One thread: its place on the page, and what it works on."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.thread = threading.get_native_id()

    def busy_s(self) -> float:
        """How long the thread has computed, or would have if there had been a core for it."""
        return sum(of_thread(os.getpid(), self.thread))


Job = Callable[[Worker], None]


class Leave(Exception):
    """Raised by a job that wants its thread to end."""


class Threads:
    """Runs jobs in threads, each in one that has nothing else to do, up to ``MAX_THREADS``; the others wait.

    A job must not raise.
    """

    def __init__(self, page: MarkerPage) -> None:
        self._page = page
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self.count = 0

    def submit(self, job: Job) -> None:
        """Run it as soon as there is a thread."""
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False) and self.count < MAX_THREADS:
            self.count += 1
            threading.Thread(target=self._work, name=f"hooks-{self.count}", daemon=True).start()

    def _work(self) -> None:
        worker = Worker(self._page.slot())
        while True:
            try:
                self._jobs.get()(worker)
            except Leave:
                return
            except BaseException:
                logger.exception("a job failed in its thread")
            self._idle.release()
