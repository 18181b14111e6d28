"""espeak-ng: what it says is speech at telephone rate and level, and no text can harm it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import espeakng_loader
import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.engines import espeak_tts
from appliance.engines.espeak_tts import CHUNK_SAMPLES, EspeakSynthesiser
from appliance.errors import EngineError

SENTENCE = "Sure, I can help you with that."


@pytest.fixture(scope="module")
def espeak() -> EspeakSynthesiser:
    return EspeakSynthesiser()


def spoken(chunks: Iterator[NDArray[np.int16]]) -> NDArray[np.int16]:
    return np.concatenate([np.zeros(0, np.int16), *chunks])


def loud(pcm: NDArray[np.int16]) -> NDArray[np.intp]:
    return np.flatnonzero(np.abs(pcm.astype(np.int32)) > 150)


def active_level_dbfs(pcm: NDArray[np.int16]) -> float:
    frames = np.square(pcm[: len(pcm) // 80 * 80].reshape(-1, 80) / 32768).mean(axis=1)
    return float(10 * np.log10(frames[frames > frames.max() / 1000].mean()))


class TestSpeech:
    @pytest.mark.parametrize("voice", ["en-us", "en-gb", "de", "fr", "es", "cmn", "ar", "hi", "ru", "en-us+f3"])
    def test_level_peak_and_silence_at_the_ends(self, espeak: EspeakSynthesiser, voice: str) -> None:
        pcm = spoken(espeak.synthesise(SENTENCE + " 1 2 3 4 5.", voice=voice))
        assert pcm.dtype == np.int16
        assert active_level_dbfs(pcm) == pytest.approx(-20, abs=3)
        assert np.abs(pcm.astype(np.int32)).max() <= 0.9 * 32768
        assert loud(pcm)[0] <= 0.020 * 8000
        assert len(pcm) - loud(pcm)[-1] <= 0.060 * 8000

    def test_comes_in_short_chunks_that_are_all_speech_of_plausible_length(self, espeak: EspeakSynthesiser) -> None:
        chunks = list(espeak.synthesise(SENTENCE))
        assert len(chunks) > 1
        assert max(map(len, chunks)) <= CHUNK_SAMPLES
        assert 1.0 < sum(map(len, chunks)) / 8000 < 3.0

    def test_rate_changes_the_length(self, espeak: EspeakSynthesiser) -> None:
        slow, fast = (len(spoken(espeak.synthesise(SENTENCE, rate=rate))) for rate in (0.7, 1.5))
        assert slow > 1.5 * fast

    def test_sentences_are_a_pause_apart(self, espeak: EspeakSynthesiser) -> None:
        one = len(spoken(espeak.synthesise("Hello.")))
        for between in (" ", "\n\n"):
            two = len(spoken(espeak.synthesise(f"Hello.{between}Hello.")))
            assert 0.2 < (two - 2 * one) / 8000 < 0.5
        unpunctuated = len(spoken(espeak.synthesise("Hello\n\nHello")))
        assert 0.2 < (unpunctuated - 2 * one) / 8000 < 0.5

    def test_voices_can_be_mixed_in_one_process(self, espeak: EspeakSynthesiser) -> None:
        """Two generators taking turns do not change each other's voice or rate."""
        text = "One two three.\n\nFour five six.\n\nSeven eight nine." + " And so on and so forth." * 20
        alone = len(spoken(espeak.synthesise(text, voice="en-us", rate=1.0)))
        first = espeak.synthesise(text, voice="en-us", rate=1.0)
        other = EspeakSynthesiser().synthesise(text, voice="de", rate=1.5)
        mixed = 0
        for chunk in first:
            mixed += len(chunk)
            next(other, None)
        assert mixed == pytest.approx(alone, rel=0.02)

    def test_closing_the_generator_makes_no_further_piece(
        self, espeak: EspeakSynthesiser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[str] = []
        library = espeak._library
        original = library.speech

        def counted(text: str, voice: str, words_per_minute: int) -> NDArray[np.float32]:
            made.append(text)
            return original(text, voice, words_per_minute)

        monkeypatch.setattr(library, "speech", counted)
        chunks = espeak.synthesise("One, two, three and four. " * 40)
        assert made == []
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        assert len(made) == 1
        assert len(made[0]) <= 120


class TestText:
    @pytest.mark.parametrize("text", ["", "   ", "\n\n", "...", " , ; ", "\x00\x01\x02", "\u200b", "😀 🔥 ©"])
    def test_nothing_to_say(self, espeak: EspeakSynthesiser, text: str) -> None:
        assert len(spoken(espeak.synthesise(text))) == 0

    @pytest.mark.parametrize(
        "text",
        [
            "line one\nline two\r\n\tline three",
            "😀 fire 🔥 👩‍👩‍👧‍👦",
            "4111 1111 1111 1111, 21st, 10:30, €7.50",
            "你好世界。再见",
            "Здравствуйте",
            "مرحبا بالعالم",
            "नमस्ते",
            "a\u0301\u0302\u0303" * 30,
            "lone \ud800 surrogate",
            "unbelievably" * 160,
            "1" * 2000,
        ],
    )
    def test_any_text_is_spoken(self, espeak: EspeakSynthesiser, text: str) -> None:
        assert len(spoken(espeak.synthesise(text))) > 800

    def test_symbols_go_and_styled_letters_become_plain(self) -> None:
        """Each of the first two used to crash espeak-ng 1.52, in Portuguese and in German."""
        cleaned = {
            "©Ȧ°ư": "Ȧ°ư",
            "gut 🤠ڭ": "gut ڭ",
            "Great! 😀 See you at 9.": "Great! See you at 9.",
            "Ｆｕｌｌ １２": "Full 12",
            "𝐛𝐨𝐥𝐝 ﬁne": "bold fine",
            "co\u00adop \u200bx": "coop x",
            "e\u0301te\u0301": "été",
            "a\tb\r\nc\x01d": "a b c d",
            "$5 + 3 = 8 <ok>": "$5 + 3 = 8 <ok>",
            "20 °C, 5 €": "20 °C, 5 €",
        }
        assert {text: espeak_tts._clean(text) for text in cleaned} == cleaned

    def test_markup_is_text(self, espeak: EspeakSynthesiser) -> None:
        """A break of five seconds is not obeyed, phonemes and embedded commands are not either."""
        plain = len(spoken(espeak.synthesise("hello there")))
        assert len(spoken(espeak.synthesise("hello \x01100Sthere"))) > plain
        for text in ("hello <break time='5s'/> there", "<speak>hello</speak> there", "[[h@l'oU]] there"):
            pcm = spoken(espeak.synthesise(text))
            gaps = np.diff(loud(pcm)) / 8000
            assert gaps.max() < 1.0
            assert len(pcm) > plain, "the markup has been swallowed instead of spoken"

    def test_long_text_is_cut_at_clauses_then_at_spaces(self) -> None:
        clauses = "and so on and on, " * 40
        pieces = espeak_tts._pieces(clauses)
        assert all(len(text) <= 240 for text, _ in pieces)
        assert all(text.endswith("on,") for text, _ in pieces)
        assert [pause for _, pause in pieces[:-1]] == [0.12] * (len(pieces) - 1)
        words = espeak_tts._pieces("word " * 100)
        assert all(not text.startswith("ord") and pause in (0.0, 0.25) for text, pause in words)
        assert "".join(text for text, _ in espeak_tts._pieces("x" * 1000)) == "x" * 1000

    def test_sentences_share_a_piece_while_there_is_room(self) -> None:
        """Full stops inside are left to espeak-ng, which knows "Dr." and "3.50"."""
        text = "It is 3.50 today. Dr. No is in! "
        assert espeak_tts._pieces(text) == [(text.strip(), 0.25)]
        assert [piece for piece, _ in espeak_tts._pieces("one\n\ntwo")] == ["one", "two"]
        lengths = [len(piece) for piece, _ in espeak_tts._pieces(text * 40)]
        assert lengths[0] <= 120
        assert all(180 < length <= 240 for length in lengths[1:-1])

    def test_too_long_a_text_is_refused_at_once(self, espeak: EspeakSynthesiser) -> None:
        with pytest.raises(EngineError, match="10001 characters is too long") as caught:
            espeak.synthesise("a" * 10_001)
        assert not caught.value.retryable


class TestVoices:
    def test_are_listed(self, espeak: EspeakSynthesiser) -> None:
        languages = {voice.language for voice in espeak.voices()}
        assert {"en-us", "en-gb", "de", "fr-fr", "cmn"} <= languages
        assert "f3" in espeak.variants()

    @pytest.mark.parametrize(
        ("called", "language"),
        [
            ("en-us", "en-us"),
            ("en_US", "en-us"),
            ("English (America)", "en-us"),
            ("gmw/en-US", "en-us"),
            ("en", "en-gb"),
            ("fr", "fr-fr"),
            ("de-DE", "de"),
            ("pt-BR", "pt-br"),
        ],
    )
    def test_are_found_by_tag_name_and_file(self, espeak: EspeakSynthesiser, called: str, language: str) -> None:
        identifier = espeak._library.resolve(called)
        assert {v.language for v in espeak.voices() if v.identifier == identifier} == {language}

    @pytest.mark.parametrize(
        ("called", "message"),
        [
            ("qq", "no voice 'qq'; near it: "),
            ("en-us-boston", "no voice 'en-us-boston'; near it: .*en-us"),
            ("englsh (america)", "near it: .*english .america."),
            ("", "no voice ''; near it: en-us"),
            ("en-us+f33", r"no variant 'f33' of a voice; near it: .*f3"),
            ("en-us+../../../etc/passwd", "no variant"),
            ("../../etc/passwd", "no voice"),
        ],
    )
    def test_unknown_ones_are_refused_at_once_with_near_ones(
        self, espeak: EspeakSynthesiser, called: str, message: str
    ) -> None:
        with pytest.raises(EngineError, match=message) as caught:
            espeak.synthesise("hello", voice=called)
        assert not caught.value.retryable

    @pytest.mark.parametrize("rate", [0.0, -1.0, 0.49, 2.6, float("nan"), float("inf")])
    def test_rates_out_of_range_are_refused(self, espeak: EspeakSynthesiser, rate: float) -> None:
        with pytest.raises(EngineError, match=r"is not within 0\.5 to 2\.5"):
            espeak.synthesise("hello", rate=rate)


def test_a_missing_library_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: "/nonexistent/libespeak-ng.so")
    with pytest.raises(EngineError, match=r"cannot be loaded.*pip install --force-reinstall espeakng-loader") as caught:
        espeak_tts._Library()
    assert not caught.value.retryable


def test_the_library_is_loaded_by_the_synthesiser_and_not_by_the_import() -> None:
    code = """
        import appliance.engines.espeak_tts as tts
        loaded = lambda: "libespeak" in open("/proc/self/maps").read()
        assert not loaded()
        tts.EspeakSynthesiser()
        assert loaded()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


@pytest.mark.slow
def test_two_thousand_phrases_and_hostile_texts_in_every_voice_leave_memory_level() -> None:
    """In a process of its own, since a crash of the library would end it."""
    code = """
        import random
        from appliance.engines.espeak_tts import EspeakSynthesiser

        def resident_kb():
            return int(open("/proc/self/statm").read().split()[1]) * 4

        espeak = EspeakSynthesiser()
        chance = random.Random(7)
        alphabets = [(32, 0x24F), (0x370, 0x6FF), (0x900, 0xDFF), (0x3040, 0x9FFF), (0x1F300, 0x1FAFF), (0, 0x10FFFF)]
        for voice in espeak.voices():
            low, high = chance.choice(alphabets)
            text = "".join(chr(chance.randint(low, high)) for _ in range(chance.choice([1, 9, 60])))
            for _ in espeak.synthesise(text, voice=voice.language):
                pass
        words = "hello appointment tuesday number please call office nine five thirty confirm".split()
        before = 0
        for count in range(2000):
            if count == 200:
                before = resident_kb()
            text = " ".join(chance.choices(words, k=chance.randint(2, 9))) + f" {count}."
            for _ in espeak.synthesise(text, voice=chance.choice(["en-us", "en-gb", "de"])):
                pass
        grown = resident_kb() - before
        assert grown < 0.05 * before, f"{before} kB grew by {grown} kB"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=240)
