"""What became of one call to a lead: its disposition. PURE."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Protocol


class Disposition(enum.StrEnum):
    """What became of a call, and in the end of a lead.

    ``NOT_ALLOWED`` is a lead's alone: no call was made, because a rule forbids it for good.
    """

    ANSWERED = "answered"
    COMPLETED = "completed"
    VOICEMAIL_LEFT = "voicemail_left"
    MACHINE = "machine"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    INVALID = "invalid"
    OPTED_OUT = "opted_out"
    TRANSFERRED = "transferred"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    ABANDONED = "abandoned"
    NOT_ALLOWED = "not_allowed"


MEANINGS: Final[Mapping[Disposition, str]] = {
    Disposition.ANSWERED: "somebody answered, and the conversation ended before the line's flow or agent was done",
    Disposition.COMPLETED: "somebody answered, and the conversation came to its end",
    Disposition.VOICEMAIL_LEFT: "a machine answered, and the message was left after its beep",
    Disposition.MACHINE: "a machine, a call-screening assistant that let nobody through, or a fax answered",
    Disposition.BUSY: "the line was busy",
    Disposition.NO_ANSWER: "it rang until the time-out, or the phone was off",
    Disposition.REJECTED: "the called party, or their network in their name, declined the call",
    Disposition.INVALID: "the number does not exist or has changed; it is never called again",
    Disposition.OPTED_OUT: "the called party does not want to be called; it is on the do-not-call list",
    Disposition.TRANSFERRED: "the called party was put through to somebody else",
    Disposition.FAILED: "the call failed in the network or the trunk, or could not be placed",
    Disposition.INTERRUPTED: "the box failed or was stopped during the call, whose outcome is not known",
    Disposition.ABANDONED: "somebody answered, and the agent was not heard within two seconds",
    Disposition.NOT_ALLOWED: "never called: a rule forbids it for good, and the detail says which",
}
"""Of each disposition, in words; docs/campaign-rules.md has this table."""

SIP_DISPOSITIONS: Final[Mapping[int, Disposition]] = {
    403: Disposition.REJECTED,
    404: Disposition.INVALID,
    408: Disposition.NO_ANSWER,
    410: Disposition.INVALID,
    480: Disposition.NO_ANSWER,
    484: Disposition.INVALID,
    486: Disposition.BUSY,
    487: Disposition.NO_ANSWER,
    600: Disposition.BUSY,
    603: Disposition.REJECTED,
    604: Disposition.INVALID,
    607: Disposition.REJECTED,
    608: Disposition.REJECTED,
}
"""Of the final response to an INVITE that nobody answered; every other one is a failure (RFC 3261 §21, 8197, 8688)."""

TONE_DISPOSITIONS: Final[Mapping[str, Disposition]] = {
    "sit_intercept": Disposition.INVALID,
    "sit_vacant": Disposition.INVALID,
    "sit_reorder": Disposition.FAILED,
    "sit_no_circuit": Disposition.FAILED,
    "sit_unknown": Disposition.INVALID,
    "sit": Disposition.INVALID,
    "busy": Disposition.BUSY,
    "reorder": Disposition.FAILED,
    "fax": Disposition.MACHINE,
}
"""Of the tones heard before an answer, which say more than the status that follows them; ``sit`` is the triple of
special information tones, with its cause where that was recognised."""


class VerdictLike(Protocol):
    """Who answered: ``human``, ``machine``, ``screening``, ``fax`` or ``unsure``."""

    @property
    def kind(self) -> str: ...


class ResultLike(Protocol):
    """What the outcome is told by; :class:`appliance.calls.outgoing.OutgoingResult` is one."""

    @property
    def sip_code(self) -> int: ...
    @property
    def early(self) -> str: ...
    @property
    def answered_at(self) -> float | None: ...
    @property
    def verdict(self) -> VerdictLike | None: ...
    @property
    def message_left(self) -> bool: ...
    @property
    def opted_out(self) -> bool: ...
    @property
    def transferred_to(self) -> str: ...
    @property
    def completed(self) -> bool: ...
    @property
    def problem(self) -> str: ...


def disposition(result: ResultLike, *, abandoned: bool = False, stopped: bool = False) -> Disposition:
    """What became of a call.

    Args:
        result: of the call.
        abandoned: somebody answered, and the agent was not heard within two seconds.
        stopped: the campaign or the box ended the call before it came to anything.
    """
    if result.opted_out:
        return Disposition.OPTED_OUT
    if result.answered_at is None:
        return Disposition.INTERRUPTED if stopped else _unanswered(result)
    if result.transferred_to:
        return Disposition.TRANSFERRED
    if result.message_left:
        return Disposition.VOICEMAIL_LEFT
    kind = result.verdict.kind if result.verdict is not None else "unsure"
    if kind in ("machine", "fax"):
        return Disposition.MACHINE
    if result.completed:
        return Disposition.COMPLETED
    if kind == "screening":
        return Disposition.MACHINE
    if abandoned:
        return Disposition.ABANDONED
    if stopped:
        return Disposition.INTERRUPTED
    return Disposition.FAILED if result.problem else Disposition.ANSWERED


def _unanswered(result: ResultLike) -> Disposition:
    tone = TONE_DISPOSITIONS.get(result.early)
    if tone is not None:
        return tone
    if result.problem:
        return Disposition.FAILED
    return SIP_DISPOSITIONS.get(result.sip_code, Disposition.FAILED)


def fails_the_trunk(result: ResultLike) -> bool:
    """Whether this call says that the trunk does not work: what the breaker of :mod:`.pacing` counts."""
    return (
        result.answered_at is None
        and result.early not in TONE_DISPOSITIONS
        and (bool(result.problem) or result.sip_code not in SIP_DISPOSITIONS)
    )
