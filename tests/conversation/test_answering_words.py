"""Phrases speak for a machine, a person or an assistant, each once."""

from __future__ import annotations

import re

import pytest

from appliance.conversation.answering_words import Words
from appliance.engines.greetings import GREETING, SPOTTED
from tests.bench.answering_texts import ENGLISH, FOREIGN


@pytest.mark.parametrize("half", ["tune", "report"])
def test_most_machines_and_no_people_are_told_by_what_they_say(half: str) -> None:
    texts = ENGLISH["tune" if half == "tune" else "report"]
    for kind in ("machine short", "machine long"):
        told = [Words().hear(text).towards_machine >= 2.5 for text in texts[kind]]  # type: ignore[index]
        assert sum(told) >= len(told) - 1
    for kind in ("human short", "human long"):
        assert not [text for text in texts[kind] if Words().hear(text).towards_machine > 0]  # type: ignore[index]


def test_assistants_ask_for_the_name() -> None:
    for texts in ENGLISH.values():
        assert [text for text in texts["screening"] if not Words().hear(text).screens] == []
        assert [
            text for kind, some in texts.items() if kind != "screening" for text in some if Words().hear(text).screens
        ] == []


def test_machines_are_told_in_other_languages() -> None:
    for languages in FOREIGN.values():
        for kinds in languages.values():
            for text in kinds["machine long"]:
                assert Words().hear(text).towards_machine >= 2.5, text
            for text in (*kinds["human short"], *kinds["human long"]):
                assert Words().hear(text).towards_machine <= 0, text


def test_a_phrase_counts_once() -> None:
    words = Words()
    once = words.hear("leave a message")
    assert words.hear("leave a message, leave a message") == once


def test_what_is_heard_without_any_phrase_speaks_a_little_for_a_person() -> None:
    assert -1.5 < Words().hear("").towards_machine < 0
    assert Words().weight.towards_machine == 0


def test_every_spotted_phrase_means_something() -> None:
    silent = [phrase for phrase, _ in SPOTTED if not any(Words().hear(phrase)[:3])]
    assert silent == []
    assert not [phrase for phrase, _ in SPOTTED if not re.fullmatch(r"[a-z' ]+", phrase)]
    assert GREETING not in dict(SPOTTED)
