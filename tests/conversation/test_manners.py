"""What callers ask of any speaker, told from what only sounds like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.conversation.manners import FASTEST, SLOWEST, Request, agrees, changed, fillers, phrases, request_in


@pytest.mark.parametrize(
    ("said", "language", "wanted"),
    [
        ("Could you say that again, please?", "en-us", Request.REPEAT),
        ("Sorry, could you repeat that?", "en-gb", Request.REPEAT),
        ("Pardon?", "en-us", Request.REPEAT),
        ("I beg your pardon?", "en-us", Request.REPEAT),
        ("Sorry?", "en-us", Request.REPEAT),
        ("What did you say", "en-us", Request.REPEAT),
        ("Oh, I didn't catch that, sorry.", "en-us", Request.REPEAT),
        ("slower please", "en-us", Request.SLOWER),
        ("Can you speak a bit slower please?", "en-us", Request.SLOWER),
        ("You’re talking too fast.", "en-us", Request.SLOWER),
        ("um, could you please slow down a little", "en-us", Request.SLOWER),
        ("a bit faster please", "en-us", Request.FASTER),
        ("Können Sie das bitte noch einmal sagen?", "de-de", Request.REPEAT),
        ("Wie bitte?", "de-de", Request.REPEAT),
        ("Bitte etwas langsamer.", "de-de", Request.SLOWER),
        ("Pouvez-vous répéter, s'il vous plaît ?", "fr-fr", Request.REPEAT),
        ("Más despacio, por favor.", "es-es", Request.SLOWER),
        ("say that again in Spanish", "en-us", None),
        ("what time is it", "en-us", None),
        ("the traffic was slow", "en-us", None),
        ("please", "en-us", None),
        ("I am sorry but I want to cancel again", "en-us", None),
        ("yes", "en-us", None),
        ("", "en-us", None),
        ("pardon", "ja-jp", None),
    ],
)
def test_requests_of_the_voice(said: str, language: str, wanted: Request | None) -> None:
    assert request_in(said, language) is wanted


@given(st.text(), st.sampled_from(["en-us", "de-de", "fr-fr", "es-es", "xx"]))
def test_any_text_is_a_request_or_is_not(text: str, language: str) -> None:
    assert request_in(text, language) in (None, *Request)
    assert agrees(text, language) in (None, True, False)


def test_what_a_recogniser_is_told_to_listen_for_is_understood() -> None:
    for request in (Request.REPEAT, Request.SLOWER):
        heard = phrases("en-us", {request})
        assert heard
        assert {request_in(phrase, "en-us") for phrase in heard} == {request}
    assert phrases("de-de") == ()
    assert set(phrases("en-us")) == {*phrases("en-us", {Request.REPEAT}), *phrases("en-us", {Request.SLOWER})}


@pytest.mark.parametrize(
    ("said", "language", "meant"),
    [
        ("Yes, please.", "en-us", True),
        ("yeah", "en-us", True),
        ("That's right", "en-us", True),
        ("No.", "en-us", False),
        ("yes, but don't do it yet", "en-us", False),
        ("no, no, wait", "en-us", False),
        ("maybe", "en-us", None),
        ("what was it again", "en-us", None),
        ("", "en-us", None),
        ("Ja, gerne.", "de-de", True),
        ("lieber nicht", "de-de", False),
        ("oui, d'accord", "fr-fr", True),
        ("claro que sí", "es-es", True),
    ],
)
def test_yes_and_no_and_neither(said: str, language: str, meant: bool | None) -> None:
    assert agrees(said, language) is meant


def test_the_pace_stays_within_what_is_speech() -> None:
    pace = 1.0
    for _ in range(10):
        pace = changed(pace, Request.SLOWER)
    assert pace == SLOWEST
    for _ in range(10):
        pace = changed(pace, Request.FASTER)
    assert pace == FASTEST


def test_there_is_something_to_bridge_a_wait_with_in_any_language() -> None:
    assert fillers("de-at")[0].startswith("Einen Moment")
    assert fillers("xx") == fillers("en-us")
