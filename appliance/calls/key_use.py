"""Whose a telephone key is: of whoever leads the conversation, where they have asked for it, or somebody else's."""

from __future__ import annotations

from appliance.conversation.brain import Expectation, HangUp, Listen, Say, Speak, Step, Transfer


class KeyUse:
    """Learns from what a brain does which keys it waits for. One per brain; a copy goes its own way."""

    def __init__(self) -> None:
        self._expectation = Expectation()
        self._collecting = False
        """Keys have gone to whoever leads, which may be a number that nobody has asked for in so many words."""
        self._listens = False

    def copy(self) -> KeyUse:
        """One that knows the same."""
        twin = KeyUse()
        twin._expectation, twin._collecting = self._expectation, self._collecting
        twin._listens = self._listens
        return twin

    def taken(self, digit: str) -> bool:
        """Whether the key belongs to whoever leads."""
        expected = self._expectation
        in_number = self._collecting and expected.key_timeout_s is not None
        return expected.private or digit in expected.keys or in_number

    def begin(self) -> None:
        """A reply begins."""
        self._listens = False

    def pressed(self, digit: str | None) -> None:
        """What goes to whoever leads next is this key; None for something else."""
        self._collecting = digit is not None and digit != "#"

    def answered(self) -> None:
        """Somebody else has taken a key."""
        self._collecting = False

    def look_at(self, step: Step) -> None:
        """Learn what keys mean from now on: what was expected holds until something else is said."""
        match step:
            case Listen(expectation):
                self._expectation, self._listens = expectation, True
            case Say(_, _, True):
                pass
            case Say() | Speak() | HangUp() | Transfer():
                self._collecting = False
                if not self._listens:
                    self._expectation = Expectation()
