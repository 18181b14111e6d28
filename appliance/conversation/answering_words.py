"""What the words of a greeting say about who speaks. PURE.

A phrase adds to the logarithm of the odds that a machine speaks, or takes from it; every phrase counts once, however
often it is recognised. What a recogniser misses says nothing.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_NOT_WORDS: Final = re.compile(r"[^\w' ]+")
_SPACES: Final = re.compile(r"\s+")
_MOST: Final = 7.0
_SCREENS: Final = 2.5
_NOTHING_FOUND: Final = 0.8

_MACHINE: Final = (
    # English
    (r"leave (me |us )?(a|your|the) (short |brief |detailed )?(message|name|number|details)", 4.5),
    (r"(please leave|leave your|your message|name and number)", 3.5),
    (r"(after|at|for|until) (you hear )?the (tone|beep|signal)", 4.5),
    (r"(you have|you've|you) reached", 3.0),
    (r"\bmessage\b", 2.5),
    (r"(?<!person is )\bavailable\b", 1.0),
    (r"(not available|unavailable|(nobody|no one|none of us) (is|are) )", 3.5),
    (r"(can't|cannot|can not|unable to|not able to) (come to|get to|take|answer)", 3.5),
    (r"(take your call|come to the phone)", 3.0),
    (r"(voice ?mail|mailbox|answering machine|voice message)", 3.5),
    (r"(get back to you|call you back|return your call|missed your call|soon as possible|as soon as)", 3.0),
    (r"(the (number|customer|subscriber) you|forwarded to|switched off)", 3.0),
    (r"the person you", 1.5),
    (r"(please record|record your message|hang up|(press|dial) (one|two|star|pound|[0-9])|pound key)", 3.0),
    (r"(call back later|try again later|not at home|out of the office|office is closed|office hours)", 2.5),
    # Spanish, Portuguese
    (r"(deje|deja|dejen) (su|un|tu|el|sus) (mensaje|nombre|recado)", 4.5),
    (r"despu[eé]s de(l tono| la señal| o[ií]r)|buz[oó]n de voz|contestador", 4.5),
    (r"no (podemos|puedo|puede) atender|no (est[aá]|se encuentra) disponible", 3.5),
    (r"deixe (a sua |uma |o seu )?(mensagem|recado)|ap[oó]s o (sinal|bip)|caixa postal", 4.5),
    # French
    (r"laissez(-| )?(moi |nous )?(un|votre|vos) (message|nom|coordonn)", 4.5),
    (r"apr[eè]s le (bip|signal)|r[eé]pondeur|messagerie vocale|bo[iî]te vocale", 4.5),
    (r"(pas|in)(suis |sommes |est )?\s?disponible|rappeller", 3.0),
    # German
    (r"nachricht (hinterlassen|nach)|hinterlassen sie|nach dem (signal|pieps|piep)?ton|anrufbeantworter", 4.5),
    (r"(nicht|zur ?zeit) (zu hause|erreichbar|erreichen|zu sprechen)|sprachbox|mailbox", 3.5),
    # Italian
    (r"lasci(ate|are|a|i) (un|il vostro|il suo) messaggio|dopo il (segnale|bip)|segreteria telefonica", 4.5),
    (r"non (siamo|sono|[eè]) (in casa|disponibil|al momento)", 3.0),
    # Russian
    (r"оставьте (ваше |свое |своё )?сообщение|после (звукового )?(сигнала|гудка)|автоответчик|абонент", 4.5),
)
_HUMAN: Final = (
    (r"how (can|may) i (help|direct)|(can|may) i help|what can i do for|how may i", 3.0),
    (r"help you|who is (this|calling)|who's (this|calling|there)", 1.5),
    (r"\bspeaking\b|hold (on|for a moment|please)|one (moment|second)", 1.0),
    (r"(puedo|podemos) (ayudar|servir)|puis je|kann ich (für|ihnen)|posso (aiutar|esser)|чем могу", 3.0),
    (r"^(hello|hi|hey|yes|yeah|yep|hallo|all[oô]|pronto|diga|dígame|sí|алло|да|oui|ja)( (hello|hallo))?$", 1.5),
)
_SCREENING: Final = (
    (r"(state|say|record|give|tell me|announce) (me )?your (full )?name", 3.5),
    (
        r"reason (for|of) (your call|calling|the call)|why (you're|you are|are you) calling|what (it's|this is) about",
        3.5,
    ),
    (r"\bscreen(ing|ed)\b|(screening|virtual|personal) assistant", 3.5),
    (r"(see|check|find out) (if|whether) .{0,30}(available|free|talk|there)|wants to know", 3.0),
    (r"(call will be|connect your call|try to connect)", 2.0),
    (r"(?<!leave )\byour name\b", 2.5),
    (r"(su nombre|votre nom|ihren namen|il (suo|vostro) nome).{0,40}(motivo|raison|grund)", 4.0),
)


def _compiled(patterns: tuple[tuple[str, float], ...]) -> tuple[tuple[re.Pattern[str], float], ...]:
    return tuple((re.compile(pattern), weight) for pattern, weight in patterns)


_MACHINE_FOUND: Final = _compiled(_MACHINE)
_HUMAN_FOUND: Final = _compiled(_HUMAN)
_SCREENING_FOUND: Final = _compiled(_SCREENING)


class Weight(NamedTuple):
    """What was said so far, as logarithms of odds, none below 0.

    Attributes:
        machine: that a machine speaks rather than a person.
        human: the reverse.
        screening: that it asks for the caller's name and business.
        said: the most telling words, for the record.
    """

    machine: float = 0.0
    human: float = 0.0
    screening: float = 0.0
    said: str = ""

    @property
    def towards_machine(self) -> float:
        """What it adds to the logarithm of the odds of a machine."""
        return self.machine - self.human

    @property
    def screens(self) -> bool:
        """Whether an assistant asks who calls."""
        return self.screening >= _SCREENS and self.screening > self.machine


class Words:
    """The words of one greeting, as they come."""

    def __init__(self) -> None:
        self._found: dict[re.Pattern[str], tuple[str, float]] = {}
        self._listened = False

    def hear(self, text: str) -> Weight:
        """Take one transcript, of a part or of the whole; returns what all of them say.

        One in which no phrase is found speaks a little for a person: a machine would probably have said one.
        """
        self._listened = True
        plain = _SPACES.sub(
            " ", _NOT_WORDS.sub(" ", text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
        ).strip()
        for patterns in (_MACHINE_FOUND, _HUMAN_FOUND, _SCREENING_FOUND):
            for pattern, weight in patterns:
                found = pattern.search(plain)
                if found is not None:
                    self._found.setdefault(pattern, (found[0].strip(), weight))
        return self.weight

    @property
    def weight(self) -> Weight:
        """What the words so far say."""
        sums = [
            min(_MOST, sum(self._found[pattern][1] for pattern, _ in patterns if pattern in self._found))
            for patterns in (_MACHINE_FOUND, _HUMAN_FOUND, _SCREENING_FOUND)
        ]
        strongest = max(self._found.values(), key=lambda found: found[1], default=("", 0.0))
        if self._listened and not any(sums):
            return Weight(0.0, _NOTHING_FOUND)
        machine, human, screening = sums
        return Weight(machine, human, screening, strongest[0])
