from __future__ import annotations

import pytest

from appliance.engines.closed_list import Meant, meaning, said_digits, similarity

MENU = ("book a table", "cancel my booking", "opening hours", "yes", "no", "tuesday", "thursday")


@pytest.mark.parametrize(
    ("transcript", "phrase"),
    [
        ("Yes.", "yes"),
        ("Yes, please!", "yes"),
        ("Uh, I'd like to book a table, please.", "book a table"),
        ("Book the table", "book a table"),
        ("Cancel my bookings", "cancel my booking"),
        ("Opening our", "opening hours"),
        ("Tuesdays.", "tuesday"),
        ("No thank you", "no"),
    ],
)
def test_what_was_said_around_and_nearly_so_is_taken_for_the_phrase(transcript, phrase):
    meant = meaning(transcript, MENU, reject=True)
    assert (meant.text, meant.accepted) == (phrase, True)


@pytest.mark.parametrize(
    "transcript",
    [
        "No one has told me anything about it",
        "What is the weather like?",
        "My yesterday's news",
        "Monday",
        "Book",
        "",
        "...",
    ],
)
def test_something_else_is_rejected(transcript):
    assert not meaning(transcript, MENU, reject=True).accepted


def test_without_rejection_the_best_guess_is_taken():
    text = "could somebody cancel my old reservation"
    assert meaning(text, MENU, reject=True) == Meant(text, pytest.approx(0.45, abs=0.2), False)
    guess = meaning("cancel the booking then I guess", MENU, reject=False)
    assert (guess.text, guess.accepted) == ("cancel my booking", True)


def test_a_phrase_broken_off_is_said_as_far_as_it_goes():
    assert meaning("Cancel my", MENU, reject=True).text == "cancel my"


def test_the_exact_phrase_is_all_of_it():
    assert similarity(["book", "a", "table"], ["book", "a", "table"]) == 1.0
    assert similarity([], ["yes"]) == 0.0
    assert similarity(["yes"], []) == 0.0


@pytest.mark.parametrize(
    ("transcript", "digits"),
    [
        ("402", "402"),
        ("4-0-2.", "402"),
        ("Four oh two", "402"),
        ("four zero, two", "402"),
        ("My number is 07700 900 123", "07700900123"),
        ("double five triple 7", "55777"),
        ("forty two seventeen", "4217"),
        ("twenty", "20"),
        ("It's 12, uh, 13", "1213"),
        ("four tables", ""),
        ("yes", ""),
        ("", ""),
    ],
)
def test_digits_however_they_are_written(transcript, digits):
    assert said_digits(transcript) == digits


def test_digit_strings_have_their_length():
    assert meaning("402-77", ("<digits 4 6>",), reject=True) == Meant("four zero two seven seven", 1.0, True)
    assert meaning("402", ("<digits 4 6>",), reject=True) == Meant("four zero two", 0.0, False)
    assert not meaning("1234567", ("<digits 4 6>",), reject=True).accepted
    assert meaning("7", ("<digits>", "yes"), reject=True) == Meant("seven", 1.0, True)
    assert meaning("Yes.", ("<digits>", "yes"), reject=True) == Meant("yes", 1.0, True)
