"""Whether the plugin host still turns, and its end where it does not.

What the host says is a sign of life, so a host that is being asked for hooks needs no pings. It is pinged where it has
been silent for a while, and at once where an answer of its is overdue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from appliance.ipc.channel import Channel
from appliance.plugins.marker import Mark, MarkerReader
from appliance.plugins.processor_time import Ran, of_thread, of_threads

logger = logging.getLogger(__name__)

_CALM_S: Final = 1.0
"""How often a host is looked at that owes no answer."""
_NEWS_S: Final = 5.0
"""How often a busy host is pinged all the same: what it says of itself comes with the answer."""
_STARVED_S: Final = 10.0
"""A host that gets no core has not hung, unless it goes on for so long."""
_DYING_S: Final = 2.0
"""A host that is still there so long after the connection to it was lost has not ended: it is connected to again."""


class Liveness:
    """Control's hold on the process of the plugin host.

    Args:
        runtime_dir: where the host's marker page is.
        hang_s: how long an answer to a ping may take.
        ping: sends one.
    """

    def __init__(self, runtime_dir: Path, hang_s: float, ping: Callable[[], object]) -> None:
        self._runtime_dir = runtime_dir
        self._hang_s = hang_s
        self._ping = ping
        self._marker: MarkerReader | None = None
        self._pid = self._pidfd = -1
        self._lost_at = self._heard_at = self._pong_at = self._asked_at = self._due = 0.0
        self._asked = self._killed = False
        self._blamed: Mark | None = None
        self._before: dict[int, Ran] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, channel: Channel) -> bool:
        """Take hold of the process at the other end: False where it is gone, or is the one that is just ending."""
        now = time.monotonic()
        try:
            if channel.peer_pid == self._pid and now - self._lost_at < _DYING_S:
                return False
            self._pid = channel.peer_pid
            self._pidfd = os.pidfd_open(self._pid)
            self._marker = MarkerReader(self._runtime_dir)
        except OSError:
            return False
        self._heard_at = self._pong_at = now
        self.ask()
        return True

    def heard(self) -> None:
        """The host has said something."""
        self._heard_at = time.monotonic()

    def ponged(self) -> None:
        """The host has answered a ping."""
        self._pong_at = time.monotonic()
        if self._asked and not self._killed:
            self._asked, self._before = False, None
            self._look_in(_CALM_S)

    def ask(self) -> None:
        """Ping now, unless a ping is under way: an answer is overdue."""
        if self._asked or self._killed or self._pidfd < 0:
            return
        self._asked, self._asked_at, self._before = True, time.monotonic(), None
        self._look_in(self._hang_s / 4)
        self._ping()

    def running(self, hook: str, plugins: tuple[str, ...]) -> str:
        """Which of these plugins is in the hook now; "" for none."""
        return next((mark.plugin for mark in self._marks() if mark.hook == hook and mark.plugin in plugins), "")

    def kill(self, mark: Mark | None, why: str) -> None:
        """End the host, and remember who was to blame."""
        self._blamed, self._killed = mark, True
        if mark is not None:
            logger.error("plugin %s: appliance_%s %s; the plugin host is killed", mark.plugin, mark.hook, why)
        else:
            logger.error("the plugin host is killed: something in it %s", why.replace("holds up", "holds"))
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def lost(self) -> tuple[Mark | None, str] | None:
        """The host is gone: who is to blame, and ``hung`` or ``ended``. None where it was never taken hold of."""
        attached = self._marker is not None
        marks = self._marks()
        found = self._blamed or (marks[0] if marks and not self._killed else None), "hung" if self._killed else "ended"
        if self._timer is not None:
            self._timer.cancel()
        if self._marker is not None:
            self._marker.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._marker, self._pidfd, self._timer = None, -1, None
        self._asked = self._killed = False
        self._blamed = self._before = None
        if attached:
            self._lost_at = time.monotonic()
        return found if attached else None

    def _marks(self) -> list[Mark]:
        return self._marker.marks() if self._marker is not None else []

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = time.monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        if self._killed:
            return
        if not self._asked:
            if now - self._heard_at >= 0.9 * _CALM_S or now - self._pong_at >= _NEWS_S:
                self.ask()
            else:
                self._look_in(_CALM_S)
            return
        # What this process was itself late by is no silence of the host's: its answer may lie there unread.
        self._asked_at += max(0.0, now - self._due - self._hang_s / 4)
        if self._before is None:
            self._before = of_threads(self._pid)
        elif now - self._asked_at > self._hang_s and self._hung(self._before, now - self._asked_at):
            self.kill(self._who(), f"holds up the plugin host, for {now - self._asked_at:.1f} s now")
            return
        self._look_in(self._hang_s / 4)

    def _hung(self, before: Mapping[int, Ran], silent_s: float) -> bool:
        """Whether a silent host has hung, or only waits for a core that others have."""
        if silent_s > _STARVED_S:
            return True
        nothing = Ran(0.0, 0.0)
        since = [
            Ran(ran.on_core_s - was.on_core_s, ran.waiting_s - was.waiting_s)
            for thread, ran in of_threads(self._pid).items()
            for was in (before.get(thread, nothing),)
        ]
        computes = max((ran.on_core_s for ran in since), default=0.0) > 0.5 * self._hang_s
        starved = max((ran.waiting_s for ran in since), default=0.0) > 0.25 * silent_s
        return computes or not starved

    def _who(self) -> Mark | None:
        """Whose code runs: of several threads, the one that is on a core."""
        marks = self._marks()
        if len(marks) < 2:
            return marks[0] if marks else None
        before = {mark.thread: of_thread(self._pid, mark.thread).on_core_s for mark in marks}
        time.sleep(0.01)
        return max(marks, key=lambda mark: of_thread(self._pid, mark.thread).on_core_s - before[mark.thread])
