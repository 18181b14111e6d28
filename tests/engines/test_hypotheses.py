from __future__ import annotations

from appliance.engines.hypotheses import RATE_HZ, Utterance, Utterances, Word, without_repeats

STEP = RATE_HZ // 2


def words(text: str, first: int = 0) -> list[Word]:
    """A word each half second, its token its length."""
    return [
        Word(word, (len(word),), (first + at) * STEP, (first + at + 1) * STEP) for at, word in enumerate(text.split())
    ]


def said(held: list[Word]) -> str:
    return " ".join(word.text for word in held)


def test_what_two_transcripts_agree_on_is_stable():
    utterance = Utterance(0)
    utterance.take(words("I want to"), 2 * RATE_HZ)
    assert said(utterance.stable) == ""
    utterance.take(words("I won two tickets"), 3 * RATE_HZ)
    assert said(utterance.stable) == "I"
    utterance.take(words("I want to book a"), 4 * RATE_HZ)
    assert said(utterance.stable) == "I"
    utterance.take(words("I want to book a table"), 4 * RATE_HZ)
    assert said(utterance.stable) == "I want to book a"
    assert utterance.prefix == (1, 4, 2, 4, 1)


def test_case_and_punctuation_do_not_keep_a_word_from_being_stable():
    utterance = Utterance(0)
    utterance.take(words("well. i think"), 2 * RATE_HZ)
    utterance.take(words("Well, I think so"), 3 * RATE_HZ)
    assert said(utterance.stable) == "Well, I think"


def test_a_word_at_the_end_of_the_audio_may_be_half_a_word():
    utterance = Utterance(0)
    for _ in range(3):
        utterance.take(words("book a cat"), 3 * STEP + 100)
    assert said(utterance.stable) == "book a"


def test_long_audio_is_cut_after_a_stable_sentence():
    utterance = Utterance(1000)
    for _ in range(2):
        utterance.take(words("One two. Three four"), 10 * RATE_HZ)
    utterance.cut(9 * RATE_HZ, sentence_s=10, any_word_s=16)
    assert (utterance.start, utterance.before) == (1000, [])
    utterance.cut(12 * RATE_HZ, sentence_s=10, any_word_s=16)
    assert utterance.start == 2 * STEP
    assert (said(utterance.before), said(utterance.stable)) == ("One two.", "Three four")
    utterance.take(words("Three four five", 2), 12 * RATE_HZ)
    utterance.take(words("Three four five six", 2), 13 * RATE_HZ)
    assert said(utterance.stable) == "Three four five"


def test_longer_audio_without_sentences_is_cut_after_any_stable_word():
    utterance = Utterance(0)
    for _ in range(2):
        utterance.take(words("one two three"), 15 * RATE_HZ)
    utterance.cut(15 * RATE_HZ, sentence_s=10, any_word_s=16)
    assert utterance.start == 0
    utterance.cut(17 * RATE_HZ, sentence_s=10, any_word_s=16)
    assert (utterance.start, said(utterance.before), utterance.stable) == (3 * STEP, "one two three", [])


def test_nothing_is_cut_where_nothing_is_stable_or_timed():
    utterance = Utterance(500)
    utterance.cut(60 * RATE_HZ, sentence_s=10, any_word_s=16)
    utterance.stable = [Word("untimed.")]
    utterance.cut(60 * RATE_HZ, sentence_s=10, any_word_s=16)
    assert (utterance.start, utterance.before) == (500, [])


def test_one_utterance_is_known_for_each_slot():
    held = Utterances(forget_s=60)
    first = held.find(0, 1, 7, 100, 0.0)
    assert held.find(0, 1, 7, 100, 1.0) is first
    assert held.peek(0, 1, 7, 100) is first
    assert held.find(0, 1, 8, 100, 1.0) is not first
    assert held.peek(0, 1, 7, 100) is None
    assert held.find(0, 2, 8, 100, 1.0).start == 100
    assert len(held) == 1


def test_utterances_that_nobody_asks_for_are_forgotten():
    held = Utterances(forget_s=60)
    for slot in range(100):
        held.find(slot, 1, 1, 0, float(slot))
    assert len(held) == 61


def test_number_0_belongs_to_nothing():
    held = Utterances()
    assert held.find(0, 1, 0, 0, 0.0) is not held.find(0, 1, 0, 0, 0.0)
    assert len(held) == 0


def test_circles_are_said_once_and_numbers_stay():
    assert said(without_repeats(words("yes and then and then and then and then and then and then"))) == "yes and then"
    assert said(without_repeats(words("no " * 12))) == "no"
    number = "five five five five double oh one two one two"
    assert said(without_repeats(words(number))) == number
    assert without_repeats([]) == []
