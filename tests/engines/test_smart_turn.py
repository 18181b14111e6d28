"""Smart Turn: the features it was trained on, and verdicts on human speech."""

from __future__ import annotations

import statistics
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from appliance.engines.smart_turn import LogMel, SmartTurn
from appliance.errors import ModelFileError
from appliance.models.catalogue import SMART_TURN
from appliance.models.store import ModelStore, model_directory


@pytest.fixture(scope="module")
def smart_turn() -> SmartTurn:
    try:
        return SmartTurn(ModelStore(model_directory()).read(SMART_TURN.name))
    except ModelFileError as error:
        pytest.skip(str(error))


def sweep(seconds: float) -> NDArray[np.float32]:
    """A rising tone at 16 kHz, half of full scale."""
    t = np.arange(int(seconds * 16000)) / 16000
    return (0.5 * np.sin(2 * np.pi * (100 * t + 1000 * t * t))).astype(np.float32)


def human_clips(folder: Path) -> dict[str, tuple[NDArray[np.int16], float, float]]:
    """Samples at 8 kHz with the labelled start and end of speech in seconds."""
    clips = {}
    for line in (folder / "labels.tsv").read_text().splitlines():
        name, start, end = line.split("\t")
        if not name.startswith("utterances/") or "libri" in name:
            continue
        with wave.open(str(folder / name)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32)
            rate = file.getframerate()
        telephone = soxr.resample(samples, rate, 8000).clip(-32768, 32767).astype(np.int16)
        clips[name] = np.concatenate([telephone, np.zeros(4000, np.int16)]), float(start), float(end)
    return clips


class TestLogMel:
    def test_shape_and_type(self) -> None:
        features = LogMel()(sweep(1.5))
        assert features.shape == (80, 800)
        assert features.dtype == np.float32

    def test_agrees_with_the_reference_extractor(self) -> None:
        """Values of transformers 5.23 WhisperFeatureExtractor(chunk_length=8, do_normalize) on the same samples."""
        features = LogMel()(sweep(1.5))
        reference = {(0, 0): -0.00163, (10, 660): 1.09927, (40, 700): -0.14225, (60, 799): 0.42857}
        for (band, frame), value in reference.items():
            assert features[band, frame] == pytest.approx(value, abs=1e-3)
        assert features.mean() == pytest.approx(-0.10935, abs=1e-4)
        assert features.std() == pytest.approx(0.19728, abs=1e-4)

    @pytest.mark.parametrize("length", [0, 1, 200, 399, 400, 401, 32000, 127600, 127999, 128000, 130001])
    def test_the_short_cut_for_leading_silence_changes_nothing(self, length: int) -> None:
        """Silence written out gives the same features as silence implied."""
        heard = np.random.default_rng(length).normal(0.01, 0.1, length).astype(np.float32)[-128000:]
        written_out = np.concatenate([np.zeros(128000 - len(heard), np.float32), heard])
        np.testing.assert_allclose(LogMel()(heard), LogMel()(written_out), atol=1e-5)

    def test_nothing_remains_from_the_call_before(self) -> None:
        log_mel = LogMel()
        log_mel(sweep(8))
        np.testing.assert_array_equal(log_mel(sweep(1)), LogMel()(sweep(1)))

    def test_only_the_last_eight_seconds_count(self) -> None:
        long = sweep(9)
        np.testing.assert_array_equal(LogMel()(long), LogMel()(long[-128000:]))


class TestVerdicts:
    def test_is_a_probability_for_any_length(self, smart_turn: SmartTurn) -> None:
        noise = np.random.default_rng(0).integers(-32768, 32767, 80000).astype(np.int16)
        for length in (0, 1, 160, 8000, 80000):
            assert 0.0 <= smart_turn.probability(noise[:length], rate_hz=8000) <= 1.0

    def test_is_repeatable(self, smart_turn: SmartTurn) -> None:
        pcm = (sweep(2)[::2] * 20000).astype(np.int16)
        first = smart_turn.probability(pcm, rate_hz=8000)
        smart_turn.warm_up()
        assert smart_turn.probability(pcm, rate_hz=8000) == first

    def test_the_rate_must_be_said(self, smart_turn: SmartTurn) -> None:
        with pytest.raises(TypeError, match="rate_hz"):
            smart_turn.probability(np.zeros(8000, np.int16))  # type: ignore[call-arg]

    @pytest.mark.slow
    def test_complete_sentences_score_above_cut_ones_on_telephone_audio(
        self, smart_turn: SmartTurn, shared_audio: Path
    ) -> None:
        complete, cut, cut_at_wrong_rate = [], [], []
        for pcm, start, end in human_clips(shared_audio).values():
            complete.append(smart_turn.probability(pcm[: int((end + 0.2) * 8000)], rate_hz=8000))
            for part in (0.45, 0.6):
                middle = int((start + (end - start) * part) * 8000)
                paused = np.concatenate([pcm[:middle], np.zeros(1600, np.int16)])
                cut.append(smart_turn.probability(paused, rate_hz=8000))
                cut_at_wrong_rate.append(smart_turn.probability(paused, rate_hz=16000))
        assert statistics.median(complete) > 0.9
        assert statistics.median(cut) < 0.4
        # What the explicit rate guards against: 8 kHz audio taken for 16 kHz sounds finished wherever it stops.
        assert statistics.median(cut_at_wrong_rate) > 0.6
