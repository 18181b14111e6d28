"""The embedded recogniser on synthetic speech, human digits and what is no speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.engines.espeak_tts import EspeakSynthesiser
from appliance.engines.lexicon import DIGITS
from appliance.engines.nonspeech import says_nothing
from appliance.engines.pocketsphinx_asr import NOTHING, PocketSphinxRecogniser
from appliance.engines.telephone_features import CEPSTRA, TelephoneFeatures
from appliance.errors import EngineError, ModelFileError
from tests.bench.asr_accuracy import as_heard
from tests.bench.prompts import read_wav

Pcm = NDArray[np.int16]

DIGIT_CLIPS = Path(__file__).parents[2] / "../shared/audio/digits"
BOOKING = ("book a table for two", "cancel my booking", "speak to somebody")


@pytest.fixture(scope="module")
def recogniser() -> PocketSphinxRecogniser:
    return PocketSphinxRecogniser(cache_grammars=4)


@pytest.fixture(scope="module")
def say() -> Callable[[str], Pcm]:
    espeak = EspeakSynthesiser()
    return lambda text: as_heard(np.concatenate(list(espeak.synthesise(text))))


@pytest.mark.parametrize("phrase", BOOKING)
def test_an_expected_phrase_is_recognised(
    recogniser: PocketSphinxRecogniser, say: Callable[[str], Pcm], phrase: str
) -> None:
    heard = recogniser.recognise(say(phrase), BOOKING, reject=True)
    assert (heard.text, heard.accepted) == (phrase, True)
    assert 0.5 <= heard.confidence <= 1.0


@pytest.mark.parametrize("sentence", ["the weather will be nice in the morning", "I have lost the key of my car"])
def test_another_sentence_is_rejected(
    recogniser: PocketSphinxRecogniser, say: Callable[[str], Pcm], sentence: str
) -> None:
    heard = recogniser.recognise(say(sentence), BOOKING, reject=True)
    assert not heard.accepted
    assert heard.confidence < 0.5


@pytest.mark.parametrize("reject", [False, True])
def test_a_phrase_broken_off_is_heard_so_far(
    recogniser: PocketSphinxRecogniser, say: Callable[[str], Pcm], reject: bool
) -> None:
    phrases = ("please enter your number followed by the pound key", "cancel my booking", "speak to somebody")
    heard = recogniser.recognise(say("please enter your number"), phrases, reject=reject)
    assert (heard.text, heard.accepted) == ("please enter your number", False)


def test_the_threshold_can_be_set(say: Callable[[str], Pcm]) -> None:
    strict = PocketSphinxRecogniser(rejection=1.0)
    assert not strict.recognise(say(BOOKING[0]), BOOKING, reject=True).accepted
    assert strict.recognise(say(BOOKING[0]), BOOKING, reject=False).accepted


@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize(
    "level", [0, 1, 10, 300, 3000], ids=lambda level: "silence" if not level else f"noise of {level}"
)
def test_silence_and_steady_noise_say_nothing(recogniser: PocketSphinxRecogniser, level: int, reject: bool) -> None:
    noise = np.random.default_rng(3).normal(0, level, 12_000).astype(np.int16)
    assert recogniser.recognise(noise, ("yes", "no"), reject=reject) == NOTHING


@pytest.mark.parametrize(("low", "high"), [(697, 1209), (770, 1336), (852, 1477), (941, 1336)])
def test_keys_are_no_words(recogniser: PocketSphinxRecogniser, low: int, high: int) -> None:
    t = np.arange(1600) / 8000
    tones = as_heard((6000 * (np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t))).astype(np.int16))
    assert recogniser.recognise(tones, DIGITS, reject=True) == NOTHING


@pytest.mark.parametrize("samples", [0, 1, 159, 204, 205, 400])
def test_too_little_audio_says_nothing(recogniser: PocketSphinxRecogniser, samples: int) -> None:
    pcm = np.random.default_rng(4).integers(-8000, 8000, samples).astype(np.int16)
    assert recogniser.recognise(pcm, ("yes", "no"), reject=True) == NOTHING


def test_human_digits(recogniser: PocketSphinxRecogniser) -> None:
    clips = sorted(DIGIT_CLIPS.glob("*_[01].wav"))
    if not clips:
        pytest.skip(f"no recorded digits beside this clone; they go into {DIGIT_CLIPS}")
    right = [
        recogniser.recognise(as_heard(read_wav(clip)), DIGITS, reject=False).text == DIGITS[int(clip.name[0])]
        for clip in clips
    ]
    assert np.mean(right) >= 0.9


def test_digit_strings_are_digit_words(recogniser: PocketSphinxRecogniser, say: Callable[[str], Pcm]) -> None:
    heard = recogniser.recognise(say("seven, three, five, nine"), ("<digits 4 4>",), reject=False)
    words = heard.text.split()
    assert len(words) == 4
    assert set(words) <= set(DIGITS)


def test_a_given_pronunciation_is_heard(recogniser: PocketSphinxRecogniser, say: Callable[[str], Pcm]) -> None:
    phrases = ("please ask for dorlomin", "goodbye for now")
    heard = recogniser.recognise(
        say("please ask for dor low min"), phrases, (("dorlomin", "D AO R L OW M IH N"),), reject=True
    )
    assert (heard.text, heard.accepted) == ("please ask for dorlomin", True)


def test_unknown_words_are_refused_before_any_audio_is_heard(recogniser: PocketSphinxRecogniser) -> None:
    with pytest.raises(EngineError, match="'dorlomin'") as refused:
        recogniser.prepare(("ask for dorlomin", "yes"))
    assert not refused.value.retryable


def test_grammars_beyond_the_cache_are_let_go(recogniser: PocketSphinxRecogniser, say: Callable[[str], Pcm]) -> None:
    pcm = say(BOOKING[1])
    for number in range(30):
        recogniser.prepare((BOOKING[0], "one " * number + "two"))
    assert recogniser.grammars_held <= 4
    assert recogniser.recognise(pcm, BOOKING, reject=False).text == BOOKING[1]


def test_features_are_finite_and_a_hundred_a_second(say: Callable[[str], Pcm]) -> None:
    from appliance.engines.lexicon import model_folder

    features = TelephoneFeatures(model_folder() / "en-us")
    pcm = say("yes")
    for audio in (pcm, np.zeros(8000, np.int16), np.full(8000, 32767, np.int16), -pcm):
        cepstra = features.cepstra(features.bands(audio))
        assert cepstra.shape == ((len(audio) - 205) // 80 + 1, CEPSTRA)
        assert np.isfinite(cepstra).all()


def test_a_louder_telephone_sounds_the_same(say: Callable[[str], Pcm]) -> None:
    from appliance.engines.lexicon import model_folder

    features = TelephoneFeatures(model_folder() / "en-us")
    pcm = say("book a table for two")
    quiet, loud = (features.cepstra(features.bands((pcm * gain).astype(np.int16))) for gain in (0.25, 1.0))
    assert np.abs(quiet - loud).mean() < 0.1 * np.abs(loud).mean()


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "means").write_bytes(b"s3\nendhdr\n")
    with pytest.raises(ModelFileError, match=r"means.*reinstall"):
        TelephoneFeatures(tmp_path)


def test_speech_is_not_taken_for_nothing(say: Callable[[str], Pcm]) -> None:
    from appliance.engines.lexicon import model_folder

    features = TelephoneFeatures(model_folder() / "en-us")
    for text in ("oh", "two", "yes", "mmm"):
        pcm = say(text)
        assert not says_nothing(pcm, features.bands(pcm))
