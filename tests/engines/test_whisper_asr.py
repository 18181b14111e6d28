"""The whole recogniser: requests through a worker to a real CTranslate2 model that understands tones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from appliance.api import Engine, Shaping
from appliance.config import Settings
from appliance.engines.asr_options import WhisperOptions
from appliance.engines.builtin import provider_registry
from appliance.engines.ctranslate import has_wide_vectors
from appliance.engines.whisper_asr import WhisperAsr
from appliance.engines.whisper_model import WhisperModel
from appliance.engines.worker import make_engine
from appliance.errors import EngineError, ModelFileError
from appliance.ipc.messages import Failed, Recognised

from .callers import DEADLINE_S, GENERATION, Callers
from .tone_whisper import WORDS, speech, vocabulary, write_model

SENTENCES = " ".join(f"{' '.join([*WORDS, *WORDS][at : at + 4])} stop." for at in (0, 3, 5, 1, 10, 4, 2, 11, 6, 8))
"""Fifty words, 25 s."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tones")


class Counting(WhisperModel):
    """Writes down what was computed."""

    def __init__(self, folder: Path, **how: object) -> None:
        self.encoded: list[tuple[int, int]] = []
        self.asked: list[list] = []
        self.aligned: list[int] = []
        super().__init__(folder, device="cpu", threads=1, **how)  # type: ignore[arg-type]

    def encode(self, windows, frames):
        self.encoded.append((len(windows), frames))
        return super().encode(windows, frames)

    def write(self, encoded, asked):
        self.asked.append(list(asked))
        return super().write(encoded, asked)

    def align(self, encoded, rows, beginning, texts, frames):
        self.aligned.append(len(rows))
        return super().align(encoded, rows, beginning, texts, frames)


class Box(Callers):
    """Callers of a recogniser with the model in ``folder``."""

    engine: WhisperAsr

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(WhisperAsr(lambda: Counting(folder), WhisperOptions(model=str(folder), **options)))

    async def __aenter__(self) -> Box:
        await super().__aenter__()
        for counted in (self.model.encoded, self.model.asked, self.model.aligned):
            counted.clear()
        return self

    @property
    def model(self) -> Counting:
        assert isinstance(self.engine.model, Counting)
        return self.engine.model


def words(answer: Recognised) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start / 8000, 1), round(word.end / 8000, 1)) for word in answer.words]


async def test_a_caller_is_understood(folder):
    async with Box(folder) as box:
        assert isinstance(box.engine, Engine) and isinstance(box.engine, Shaping)
        answer = await box.recognise(0, box.hear(0, speech("alpha bravo charlie stop.")))
        assert answer.text == "alpha bravo charlie stop."
        assert answer.accepted and answer.confidence > 0.95
        assert (answer.words, answer.stable) == ((), 4)


async def test_any_part_of_the_call_can_be_asked_for(folder):
    async with Box(folder, final_word_times=True) as box:
        end = box.hear(0, speech("alpha bravo charlie delta echo"))
        answer = await box.recognise(0, end - 4000, start=4000)
        assert words(answer) == [("bravo", 0.5, 1.0), ("charlie", 1.0, 1.5), ("delta", 1.5, 2.0)]


async def test_requests_of_many_calls_share_batches_and_each_gets_its_own_words(folder):
    async with Box(folder) as box:
        texts = [" ".join([*WORDS[slot:], *WORDS][: 3 + slot % 2]) for slot in range(8)]
        ends = [box.hear(slot, speech(text)) for slot, text in enumerate(texts)]
        numbers = [
            box.ask(slot, end, language="de" if slot % 3 else "en-GB", hints=("golf",) if slot % 2 else ())
            for slot, end in enumerate(ends)
        ]
        answers = await box.answers(*numbers)
        assert [answer.text for answer in answers] == texts
        assert sum(size for size, _ in box.model.encoded) == 8
        assert sorted(size for size, _ in box.model.encoded)[-1] == 4, "those of one window"
        assert {frames for _, frames in box.model.encoded} == {200, 300}


async def test_a_batch_in_which_one_transcript_is_longer_than_the_others(folder):
    async with Box(folder, max_wait_ms=50) as box:
        texts = ["yes", "alpha bravo charlie delta echo foxtrot golf hotel", "- -", "no stop."]
        pcm = [np.concatenate([speech(text), np.zeros(33_000, np.int16)])[:33_000] for text in texts]
        numbers = [box.ask(slot, box.hear(slot, audio)) for slot, audio in enumerate(pcm)]
        assert [answer.text for answer in await box.answers(*numbers)] == ["yes", texts[1], "", "no stop."]
        assert box.model.encoded == [(3, 500)], "silence is not worth a look"


async def test_a_batch_is_spread_over_the_cores(folder):
    options = WhisperOptions(model=str(folder), max_wait_ms=50)
    engine = WhisperAsr(lambda: WhisperModel(folder, device="cpu", threads=2), options)
    async with Callers(engine) as callers:
        assert engine.model.parallel == 2
        texts = [f"{word} bravo" for word in WORDS[:5]]
        numbers = [callers.ask(slot, callers.hear(slot, speech(text))) for slot, text in enumerate(texts)]
        assert [answer.text for answer in await callers.answers(*numbers)] == texts


async def test_what_was_heard_grows_while_the_caller_speaks(folder):
    text = "alpha bravo charlie stop. delta echo foxtrot golf hotel india"
    async with Box(folder) as box:
        box.hear(0, speech(text))
        stable: list[str] = []
        for end in range(4000, 40_001, 2400):
            answer = await box.recognise(0, end // 160 * 160, utterance=1, final=False)
            heard = answer.text.split()
            assert [word.text for word in answer.words] == heard
            assert text.startswith(answer.text)
            assert heard[: len(stable)] == stable, "what is stable is never taken back"
            assert len(stable) <= answer.stable <= len(heard)
            stable = heard[: answer.stable]
            for at, (_, start, stop) in enumerate(words(answer)):
                assert start == pytest.approx(at / 2, abs=0.11)
                assert stop == pytest.approx((at + 1) / 2, abs=0.11) or at + 1 == len(heard)
        assert len(stable) >= 8
        given = [len(asked[0].prefix) for asked in box.model.asked]
        assert given == sorted(given) and given[-1] >= 7, "stable words are given, not found again"
        final = await box.recognise(0, 40_000, utterance=1)
        assert (final.text, final.stable) == (text, 10)


async def test_a_long_utterance_does_not_cost_more_and_more(folder):
    text = SENTENCES
    async with Box(folder) as box:
        box.hear(0, speech(text))
        for end in range(8000, 200_001, 8000):
            answer = await box.recognise(0, end, utterance=5, final=False)
        assert len(answer.text.split()) >= 48
        assert max(frames for _, frames in box.model.encoded) <= 1200
        final = await box.recognise(0, 200_000, utterance=5)
        assert final.text == text
        assert box.model.encoded[-1][1] <= 1200


async def test_more_than_half_a_minute_at_once_is_cut_at_a_quiet_place(folder):
    first, second = SENTENCES, "yes no " + SENTENCES
    pcm = np.concatenate([speech(first), np.zeros(1600, np.int16), speech(second)])[: 31 * 8000]
    async with Box(folder) as box:
        answer = await box.recognise(0, box.hear(0, pcm))
        assert answer.text == " ".join([first, *second.split()[: 62 - len(first.split())]])
        assert len(box.model.encoded) == 2


async def test_a_closed_list_is_answered_with_its_phrase(folder):
    async with Box(folder) as box:
        end = box.hear(0, speech("alpha bravo"))
        phrases = ("alpha bravo", "charlie delta", "stop")
        asked = {"phrases": phrases, "reject": True}
        answer = await box.recognise(0, end, **asked)
        assert (answer.text, answer.accepted) == ("alpha bravo", True)
        box.hear(1, speech("stop."))
        assert (await box.recognise(1, 4000, **asked)).text == "stop"
        box.hear(2, speech("hotel india golf"))
        answer = await box.recognise(2, 12_000, **asked)
        assert (answer.text, answer.accepted) == ("hotel india golf", False)
        box.hear(3, speech("alpha"))
        answer = await box.recognise(3, 4000, utterance=1, final=False, **asked)
        assert (answer.text, answer.accepted) == ("alpha", False)
        answer = await box.recognise(0, end, utterance=1, final=False, **asked)
        assert (answer.text, answer.accepted) == ("alpha bravo", True)


async def test_phrases_and_hints_come_before_the_transcript(folder):
    async with Box(folder) as box:
        box.hear(0, speech("alpha bravo"))
        await box.recognise(0, 8000, hints=("golf", "hotel"), phrases=("alpha bravo", "<digits 2 4>"))
        prompt = box.model.asked[0][0].prompt
        assert box.model.vocabulary.decode(prompt) == " golf, hotel, alpha bravo,"
        many = tuple(f"a rather unusual name number {number}" for number in range(100))
        answer = await box.recognise(0, 8000, hints=many)
        assert answer.text == "alpha bravo"
        assert 60 < len(box.model.asked[1][0].prompt) <= 96


async def test_silence_and_what_the_model_doubts_are_nothing(folder, tmp_path):
    async with Box(folder) as box:
        answer = await box.recognise(0, box.hear(0, np.zeros(16_000, np.int16)))
        assert (answer.text, answer.accepted, box.model.encoded) == ("", False, [])
        answer = await box.recognise(0, 16_000, utterance=1, final=False)
        assert (answer.text, answer.accepted) == ("", False)
    doubtful = write_model(tmp_path / "doubtful", certainty=0.35, no_speech=True)
    async with Box(doubtful) as box:
        answer = await box.recognise(0, box.hear(0, speech("alpha bravo")))
        assert (answer.text, answer.accepted) == ("", False)
    async with Box(doubtful, no_speech=1.0) as box:
        answer = await box.recognise(0, box.hear(0, speech("alpha bravo")))
        assert (answer.text, answer.accepted) == ("alpha bravo", True)
        assert answer.confidence < 0.4


async def test_going_round_in_circles_is_cut_short(folder):
    async with Box(folder) as box:
        answer = await box.recognise(0, box.hear(0, speech("yes " + "alpha bravo " * 8)))
        assert answer.text == "yes alpha bravo"


async def test_mistakes_of_one_request_are_its_own(folder):
    async with Box(folder, max_wait_ms=50) as box:
        for slot in range(4):
            end = box.hear(slot, speech("alpha bravo"))
        numbers = [
            box.ask(0, end),
            box.ask(1, end, generation=GENERATION + 1),
            box.ask(2, end, language="tlh"),
            box.ask(3, end),
        ]
        good, stale, foreign, other = await box.answers(*numbers)
        assert (good.text, other.text) == ("alpha bravo", "alpha bravo")
        assert isinstance(stale, Failed) and not stale.retryable
        assert isinstance(foreign, Failed) and "does not know the language 'tlh'" in foreign.reason


async def test_of_one_utterance_only_what_reaches_furthest_is_computed(folder):
    async with Box(folder, max_wait_ms=50) as box:
        box.hear(0, speech("alpha bravo charlie"))
        numbers = [box.ask(0, end, utterance=1, final=False) for end in (8000, 9600)]
        numbers.append(box.ask(0, 12_000, utterance=1))
        first, second, final = await box.answers(*numbers)
        assert (first.text, second.text) == ("", "")
        assert final.text == "alpha bravo charlie"
        assert sum(size for size, _ in box.model.encoded) <= 2


async def test_what_nobody_wants_any_more_is_not_computed_to_the_end(folder):
    async with Box(folder, max_wait_ms=0) as box:
        end = box.hear(0, speech("alpha bravo"))
        begun, go = asyncio.Event(), asyncio.Event()
        compute = box.engine._compute

        async def slowly(work, *arguments):
            result = await compute(work, *arguments)
            if work == box.model.encode:
                begun.set()
                await go.wait()
            return result

        box.engine._compute = slowly  # type: ignore[method-assign]
        number = box.ask(0, end)
        async with asyncio.timeout(DEADLINE_S):
            await begun.wait()
        waiting = box.ask(0, end)
        box.cancel(number)
        go.set()
        await box.answers(waiting)
        assert number not in box.said
        assert len(box.model.asked) == 1, "only the second was written down"


async def test_other_bands_and_a_model_in_full_precision(tmp_path):
    folder = write_model(tmp_path / "wide", bands=128, quantization="float32")
    async with Box(folder, compute_type="float32") as box:
        answer = await box.recognise(0, box.hear(0, speech("hotel india yes")))
        assert answer.text == "hotel india yes"


def test_the_provider_answers_while_the_caller_speaks(folder):
    registry = provider_registry()
    assert registry.partials("asr", "whisper", {"model": str(folder)})
    assert registry.validate_options("asr", "whisper", {}) == ["model: is missing; provider 'whisper' needs it"]


def settings(tmp_path: Path, **asr: object) -> Settings:
    chosen = {"provider": "whisper", "options": asr}
    return Settings.model_validate({"engines": {"asr": chosen}, "models_dir": str(tmp_path)})


async def test_a_model_is_found_by_its_name_in_the_model_directory(tmp_path):
    write_model(tmp_path / "tones")
    engine = make_engine(settings(tmp_path, model="tones", device="cpu", threads=1), "asr")
    await engine.load()
    assert "3 languages, 80 mel bands" in engine.model.description  # type: ignore[attr-defined]
    await engine.close()


async def test_a_model_that_is_not_there_says_how_to_get_one(tmp_path):
    engine = make_engine(settings(tmp_path, model="base.en"), "asr")
    with pytest.raises(ModelFileError, match=r"base\.en does not exist; make one with `ct2-transformers-converter"):
        await engine.load()
    (tmp_path / "base.en").mkdir()
    engine = make_engine(settings(tmp_path, model="base.en"), "asr")
    with pytest.raises(ModelFileError, match=r"base\.en holds no CTranslate2 model \(model.bin\); make one"):
        await engine.load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocabulary.json", "[1, 2]", "is not a list of tokens; make one"),
        ("vocabulary.json", "{", "vocabulary.json cannot be read"),
        ("vocabulary.json", '["a"]', "is not the vocabulary of a Whisper model"),
        ("model.bin", "nonsense", "cannot be loaded"),
    ],
)
def test_a_damaged_model_says_what_is_wrong_with_it(tmp_path, folder, name, content, message):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises((EngineError, ModelFileError), match=message):
        WhisperModel(tmp_path, device="cpu")


def test_wide_vectors_are_used_where_the_processor_is_made_for_them():
    flags = "processor : 0\nflags\t: fpu sse avx2 avx512f avx512bw avx512dq avx512vl {}\nbugs : x\n"
    assert has_wide_vectors(flags.format("avx512_vnni"))
    assert not has_wide_vectors(flags.format("avx512cd"))
    assert not has_wide_vectors("Features : fp asimd\n")


def test_an_old_vocabulary_has_a_token_on_each_line(tmp_path, folder):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "vocabulary.json").unlink()
    tokens = [token.replace("\n", "") for token in vocabulary()]
    (tmp_path / "vocabulary.txt").write_text("\n".join(tokens) + "\n")
    assert len(WhisperModel(tmp_path, device="cpu").vocabulary) == len(tokens)


def test_computing_that_the_machine_cannot_do_is_refused_with_the_setting(folder):
    with pytest.raises(EngineError, match=r"engines.asr.compute_type: .*bfloat16"):
        WhisperModel(folder, device="cpu", compute_type="int8_bfloat16")


def test_a_graphics_card_that_is_not_there_is_refused_with_the_setting(folder, monkeypatch):
    monkeypatch.setattr("appliance.engines.whisper_model.get_cuda_device_count", lambda: 0)
    with pytest.raises(EngineError, match=r"engines.asr.device: there is no CUDA device"):
        WhisperModel(folder, device="cuda")
    assert WhisperModel(folder, device="auto").device == "cpu"
