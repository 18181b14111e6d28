"""Frames of 32 ms out of ticks of 20 ms, and speech found where the labels say it is."""

from __future__ import annotations

import statistics
import wave
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.media.vad import BatchVad, VadFramer


def counting(slot: int, tick: int) -> NDArray[np.int16]:
    """The 160 samples of a tick, every sample of a call different from its neighbours."""
    return ((np.arange(tick * 160, (tick + 1) * 160) * 7 + slot * 1000) % 30000).astype(np.int16)


class TestVadFramer:
    def test_frames_are_the_stream_in_order(self) -> None:
        capacity, ticks = 20, 50
        framer = VadFramer(capacity)
        slots = np.arange(capacity)
        heard: dict[int, list[NDArray[np.float32]]] = {slot: [] for slot in range(capacity)}
        for tick in range(ticks):
            ready, frames = framer.push(slots, np.stack([counting(slot, tick) for slot in range(capacity)]))
            assert frames.dtype == np.float32
            for slot, frame in zip(ready, frames, strict=True):
                heard[int(slot)].append(frame)
        for slot in range(capacity):
            lead = 32 * (slot % 8)
            sent = np.concatenate([np.zeros(lead), *(counting(slot, tick) for tick in range(ticks))]) / 32768
            out = np.concatenate(heard[slot])
            assert len(out) == len(sent) // 256 * 256
            np.testing.assert_allclose(out, sent[: len(out)], atol=1e-7)

    def test_every_tick_has_five_eighths_of_the_slots(self) -> None:
        framer = VadFramer(64)
        for tick in range(40):
            ready, _ = framer.push(np.arange(64), np.stack([counting(slot, tick) for slot in range(64)]))
            assert len(ready) == 40

    def test_calls_that_begin_at_any_time_keep_the_balance(self) -> None:
        chance = np.random.default_rng(0)
        framer = VadFramer(64)
        silence = np.zeros((64, 160), np.int16)
        for _ in range(200):
            framer.reset(int(chance.integers(64)))
            ready, _ = framer.push(np.arange(64), silence)
            assert len(ready) == 40

    def test_slots_come_in_any_order_and_number(self) -> None:
        """A slot that misses ticks goes on where it was; the others do not notice."""
        chance = np.random.default_rng(1)
        framer = VadFramer(10)
        sent: dict[int, list[NDArray[np.int16]]] = {slot: [] for slot in range(10)}
        heard: dict[int, list[NDArray[np.float32]]] = {slot: [] for slot in range(10)}
        for _ in range(100):
            slots = chance.permutation(10)[: chance.integers(0, 11)]
            frames = chance.integers(-32768, 32767, (len(slots), 160)).astype(np.int16)
            for slot, frame in zip(slots, frames, strict=True):
                sent[int(slot)].append(frame)
            for slot, frame in zip(*framer.push(slots, frames), strict=True):
                heard[int(slot)].append(frame)
        for slot in range(10):
            expected = np.concatenate([np.zeros(32 * (slot % 8)), *sent[slot]]) / 32768
            out = np.concatenate(heard[slot])
            assert 0 <= len(expected) - len(out) < 256
            np.testing.assert_allclose(out, expected[: len(out)], atol=1e-7)

    def test_reset_leaves_nothing_of_the_call_before(self) -> None:
        framer = VadFramer(1)
        loud = np.full((1, 160), 20000, np.int16)
        slots = np.zeros(1, np.int64)
        for _ in range(5):
            framer.push(slots, loud)
        framer.reset(0)
        for _ in range(8):
            _, frames = framer.push(slots, np.zeros((1, 160), np.int16))
            assert not frames.any()


class TestBatchVad:
    def test_speech_belongs_to_the_slot_that_spoke(self, model: bytes, shared_audio: Path) -> None:
        vad = BatchVad(model, 16)
        speech = telephone(shared_audio / "utterances/spk1_snt1.wav")
        highest = np.zeros(16)
        slots = np.array([3, 11, 12])
        for tick in range(len(speech) // 160):
            frames = np.zeros((3, 160), np.int16)
            frames[1] = speech[tick * 160 : (tick + 1) * 160]
            vad.tick(slots, frames)
            highest = np.maximum(highest, vad.speech)
        assert highest[11] > 0.9
        assert np.delete(highest, 11).max() < 0.3
        vad.reset(11)
        assert vad.speech[11] == 0.0

    def test_warm_up_leaves_no_trace(self, model: bytes) -> None:
        noise = np.random.default_rng(0).integers(-3000, 3000, (20, 2, 160)).astype(np.int16)
        cold, warm = BatchVad(model, 2), BatchVad(model, 2)
        warm.warm_up()
        for frames in noise:
            cold.tick(np.arange(2), frames)
            warm.tick(np.arange(2), frames)
        np.testing.assert_allclose(warm.speech, cold.speech, atol=1e-6)

    def test_human_speech_is_found_and_its_end_within_a_quarter_second(self, model: bytes, shared_audio: Path) -> None:
        """All clips at once, as calls: probability against the labels, 8 kHz with room noise at -65 dBFS."""
        labels: dict[str, tuple[float, float]] = {}
        for line in (shared_audio / "labels.tsv").read_text().splitlines():
            name, *bounds = line.split("\t")
            if name.startswith("utterances/") and "libri" not in name:
                labels[name] = (float(bounds[0]), float(bounds[1]))
        noise = np.random.default_rng(0).normal(0, 18, 10 * 8000)
        ticks = 250
        calls = np.zeros((len(labels), ticks * 160), np.int16)
        for row, name in enumerate(labels):
            clip = telephone(shared_audio / name)[: ticks * 160]
            calls[row] = noise[: ticks * 160]
            calls[row, : len(clip)] += clip
        vad = BatchVad(model, len(labels))
        slots = np.arange(len(labels))
        curve = np.zeros((ticks, len(labels)), np.float32)
        for tick in range(ticks):
            vad.tick(slots, calls[:, tick * 160 : (tick + 1) * 160])
            curve[tick] = vad.speech
        found, delays_s = [], []
        for row, (start, end) in enumerate(labels.values()):
            inside = curve[int((start + 0.15) * 50) : int(end * 50), row]
            found.append(float((inside > 0.5).mean()))
            last = np.flatnonzero(curve[:, row] > 0.5)[-1]
            delays_s.append((last + 1) * 0.02 - end)
        assert statistics.median(found) > 0.9
        assert min(found) > 0.6
        assert 0.05 <= statistics.median(delays_s) <= 0.25
        assert max(delays_s) < 0.35


def telephone(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32)
        resampled: NDArray[np.float32] = soxr.resample(samples, file.getframerate(), 8000)
    return resampled.clip(-32768, 32767).astype(np.int16)
