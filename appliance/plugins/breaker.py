"""When a hook that fails again and again is left alone for a while. PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

FAILURES: Final = 5
WITHIN_S: Final = 60.0
OPEN_S: Final = 60.0
_MAX_KEYS: Final = 10_000

EVERY_LINE: Final = "*"


class Key(NamedTuple):
    """One hook of one plugin on one line; ``EVERY_LINE`` for all of them."""

    plugin: str
    hook: str
    line: str


class Breaker:
    """Five failures within a minute switch a hook of a plugin off on a line for a minute. Then it is tried again: one
    more failure switches it off once more, a success makes all well. What hung or ended the plugin host is switched
    off at once, on every line.
    """

    def __init__(self) -> None:
        self._failed: dict[Key, deque[float]] = {}
        self._open: dict[Key, float] = {}

    def closed(self, plugin: str, hook: str, line: str, now: float) -> bool:
        """Whether the hook may run."""
        if not self._open:
            return True
        return not any(
            self._open.get(key, 0.0) > now for key in (Key(plugin, hook, line), Key(plugin, hook, EVERY_LINE))
        )

    def failed(self, plugin: str, hook: str, line: str, now: float) -> bool:
        """Take a failure; True where it is the one that switches the hook off."""
        key = Key(plugin, hook, line)
        if not self.closed(plugin, hook, line, now):
            return False
        tried_again = any(one in self._open for one in (key, Key(plugin, hook, EVERY_LINE)))
        times = self._failed.setdefault(key, deque(maxlen=FAILURES))
        times.append(now)
        if tried_again or (len(times) == FAILURES and now - times[0] <= WITHIN_S):
            self._open[key] = now + OPEN_S
            del self._failed[key]
            return True
        if len(self._failed) > _MAX_KEYS:
            del self._failed[next(iter(self._failed))]
        return False

    def worked(self, plugin: str, hook: str, line: str, now: float) -> None:
        """Take a success."""
        for key in (Key(plugin, hook, line), Key(plugin, hook, EVERY_LINE)):
            if self._open.get(key, now) < now:
                del self._open[key]

    def hung(self, plugin: str, hook: str, now: float) -> None:
        """The hook has held up every other one, or ended their process."""
        self._open[Key(plugin, hook, EVERY_LINE)] = now + OPEN_S

    def forget(self, plugin: str) -> None:
        """The plugin has another program now: nothing is held against it."""
        self._failed = {key: times for key, times in self._failed.items() if key.plugin != plugin}
        self._open = {key: until for key, until in self._open.items() if key.plugin != plugin}

    @property
    def quiet(self) -> bool:
        """Whether every hook may run, and none is being tried again."""
        return not self._open

    def off(self, now: float) -> Iterator[tuple[Key, float]]:
        """What is switched off, and for how many seconds yet."""
        for key, until in self._open.items():
            if until > now:
                yield key, until - now
