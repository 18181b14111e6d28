"""What counts as a wish not to be called again, and what does not."""

from __future__ import annotations

import pytest

from appliance.conversation.opt_out import CONFIRMED, IDENTIFICATION, PHRASES, opts_out


@pytest.mark.parametrize(
    "said",
    [
        "Stop calling me!",
        "please just take me off your list",
        "Take my number off the list, please.",
        "don't call me again",
        "do not ever call this number again",
        "Don’t call me.",
        "never call here again",
        "remove me from your system",
        "I want to opt out",
        "put me on the do not call list",
        "I don't want any more of your calls",
        "can you lose my number",
        "no more calls",
        "do not call me tomorrow or ever again",
    ],
)
def test_a_wish_in_english(said: str) -> None:
    assert opts_out(said, "en-us")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "yes please",
        "call me tomorrow",
        "can you call me again tomorrow",
        "don't call me before ten",
        "please do not call me today, I am driving",
        "do not call me at work, use my mobile",
        "I would like to cancel my appointment",
        "remove the pizza from my order",
        "stop",
        "I'll take two off the list price",
        "we opted for the blue one",
    ],
)
def test_what_is_no_wish(said: str) -> None:
    assert not opts_out(said, "en")


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "Rufen Sie mich bitte nicht mehr an."),
        ("de", "Streichen Sie mich von Ihrer Liste"),
        ("fr", "Ne m'appelez plus !"),
        ("fr", "Arrêtez de m'appeler"),
        ("fr", "supprimez mon numéro de votre liste"),
        ("es", "No me llamen más"),
        ("es", "quíteme de la lista"),
        ("it", "Non chiamatemi più"),
        ("it", "toglietemi dalla lista, per favore"),
        ("de", "stop calling me"),
    ],
)
def test_a_wish_in_other_languages(language: str, said: str) -> None:
    assert opts_out(said, language)


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "Rufen Sie mich morgen wieder an"),
        ("fr", "supprimez mon rendez-vous"),
        ("es", "quiero borrar mi cita"),
        ("it", "cancelli l'appuntamento"),
    ],
)
def test_what_is_no_wish_in_other_languages(language: str, said: str) -> None:
    assert not opts_out(said, language)


def test_every_phrase_of_the_closed_lists_is_a_wish() -> None:
    for language, listed in PHRASES.items():
        assert [phrase for phrase in listed if not opts_out(phrase, language)] == []
    assert set(PHRASES) == set(CONFIRMED) == set(IDENTIFICATION)
