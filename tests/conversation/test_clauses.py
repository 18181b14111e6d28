from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.conversation import clauses
from appliance.conversation.clauses import MAX_CHARACTERS, PARAGRAPH, ClauseCutter, speakable, word_count
from appliance.engines.fake import STANDARD_REPLY, split_tokens


def stream(text: str, tokens: list[str] | None = None) -> list[str]:
    """The pieces of ``text``, streamed a word at a time."""
    cutter = ClauseCutter()
    pieces = []
    for token in tokens if tokens is not None else split_tokens(text):
        pieces += cutter.push(token)
    return pieces + cutter.finish()


def when_first(text: str) -> int:
    """Tokens (one per word) it takes until the first piece is there."""
    cutter = ClauseCutter()
    for count, token in enumerate(split_tokens(text), 1):
        if cutter.push(token):
            return count
    return -1


def test_the_standard_reply():
    assert stream(STANDARD_REPLY) == [
        "Sure, I can help",
        "you with that.",
        "Your appointment is confirmed for Tuesday at three.",
        "Is there anything else?",
    ]
    assert when_first(STANDARD_REPLY) == 5


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Of course I will, it is no trouble.", "Of course I will,"),
        ("Yes. That is right. Goodbye.", "Yes. That is right."),
        ("I am sorry to hear that, truly.", "I am sorry to hear"),
        ("It is the one in the middle of the town there", "It is the one in the middle"),
        ("We are open from nine until five thirty on weekdays", "We are open from nine until five thirty"),
        ("Your doctor is John Smith and he is in", "Your doctor is John Smith and he is"),
        ("It costs about $3.50 today, in the shop.", "It costs about $3.50 today,"),
        ("Yes.", "Yes."),
        ("Hello there", "Hello there"),
    ],
)
def test_the_first_piece(text, first):
    assert stream(text)[0] == first


@pytest.mark.parametrize(
    "sentence",
    [
        "Please ask for Dr. Miller when you come.",
        "It is 3.5 miles, or 1,000 steps from here.",
        "We close at 5 p.m. on weekdays and at noon otherwise.",
        "Call us, e.g. tomorrow, for more.",
        "It is in St. James Street at No. 5 on the left.",
        "The site is www.example.com for all of that.",
        "The U.S. office is closed.",
        "Meet at 10:30 in the lobby.",
        "His name is J. R. Smith as far as I know.",
    ],
)
def test_numbers_and_abbreviations_stay_whole(sentence):
    pieces = stream("I have all the details here. " + sentence + " Anything else?")
    assert pieces[-2:] == [sentence, "Anything else?"]


def test_an_abbreviation_can_end_a_sentence():
    assert stream("Let me check that now. We close at 5 p.m. Is that fine?")[-2:] == [
        "We close at 5 p.m.",
        "Is that fine?",
    ]


def test_a_sentence_ending_in_a_number():
    assert stream("Let me check that now. The code is 42. Do you have it?")[-2:] == [
        "The code is 42.",
        "Do you have it?",
    ]


def test_a_plain_sentence_end_does_not_wait_for_the_next_token():
    cutter = ClauseCutter()
    cutter.push("I will do that now. ")
    assert cutter.push("It takes a minute.") == ["It takes a minute."]


def test_a_number_at_the_end_of_a_token_waits():
    cutter = ClauseCutter()
    cutter.push("I will do that now. ")
    assert cutter.push("It is 3.") == []
    assert cutter.push("5 miles.") == ["It is 3.5 miles."]


def test_tokens_may_be_single_characters():
    assert stream("", list("Sure, I can help you. It is 3.5 km. Okay?"))[-2:] == ["It is 3.5 km.", "Okay?"]


def test_long_text_is_cut_at_clauses():
    text = "Let me read it to you now. " + ", ".join(["and a number of things on this list"] * 12) + "."
    pieces = stream(text)
    assert all(len(piece) <= MAX_CHARACTERS for piece in pieces)
    assert all(piece.endswith(",") for piece in pieces[1:-1])
    assert " ".join(pieces) == text


def test_a_word_without_end_is_cut_all_the_same():
    assert all(len(piece) <= MAX_CHARACTERS for piece in stream("a" * 1000))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**Bold** and *soft* and `code`", "Bold and soft and code"),
        ("# Title\nText", "Title. Text"),
        ("- one\n- two", "one. two"),
        ("See [our page](https://example.com/a.b) now", "See our page now"),
        ("Great! 😀👍🏽 Thanks ❤️", "Great! Thanks"),
        ("3*4 is 12", "3*4 is 12"),
        ("snake_case and _this_", "snake_case and this"),
        ("It is 20 °C", "It is 20 °C"),
        ("a <b>bold</b> word", "a bold word"),
        ("one\n\n---\n\ntwo", "one. two"),
        ("code: ```python\nprint(1)\n``` done", "code: done"),
        ("bell\x07 and\u200b zero", "bell and zero"),
        ("", ""),
    ],
)
def test_what_is_written_for_the_eye_is_not_spoken(text, spoken):
    assert speakable(text) == spoken


def test_a_link_is_not_cut():
    pieces = stream("You will find it on [our page. Really](https://example.com/x.html) as always.")
    assert not any("http" in piece or "[" in piece for piece in pieces)


def test_only_emoji_is_no_piece():
    assert stream("😀 👍") == []


def test_list_items_are_pieces_and_their_numbers_stay_with_them():
    pieces = stream("", ["Here are your two choices now:\n", "1. Tea\n", "2. Coffee\n"])
    assert pieces == ["Here are your two choices", "now:", "1. Tea", "2. Coffee"]


words = st.sampled_from(
    ["sure", "I", "can", "help,", "Dr.", "3.5", "p.m.", "yes.", "The", "okay?", "one", "Smith", "well:", "a", "no."]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(words, max_size=80), st.data())
def test_every_word_is_spoken_once_and_in_order(parts, data):
    text = " ".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    tokens = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    pieces = stream("", tokens)
    assert re.sub(r"\s+", "", "".join(pieces)) == re.sub(r"\s+", "", text)
    assert all(0 < len(piece) <= MAX_CHARACTERS for piece in pieces)
    if len(pieces) > 1:
        assert word_count(pieces[0]) >= 4


@given(st.text(max_size=600))
def test_any_text_comes_out_in_bounded_pieces(text):
    assert all(0 < len(piece) <= MAX_CHARACTERS for piece in stream("", list(text)))


@pytest.mark.parametrize(
    "text",
    [
        "The first paragraph is here.\n\nThe second one is there.",
        "The first paragraph is here.\n \n---\n\nThe second one is there.",
        "The first paragraph is here\n\n\n## The second one is there.",
    ],
)
def test_a_piece_after_a_blank_line_says_so(text):
    for tokens in (split_tokens(text), list(text), [text]):
        first, *_, second = stream(text, tokens)
        assert first.startswith("The first paragraph")
        assert second == f"{PARAGRAPH}The second one is there."


def test_lines_of_a_list_are_no_paragraphs():
    assert not any(piece.startswith(PARAGRAPH) for piece in stream("We have these today:\n- fish\n- soup\n\n"))


def test_a_text_of_many_pages_is_cut_with_no_more_work_a_page(monkeypatch):
    looked_at = []
    monkeypatch.setattr(clauses, "speakable", lambda text: looked_at.append(len(text)) or speakable(text))
    work = []
    for pages in (1, 10):
        looked_at.clear()
        cutter = ClauseCutter(first_words=200, first_max_words=200)
        pieces = [*cutter.push("no end is to be seen in it " * 50 * pages), *cutter.finish()]
        assert max(map(len, pieces)) <= 200
        work.append(sum(looked_at) / pages)
    assert work[1] <= 1.1 * work[0]
