"""How often a call's engines have failed in a row, and when that is enough."""

from __future__ import annotations

from typing import Final

from appliance.conversation.brain import Heard, Input, Notice

_MAX_FAILURES: Final = 2


class Setbacks:
    """Counts one call's failures.

    Args:
        gives_up_after: so many in a row are enough for the line to go another way. None: the call ends after two, and
            callers who are not understood are asked again for as long as they stay.
    """

    def __init__(self, gives_up_after: int | None) -> None:
        self.another_way = gives_up_after is not None
        """Whether the line has something else to do with the caller."""
        self._enough = gives_up_after or _MAX_FAILURES
        self._failures = self._deaf = 0

    def failed(self) -> bool:
        """A reply has failed; whether that is enough."""
        self._failures += 1
        return self._failures >= self._enough

    def answered(self) -> None:
        """A reply was given."""
        self._failures = 0

    def begin_again(self) -> None:
        """The line goes another way, whose engines have not failed yet."""
        self._failures = self._deaf = 0

    def deafness(self, value: Input | Notice, problem: str) -> str:
        """Why callers could not be understood, turn after turn; "" where they were, or nothing is done about it.

        Args:
            value: what the turn has begun with.
            problem: what went wrong in recognising it; "" for nothing.
        """
        if not self.another_way or not isinstance(value, Heard) or value.instead is not None:
            return ""
        unheard = problem if not value.text else ""
        self._deaf = self._deaf + 1 if unheard else 0
        return unheard if self._deaf >= self._enough else ""
