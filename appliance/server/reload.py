"""Other dialplans for a box that runs: read, checked, and put in the place of those before in one step.

What asks for it is SIGHUP, ``appliance reload``, or a file that has changed. The reading is done in another process
(:mod:`appliance.server.compiling`); whatever else has to change with the dialplans makes ready beside
(:data:`Prepare`), and only if nothing is wrong with any of it, all of it changes between two events. Calls that are up
keep what they began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from appliance.errors import ApplianceError, ConfigError, Mistake
from appliance.ipc.channel import MAX_MESSAGE_BYTES, Channel, Listener, serve
from appliance.ipc.messages import AnyMessage, encode
from appliance.ipc.operator_messages import Reload, Reloaded
from appliance.server.compiling import Plan

logger = logging.getLogger(__name__)

SOCKET: Final = "control.sock"
POLL_S: Final = 1.0
_LOGGED: Final = 20
_NAMED: Final = 5
_TOLD: Final = 1000
_SHOWN_CHARS: Final = 300

Commit: TypeAlias = Callable[[], None]
"""Puts what was prepared into use. It does not wait, and cannot fail."""
Prepare: TypeAlias = Callable[[Plan], Awaitable[Commit]]
"""Makes ready for another plan. Raises ConfigError or ApplianceError where it cannot; then nothing has changed."""
Stamps: TypeAlias = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Outcome:
    """What came of reading everything again.

    Attributes:
        what: ``changed``, ``unchanged`` (the lines are as they were), ``refused`` (there are mistakes), ``failed``.
        seconds: how long it took.
        lines: how many there are now.
        added, removed, changed: names of lines.
        mistakes: why it was refused.
        warnings: what an operator should know.
        problem: why it failed.
    """

    what: str
    seconds: float
    lines: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    problem: str = ""

    def message(self) -> Reloaded:
        """For whoever has asked from outside: as much of it as fits a message."""
        most = _TOLD
        while len(encode(message := self._told(most))) > MAX_MESSAGE_BYTES:
            most //= 2
        return message

    def _told(self, most: int) -> Reloaded:
        lists = (self.added, self.removed, self.changed, self.mistakes, self.warnings)
        return Reloaded(
            self.what,
            self.seconds,
            self.lines,
            self.added[:most],
            self.removed[:most],
            self.changed[:most],
            tuple(map(_plain, self.mistakes[:most])),
            tuple(map(_plain, self.warnings[:most])),
            self.problem[:_SHOWN_CHARS],
            sum(max(0, len(one) - most) for one in lists),
        )


def _plain(mistake: Mistake) -> tuple[str, int, str, str, str]:
    key, what, hint = (text[:_SHOWN_CHARS] for text in (mistake.key, mistake.what, mistake.hint))
    return (mistake.file[-_SHOWN_CHARS:], mistake.line, key, what, hint)


@dataclass
class Reloader:
    """Keeps the plan that new calls are answered by.

    Args:
        plan: the first one.
        read: reads the files.
        prepare: everything that changes with a plan.
        settle: told each outcome, for metrics.
    """

    plan: Plan
    read: Callable[[], Awaitable[Plan]]
    prepare: Sequence[Prepare] = ()
    settle: Callable[[Outcome], None] = lambda outcome: None
    _running: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: asyncio.Future[Outcome] | None = None

    async def reload(self, cause: str) -> Outcome:
        """Read everything and take it over if nothing is wrong with it. Never raises.

        Whoever asks while another reload runs gets the one after it, together with all others who do.

        Args:
            cause: who asks, for the log.
        """
        if self._waiting is not None:
            return await asyncio.shield(self._waiting)
        mine = self._waiting = asyncio.get_running_loop().create_future()
        try:
            async with self._running:
                self._waiting = None
                outcome = await self._once(cause)
        except BaseException:
            self._waiting = None if self._waiting is mine else self._waiting
            mine.cancel()
            raise
        mine.set_result(outcome)
        self.settle(outcome)
        return outcome

    async def _once(self, cause: str) -> Outcome:
        start = time.monotonic()
        lines = len(self.plan.lines)

        def took() -> float:
            return round(time.monotonic() - start, 3)

        try:
            plan = await self.read()
            commits = [await prepare(plan) for prepare in self.prepare]
        except ConfigError as error:
            outcome = Outcome("refused", took(), lines, mistakes=tuple(error.mistakes))
            _log_refusal(outcome, cause)
            return outcome
        except (ApplianceError, OSError) as error:
            logger.error("reload (%s) failed, all stays as it was: %s", cause, error)
            return Outcome("failed", took(), lines, problem=str(error))
        except Exception as error:
            # Nobody who asks, the watch over files least of all, may end with a reload that fails.
            logger.exception("reload (%s) failed, all stays as it was", cause)
            return Outcome("failed", took(), lines, problem=f"{type(error).__name__}: {error}; see the log")
        before, self.plan = self.plan, plan
        for commit in commits:
            commit()
        added, removed, changed = _differences(before, plan)
        what = "changed" if added or removed or changed else "unchanged"
        outcome = Outcome(what, took(), len(plan.lines), added, removed, changed, warnings=plan.warnings)
        _log_change(outcome, cause)
        return outcome


def _differences(before: Plan, after: Plan) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the lines that are new, gone, and not what they were."""
    old, new = before.lines, after.lines
    added = tuple(name for name in new.names() if not old.digest(name))
    removed = tuple(name for name in old.names() if not new.digest(name))
    changed = tuple(name for name in new.names() if old.digest(name) not in (b"", new.digest(name)))
    return added, removed, changed


def _log_refusal(outcome: Outcome, cause: str) -> None:
    count = len(outcome.mistakes)
    logger.error("reload (%s) refused, all stays as it was: %d mistake%s", cause, count, "s" if count > 1 else "")
    for mistake in outcome.mistakes[:_LOGGED]:
        logger.error("%s", mistake)
    if count > _LOGGED:
        logger.error("and %d more; `appliance check` tells them all", count - _LOGGED)


def _log_change(outcome: Outcome, cause: str) -> None:
    parts = [
        f"{len(names)} {what} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for what, names in (("added", outcome.added), ("removed", outcome.removed), ("changed", outcome.changed))
        if names
    ]
    lines = "; ".join(parts) or "no line has changed"
    logger.info("reloaded (%s) in %.2f s: %s; %s", cause, outcome.seconds, _count(outcome.lines), lines)
    for warning in outcome.warnings[:_LOGGED]:
        logger.warning("%s", warning)


def _count(lines: int) -> str:
    return "1 line" if lines == 1 else f"{lines} lines"


# --- files ------------------------------------------------------------------------------------------------------------


def stamps(paths: Iterable[Path]) -> Stamps:
    """What tells whether a file has changed, for files and for those directly in folders; what is not there is not."""
    found: Stamps = {}
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_dir():
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.name.endswith((".yaml", ".py")) and not entry.name.startswith("."):
                            with contextlib.suppress(OSError):  # a link that leads nowhere hides no other file
                                found[entry.path] = _stamp(entry.stat())
            else:
                found[str(path)] = _stamp(path.stat())
    return found


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


async def watch(
    paths: Callable[[], Iterable[Path]], reload: Callable[[str], Awaitable[object]], *, poll_s: float = POLL_S
) -> None:
    """Reload once files have changed and then stayed as they are for ``poll_s``; until cancelled.

    Args:
        paths: what is looked at, asked for each time.
        reload: does it; what it refuses is tried again when a file changes again.
        poll_s: how often to look.
    """
    known = await asyncio.to_thread(stamps, list(paths()))
    seen = known
    while True:
        await asyncio.sleep(poll_s)
        now = await asyncio.to_thread(stamps, list(paths()))
        if now != known and now == seen:
            different = sorted(file for file in known.keys() | now.keys() if known.get(file) != now.get(file))
            more = f" and {len(different) - 1} more" if len(different) > 1 else ""
            known = now
            await reload(f"{different[0]}{more} changed")
            # What it has read for the first time (a file of numbers, say) has not changed. What is gone has, unless it
            # is only looked at no longer.
            after = await asyncio.to_thread(stamps, list(paths()))
            gone = {file: stamp for file, stamp in now.items() if file not in after and not Path(file).exists()}
            known = {file: now.get(file, stamp) for file, stamp in after.items()} | gone
            now = after
        seen = now


# --- from outside -----------------------------------------------------------------------------------------------------


async def listen(runtime_dir: Path, reload: Callable[[str], Awaitable[Outcome]]) -> Listener:
    """Take orders of ``appliance reload``, on a socket that only the box's own user can open."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(sock: socket.socket) -> Channel:
        async def answer() -> None:
            outcome = await reload("appliance reload")
            channel.send(outcome.message())

        def received(message: AnyMessage) -> None:
            if isinstance(message, Reload):
                task = asyncio.get_running_loop().create_task(answer(), name="reload")
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                logger.error("%s is no order that the box takes", type(message).__name__)

        channel = Channel(sock, asyncio.get_running_loop(), received)
        return channel

    return await serve(runtime_dir / SOCKET, connected)
