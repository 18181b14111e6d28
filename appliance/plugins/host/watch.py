"""Threads that hooks were given up in: waiting ones are borne with, computing ones take the core from everybody."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.ipc.hook_messages import Blamed
from appliance.plugins.host.context import Running
from appliance.plugins.host.threads import Worker

MAX_WAITING: Final = 24
_EVERY_S: Final = 0.25
_BUSY: Final = 0.3
"""Share of its time that a thread is busy when it computes: others may want the interpreter, too."""


@dataclass(eq=False)
class _Left:
    running: Running
    worker: Worker
    since: float
    busy_s: float
    text: bytes


class Watch:
    """Looks after threads that were left behind.

    Args:
        hang_s: one that computes for so long after it was given up has hung.
        blame: asks for the end of the host, and says because of whom.
    """

    def __init__(self, hang_s: float, blame: Callable[[Blamed], None]) -> None:
        self._hang_s = hang_s
        self._blame = blame
        self._left: list[_Left] = []
        self._timer: asyncio.TimerHandle | None = None
        self._blamed = False

    @property
    def waiting(self) -> int:
        """Threads that have not come back."""
        return len(self._left)

    def left(self, running: Running, worker: Worker) -> None:
        """A thread has been left with what it runs."""
        self._left.append(_Left(running, worker, time.monotonic(), worker.busy_s(), running.text))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._left = [one for one in self._left if one.worker.slot.runs(one.text)]
        for one in self._left:
            for_s = now - one.since
            if for_s < self._hang_s:
                continue
            busy_s = one.worker.busy_s()
            if busy_s - one.busy_s > _BUSY * for_s:
                self._say(one.running, f"computes on, {for_s:.1f} s after it was given up")
                break
            one.since, one.busy_s = now, busy_s
        if len(self._left) > MAX_WAITING:
            counted = Counter(one.running.plugin for one in self._left)
            worst = counted.most_common(1)[0][0]
            last = [one for one in self._left if one.running.plugin == worst][-1]
            self._say(last.running, f"{counted[worst]} threads wait in it and do not come back")
        again = bool(self._left)
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._look) if again else None

    def _say(self, running: Running, text: str) -> None:
        if not self._blamed:
            self._blamed = True
            self._blame(Blamed(running.plugin, running.hook, running.line, text))
