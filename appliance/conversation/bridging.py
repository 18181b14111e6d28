"""No dead air: short fillers while the caller waits for a reply that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

FIRST_AFTER_S: Final = 1.3
AGAIN_AFTER_S: Final = 2.5
LOOK_AGAIN_AFTER_S: Final = 1.0


class DeadAir:
    """Watches over one call's silences in which it is the agent's turn.

    Args:
        bridge: says a filler, if nothing is being said; gives False where there is nothing to wait for any more.
        phrases: said in turn, from the first again; none for silence.
        first_after_s: silence before the first filler, counted from when the caller's turn was over.
        again_after_s: silence after a filler before the next.
    """

    def __init__(
        self,
        bridge: Callable[[str], bool],
        phrases: tuple[str, ...],
        *,
        first_after_s: float = FIRST_AFTER_S,
        again_after_s: float = AGAIN_AFTER_S,
    ) -> None:
        self._bridge = bridge
        self._first_after_s = first_after_s
        self._again_after_s = again_after_s
        self._phrases = phrases
        self._said = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """It is the agent's turn from now on."""
        if self._timer is None:
            self._set(self._first_after_s)

    def again(self) -> None:
        """A filler has been said, and the reply is still not there."""
        self.end()
        self._set(self._again_after_s)

    def look_again(self) -> None:
        """There is speech just now: ask again soon whether it has run dry."""
        self.end()
        self._set(LOOK_AGAIN_AFTER_S)

    def end(self) -> None:
        """The reply has begun, or the caller speaks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """The call is over."""
        self.end()
        self._bridge = lambda phrase: False

    def _set(self, after_s: float) -> None:
        if self._phrases:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._bridge(self._phrases[self._said % len(self._phrases)]):
            self._said += 1
