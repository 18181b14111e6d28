"""Noise goes, voices stay; RNNoise where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio.suppression import FRAME_SAMPLES, RnnoiseLibrary, RnnoiseSuppressor, WebRtcSuppressor
from appliance.errors import EngineError

Pcm = NDArray[np.int16]


def rnnoise() -> RnnoiseLibrary:
    try:
        return RnnoiseLibrary()
    except EngineError as error:
        pytest.skip(str(error))


def voice(seconds: float, seed: int = 0) -> NDArray[np.float64]:
    """Something with a pitch, harmonics and syllables, at about -20 dBFS."""
    at = np.arange(int(seconds * 8000)) / 8000
    pitch = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 0.7 * at)) / 8000
    tone = sum(np.sin(number * pitch) / number for number in range(1, 18))
    return 4500 * tone * np.clip(np.sin(2 * np.pi * 3.1 * at), 0, None)


def hiss(seconds: float, level: float) -> NDArray[np.float64]:
    return np.random.default_rng(3).normal(0, level, int(seconds * 8000))


def through(suppressor: WebRtcSuppressor | RnnoiseSuppressor, pcm: NDArray[np.float64]) -> Pcm:
    frames = pcm.astype(np.int16)[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.concatenate([suppressor.process(frame) for frame in frames])


def level_db(pcm: NDArray[np.generic]) -> float:
    return float(10 * np.log10((pcm.astype(np.float64) ** 2).mean() + 1e-9))


@pytest.mark.parametrize("strength", [1, 2, 3, 4])
def test_steady_noise_is_taken_off(strength: int) -> None:
    noise = hiss(3.0, 300.0)
    clean = through(WebRtcSuppressor(strength), noise)
    assert level_db(noise[-8000:]) - level_db(clean[-8000:]) >= 4.0 * strength


def test_a_voice_stays_as_loud_as_it_was_and_comes_as_late_as_is_said() -> None:
    said = voice(2.0)
    suppressor = WebRtcSuppressor(2)
    clean = through(suppressor, said)
    alike = [np.dot(said[4000:-200], clean[4000 + delay : len(said) - 200 + delay]) for delay in range(200)]
    assert abs(int(np.argmax(alike)) - suppressor.delay_samples) <= 2
    assert abs(level_db(clean[4000:]) - level_db(said[4000:])) <= 4.0


def test_every_caller_has_a_state_of_its_own() -> None:
    first, second = WebRtcSuppressor(2), WebRtcSuppressor(2)
    through(first, hiss(2.0, 300.0))
    np.testing.assert_array_equal(through(second, voice(1.0)), through(WebRtcSuppressor(2), voice(1.0)))


def test_rnnoise_takes_noise_off_and_leaves_a_voice() -> None:
    library = rnnoise()
    suppressor = RnnoiseSuppressor(library)
    noise = hiss(3.0, 300.0)
    assert level_db(noise[-8000:]) - level_db(through(suppressor, noise)[-8000:]) >= 10.0
    said = voice(2.0)
    clean = through(RnnoiseSuppressor(library), said)
    delay = RnnoiseSuppressor.delay_samples
    assert np.corrcoef(said[4000:-delay], clean[4000 + delay :])[0, 1] >= 0.9


def test_rnnoise_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install 'appliance\[rnnoise\]'"):
        RnnoiseLibrary()


def test_rnnoise_that_cannot_be_loaded_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Found)
    with pytest.raises(EngineError, match="reinstall pyrnnoise"):
        RnnoiseLibrary()
