"""The model as matrix products agrees with ONNX Runtime's run of the same file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from appliance.errors import ModelFileError
from appliance.media import silero
from appliance.media.silero import SileroBatch


class Reference:
    """One call at a time through ONNX Runtime."""

    def __init__(self, model: bytes, capacity: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.state = np.zeros((capacity, 2, 1, 128), np.float32)
        self.context = np.zeros((capacity, 32), np.float32)

    def step(self, slot: int, frame: NDArray[np.float32]) -> float:
        samples = np.concatenate([self.context[slot], frame])[np.newaxis]
        rate = np.array(8000, np.int64)
        output, state = self.session.run(None, {"input": samples, "state": self.state[slot], "sr": rate})
        self.state[slot] = state
        self.context[slot] = frame[-32:]
        return float(output[0, 0])


def test_any_mix_of_calls_gives_what_each_would_get_alone(model: bytes) -> None:
    chance = np.random.default_rng(0)
    capacity = 9
    batch, reference = SileroBatch(model, capacity), Reference(model, capacity)
    for _ in range(120):
        slots = chance.permutation(capacity)[: chance.integers(1, capacity + 1)]
        loudness = 10 ** chance.uniform(-4, -0.3)
        frames = chance.normal(0, loudness, (len(slots), 256)).astype(np.float32)
        expected = [reference.step(int(slot), frame) for slot, frame in zip(slots, frames, strict=True)]
        np.testing.assert_allclose(batch.step(slots, frames), expected, atol=2e-5)


def test_more_calls_than_one_pass_holds(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(1).normal(0, 0.1, (10, 256)).astype(np.float32)
    slots = np.arange(10)
    whole = SileroBatch(model, 10)
    monkeypatch.setattr(silero, "_CHUNK", 4)
    chunked = SileroBatch(model, 10)
    for _ in range(3):
        np.testing.assert_allclose(chunked.step(slots, frames), whole.step(slots, frames), atol=1e-5)


def test_reset_forgets_one_slot_only(model: bytes) -> None:
    frames = np.random.default_rng(2).normal(0, 0.1, (2, 256)).astype(np.float32)
    slots = np.arange(2)
    batch, untouched = SileroBatch(model, 2), SileroBatch(model, 2)
    first = batch.step(slots, frames).copy()
    untouched.step(slots, frames)
    batch.reset(0)
    again = batch.step(slots, frames)
    assert again[0] == pytest.approx(first[0], abs=1e-6)
    assert again[1] == pytest.approx(untouched.step(slots, frames)[1], abs=1e-6)


def test_no_calls_is_no_work(model: bytes) -> None:
    assert SileroBatch(model, 4).step(np.zeros(0, np.int64), np.zeros((0, 256), np.float32)).shape == (0,)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_extremes_give_probabilities(model: bytes, level: float) -> None:
    batch = SileroBatch(model, 1)
    for _ in range(50):
        (probability,) = batch.step(np.zeros(1, np.int64), np.full((1, 256), level, np.float32))
        assert 0.0 <= probability <= 1.0


def test_another_file_is_refused_in_words() -> None:
    with pytest.raises(ModelFileError, match=r"not the Silero VAD this version knows; run 'appliance models verify'"):
        SileroBatch(b"", 1)
