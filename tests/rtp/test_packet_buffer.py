from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from appliance.audio.codec import new_codec
from appliance.audio.level import rms_dbfs_one
from appliance.audio.tones import sine
from appliance.errors import RtpError
from appliance.rtp.packet_buffer import FADE_FRAMES, PacketBuffer

from ..audio.heard import level_dbfs

MADE_UP = -7


class Ramp:
    """A codec whose packets say how many samples they hold and which: 4 bytes first sample, 2 bytes count."""

    rtp_clock_hz = 48000

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        if len(payload) != 6:
            raise RtpError("not a ramp")
        first = int.from_bytes(payload[:4], "big")
        return (np.arange(first, first + self.samples_in(payload)) % 30000).astype(np.int16)

    def plc(self, samples: int, following: bytes = b"") -> NDArray[np.int16]:
        return np.full(samples, MADE_UP, np.int16)

    def samples_in(self, payload: bytes) -> int:
        return int.from_bytes(payload[4:6], "big") if len(payload) >= 6 else 0


def ramp(first: int, count: int) -> bytes:
    return first.to_bytes(4, "big") + count.to_bytes(2, "big")


def play(buffer: PacketBuffer, size: int, ticks: int, *, missing: frozenset[int] = frozenset()) -> NDArray[np.int16]:
    """What is heard of a stream of packets of ``size`` samples, some of them missing; silence is left out."""
    heard = []
    n = 0
    for tick in range(ticks):
        while n * size <= tick * 160:
            if n not in missing:
                stamp = (2**32 - 6000 + n * size * 6) & 0xFFFFFFFF
                buffer.push((65530 + n) & 0xFFFF, stamp, ramp(n * size, size), tick * 0.02, False)
            n += 1
        frame = buffer.hear()
        if frame is not None:
            assert frame.shape == (160,)
            heard.append(frame)
    return np.concatenate(heard)


@pytest.mark.parametrize("size", [20, 40, 80, 160, 240, 320, 480, 960])
def test_every_packet_size_plays_every_sample_once(size: int) -> None:
    buffer = PacketBuffer(Ramp())
    heard = play(buffer, size, 100)
    assert len(heard) >= 98 * 160 - size
    np.testing.assert_array_equal(heard, np.arange(len(heard)) % 30000)
    assert buffer.lost == buffer.late == buffer.concealed == 0


@pytest.mark.parametrize("size", [80, 160, 480])
def test_a_missing_packet_is_made_up_by_the_codec_and_the_rest_stays_in_place(size: int) -> None:
    buffer = PacketBuffer(Ramp())
    heard = play(buffer, size, 60, missing=frozenset({6}))
    expected = np.arange(len(heard))
    expected[6 * size : 7 * size] = MADE_UP
    np.testing.assert_array_equal(heard, expected)
    assert buffer.lost == 1


def test_a_long_gap_becomes_silence() -> None:
    buffer = PacketBuffer(Ramp())
    heard = play(buffer, 160, 60, missing=frozenset(range(10, 30)))
    assert np.count_nonzero(heard == MADE_UP) == FADE_FRAMES * 160
    assert buffer.hear() is not None


def test_the_decoder_goes_through_frames_that_are_skipped() -> None:
    seen: list[int] = []

    class Watched(Ramp):
        def decode(self, payload: bytes) -> NDArray[np.int16]:
            seen.append(int.from_bytes(payload[:4], "big"))
            return super().decode(payload)

    buffer = PacketBuffer(Watched())
    for n in range(5):
        buffer.push(n, n * 960, ramp(n * 160, 160), 0.0, False)
    buffer.push(5, 6 * 960, ramp(960, 160), 0.0, False)
    for _ in range(1500):
        buffer.hear(True)
    assert buffer.skipped or buffer.delay_frames <= 6
    assert seen == [160 * n for n in range(5)] + [960]


@pytest.mark.parametrize("ppm", [400, -400])
@pytest.mark.parametrize("size", [80, 160, 480])
def test_a_clock_that_is_off_is_followed(size: int, ppm: int) -> None:
    """Ten minutes: the delay stays, and between two corrections every sample is heard in order."""
    buffer = PacketBuffer(Ramp())
    n, worst, steps = 0, 0, 0
    last = None
    for tick in range(30000):
        now = tick * 0.02 + 0.003
        while n * size / 8000 <= now * (1 + ppm * 1e-6):
            buffer.push(n & 0xFFFF, n * size * 6 & 0xFFFFFFFF, ramp(n * size, size), now, False)
            n += 1
        frame = buffer.hear(True)
        if frame is None:
            continue
        if last is not None:
            steps += int((int(frame[0]) - last) % 30000 != 1)
        last = int(frame[-1])
        worst = max(worst, buffer.delay_frames)
    assert worst <= 2 + size // 160
    assert 0 < buffer.skipped + buffer.repeated <= 16
    assert steps <= 2 * (buffer.skipped + buffer.repeated) + 2
    assert buffer.lost == buffer.late == 0


def test_opus_is_carried_with_loss() -> None:
    encoder, decoder = new_codec("opus"), new_codec("opus")
    buffer = PacketBuffer(decoder)
    tone = sine(440.0, 160 * 200, -20.0)
    heard = []
    for n in range(200):
        payload = encoder.encode(tone[n * 160 : n * 160 + 160])
        if n % 17:
            buffer.push(n, n * 960, payload, n * 0.02, False)
        frame = buffer.hear()
        heard.append(np.zeros(160, np.int16) if frame is None else frame)
    line = np.concatenate(heard[20:])
    assert abs(level_dbfs(line, 440.0) + 20.0) < 1.5
    assert abs(rms_dbfs_one(line) + 20.0) < 1.5


def test_what_the_decoder_refuses_is_concealed() -> None:
    class Fussy(Ramp):
        def decode(self, payload: bytes) -> NDArray[np.int16]:
            raise RtpError("no")

    buffer = PacketBuffer(Fussy())
    buffer.push(1, 0, ramp(0, 160), 0.0, False)
    buffer.hear()
    frame = buffer.hear()
    assert frame is not None
    assert set(frame.tolist()) == {MADE_UP}
    assert buffer.broken == 1


class Counting(Ramp):
    """Counts the samples that it is asked for."""

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        self.decoded += self.samples_in(payload)
        return super().decode(payload)


@pytest.mark.parametrize("apart", [1, 20, 160, 470])
@pytest.mark.parametrize("backwards", [False, True])
def test_packets_piled_up_on_one_place_cost_one_packet_a_tick(apart: int, backwards: bool) -> None:
    """120 ms packets, each a few samples from the one before: as many as one tick takes in, tick after tick."""
    decoder = Counting()
    buffer = PacketBuffer(decoder)
    buffer.push(0, 0, ramp(0, 160), 0.0, False)
    seq, worst, ticks = 1, 0, 200
    for tick in range(ticks):
        places = [160 * tick + 160 + apart * n for n in range(16)]
        for place in reversed(places) if backwards else places:
            buffer.push(seq & 0xFFFF, place * 6, ramp(place, 960), tick * 0.02, False)
            seq += 1
        before = decoder.decoded
        buffer.hear()
        worst = max(worst, decoder.decoded - before)
    assert worst <= 2 * 960
    assert decoder.decoded <= ticks * 960
    assert buffer.discarded > ticks


def test_a_peer_whose_timestamps_waver_is_heard() -> None:
    """By 3 ms, as of a gateway that stamps packets when they leave."""
    buffer = PacketBuffer(Ramp())
    heard = 0
    for n in range(100):
        buffer.push(n, (n * 160 + (24 if n % 2 else 0)) * 6, ramp(n * 160, 160), n * 0.02, False)
        frame = buffer.hear()
        heard += frame is not None and bool((frame != MADE_UP).all())
    assert buffer.discarded == 0
    assert heard > 45


_hostile = st.tuples(
    st.integers(0, 65535) | st.integers(0, 40),
    st.integers(0, 2**32 - 1) | st.integers(0, 60).map(lambda n: n * 480),
    st.sampled_from((0, 20, 80, 160, 240, 480, 960, 1700)),
    st.booleans(),
    st.sampled_from((1, 1, 1, 1, 2)),
    st.integers(0, 4),
)


@settings(max_examples=150)
@given(st.lists(_hostile, max_size=120))
def test_whatever_comes_memory_is_bounded_and_frames_are_whole(
    packets: list[tuple[int, int, int, bool, int, int]],
) -> None:
    buffer = PacketBuffer(Ramp())
    for seq, timestamp, size, marker, ssrc, pops in packets:
        buffer.push(seq, timestamp, ramp(0, size), 0.0, marker, ssrc)
        assert buffer.depth_frames <= 2 * 10 + 12
        assert 0 <= buffer.delay_frames <= 10
        for _ in range(pops):
            frame = buffer.hear()
            assert frame is None or (frame.shape == (160,) and frame.dtype == np.int16)
