"""What one reply says: its clauses and its speech, joined into utterances."""

from __future__ import annotations

from collections.abc import Callable

from appliance.conversation.speaker import Speaker, Speech
from appliance.conversation.utterance import Utterance


class Passage:
    """Utterances, one after the other; clauses that belong together share one.

    Args:
        speaker: says them.
        begin: begins an utterance that is or is not interruptible and a filler.
        draft: an utterance that has been begun already. The speaker has been told the first clause of it.
    """

    def __init__(
        self, speaker: Speaker, begin: Callable[[bool, bool], Utterance], draft: Utterance | None = None
    ) -> None:
        self.open = draft
        """The utterance that goes on; None where the next clause begins another."""
        self._speaker = speaker
        self._begin = begin
        self._told = draft is not None

    def say(self, clause: str, *, interruptible: bool, filler: bool) -> Utterance:
        """Say ``clause``; the utterance that it is part of. A filler is one of its own, whose end is known."""
        utterance = self.open
        if utterance is not None and (filler or utterance.complete or utterance.interruptible != interruptible):
            self.finish()
        if self.open is None:
            self.open = self._begin(interruptible, filler)
        utterance = self.open
        if not self._told:
            self._speaker.add(utterance, clause)
        self._told = False
        if filler:
            self.finish()
        return utterance

    def follow(self, speech: Speech) -> None:
        """Say what comes as audio."""
        if self.open is not None and (self.open.complete or not self.open.interruptible):
            self.finish()
        if self.open is None:
            self.open = self._begin(True, False)
        self._speaker.follow(self.open, speech)

    def finish(self) -> None:
        """Nothing more belongs to the utterance that goes on."""
        self.close()
        self.open = None

    def close(self) -> None:
        """Nothing more comes at all; ``open`` stays the last utterance, unless that was finished before."""
        if self.open is not None:
            self._speaker.finish(self.open)
