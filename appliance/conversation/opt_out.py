"""How people ask not to be called again, and what they are told: in every call that the box has placed. PURE.

Only what is asked for is a wish; when to call instead is not: "do not call me before ten" is for whoever leads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_LANGUAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "en": (
        r"(?:stop|quit) (?:calling|phoning|ringing|contacting|bothering|harassing|robocalling)\b",
        r"(?:don't|dont|do not|never|not to|must not|can't|cannot) (?:ever |you |dare )*"
        r"(?:call|phone|ring|contact|bother)"
        r"(?: me| us| my \w+| this (?:number|phone|house)| here| back| him| her| them| again| anymore| any more| ever)*"
        r"$",
        r"(?:don't|dont|do not|never|not) (?:ever )?(?:call|phone|ring|contact)\b.*\b(?:again|anymore|any more|ever)\b",
        r"(?:take|remove|delete|get|strike|scratch|wipe) (?:me|us|him|her|(?:my|our) (?:\w+ )?(?:number|name|details)|"
        r"(?:this|that|the) (?:\w+ )?number)(?: please)? (?:off|from|out of|of)\b",
        r"(?:remove|delete|lose|forget|erase) (?:me|us|my (?:\w+ )?number|(?:this|our) number)\b",
        r"(?:take|get) (?:off|from) (?:your|the) (?:\w+ )?list\b",
        r"\bopt(?:ed|ing)?(?: me| us)? out\b",
        r"\bunsubscribe\b",
        r"\bdo not call (?:list|registry|register)\b",
        r"\bno more calls\b",
        r"(?:don't|dont|do not) want (?:you to (?:call|phone|ring)|any (?:more )?(?:of )?(?:your |these )?calls|"
        r"(?:your|these|those) calls|to be called)\b",
    ),
    "de": (
        r"(?:ruf|rufe|rufen|rufst) (?:sie )?(?:mich |uns |hier |bitte |diese nummer )*"
        r"(?:nicht mehr|nie mehr|nie wieder|nicht wieder|nicht noch einmal)\b",
        r"\b(?:nicht mehr|nie mehr|nie wieder) (?:an ?rufen|angerufen|anruft|anrufst|kontaktieren)\b",
        r"\b(?:keine|keinerlei) (?:weiteren |mehr )?(?:anrufe|werbeanrufe|werbung)\b",
        r"\b(?:hören|hör) (?:sie )?(?:bitte )?auf (?:mich |uns |hier )?(?:an ?zu ?rufen|zu belästigen)\b",
        r"\b(?:streichen|löschen|nehmen|entfernen|streich|lösch|nimm|entferne) (?:sie )?(?:bitte )?"
        r"(?:mich|uns|meine nummer|diese nummer|meine daten|unsere nummer)\b",
        r"\bvon (?:ihrer|der|eurer|deiner) (?:anruf)?liste\b",
        r"\blassen sie mich in ruhe\b",
    ),
    "fr": (
        r"\b(?:appelez|rappelez|appeler|rappeler|téléphonez|contactez|contacter)(?: moi)? (?:plus|jamais)\b",
        r"\bne (?:plus|jamais|plus jamais) (?:m'|me |nous )?(?:appeler|rappeler|contacter|téléphoner)\b",
        r"\b(?:arrêtez|arrêter|cessez) de (?:m'|me |nous )?(?:appeler|rappeler|contacter|déranger|harceler)\b",
        r"\b(?:retir|supprim|enlev|ray|effac)(?:ez|er)\b.*\b(?:liste|numéro|coordonnées)\b",
        r"\bplus (?:d'appels|d'appel|aucun appel)\b",
        r"\bliste (?:rouge|d'opposition)\b",
    ),
    "es": (
        r"\b(?:no|nunca) (?:me|nos) (?:vuelva|vuelvan|vuelvas) a (?:llamar|contactar|molestar)\b",
        r"\b(?:no|nunca) (?:me|nos) (?:llame|llamen|llames|contacte|contacten)"
        r"(?: más| nunca| de nuevo| nunca más| otra vez|$)",
        r"\b(?:deje|dejen|deja|paren|pare) de (?:llamar|llamarme|llamarnos|molestar|molestarme)\b",
        r"\b(?:quit|quít|borr|bórr|elimin|elimín|saqu|sáqu)\w+\b.*\b(?:lista|número|numero)\b",
        r"\b(?:deme|déme|darme|dar) de baja\b",
        r"\bno (?:quiero|deseo) (?:que me llamen|que me llame|más llamadas|recibir (?:más )?llamadas)\b",
        r"\bno más llamadas\b",
        r"\blista (?:robinson|de no llamar)\b",
    ),
    "it": (
        r"\bnon (?:mi |ci )?(?:chiam|telefon|contatt)\w+(?: mai)? più\b",
        r"\bnon (?:voglio|desidero) (?:più )?(?:essere chiamat[oa]|ricevere (?:altre )?(?:chiamate|telefonate)|"
        r"chiamate|telefonate|che mi chiam\w+)\b",
        r"\b(?:smettete|smetta|smettetela|smettila) di (?:chiam|telefon|disturb)\w+\b",
        r"\b(?:cancell|tog|rimuov|elimin)\w+\b.*\b(?:lista|elenco|numero)\b",
        r"\b(?:basta|niente più) (?:chiamate|telefonate)\b",
        r"\bregistro delle opposizioni\b",
    ),
}
_LATER: Final[Mapping[str, str]] = {
    "en": r"\b(?:call|phone|ring|contact|bother)(?: me| us| here| back)* (?:before|until|till|today|tonight|tomorrow|"
    r"at|on|this (?:morning|evening|afternoon|week|month)|(?:right )?now|in the|so|while|between|after|during|next)\b"
}
_ALWAYS: Final = re.compile(r"\b(?:again|anymore|any more|ever|stop|list|remove)\b")
_PATTERNS: Final = {
    language: re.compile("|".join(f"(?:{one})" for one in patterns)) for language, patterns in _LANGUAGES.items()
}

PHRASES: Final[Mapping[str, tuple[str, ...]]] = {
    "en": (
        "stop calling me", "please stop calling me", "stop calling", "do not call me again", "don't call me again",
        "don't call again", "never call me again", "take me off your list", "please take me off your list",
        "take me off the list", "remove me from your list", "remove my number", "put me on your do not call list",
        "no more calls",
    ),
    "de": (
        "rufen sie mich nicht mehr an", "bitte rufen sie mich nicht mehr an", "rufen sie nicht mehr an",
        "rufen sie nie wieder an", "keine anrufe mehr", "streichen sie mich von ihrer liste",
        "löschen sie meine nummer",
    ),
    "fr": (
        "ne m'appelez plus", "ne me rappelez plus", "arrêtez de m'appeler", "retirez moi de votre liste",
        "supprimez mon numéro",
    ),
    "es": (
        "no me llame más", "no me llamen más", "no me vuelva a llamar", "no me vuelvan a llamar", "deje de llamarme",
        "quíteme de la lista", "borre mi número",
    ),
    "it": (
        "non mi chiami più", "non chiamatemi più", "non mi chiamate più", "smettetela di chiamarmi",
        "toglietemi dalla lista", "cancellate il mio numero",
    ),
}  # fmt: skip
"""What a recogniser with a closed list must know, in any call that the box has placed."""

CONFIRMED: Final[Mapping[str, str]] = {
    "en": "I understand. This number has been taken off our list, and we will not call you again. Goodbye.",
    "de": "Ich verstehe. Diese Nummer ist von unserer Liste gestrichen, wir rufen Sie nicht mehr an. Auf Wiederhören.",
    "fr": "Je comprends. Ce numéro a été retiré de notre liste, nous ne vous appellerons plus. Au revoir.",
    "es": "Entiendo. Este número se ha quitado de nuestra lista y no volveremos a llamarle. Adiós.",
    "it": "Capisco. Questo numero è stato tolto dalla nostra lista e non la chiameremo più. Arrivederci.",
}
IDENTIFICATION: Final[Mapping[str, str]] = {
    "en": "This is an automated call on behalf of ${campaign.owner}.",
    "de": "Dies ist ein automatischer Anruf im Auftrag von ${campaign.owner}.",
    "fr": "Ceci est un appel automatique de la part de ${campaign.owner}.",
    "es": "Esta es una llamada automática de parte de ${campaign.owner}.",
    "it": "Questa è una chiamata automatica per conto di ${campaign.owner}.",
}

_MAX_CHARACTERS: Final = 1000
_NOT_WORDS: Final = re.compile(r"[^\w' ]+")


def of_language(texts: Mapping[str, str], language: str) -> str:
    """The text in ``language``, or in English."""
    return texts.get(language.partition("-")[0], texts["en"])


def phrases(language: str) -> tuple[str, ...]:
    """The wishes that a recogniser is told to expect in ``language``."""
    return PHRASES.get(language.partition("-")[0], ())


def opts_out(text: str, language: str) -> bool:
    """Whether ``text``, words of somebody who was called, asks not to be called again.

    Taken in the line's language and in English: whoever is called may not speak what the list says.
    """
    words = " ".join(_NOT_WORDS.sub(" ", text[-_MAX_CHARACTERS:].lower().replace("\u2019", "'")).split())
    if not words:
        return False
    for base in dict.fromkeys((language.partition("-")[0], "en")):
        pattern = _PATTERNS.get(base)
        if pattern is None or not pattern.search(words):
            continue
        later = _LATER.get(base)
        if later is None or not re.search(later, words) or _ALWAYS.search(words):
            return True
    return False
