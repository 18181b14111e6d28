"""Text as it is compared, and the words that can be heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines.lexicon import Lexicon, normalise


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7", "seven"),
        ("7pm", "seven p m"),
        ("7 p.m.", "seven p m"),
        ("At 7:05 A.M.!", "at seven oh five a m"),
        ("7:00", "seven"),
        ("$5.50", "five dollars and fifty cents"),
        ("$1", "one dollar"),
        ("1st and 22nd", "first and twenty second"),
        ("3,000", "three thousand"),
        ("1999", "one thousand nine hundred ninety nine"),
        ("01234", "zero one two three four"),
        ("123456", "one two three four five six"),
        ("3.14", "three point one four"),
        ("I’m sorry, that’s the ‘best’ at five o'clock.", "i'm sorry that's the best at five o'clock"),
        ("café & bar", "cafe and bar"),
        ("re-enter", "re enter"),
        ("  \t\n", ""),
        ("日本", ""),
    ],
)
def test_normalise(text: str, words: str) -> None:
    assert normalise(text) == words


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert set(once) <= set("abcdefghijklmnopqrstuvwxyz' ")


def test_missing_words_are_named_once_and_in_order() -> None:
    lexicon = Lexicon()
    assert lexicon.missing("Book a table, please") == []
    assert lexicon.missing("xyzzy the plugh, Xyzzy") == ["xyzzy", "plugh"]
    assert "yes" in lexicon
    assert "zero" in lexicon.words()


def test_pronunciations_add_words() -> None:
    assert Lexicon((("Xyzzy", "Z IH Z IY"),)).missing("xyzzy") == []
