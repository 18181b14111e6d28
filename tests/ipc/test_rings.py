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


def speak(rings: AudioRings, slot: int, count: int, *, delay: int = 0, quiet: bool = False) -> None:
    """Media's part: frame n of the caller holds n, of the agent -n; ``delay`` -1 is a frame that is made up."""
    for _ in range(count):
        frame = int(rings.frames[slot])
        caller = np.full((1, FRAME_SAMPLES), frame % 30000, np.int16)
        rings.record(np.array([slot]), caller, -caller, np.array([delay]), np.array([quiet]))


def recorded(rings: AudioRings, start: int, end: int) -> list[int]:
    return [int(sample) for sample in rings.read_frames(0, 1, start, end)[0][::FRAME_SAMPLES]]


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
    speak(rings, 0, 2, delay=-1)
    speak(rings, 0, 8, delay=2)
    assert rings.frame_count(0, 1) == rings.settled_count(0, 1) == 8
    caller, agent = rings.read_frames(0, 1, 1, 3)
    assert caller[::FRAME_SAMPLES].tolist() == [3, 4]
    assert agent[::FRAME_SAMPLES].tolist() == [-1, -2]


def test_what_came_late_takes_the_place_of_what_was_made_up_for_it(rings: AudioRings) -> None:
    """Three frames were missing and then heard after all: not one of them is missing from the recording."""
    rings.open(0, 1)
    speak(rings, 0, 5)
    speak(rings, 0, 3, delay=-1)
    assert (rings.frame_count(0, 1), rings.settled_count(0, 1)) == (8, 5)
    speak(rings, 0, 6, delay=3)
    assert rings.settled_count(0, 1) == 11
    assert recorded(rings, 0, 11) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13]


def test_a_longer_delay_lays_nothing_heard_on_what_was_heard(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, 5)
    speak(rings, 0, 5, delay=2)
    assert recorded(rings, 0, 10) == list(range(10))
    speak(rings, 0, 1, delay=-1)
    speak(rings, 0, 3, delay=2)
    assert recorded(rings, 0, 13) == [*range(10), 11, 12, 13]


def test_a_shorter_delay_leaves_a_gap_in_quiet_only(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, 3, delay=-1)
    speak(rings, 0, 4, delay=3)
    speak(rings, 0, 2, delay=1)
    assert recorded(rings, 0, 6) == [3, 4, 5, 6, 7, 8]
    speak(rings, 0, 2, delay=1, quiet=True)
    assert recorded(rings, 0, 10) == [3, 4, 5, 6, 7, 8, 0, 0, 9, 10]


def test_what_is_missing_for_longer_than_a_packet_can_wait_is_settled(rings: AudioRings) -> None:
    rings.open(0, 1)
    speak(rings, 0, 5)
    speak(rings, 0, 30, delay=-1)
    assert (rings.frame_count(0, 1), rings.settled_count(0, 1)) == (35, 25)
    speak(rings, 0, 1, delay=99)
    assert recorded(rings, 24, 26) == [24, 35]


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
