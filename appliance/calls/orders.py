"""What is ordered of a call that the box places, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from appliance.conversation.answering import Answering, Verdict

SlotValue: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class OutgoingOrder:
    """A call to be placed.

    Attributes:
        call_id: the name of its record, chosen before; nobody else's.
        number: E.164, or a name or URI that the routes allow.
        line: the dialplan's line whose agent speaks.
        trunk: the one trunk to use; "" lets the routes choose.
        caller_id: number shown to the one called; "" for the trunk's own.
        ring_timeout_s: it rings for so long at most.
        variables: what is known of the one called, by name: ``${lead.NAME}`` in the line's texts, and data for models
            and tools.
        campaign: the campaign's name; "" for a call of its own.
        owner: on whose behalf: said first in every call that has one, ``${campaign.owner}`` in the line's texts.
        zone: IANA name of the time zone of the one called; "" where it is not known.
        opt_out_key: the key by which the one called opts out at any time; "" for none.
        answering: what is done about answering machines; None: nobody looks for one.
    """

    call_id: str
    number: str
    line: str
    trunk: str = ""
    caller_id: str = ""
    ring_timeout_s: float = 30.0
    variables: Mapping[str, str] = field(default_factory=dict)
    campaign: str = ""
    owner: str = ""
    zone: str = ""
    opt_out_key: str = "9"
    answering: Answering | None = None


@dataclass(frozen=True, slots=True)
class OutgoingResult:
    """What came of it. Times are CLOCK_MONOTONIC seconds.

    Attributes:
        sip_code: final status of the INVITE: 200 where it was answered, 408 where it rang for ``ring_timeout_s``; 0
            where none came.
        sip_text: what was said with it.
        early: what was heard before the answer: "ringback", "busy", "reorder", "sit", "fax" ...; "" for nothing.
        ringing_at, answered_at, ended_at: None where it did not come to that.
        greeted_at: when the agent's first sound left; None where none did.
        verdict: who has answered, as far as that was looked for.
        ended_by: ``caller`` (the one called), ``agent`` or ``box``, as in the record; "" where it was not answered.
        reason: why it ended, in words.
        message_left: the message for the machine has been said in full.
        transferred_to: whom the one called was put through to; "" for nobody.
        callback_at: when to call again, agreed on in the call; aware, UTC.
        slots: what the flow, the model and tools have noted.
        completed: the agent brought the conversation to its end: not cut off by a hang-up, a limit or a failure.
        problem: why it could not be placed or kept up, where that is this side's: no route, not allowed, no room, media
            lost, the box stopped; "" otherwise.
    """

    sip_code: int = 0
    sip_text: str = ""
    early: str = ""
    ringing_at: float | None = None
    answered_at: float | None = None
    greeted_at: float | None = None
    ended_at: float | None = None
    verdict: Verdict | None = None
    ended_by: str = ""
    reason: str = ""
    message_left: bool = False
    opted_out: bool = False
    transferred_to: str = ""
    callback_at: datetime | None = None
    slots: Mapping[str, SlotValue] = field(default_factory=dict)
    completed: bool = False
    problem: str = ""

    @property
    def talk_s(self) -> float:
        """From the answer to the end."""
        if self.answered_at is None or self.ended_at is None:
            return 0.0
        return self.ended_at - self.answered_at


Progress: TypeAlias = Callable[[str, float], None]
"""Told as it happens: "dialling", "ringing", "answered", "human", "machine", "screening", "fax", "unsure", and when
(CLOCK_MONOTONIC)."""
