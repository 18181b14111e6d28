"""What comes before all else on a line that records: telling the caller, or asking whether it may be done."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from appliance.calls import brains
from appliance.conversation import manners
from appliance.conversation.brain import (
    OPEN,
    Brain,
    Consented,
    EnginesFailed,
    Expectation,
    Gate,
    Heard,
    Input,
    Key,
    Listen,
    Opening,
    Say,
    Silence,
    Spoken,
    Step,
)
from appliance.dialplan.schema import Line, Recording
from appliance.dialplan.text import render
from appliance.events import Consent, ToolRun
from appliance.signalling.leg import CallInfo

_ANNOUNCED: Final[Mapping[str, str]] = {
    "en": "This call is recorded.",
    "de": "Dieses Gespräch wird aufgezeichnet.",
    "fr": "Cet appel est enregistré.",
    "es": "Esta llamada se graba.",
    "it": "Questa chiamata viene registrata.",
}
_ASKED: Final[Mapping[str, str]] = {
    "en": "May we record this call? Please say yes or no, or press 1 for yes and 2 for no.",
    "de": "Dürfen wir dieses Gespräch aufzeichnen? Sagen Sie bitte ja oder nein, oder drücken Sie 1 oder 2.",
    "fr": "Pouvons-nous enregistrer cet appel ? Dites oui ou non, ou tapez 1 pour oui et 2 pour non.",
    "es": "¿Podemos grabar esta llamada? Diga sí o no, o pulse 1 para sí y 2 para no.",
    "it": "Possiamo registrare questa chiamata? Dica sì o no, oppure prema 1 per sì e 2 per no.",
}
_REFUSED: Final[Mapping[str, str]] = {
    "en": "All right, it is not recorded.",
    "de": "In Ordnung, es wird nicht aufgezeichnet.",
    "fr": "Très bien, il n'est pas enregistré.",
    "es": "De acuerdo, no se graba.",
    "it": "Va bene, non viene registrata.",
}
_ANSWERS: Final = (
    "yes", "yes please", "yes you may", "yeah", "sure", "of course", "okay", "that's fine", "no", "no thanks",
    "no thank you", "no please don't", "rather not", "i'd rather not",
)  # fmt: skip
"""What a recogniser with a closed list must know, where it speaks English."""
_KEYS: Final = {"1": True, "2": False}
_TIMES: Final = 2
"""So often the question is asked; no answer is a no."""


def texts_of(rule: Recording, language: str) -> tuple[str, str]:
    """What is said first, and what after a no; ``language`` is what is spoken."""
    base = language.partition("-")[0]
    base = base if base in _ASKED else "en"
    first = rule.announce or _ANNOUNCED[base] if rule.consent == "announce" else rule.ask or _ASKED[base]
    return first, _REFUSED[base] if rule.refused is None else rule.refused


def told_of(line: Line) -> bool:
    """Whether callers of ``line`` are told of the recording, or asked."""
    return line.record.enabled and line.record.consent != "none"


def without_disclosure(line: Line) -> Line:
    """What is left for whoever leads the conversation to say: the disclosure comes before the consent."""
    return line.model_copy(update={"disclosure": None})


def opening_of(line: Line, info: CallInfo) -> list[str]:
    """What a caller who has just been put through is told, in the pieces that it is said in."""
    if not told_of(line):
        return brains.opening_of(line, info)
    own = [say.text for say in _first(line, info)]
    return own + brains.opening_of(without_disclosure(line), info)


def with_consent(brain: Brain, line: Line, info: CallInfo) -> Brain:
    """``brain``, which has been made for the line :func:`without_disclosure`, after the caller is told or asked."""
    _, refused = texts_of(line.record, brains.spoken_language(line))
    return ConsentBrain(
        brain,
        first=_first(line, info),
        refused=[Say(piece) for piece in brains.pieces_of(render(refused, brains.values_of(line, info)))],
        asks=line.record.consent == "ask",
        language=line.language,
        no_input_s=line.no_input.after_s,
    )


def _first(line: Line, info: CallInfo) -> list[Say]:
    values = brains.values_of(line, info)
    text, _ = texts_of(line.record, brains.spoken_language(line))
    asks = line.record.consent == "ask"
    said = [Say(piece, False) for piece in brains.pieces_of(render(line.disclosure or "", values))]
    return said + [Say(piece, asks) for piece in brains.pieces_of(render(text, values))]


class ConsentBrain:
    """Tells or asks the caller, and leaves the rest of the conversation to ``brain``.

    Args:
        brain: begins with its opening once this is settled.
        first: what the caller is told or asked, after the disclosure; what may be interrupted of it is the question.
        refused: said after a no.
        asks: the caller has to agree.
        language: of the caller.
        no_input_s: silence after which the question is asked once more.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        first: Sequence[Say],
        refused: Sequence[Say],
        asks: bool,
        language: str,
        no_input_s: float,
    ) -> None:
        self._brain = brain
        self._first = tuple(first)
        self._refused = tuple(refused)
        self._asks = asks
        self._language = language
        english = language.partition("-")[0] == "en"
        self._expectation = Expectation(_ANSWERS if english else (), reject=english, no_input_s=no_input_s)
        self._asked = 0
        self._settled = False
        self._own: list[str] = []

    @property
    def slots(self) -> Mapping[str, str]:
        return self._brain.slots

    @property
    def tokens(self) -> int:
        return self._brain.tokens

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        self._brain.report_tools(report)

    def fork(self) -> ConsentBrain:
        twin = copy.copy(self)
        twin._brain = self._brain.fork()
        twin._own = list(self._own)
        return twin

    async def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """Until it is settled, only what it takes to settle it."""
        if not isinstance(heard, Spoken):
            self._own = []
        if not self._settled:
            await gate.passed()
            for step in self._settle(heard):
                if isinstance(step, Say):
                    self._own.append(step.text)
                yield step
            if not self._settled:
                return
            heard = heard if isinstance(heard, EnginesFailed) else Opening()
        steps = self._brain.reply(heard, gate)
        async with aclosing(steps):  # type: ignore[type-var]  # an async generator; its Protocol has no aclose
            async for step in steps:
                yield step

    def was_said(self, meant: str, said: str) -> None:
        if meant in self._own:
            self._own[self._own.index(meant)] = said
        elif self._settled:
            self._brain.was_said(meant, said)

    def was_heard(self, text: str) -> None:
        """What was heard of the brain's own words comes after what was said here."""
        if self._settled:
            own = sum(len(said.split()) for said in self._own)
            self._brain.was_heard(" ".join(text.split()[own:]))

    async def close(self) -> None:
        await self._brain.close()

    def _settle(self, heard: Input) -> list[Step]:
        match heard:
            case Opening() if not self._asks:
                self._settled = True
                return [*self._first, Consented(Consent.ANNOUNCED)]
            case Opening():
                self._asked = 1
                return [*self._first, Listen(self._expectation)]
            case Heard(text):
                return self._answered(manners.agrees(text, self._language) if text else None)
            case Key(digit):
                return self._answered(_KEYS.get(digit))
            case Silence():
                return self._answered(None)
            case EnginesFailed():
                self._settled = True
                return [Consented(Consent.UNANSWERED)]
            case _:
                return []

    def _answered(self, agrees: bool | None) -> list[Step]:
        if agrees is None and self._asked < _TIMES:
            self._asked += 1
            return [*(say for say in self._first if say.interruptible), Listen(self._expectation)]
        self._settled = True
        if agrees:
            return [Consented(Consent.GIVEN)]
        return [Consented(Consent.UNANSWERED if agrees is None else Consent.REFUSED), *self._refused]
