"""Shared audio memory: positions, wrapping, and never somebody else's audio."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from appliance.errors import StaleSlot
from appliance.ipc.rings import FRAME_SAMPLES, RING_FRAMES, RING_SAMPLES, AudioRings


@pytest.fixture
def rings() -> Iterator[AudioRings]:
    made = AudioRings.create(3)
    yield made
    os.close(made.fd)


def speak(rings: AudioRings, slot: int, count: int) -> None:
    """Media's part: frame n of the caller holds n, of the agent -n."""
    for _ in range(count):
        frame = int(rings.frames[slot])
        rings.rx[slot, frame % RING_FRAMES] = frame % 30000
        rings.sent[slot, frame % RING_FRAMES] = -(frame % 30000)
        rings.frames[slot] += 1


def test_another_process_sees_the_same_audio(rings: AudioRings) -> None:
    rings.open(1, 7)
    speak(rings, 1, 5)
    other = AudioRings.attach(rings.fd, 3)
    heard = other.read_rx(1, 7, 2 * FRAME_SAMPLES, 4 * FRAME_SAMPLES)
    assert heard.tolist() == [2] * FRAME_SAMPLES + [3] * FRAME_SAMPLES


def test_reading_is_cut_to_what_has_been_heard(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, 2)
    assert len(rings.read_rx(0, 1, FRAME_SAMPLES, 99 * FRAME_SAMPLES)) == FRAME_SAMPLES
    assert len(rings.read_rx(0, 1, 5 * FRAME_SAMPLES, 6 * FRAME_SAMPLES)) == 0


def test_a_range_across_the_wrap_is_in_order(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, RING_FRAMES + 10)
    start, end = (RING_FRAMES - 2) * FRAME_SAMPLES, (RING_FRAMES + 2) * FRAME_SAMPLES
    heard = rings.read_rx(0, 1, start, end)
    assert heard[::FRAME_SAMPLES].tolist() == [RING_FRAMES - 2, RING_FRAMES - 1, RING_FRAMES, RING_FRAMES + 1]


def test_overwritten_audio_is_refused(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, RING_FRAMES + 10)
    with pytest.raises(StaleSlot, match="s old"):
        rings.read_rx(0, 1, 5 * FRAME_SAMPLES, 20 * FRAME_SAMPLES)
    with pytest.raises(StaleSlot, match="s old"):
        rings.read_frames(0, 1, 5, 20)


def test_a_slot_with_a_new_owner_is_refused(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, 5)
    rings.open(0, 2)
    with pytest.raises(StaleSlot, match="call 1 is over"):
        rings.read_rx(0, 1, 0, FRAME_SAMPLES)
    with pytest.raises(StaleSlot, match="call 1 is over"):
        rings.write_tts(0, 1, 0, np.zeros(8, np.int16))
    assert rings.frame_count(0, 2) == 0


def test_both_directions_are_aligned_to_the_wire(rings: AudioRings) -> None:
    """What was heard in frame 3 came ``delay`` frames earlier and stands beside what was sent then."""
    rings.open(0, 1)
    speak(rings, 0, 10)
    rings.delay[0] = 2
    assert rings.frame_count(0, 1) == 8
    caller, agent = rings.read_frames(0, 1, 1, 3)
    assert caller[::FRAME_SAMPLES].tolist() == [3, 4]
    assert agent[::FRAME_SAMPLES].tolist() == [-1, -2]


def test_unplayed_speech_is_never_overwritten(rings: AudioRings) -> None:
    rings.open(0, 1)
    rings.write_tts(0, 1, RING_SAMPLES - 4, np.arange(8, dtype=np.int16)[:4])
    with pytest.raises(StaleSlot, match="no room"):
        rings.write_tts(0, 1, RING_SAMPLES, np.zeros(1, np.int16))
    rings.tts_played[0] = 100
    rings.write_tts(0, 1, RING_SAMPLES - 4, np.arange(8, dtype=np.int16))
    assert rings.tts[0, -4:].tolist() == [0, 1, 2, 3]
    assert rings.tts[0, :4].tolist() == [4, 5, 6, 7]


def test_memory_of_another_size_is_refused(rings: AudioRings) -> None:
    with pytest.raises(ValueError, match="restart the whole appliance"):
        AudioRings.attach(rings.fd, 4)
