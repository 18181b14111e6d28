"""Phrases become a network of words; what the recogniser found on it becomes an expected text."""

from __future__ import annotations

import pytest

from appliance.engines.grammar import MAX_DIGITS, Grammar, compile_grammar
from appliance.engines.lexicon import DIGITS, Lexicon
from appliance.errors import EngineError

BROKEN_OFF = (1e-8,)


def grammar(*phrases: str, pronunciations: tuple[tuple[str, str], ...] = ()) -> Grammar:
    return compile_grammar(phrases, pronunciations, Lexicon())


def sentences(of: Grammar, limit: int = 10_000) -> set[tuple[str, ...]]:
    """Every word sequence from the first state to the last that is not broken off."""
    found: set[tuple[str, ...]] = set()
    ahead: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    while ahead:
        state, said = ahead.pop()
        if state == of.final:
            found.add(said)
            assert len(found) <= limit
        ahead.extend((arc[1], said + tuple(arc[3:])) for arc in of.arcs if arc[0] == state and arc[2:] != BROKEN_OFF)
    return found


def test_phrases_share_their_beginnings() -> None:
    compiled = grammar("Book a table.", "book a room", "no")
    assert sentences(compiled) == {("book", "a", "table"), ("book", "a", "room"), ("no",)}
    assert sum(len(arc) == 4 for arc in compiled.arcs) == 5  # book a table room no


def test_the_same_phrase_twice_is_one() -> None:
    assert grammar("7", "seven", "Seven!").phrases == {"seven"}


def test_one_phrase_may_begin_another() -> None:
    compiled = grammar("call me", "call me back")
    assert sentences(compiled) == {("call", "me"), ("call", "me", "back")}
    assert compiled.complete(("call", "me")) == "call me"


def test_a_phrase_left_half_way_is_no_phrase() -> None:
    compiled = grammar("please try again", "please try again later")
    assert compiled.complete(("please", "try")) is None
    assert compiled.nearest(("please", "try")) == "please try again"
    assert compiled.nearest(("nothing", "alike")) == "nothing alike"


def test_every_phrase_may_be_broken_off_inside() -> None:
    compiled = grammar("call me back", "call me", "no")
    ends = {arc[0] for arc in compiled.arcs if arc[1] == compiled.final and arc[2:] == BROKEN_OFF}
    assert len(ends) == 1  # after "call"


def test_digit_strings_have_as_many_digits_as_were_asked_for() -> None:
    compiled = grammar("<digits 2 3>")
    assert {len(said) for said in sentences(compiled)} == {2, 3}
    assert len(sentences(compiled)) == 11**2 + 11**3
    assert compiled.complete(("four", "oh")) == "four zero"
    assert compiled.complete(("four",)) is None


def test_digits_go_with_phrases() -> None:
    compiled = grammar("<digits 1 1>", "cancel")
    assert sentences(compiled) == {(word,) for word in (*DIGITS, "oh", "cancel")}
    assert compiled.complete(("cancel",)) == "cancel"


def test_any_number_of_digits_is_bounded() -> None:
    assert grammar("<digits>").digit_strings == ((1, MAX_DIGITS),)


@pytest.mark.parametrize("phrase", ["<digits 0 4>", "<digits 5 4>", "<digits 1 99>"])
def test_impossible_digit_strings_are_refused(phrase: str) -> None:
    with pytest.raises(EngineError, match="from 1 to 32 digits") as refused:
        grammar(phrase)
    assert not refused.value.retryable


def test_unknown_words_are_named() -> None:
    with pytest.raises(EngineError, match=r"'xyzzy', 'plugh'.*pronunciations") as refused:
        grammar("say xyzzy", "plugh xyzzy")
    assert not refused.value.retryable


@pytest.mark.parametrize("phrases", [(), ("...",), ("yes", "?!")])
def test_nothing_to_expect_is_refused(phrases: tuple[str, ...]) -> None:
    with pytest.raises(EngineError, match="nothing is expected"):
        grammar(*phrases)


def test_a_pronunciation_makes_a_word_known() -> None:
    compiled = grammar("ask Xyzzy", pronunciations=(("Xyzzy", "z ih1 z iy0"),))
    ((_, entry),) = sentences(compiled)
    assert compiled.entries == {entry: "Z IH Z IY"}
    assert compiled.words == {entry: "xyzzy"}


def test_a_pronunciation_goes_beside_the_dictionarys() -> None:
    compiled = grammar("tomato", pronunciations=(("tomato", "T AH M AA T OW"),))
    assert len(sentences(compiled)) == 2


def test_two_sounds_of_a_word_are_two_entries() -> None:
    one = grammar("xyzzy", pronunciations=(("xyzzy", "Z IH Z IY"),))
    other = grammar("xyzzy", pronunciations=(("xyzzy", "K S IH Z IY"),))
    assert not set(one.entries) & set(other.entries)


@pytest.mark.parametrize(
    ("word", "phones"), [("xyzzy", "Z QQ IY"), ("xyzzy", ""), ("two words", "T UW"), ("...", "T UW")]
)
def test_bad_pronunciations_are_refused(word: str, phones: str) -> None:
    with pytest.raises(EngineError, match="write ARPAbet"):
        grammar("yes", pronunciations=((word, phones),))
