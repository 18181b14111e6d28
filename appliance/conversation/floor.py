"""Who has the floor: the turn under way, and which side the other waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from appliance.conversation.inputs import Inputs
from appliance.conversation.turn_log import Progress, TurnLog
from appliance.events import Doing


class Floor:
    """What the parts of one call's dialogue know in common.

    Args:
        inputs: what is still to be replied to.
        turn: the first one.
        on_progress: called with the turn, what happens and what is heard of the next, whenever there is news.

    Attributes:
        turn: the one under way.
        reply: works out and gives the last reply; None before the first, and after the call.
        replied: the reply has been given.
        caller_speaks: the caller speaks, or may go on in a moment.
        caller_done: the caller has finished a turn, and it is not known yet what was said in it.
        handing_on: the caller is somebody else's.
        private: what the caller says and presses is not for the record.
        hearing: what was understood so far of what the caller says.
    """

    def __init__(self, inputs: Inputs, turn: TurnLog, on_progress: Callable[[TurnLog, Doing, str], None]) -> None:
        self.turn = turn
        self.reply: asyncio.Task[Any] | None = None
        self.replied = False
        self.caller_speaks = self.caller_done = False
        self.handing_on = False
        self.private = False
        self.hearing = ""
        self._inputs = inputs
        self._progress = Progress(on_progress)

    @property
    def replying(self) -> bool:
        """Whether a reply is being worked out or given."""
        return self.reply is not None and not self.reply.done()

    @property
    def awaited(self) -> bool:
        """Whether the caller waits for a reply."""
        return self.caller_done or (self.replying and not self.replied)

    @property
    def doing(self) -> Doing:
        """What happens now, as people who watch the call see it."""
        if self.caller_speaks:
            return Doing.CALLER_SPEAKS
        if any(utterance.started_at is not None and not utterance.over for utterance in self.turn.utterances):
            return Doing.AGENT_SPEAKS
        if self.handing_on:
            return Doing.HANDED_ON
        return Doing.THINKING if self.awaited or self._inputs else Doing.LISTENING

    def caller_said_nothing(self) -> None:
        """The caller says nothing, and what was begun is no turn."""
        self.caller_speaks = self.caller_done = False
        self.hearing = ""

    def tell(self) -> None:
        """Tell how it goes, if that has changed."""
        self._progress.tell(self.turn, self.doing, self.hearing)
