"""What callers ask of any speaker, whatever the talk is about: to say it again, to speak more slowly, yes or no. PURE.

Only an utterance that is nothing but such a request counts: "say that again in Spanish" is for whoever leads.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from typing import Final

from appliance.tool_types import LEAVE


class Request(enum.Enum):
    """What the caller wants of the voice."""

    REPEAT = "repeat"
    SLOWER = "slower"
    FASTER = "faster"


SLOWER_BY: Final = 0.82
SLOWEST: Final = 0.6
FASTEST: Final = 1.25

_SAID: Final[Mapping[str, Mapping[Request, str]]] = {
    "en": {
        Request.REPEAT: """
            again / once more / one more time / come again / say again / say it again / say that again / say this again
            say that one more time / say it one more time / say that once more / say it once more / repeat / repeat that
            repeat it / repeat this / repeat that again / repeat the question / repeat your question / repeat yourself
            sorry / excuse me / pardon / pardon me / beg your pardon / what did you say / what was that
            what did you just say
            what was that again / what was the question / what was your question / what / i did not catch that
            i didn't catch that / i did not hear you / i didn't hear you / i did not hear that / i didn't hear that
            i did not get that / i didn't get that / i couldn't hear you / i could not hear you / i couldn't hear that
            """,
        Request.SLOWER: """
            slower / more slowly / slow down / slowly / a bit slower / a little slower / a little bit slower
            speak slower / talk slower / go slower / speak slowly / talk slowly / speak more slowly / talk more slowly
            go more slowly / speak a bit slower / speak a little slower / speak a bit more slowly
            speak a little more slowly / talk a bit slower / talk a little slower / slow down a bit / slow down a little
            say that slower / say that slowly / say that more slowly / say it slower / say it slowly
            say it more slowly
            say that again slower / say that again slowly / say that again more slowly / repeat that slowly
            repeat that more slowly / too fast / that's too fast / that is too fast / that was too fast / not so fast
            you are too fast / you're too fast / you are speaking too fast / you're speaking too fast
            you are talking too fast / you're talking too fast / you speak too fast / you talk too fast
            """,
        Request.FASTER: """
            faster / speak faster / talk faster / go faster / a bit faster / a little faster / speak a bit faster
            talk a bit faster / speak a little faster / speed up / quicker / too slow / that's too slow
            you are too slow / you're too slow / you are speaking too slowly / you're speaking too slowly
            """,
    },
    "de": {
        Request.REPEAT: """
            noch mal / nochmal / noch einmal / nochmals / das noch mal / das nochmal / das noch einmal / wiederholen
            das wiederholen / wiederholen sie / wiederholen sie das / das noch einmal wiederholen / wie / wie war das
            das noch mal sagen / das noch einmal sagen / was haben sie gesagt / was war das / wie war die frage
            das habe ich nicht verstanden / ich habe das nicht verstanden / ich habe sie nicht verstanden
            """,
        Request.SLOWER: """
            langsamer / langsam / etwas langsamer / ein bisschen langsamer / ein wenig langsamer / langsamer sprechen
            etwas langsamer sprechen / ein bisschen langsamer sprechen / sprechen sie langsamer / zu schnell
            sprechen sie etwas langsamer / sprechen sie ein bisschen langsamer / nicht so schnell / das war zu schnell
            das ist zu schnell / sie sprechen zu schnell / sie reden zu schnell
            """,
        Request.FASTER: """
            schneller / etwas schneller / schneller sprechen / sprechen sie schneller / sprechen sie etwas schneller
            zu langsam / sie sprechen zu langsam
            """,
    },
    "fr": {
        Request.REPEAT: """
            répéter / répétez / répéter cela / répéter ça / répétez cela / répétez ça / comment / pardon
            encore une fois
            qu'avez vous dit / qu'est ce que vous avez dit / redire / je n'ai pas compris / je n'ai pas entendu
            """,
        Request.SLOWER: """
            plus lentement / moins vite / parler plus lentement / parlez plus lentement / parler moins vite
            parlez moins vite / un peu plus lentement / parler un peu plus lentement / parlez un peu plus lentement
            trop vite / c'est trop vite / vous parlez trop vite
            """,
        Request.FASTER: "plus vite / parlez plus vite / un peu plus vite / trop lentement / vous parlez trop lentement",
    },
    "es": {
        Request.REPEAT: """
            repetir / repetirlo / repita / repítalo / repetir eso / repita eso / cómo / cómo dice
            cómo ha dicho / perdón / otra vez / una vez más / qué ha dicho / no le he oído / no he entendido
            """,
        Request.SLOWER: """
            más despacio / más lento / más lentamente / hablar más despacio / hable más despacio / un poco más despacio
            hablar un poco más despacio / hable un poco más despacio / demasiado rápido / habla demasiado rápido
            """,
        Request.FASTER: "más rápido / hable más rápido / un poco más rápido / demasiado lento / habla demasiado lento",
    },
}
_POLITE: Final[Mapping[str, str]] = {
    "en": r"\b(?:please|sorry|i'm sorry|excuse me|hey|oh|um+|uh+|hm+|okay|ok|thanks|thank you|just|"
    r"(?:can|could|would|will) you|i(?! (?:did|didn't|could|couldn't)\b))\b",
    "de": r"\b(?:bitte|entschuldigung|entschuldigen sie|äh+m?|danke|oh|(?:können|könnten) sie|kannst du)\b",
    "fr": r"\b(?:s'il vous plaît|s'il te plaît|excusez moi|désolée?|euh+|merci|(?:pouvez|pourriez) vous|vous pouvez)\b",
    "es": r"\b(?:por favor|disculpe|perdone|lo siento|eh+|gracias|puede|podría|me lo|me)\b",
}
_YES: Final[Mapping[str, str]] = {
    "en": r"(?:yes|yeah|yep|yup|sure|of course|okay|ok|right|correct|that's right|go ahead|do it|please do|i do|i am|"
    r"absolutely|definitely|exactly|that is (?:right|correct)|fine|affirmative)(?: .*)?",
    "de": r"(?:ja|jawohl|genau|richtig|gerne?|natürlich|klar|stimmt|sicher|in ordnung|okay|ok)(?: .*)?",
    "fr": r"(?:oui|ouais|d'accord|bien sûr|exactement|tout à fait|c'est ça|allez y)(?: .*)?",
    "es": r"(?:sí|si|claro|vale|de acuerdo|correcto|exacto|por supuesto|adelante)(?: .*)?",
    "it": r"(?:sì|si|certo|certamente|va bene|d'accordo|esatto|giusto|volentieri|okay|ok)(?: .*)?",
}
_NO: Final[Mapping[str, str]] = {
    "en": r"no|nope|nah|never|not|\w+n't|cancel|stop|wait|wrong|incorrect|rather not",
    "de": r"nein|nicht|nee|ne|kein|keine|keinesfalls|falsch|stopp|warten|halt",
    "fr": r"non|pas|jamais|attendez|faux|annulez",
    "es": r"no|nunca|tampoco|espere|incorrecto|cancele",
    "it": r"no|non|mai|neanche|sbagliato|aspetti|annulli",
}
_FILLERS: Final[Mapping[str, tuple[str, ...]]] = {
    "en": ("One moment, please.", "I am still working on it.", "Thank you for waiting."),
    "de": ("Einen Moment, bitte.", "Ich bin noch dabei.", "Danke, dass Sie warten."),
    "fr": ("Un instant, s'il vous plaît.", "Je m'en occupe encore.", "Merci de patienter."),
    "es": ("Un momento, por favor.", "Sigo en ello.", "Gracias por esperar."),
    "it": ("Un momento, per favore.", "Ci sto ancora lavorando.", "Grazie per l'attesa."),
}
_APOLOGIES: Final[Mapping[str, str]] = {
    "en": "I am sorry, something went wrong on my side. Please try again.",
    "de": "Es tut mir leid, bei mir ist etwas schiefgegangen. Bitte versuchen Sie es noch einmal.",
    "fr": "Je suis désolée, il y a eu un problème de mon côté. Veuillez réessayer.",
    "es": "Lo siento, algo ha fallado por mi parte. Por favor, inténtelo de nuevo.",
    "it": "Mi dispiace, c'è stato un problema da parte mia. Per favore, riprovi.",
}
_NOT_UNDERSTOOD: Final[Mapping[str, str]] = {
    "en": "I am sorry, I did not understand that. Could you say it in other words?",
    "de": "Entschuldigung, das habe ich nicht verstanden. Können Sie es anders sagen?",
    "fr": "Excusez-moi, je n'ai pas compris. Pouvez-vous le dire autrement ?",
    "es": "Disculpe, no le he entendido. ¿Puede decirlo de otra manera?",
    "it": "Mi scusi, non ho capito. Può dirlo in un altro modo?",
}
_FAREWELLS: Final[Mapping[str, str]] = {
    "en": "I am sorry, I cannot help you right now. Goodbye.",
    "de": "Es tut mir leid, ich kann Ihnen gerade nicht helfen. Auf Wiederhören.",
    "fr": "Je suis désolée, je ne peux pas vous aider pour le moment. Au revoir.",
    "es": "Lo siento, ahora mismo no puedo ayudarle. Adiós.",
    "it": "Mi dispiace, al momento non posso aiutarla. Arrivederci.",
}
_LEAVE: Final[Mapping[str, str]] = {
    "en": LEAVE,
    "de": "Soll ich das wirklich tun?",
    "fr": "Voulez-vous vraiment que je le fasse ?",
    "es": "¿De verdad quiere que lo haga?",
    "it": "Vuole davvero che lo faccia?",
}
_GIVEN_UP: Final[Mapping[str, str]] = {
    "en": "I am sorry, I cannot help you right now.",
    "de": "Es tut mir leid, ich kann Ihnen gerade nicht helfen.",
    "fr": "Je suis désolée, je ne peux pas vous aider pour le moment.",
    "es": "Lo siento, ahora mismo no puedo ayudarle.",
    "it": "Mi dispiace, al momento non posso aiutarla.",
}
_NOBODY: Final[Mapping[str, str]] = {
    "en": "I am sorry, nobody can take your call right now.",
    "de": "Es tut mir leid, im Moment ist niemand erreichbar.",
    "fr": "Je suis désolé, personne n'est disponible pour le moment.",
    "es": "Lo siento, en este momento no hay nadie disponible.",
    "it": "Mi dispiace, al momento non c'è nessuno disponibile.",
}
_CALL_AGAIN: Final[Mapping[str, str]] = {
    "en": "Please try again later. Goodbye.",
    "de": "Bitte versuchen Sie es später noch einmal. Auf Wiederhören.",
    "fr": "Veuillez rappeler plus tard. Au revoir.",
    "es": "Por favor, llame más tarde. Adiós.",
    "it": "Per favore, richiami più tardi. Arrivederci.",
}
_TIME_IS_UP: Final[Mapping[str, str]] = {
    "en": "We have reached the longest time that a call may take. Goodbye.",
    "de": "Die Höchstdauer für ein Gespräch ist erreicht. Auf Wiederhören.",
    "fr": "La durée maximale d'un appel est atteinte. Au revoir.",
    "es": "Hemos llegado a la duración máxima de una llamada. Adiós.",
    "it": "Abbiamo raggiunto la durata massima di una chiamata. Arrivederci.",
}
_SIGN_OFF: Final[Mapping[str, str]] = {
    "en": "I am sorry, I have to end this call now. Goodbye.",
    "de": "Es tut mir leid, ich muss das Gespräch jetzt beenden. Auf Wiederhören.",
    "fr": "Je suis désolée, je dois mettre fin à cet appel. Au revoir.",
    "es": "Lo siento, tengo que terminar esta llamada. Adiós.",
    "it": "Mi dispiace, devo chiudere la chiamata adesso. Arrivederci.",
}
_PHRASES: Final[Mapping[Request, tuple[str, ...]]] = {
    Request.REPEAT: ("could you repeat that", "please repeat that", "can you say that again", "what did you say"),
    Request.SLOWER: ("please speak slower", "speak more slowly", "you are speaking too fast"),
}
_OTHER: Final = re.compile(r"[^\w' ]+")


def request_in(text: str, language: str) -> Request | None:
    """What the caller asks of the voice, where that is all that was said.

    Args:
        text: what was recognised.
        language: of the line, such as ``en-us``.
    """
    language = _base(language)
    words = _words(text)
    bare = " ".join(re.sub(_POLITE[language], " ", words).split()) if language in _POLITE else words
    said = _REQUESTS.get(language, {})
    return said.get(bare) or said.get(words)


def phrases(language: str, requests: Iterable[Request] = tuple(Request)) -> tuple[str, ...]:
    """What a recogniser with a closed list must know to hear ``requests``; empty where it speaks another language."""
    if _base(language) != "en":
        return ()
    return tuple(phrase for request in Request if request in requests for phrase in _PHRASES.get(request, ()))


def agrees(text: str, language: str) -> bool | None:
    """Whether the caller said yes (True) or no (False) to a question; None where that is not clear.

    A no anywhere in it is a no: what is asked for is leave to do something.
    """
    words = _words(text)
    base = _base(language)
    no = _NO.get(base, _NO["en"])
    if re.search(rf"\b(?:{no})\b", words):
        return False
    return True if re.fullmatch(_YES.get(base, _YES["en"]), words) else None


def fillers(language: str) -> tuple[str, ...]:
    """What bridges a wait, in turn; in English where ``language`` is not known, as all that follows."""
    return _FILLERS.get(_base(language), _FILLERS["en"])


def apology(language: str) -> str:
    """Said where a reply has failed, and the caller may try again."""
    return _APOLOGIES.get(_base(language), _APOLOGIES["en"])


def not_understood(language: str) -> str:
    """Said where nothing could be made of the caller's words."""
    return _NOT_UNDERSTOOD.get(_base(language), _NOT_UNDERSTOOD["en"])


def farewell(language: str) -> str:
    """Said where replies fail again and again, before the call is ended."""
    return _FAREWELLS.get(_base(language), _FAREWELLS["en"])


def leave(language: str) -> str:
    """Asked before something is done that cannot be undone, where nobody has said what else to ask."""
    return _LEAVE.get(_base(language), LEAVE)


def given_up(language: str) -> str:
    """Said where replies have failed, and somebody else goes on with the caller."""
    return _GIVEN_UP.get(_base(language), _GIVEN_UP["en"])


def nobody_there(language: str) -> str:
    """Said where the caller could not be handed on."""
    return _NOBODY.get(_base(language), _NOBODY["en"])


def call_again(language: str) -> str:
    """Said after that, where the call is ended."""
    return _CALL_AGAIN.get(_base(language), _CALL_AGAIN["en"])


def time_is_up(language: str) -> str:
    """Said where a call has taken as long as it may, before it is ended."""
    return _TIME_IS_UP.get(_base(language), _TIME_IS_UP["en"])


def sign_off(language: str) -> str:
    """Said where a call is ended because nobody wants it to go on."""
    return _SIGN_OFF.get(_base(language), _SIGN_OFF["en"])


def changed(pace: float, request: Request) -> float:
    """The pace after one more wish for slower or faster speech; within what still sounds like speech."""
    return max(SLOWEST, pace * SLOWER_BY) if request is Request.SLOWER else min(FASTEST, pace / SLOWER_BY)


def _base(language: str) -> str:
    return language.partition("-")[0]


def _words(text: str) -> str:
    return " ".join(_OTHER.sub(" ", text.lower().replace("’", "'").replace("-", " ")).split())


_REQUESTS: Final[Mapping[str, Mapping[str, Request]]] = {
    language: {
        _words(phrase): request
        for request, listed in said.items()
        for phrase in re.split(r"[/\n]", listed)
        if phrase.strip()
    }
    for language, said in _SAID.items()
}
"""By language, every wording of a request, as :func:`_words` writes it."""
