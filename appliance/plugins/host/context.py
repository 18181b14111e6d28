"""Whose code runs now: for what plugins print, for tasks that they begin, and for the marker page."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from appliance.plugins.marker import Slot, text_of

_LONGEST_LINE: Final = 2000


@dataclass(eq=False)
class Running:
    """A hook or tool of a plugin at work. ``tasks`` collects what it begins in the background and leaves behind."""

    plugin: str
    hook: str
    line: str
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.text = text_of(self.plugin, self.hook, self.line)


CURRENT: ContextVar[Running | None] = ContextVar("appliance_plugin", default=None)


class Marked(Coroutine[Any, Any, Any]):
    """A plugin's coroutine whose every step is on the marker page, and which cannot end the process by SystemExit."""

    __slots__ = ("__name__", "__qualname__", "_inner", "_slot", "_text")

    def __init__(self, inner: Coroutine[Any, Any, Any], slot: Slot, text: bytes) -> None:
        self._inner = inner
        self._slot = slot
        self._text = text
        self.__name__ = self.__qualname__ = getattr(inner, "__qualname__", "plugin")

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        self._slot.set(self._text)
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"{type(error).__name__} in a plugin") from error
        finally:
            self._slot.clear()

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        self._slot.set(self._text)
        try:
            return self._inner.throw(kind if value is None else value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"{type(error).__name__} in a plugin") from error
        finally:
            self._slot.clear()

    def close(self) -> None:
        self._inner.close()


def keep_tasks(loop: asyncio.AbstractEventLoop, slot: Slot) -> None:
    """Have every task that a plugin begins marked as the plugin's, and remembered by what began it."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **how: Any) -> asyncio.Task[Any]:
        running = CURRENT.get()
        if running is None:
            return asyncio.Task(coro, loop=loop, **how)
        if isinstance(coro, Coroutine):
            coro = Marked(coro, slot, running.text)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **how)
        running.tasks.add(task)
        task.add_done_callback(running.tasks.discard)
        return task

    loop.set_task_factory(make)


class Printed(io.TextIOBase):
    """Stands in for standard output: each line goes to the log, under the name of the plugin that wrote it."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._parts: dict[str, str] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        running = CURRENT.get()
        name = running.plugin if running is not None else "host"
        *lines, rest = (self._parts.pop(name, "") + text).split("\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], ""
        if rest:
            self._parts[name] = rest
        for line in lines:
            if line:
                logging.getLogger(f"plugins.{name}").log(self._level, "%s", line[:_LONGEST_LINE])
        return len(text)
