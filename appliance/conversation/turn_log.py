"""What is known about one turn while it happens; becomes the record's TurnFinished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from appliance.conversation.utterance import Utterance
from appliance.events import Doing, InputBy, Speculation, Stage, StageTiming, ToolRun, TurnFinished

_MAX_TROUBLES: Final = 8


@dataclass
class TurnLog:
    """The turn under way: what the caller said, then the agent's reply to it.

    Times are CLOCK_MONOTONIC seconds. ``number`` 0 is the greeting; ``meant`` is what the agent is to say, clause by
    clause, whether or not it has come to that. ``thinking_at`` is when the reply was begun, where that was before
    ``decided_at``. ``troubles`` is what went wrong beside the conversation.
    """

    number: int
    by: InputBy = InputBy.NONE
    caller_text: str = ""
    confidence: float | None = None
    accepted: bool = True
    interrupted: bool = False
    speech_start_at: float | None = None
    speech_end_at: float | None = None
    decided_at: float | None = None
    utterances: list[Utterance] = field(default_factory=list)
    meant: list[str] = field(default_factory=list)
    stages: list[StageTiming] = field(default_factory=list)
    thinking_at: float | None = None
    ended_by: str = ""
    probability: float | None = None
    pauses: int = 0
    speculation: Speculation = field(default_factory=Speculation)
    tools: list[ToolRun] = field(default_factory=list)
    asked: str = ""
    server: str = ""
    problem: str = ""
    troubles: list[str] = field(default_factory=list)

    def trouble(self, problem: str) -> None:
        """Something beside the conversation went wrong in it."""
        if len(self.troubles) < _MAX_TROUBLES and problem not in self.troubles:
            self.troubles.append(problem)

    @property
    def reply(self) -> list[Utterance]:
        """What was said, without what only bridged a wait."""
        return [utterance for utterance in self.utterances if not utterance.filler]

    @property
    def bridged(self) -> bool:
        """The last that was said only bridged a wait."""
        return bool(self.utterances) and self.utterances[-1].filler

    @property
    def heard_text(self) -> str:
        """What left of the reply."""
        return " ".join(text for utterance in self.reply if (text := utterance.heard))

    @property
    def agent_text(self) -> str:
        return " ".join(utterance.text for utterance in self.reply if utterance.clauses)

    @property
    def took_s(self) -> float | None:
        """How long the reply's first sound took to be made; None where there is none, or it waited for more."""
        begun_at = self.thinking_at if self.thinking_at is not None else self.decided_at
        first = next(iter(self.reply), None)
        if self.by is not InputBy.VOICE or self.tools or self.problem or begun_at is None:
            return None
        return first.first_audio_at - begun_at if first is not None and first.first_audio_at is not None else None

    @property
    def empty(self) -> bool:
        """Nothing was said by either side."""
        return not self.caller_text and not any(utterance.clauses for utterance in self.utterances)

    def so_far(self, call_id: str, answered_at: float, now_utc: datetime) -> TurnFinished:
        """The turn while it goes on; once the reply is to be heard, with all of it that is known."""
        heard = any(utterance.started_at is not None for utterance in self.reply)
        meant = (" ".join(self.meant) or self.agent_text) if heard else ""
        return replace(self.finished(call_id, answered_at, now_utc), agent_text=meant)

    def finished(self, call_id: str, answered_at: float, now_utc: datetime) -> TurnFinished:
        """The turn as the record and the metrics take it."""
        first = next((utterance for utterance in self.reply if utterance.started_at is not None), None)
        reply_at = first.started_at if first is not None else None
        stages = list(self.stages)
        if first is not None and first.asked_at is not None and first.first_audio_at is not None:
            begun_at = self.thinking_at if self.thinking_at is not None else self.decided_at
            if begun_at is not None:
                stages.append(StageTiming(Stage.REPLY, begun_at, first.asked_at))
            stages.append(StageTiming(Stage.TTS, first.asked_at, first.first_audio_at))
            if reply_at is not None:
                queued_at = max(first.first_audio_at, first.released_at or first.first_audio_at)
                stages.append(StageTiming(Stage.PLAYOUT, queued_at, reply_at))
        return TurnFinished(
            call_id=call_id,
            number=self.number,
            finished_utc=now_utc,
            answered_at=answered_at,
            by=self.by,
            caller_text=self.caller_text,
            confidence=self.confidence,
            accepted=self.accepted,
            agent_text=self.agent_text,
            heard_text=self.heard_text,
            interrupted=self.interrupted,
            speech_start_at=self.speech_start_at,
            speech_end_at=self.speech_end_at,
            reply_at=reply_at,
            stages=tuple(sorted(stages, key=lambda timing: timing.start_at)),
            ended_by=self.ended_by,
            probability=self.probability,
            pauses=self.pauses,
            speculation=self.speculation,
            tools=tuple(self.tools),
            asked=self.asked,
            server=self.server,
            problem="; ".join(filter(None, (self.problem, *self.troubles))),
        )


class Progress:
    """Tells how a turn goes, where that has changed: ``on_news`` gets the turn, what happens and what is heard."""

    def __init__(self, on_news: Callable[[TurnLog, Doing, str], None]) -> None:
        self._on_news = on_news
        self._told: tuple[object, ...] = ()

    def tell(self, turn: TurnLog, doing: Doing, hearing: str) -> None:
        news = (doing, turn.number, turn.caller_text, len(turn.meant), turn.interrupted, turn.heard_text, hearing)
        if news != self._told:
            self._told = news
            self._on_news(turn, doing, hearing)
