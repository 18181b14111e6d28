from __future__ import annotations

import pytest

from appliance.engines.whisper_tokens import CHARACTER_OF_BYTE, Vocabulary, spaced, written
from appliance.errors import EngineError

from .tone_whisper import SPECIAL, vocabulary


@pytest.fixture(scope="module")
def tokens() -> Vocabulary:
    return Vocabulary(vocabulary(), "here")


def test_every_text_comes_back(tokens):
    for text in ("", " alpha, bravo", "Grüße aus 東京 🙂\n\t x", " don't STOP", "<|endoftext|>", "a  b   c "):
        assert tokens.decode(tokens.encode(text)) == text


def test_neighbours_are_joined_in_the_order_of_their_rank(tokens):
    assert [tokens.decode([token]) for token in tokens.encode(" alpha alphas stop.")] == [
        " alpha",
        " alpha",
        "s",
        " stop",
        ".",
    ]


def test_the_name_of_a_special_token_is_no_special_token(tokens):
    assert all(token < tokens.end for token in tokens.encode("<|startoftranscript|>"))
    assert tokens.decode([tokens.start, *tokens.encode(" yes"), tokens.end]) == " yes"


def test_how_a_transcript_begins(tokens):
    names = vocabulary()
    assert [names[token] for token in tokens.beginning("de-AT")] == [
        "<|startoftranscript|>",
        "<|de|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    assert tokens.beginning("") == tokens.beginning("en")
    with pytest.raises(EngineError, match=r"does not know the language 'xx'; it knows de, en, fr"):
        tokens.beginning("xx")


def test_a_model_for_english_alone_is_told_by_the_size_of_its_vocabulary():
    names = vocabulary()
    names[300:300] = [f"filler{number}" for number in range(51864 - len(names))]
    tokens = Vocabulary(names, "here")
    assert tokens.english_only
    assert [names[token] for token in tokens.beginning("en-GB")] == ["<|startoftranscript|>", "<|notimestamps|>"]
    with pytest.raises(EngineError, match=r"knows English only, not 'fr'; set engines.asr.model"):
        tokens.beginning("fr")


def test_a_vocabulary_of_something_else_is_refused_with_what_to_do():
    with pytest.raises(EngineError, match=r"/m lacks <\|endoftext\|>, .*<\|nospeech\|>.* convert the model again"):
        Vocabulary(["a", "b"], "/m")
    without = [token for token in vocabulary() if token not in ("<|nospeech|>", CHARACTER_OF_BYTE[7])]
    with pytest.raises(EngineError, match=r"lacks <\|nospeech\|>, ć"):
        Vocabulary(without, "/m")
    Vocabulary(["<|nocaptions|>" if token == "<|nospeech|>" else token for token in vocabulary()], "/m")


def test_words_keep_their_punctuation_and_their_tokens(tokens):
    found = tokens.words(tokens.encode(' Yes, I\'m "here" - at 5:30. '), "en")
    assert [word.text for word in found] == ["Yes,", "I'm", '"here"-', "at", "5:30."]
    flat = [token for word in found for token in word.tokens]
    assert tokens.decode(flat).rstrip() == ' Yes, I\'m "here" - at 5:30.'


def test_characters_cut_in_two_stay_with_the_word_before(tokens):
    half = tokens.encode(" caf")[:4] + tokens.encode("é")[:1]
    (word,) = tokens.words(half, "fr")
    assert (word.text, word.tokens) == ("caf", tuple(half))
    assert tokens.words(tokens.encode("é")[:1], "fr") == []


def test_languages_without_spaces_have_words_of_one_character(tokens):
    found = tokens.words(tokens.encode("你好。"), "zh")
    assert [word.text for word in found] == ["你", "好。"]
    assert written((word.text for word in found), "zh") == "你好。"
    assert written(("a", "b"), "en-US") == "a b"
    assert spaced("de") and not spaced("ja-JP")


def test_the_vocabulary_holds_what_real_ones_do():
    assert set(SPECIAL) <= set(vocabulary())
    assert "<|30.00|>" in vocabulary()
