"""Replies begun in advance: at the caller's first silence, before it is certain that the turn is over.

A draft asks a fork of the brain and synthesises the first piece of what it says, unheard. If the caller goes on, both
are thrown away; if the turn is committed with the same words, the fork becomes the brain and the piece is played. The
gate keeps everything that anybody could notice until then.

A draft that is ready long before the turn is certain has gained nothing, and most pauses end before that. So it is
begun as late as the line's replies allow (:class:`Lead`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from appliance.conversation.brain import Brain, Gate, Heard, Say, Step
from appliance.conversation.hooked import NONE, HooksOfCall
from appliance.conversation.reply import Reply
from appliance.conversation.speaker import Speaker
from appliance.conversation.utterance import Utterance
from appliance.events import Speculation

PER_SECOND: Final = 20.0
_BURST_S: Final = 2.0

_MARGIN_S: Final = 0.06
_RISE: Final = 0.5
_FALL: Final = 0.03
_MOST_S: Final = 1.5


class Lead:
    """How long before it is to be heard a reply of one line must be begun. PURE.

    Follows what replies have taken, up much faster than down: one that is begun too early is thrown away now and then,
    one that is begun too late is late every time.

    Attributes:
        seconds: infinite as long as nothing is known.
    """

    def __init__(self) -> None:
        self.seconds = math.inf
        self._usual = math.inf

    def took(self, seconds: float) -> None:
        """A reply had its first sound so long after it was begun."""
        seconds = min(seconds, _MOST_S)
        if math.isinf(self._usual):
            self._usual = seconds
        else:
            beyond = seconds - self._usual
            self._usual += beyond * (_RISE if beyond > 0 else _FALL)
        self.seconds = self._usual + _MARGIN_S


class SpeculationBudget:
    """How many replies the whole box may begin in advance: a bucket that fills at a steady rate. PURE.

    It is the first thing to be given up under load: a call then answers as late as it would without.

    Args:
        per_second: drafts that may be begun in a second, over time; 0 for none.
        strained: whether the box has no time to spare.

    Attributes:
        begun, refused: drafts so far.
    """

    def __init__(self, per_second: float = PER_SECOND, strained: Callable[[], bool] = lambda: False) -> None:
        self._per_second = per_second
        self._capacity = per_second * _BURST_S
        self._left = self._capacity
        self._at: float | None = None
        self._strained = strained
        self.begun = self.refused = 0
        self._leads: dict[str, Lead] = {}

    def lead(self, line: str) -> Lead:
        """What is known of the replies of a line, in all its calls."""
        return self._leads.setdefault(line, Lead())

    def take(self, now: float) -> bool:
        """Whether a draft may be begun at ``now`` (seconds)."""
        if self._at is not None:
            self._left = min(self._capacity, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0 or self._strained():
            self.refused += 1
            return False
        self._left -= 1.0
        self.begun += 1
        return True


class Draft:
    """One reply begun in advance.

    Args:
        attempt: the pause that it belongs to.
        heard: what the caller is taken to have said.
        brain: the call's brain; asked through a fork of it.
        speaker: synthesises the first piece.
        now: CLOCK_MONOTONIC.
        hooks: of the call.

    Attributes:
        utterance: the first piece; None as long as there is none.
        begun_at: when the brain was asked.
    """

    def __init__(
        self,
        attempt: int,
        heard: Heard,
        brain: Brain,
        speaker: Speaker,
        now: Callable[[], float],
        hooks: HooksOfCall = NONE,
    ) -> None:
        self.attempt = attempt
        self.heard = heard
        self.utterance: Utterance | None = None
        self.begun_at = now()
        self._speaker = speaker
        self._tokens = brain.tokens
        self.reply = Reply(brain.fork(), heard, Gate(is_open=False), self._speak_first, hooks)

    def fits(self, attempt: int, heard: object) -> bool:
        """Whether this is the reply to what was heard in the end."""
        return attempt == self.attempt and heard == self.heard and not self.reply.failed

    def use(self) -> Reply:
        """The turn is certain: the reply, whose first piece is :attr:`utterance` where there is one."""
        self.reply.gate.open()
        if self.utterance is not None:
            self._speaker.release(self.utterance)
        return self.reply

    def discard(self) -> tuple[int, float]:
        """The caller goes on: (tokens, seconds of speech) that were for nothing."""
        self.reply.abandon()
        wasted_s = self._speaker.drop(self.utterance) if self.utterance is not None else 0.0
        return self.reply.brain.tokens - self._tokens, wasted_s

    def _speak_first(self, step: Step) -> None:
        if self.utterance is None and isinstance(step, Say) and not step.filler and not self.reply.gate.is_open:
            self.utterance = self._speaker.begin(interruptible=step.interruptible, held=True)
            self._speaker.add(self.utterance, step.text)


class Drafts:
    """The drafts of one call: at most one at a time, and what they cost.

    Args:
        budget: the box's.
        per_turn: how many may be begun for one turn of the caller; 0 for none.
        line: whose replies are how fast.
        hooks: of the call.

    Attributes:
        lead: how long before the turn is certain one should be begun.
    """

    def __init__(
        self,
        budget: SpeculationBudget,
        per_turn: int,
        now: Callable[[], float],
        line: str = "",
        hooks: HooksOfCall = NONE,
    ) -> None:
        self.lead = budget.lead(line)
        self._budget = budget
        self._per_turn = per_turn
        self._now = now
        self._hooks = hooks
        self._draft: Draft | None = None
        self._begun = self._tokens = 0
        self._speech_s = 0.0

    def begin(self, attempt: int, heard: Heard, brain: Brain, speaker: Speaker) -> None:
        """Begin one, if there is budget for it."""
        self.discard()
        if self._begun < self._per_turn and self._budget.take(self._now()):
            self._begun += 1
            self._draft = Draft(attempt, heard, brain, speaker, self._now, self._hooks)

    def discard(self) -> None:
        """What was begun is not wanted."""
        if self._draft is not None:
            tokens, speech_s = self._draft.discard()
            self._tokens += tokens
            self._speech_s += speech_s
            self._draft = None

    def take(self, attempt: int, heard: object) -> tuple[Draft | None, Speculation]:
        """The turn is certain: the draft of it, released, or None; and what was begun for this turn."""
        draft, gained_s = self._draft, 0.0
        if draft is not None and draft.fits(attempt, heard):
            self._draft = None
            draft.use()
            if draft.utterance is not None and draft.utterance.first_audio_at is not None:
                gained_s = self._now() - draft.utterance.first_audio_at
        else:
            self.discard()
            draft = None
        told = Speculation(self._begun, draft is not None, self._tokens, round(self._speech_s, 3), gained_s)
        self._begun = self._tokens = 0
        self._speech_s = 0.0
        return draft, told
