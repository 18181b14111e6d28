"""Playout: pieces in order, whole frames, and what has really left."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.ipc.rings import FRAME_SAMPLES, RING_SAMPLES
from appliance.media.playout import Playout, Popped


@pytest.fixture
def ring() -> NDArray[np.int16]:
    return (np.arange(RING_SAMPLES) % 30000).astype(np.int16)


def pop(playout: Playout) -> tuple[Popped, list[int]]:
    out = np.zeros(FRAME_SAMPLES, np.int16)
    return playout.pop(out), out.tolist()


def test_pieces_of_an_utterance_join_without_a_gap(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(1, 0, 100, False)
    playout.add(1, 100, 320, True)
    first, samples = pop(playout)
    assert first == Popped(started=1, done=-1, done_samples=0, filled=160)
    assert samples == list(range(160))
    second, samples = pop(playout)
    assert second == Popped(started=-1, done=1, done_samples=320, filled=160)
    assert samples == list(range(160, 320))
    assert not playout


def test_a_frame_is_not_begun_before_it_is_whole(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(1, 0, 100, False)
    assert pop(playout) == (Popped(-1, -1, 0, 0), [0] * 160)
    playout.add(1, 100, 200, False)
    assert pop(playout)[0].started == 1
    assert playout.underruns == 0


def test_running_dry_in_an_utterance_is_an_underrun(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(1, 0, 200, False)
    pop(playout)
    assert pop(playout)[1] == [0] * 160
    assert playout.underruns == 1
    assert playout.played == 160


def test_the_last_frame_is_filled_with_silence(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(4, 0, 170, True)
    pop(playout)
    popped, samples = pop(playout)
    assert popped == Popped(-1, 4, 170, 10)
    assert samples == [*range(160, 170), *[0] * 150]


def test_an_empty_end_closes_an_utterance(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(1, 0, 160, False)
    pop(playout)
    playout.add(1, 160, 160, True)
    assert pop(playout)[0] == Popped(-1, 1, 160, 0)


def test_flush_tells_what_had_left_and_moves_past_the_rest(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(1, 0, 160, True)
    playout.add(2, 160, 800, False)
    pop(playout)
    pop(playout)
    assert playout.flush() == (2, 160)
    assert playout.position == 800
    assert not playout
    assert playout.flush() == (-1, 0)


def test_the_ring_wraps(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    playout.add(1, RING_SAMPLES - 80, RING_SAMPLES + 80, True)
    samples = pop(playout)[1]
    assert samples == [*((np.arange(RING_SAMPLES - 80, RING_SAMPLES) % 30000).tolist()), *range(80)]


def test_too_many_pieces_are_refused(ring: NDArray[np.int16]) -> None:
    playout = Playout(ring)
    accepted = [playout.add(number, 0, 10, True) for number in range(2000)]
    assert accepted.count(True) == 1024
