from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.conversation.english_numbers import cardinal, number, ordinal, year
from appliance.conversation.spoken import (
    ELLIPSIS_PAUSE_S,
    PARAGRAPH_PAUSE_S,
    pause_after,
    pause_before,
    spoken_form,
)
from appliance.engines.speech_level import CLAUSE_PAUSE_S, SENTENCE_PAUSE_S


def said(text: str, language: str = "en-us", **lexicon: str) -> str:
    return spoken_form(text, language, lexicon).text


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("on March 3, 2026 at 10:30am.", "on March third, twenty twenty six at ten thirty a.m."),
        ("3 March 2026", "March third, twenty twenty six"),
        ("the 4th of July, 1776", "the fourth of July, seventeen seventy six"),
        ("3/4/2026", "March fourth, twenty twenty six"),
        ("25/12/2026", "December twenty fifth, twenty twenty six"),
        ("2026-11-21T15:30", "November twenty first, twenty twenty six at three thirty p.m."),
        ("Mon, Jan. 5", "Monday, January fifth"),
        ("in Sept. 2025", "in September twenty twenty five"),
        ("in 2024 we", "in twenty twenty four we"),
        ("2000 people in 2000 steps", "two thousand people in two thousand steps"),
        ("2019-2021", "twenty nineteen to twenty twenty one"),
        ("the 1990s", "the nineteen nineties"),
    ],
)
def test_dates(written, spoken):
    assert said(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("from 9:00-17:00", "from nine o'clock to five p.m."),
        ("9 am - 5 pm", "nine a.m. to five p.m."),
        ("5.30pm", "five thirty p.m."),
        ("13:05", "one oh five p.m."),
        ("12:00", "twelve o'clock"),
        ("00:00", "midnight"),
        ("We close at 5 p.m. Tomorrow", "We close at five p.m. Tomorrow"),
        ("open 24/7", "open twenty four seven"),
    ],
)
def test_times(written, spoken):
    assert said(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("$1,234.50", "one thousand two hundred thirty four dollars and fifty cents"),
        ("$0.99", "ninety nine cents"),
        ("$1 and $1.01", "one dollar and one dollar and one cent"),
        ("$3.5 million or $15k", "three point five million dollars or fifteen thousand dollars"),
        ("$5-10", "five to ten dollars"),
        ("£3.50, €20, 50 EUR", "three pounds and fifty pence, twenty euros, fifty euros"),
        ("12.5% off", "twelve point five percent off"),
        ("-5 °C or 20°", "minus five degrees Celsius or twenty degrees"),
        ("the 1st and 22nd", "the first and twenty second"),
        ("5 km, 10kg, 1 km, 10 min. walk", "five kilometers, ten kilograms, one kilometer, ten minutes walk"),
        ("½ cup, 3/4 cup, 2½ hours", "a half cup, three quarters cup, two and a half hours"),
        ("10-15 of 1,000,000", "ten to fifteen of one million"),
        ("007 or 3.14", "zero zero seven or three point one four"),
        ("2 + 3 = 5", "two plus three equals five"),
        (
            "v2.1.3 at 192.168.0.1",
            "version two point one point three at one nine two dot one six eight dot zero dot one",
        ),
    ],
)
def test_amounts_and_numbers(written, spoken):
    assert said(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Call +1 (415) 555-0123 now.", "Call plus one, four one five, five five five, zero one two three now."),
        ("0800 123 456", "zero eight zero zero, one two three, four five six"),
        ("555-0123", "five five five, zero one two three"),
        ("your code is 4821.", "your code is four eight two one."),
        ("order number 12345678", "order number one two three four, five six seven eight"),
        ("Reference: XK-4821", "Reference: X K, four eight two one"),
        ("4821 9930 1123 4456", "four eight two one, nine nine three zero, one one two three, four four five six"),
        ("order 1500 units", "order one thousand five hundred units"),
    ],
)
def test_numbers_that_are_read_digit_by_digit_in_groups(written, spoken):
    assert said(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Dr. Smith lives at 5 St. James St.", "Doctor Smith lives at five Saint James Street."),
        ("e.g. this, etc.", "for example this, et cetera."),
        ("NASA and the API, OK?", "NASA and the ay P I, okay?"),
        ("The U.S. office. In the U.S. We", "The U S office. In the U S. We"),
        ("R&D, B12, A4, MP3, COVID-19", "R and D, B twelve, ay four, M P three, COVID nineteen"),
        ("john.doe99@example.co.uk", "john dot doe ninety nine at example dot co dot U K"),
        ("https://www.example.com/help-me.", "example dot com slash help dash me."),
        ("#5 and No. 7", "number five and number seven"),
        ("he/she & they", "he or she and they"),
        ("You MUST do IT", "You MUST do I T"),
    ],
)
def test_names_abbreviations_and_addresses(written, spoken):
    assert said(written) == spoken


def test_british_english_has_the_day_first_and_an_and():
    assert said("3/4/2026, 105 km", "en-gb") == "the third of April, twenty twenty six, one hundred and five kilometres"
    assert said("March 3", "en-gb") == "March the third"


def test_other_languages_leave_digits_to_the_engine_but_take_telephone_numbers_apart():
    assert said("Um 15:30 für 12,50 €, am 3.4.2026", "de") == "Um 15:30 für 12,50 €, am 3.4.2026"
    assert said("Rufen Sie +49 30 1234567 an", "de") == "Rufen Sie + 4 9, 3 0, 1 2 3 4 5 6 7 an"
    assert said("123 456 789", "fr") == "123 456 789"


def test_what_is_written_for_the_eye_is_not_said_and_not_in_the_written_form_either():
    form = spoken_form("**Great!** 😀 See [our page](http://x.org/a) at `9`")
    assert form.written == "Great! See our page at 9"
    assert form.text == "Great! See our page at nine"


class TestLexicon:
    def test_respells_whole_words_whatever_their_case_before_all_else(self):
        lexicon = {"nguyen": "win", "SQL": "sequel", "24/7": "around the clock", "Blue Olive": "blue olliv"}
        form = spoken_form("The NGUYENs and Nguyen run SQL 24/7 at the Blue Olive.", "en-us", lexicon)
        assert form.text == "The NGUYENs and win run sequel around the clock at the blue olliv."

    def test_what_it_says_is_not_looked_at_again(self):
        assert said("Ask Ten", Ten="10 &") == "Ask 10 &"

    def test_works_in_any_language(self):
        assert said("Frau Nguyen", "de", Nguyen="Nujen") == "Frau Nujen"


class TestHeard:
    def test_counts_written_words_by_what_is_said_for_them(self):
        form = spoken_form("It costs $1,234.50 today, sir.")
        assert form.heard(0.0) == ""
        assert form.heard(0.2) == "It costs"
        assert form.heard(0.45) == "It costs"
        assert form.heard(0.6) == "It costs $1,234.50"
        assert form.heard(0.85) == "It costs $1,234.50"
        assert form.heard(1.0) == form.written

    @given(st.text(max_size=60), st.sampled_from(["en-us", "en-gb", "de"]))
    def test_grows_with_the_share_to_all_that_was_written(self, text, language):
        form = spoken_form(text, language)
        heard = [form.heard(share / 10) for share in range(11)]
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(heard))
        assert heard[-1] == form.written


@example("0:60")
@example("25:10 pm, 13.30 a.m.")
@given(st.text(alphabet="0123456789 ,.:/-+$€£%°#&@()AaBbpmkKstndh'", max_size=30))
def test_english_never_leaves_an_ascii_digit_to_the_engine(text):
    assert not re.search(r"[0-9]", said(text))


@pytest.mark.parametrize(
    ("piece", "pause_s"),
    [
        ("Sure, I can help", 0.0),
        ("Well,", CLAUSE_PAUSE_S),
        ("It is done.", SENTENCE_PAUSE_S),
        ('He said "yes."', SENTENCE_PAUSE_S),
        ("Let me see...", ELLIPSIS_PAUSE_S),
        ("Let me see…", ELLIPSIS_PAUSE_S),
        ("好。", SENTENCE_PAUSE_S),
        ("", 0.0),
    ],
)
def test_the_pause_after_a_piece(piece, pause_s):
    assert pause_after(piece) == pause_s


def test_a_new_paragraph_has_a_pause_before_it():
    assert pause_before("\n\nNow to something else.") == PARAGRAPH_PAUSE_S > SENTENCE_PAUSE_S
    assert pause_before("Now to something else.") == 0.0
    assert spoken_form("\n\nNow this.").text == "Now this."


def test_number_words():
    assert cardinal(0) == "zero"
    assert cardinal(1_000_015, with_and=True) == "one million and fifteen"
    assert cardinal(999_999) == "nine hundred ninety nine thousand nine hundred ninety nine"
    assert ordinal(112, with_and=True) == "one hundred and twelfth"
    assert ordinal(30) == "thirtieth"
    assert number("1,250.05") == "one thousand two hundred fifty point zero five"
    assert [year(value) for value in (1905, 2000, 2008, 2026, 1900, 1066)] == [
        "nineteen oh five",
        "two thousand",
        "two thousand eight",
        "twenty twenty six",
        "nineteen hundred",
        "ten sixty six",
    ]
