from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.rtp.jitter import FRAME, JitterBuffer

LOUD = bytes((0x10, 0x90)) * (FRAME // 2)
QUIET = b"\xff" * FRAME


def audio(n: int) -> bytes:
    """Frame n of a stream, loud, and told apart by its first two bytes."""
    return bytes((0x10 + n // 16 % 16, 0x90 + n % 16)) + LOUD[2:]


class Peer:
    """Sends numbered 20 ms frames into a buffer and notes what is played."""

    def __init__(self, *, seq: int = 65533, timestamp: int = 2**32 - 400, buffer: JitterBuffer | None = None) -> None:
        self.buffer = buffer or JitterBuffer()
        self.seq = seq
        self.timestamp = timestamp
        self.now_s = 0.0

    def send(self, n: int, *, marker: bool = False, ssrc: int = 1, shift: int = 0) -> None:
        stamp = (self.timestamp + n * FRAME + shift) & 0xFFFFFFFF
        self.buffer.push((self.seq + n) & 0xFFFF, stamp, audio(n), self.now_s, marker, ssrc)

    def tick(self, *numbers: int) -> int | None:
        """One tick in which these frames came; which frame is played, None for a gap."""
        for n in numbers:
            self.send(n)
        self.now_s += 0.02
        played = self.buffer.pop()
        return None if played is None else (played[0] - 0x10) * 16 + played[1] - 0x90


@dataclass
class Line:
    """A simulated path: ``ppm`` of the peer's clock, ``jitter_s`` uniform, packets in order unless ``reorders``.

    ``misaligned_s`` is how far, at worst, a frame shifted back by ``delay_frames`` lay from when it was sent.
    """

    ppm: float = 0.0
    jitter_s: float = 0.005
    loss: float = 0.0
    samples: int = FRAME
    phase_s: float = 0.003
    reorders: bool = False
    stalls: tuple[tuple[float, float], ...] = ()
    quiet_share: float = 0.3
    buffer: JitterBuffer = field(default_factory=JitterBuffer)
    delays: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    misaligned_s: float = 0.0

    def run(self, seconds: int) -> Line:
        chance = random.Random(4)
        push, pop = self.buffer.push, self.buffer.pop
        step_s = self.samples / 8000 / (1 + self.ppm * 1e-6)
        loud, quiet = LOUD[:2] * (self.samples // 2), QUIET[:1] * self.samples
        on_the_way: list[tuple[float, int]] = []
        n, last = 0, 0.0
        for tick in range(seconds * 50):
            now = tick * 0.02
            while (sent := n * step_s + self.phase_s) <= now:
                if chance.random() >= self.loss:
                    arrival = sent + chance.random() * self.jitter_s
                    for begin, end in self.stalls:
                        if begin <= arrival < end:
                            arrival = end
                    if not self.reorders:
                        arrival = last = max(arrival, last)
                    heapq.heappush(on_the_way, (arrival, n))
                n += 1
            while on_the_way and on_the_way[0][0] <= now:
                arrival, i = heapq.heappop(on_the_way)
                payload = quiet if i * step_s % 5.0 < 5.0 * self.quiet_share else i.to_bytes(4, "big") + loud[4:]
                push((60000 + i) & 0xFFFF, (4294900000 + i * self.samples) & 0xFFFFFFFF, payload, arrival, False)
            frame = pop()
            if frame is None:
                self.gaps.append(tick)
            elif self.samples == FRAME and frame[4:] == loud[4:]:
                sent_s = int.from_bytes(frame[:4], "big") * step_s + self.phase_s
                aligned_s = (tick - self.buffer.delay_frames) * 0.02
                self.misaligned_s = max(self.misaligned_s, abs(aligned_s - sent_s))
            self.delays.append(self.buffer.delay_frames)
        return self


# --- order, loss, wrap ------------------------------------------------------------------------------------------------


def test_a_steady_stream_is_played_one_tick_later_across_both_wraps() -> None:
    peer = Peer()
    assert [peer.tick(n) for n in range(8)] == [None, 0, 1, 2, 3, 4, 5, 6]
    assert (peer.buffer.received, peer.buffer.lost, peer.buffer.concealed) == (8, 0, 0)
    assert peer.buffer.delay_frames == 1


def test_nothing_is_played_and_nothing_counted_before_the_first_packet() -> None:
    peer = Peer()
    assert [peer.tick() for _ in range(20)] == [None] * 20
    assert peer.buffer.concealed == 0


def test_a_lost_packet_is_one_gap() -> None:
    peer = Peer()
    played = [peer.tick(*([n] if n != 3 else [])) for n in range(8)]
    assert played == [None, 0, 1, 2, None, 4, 5, 6]
    assert (peer.buffer.lost, peer.buffer.concealed, peer.buffer.late) == (1, 1, 0)


def test_the_frame_behind_a_gap_can_be_seen_before_its_turn() -> None:
    peer = Peer(buffer=JitterBuffer(min_delay_frames=2))
    for numbers in [(0,), (1,), (), (3,)]:
        peer.tick(*numbers)
    assert peer.buffer.following() is None
    assert peer.tick(4) is None
    assert peer.buffer.following() == audio(3)
    assert peer.tick(5) == 3
    peer.buffer.push((peer.seq + 6) & 0xFFFF, (peer.timestamp + 6 * FRAME) & 0xFFFFFFFF, b"\x01" * 80, 0.0, False, 1)
    assert [peer.tick(), peer.tick()] == [4, 5]
    assert peer.buffer.following() is None, "half a frame is not yet one"


def test_swapped_packets_are_put_right() -> None:
    peer = Peer(buffer=JitterBuffer(min_delay_frames=2))
    played = [peer.tick(*numbers) for numbers in [(0,), (1,), (3,), (2,), (4,), (5,), (6,)]]
    assert played == [None, None, 0, 1, 2, 3, 4]
    assert (peer.buffer.lost, peer.buffer.late) == (0, 0)


def test_copies_are_dropped_and_change_nothing() -> None:
    peer = Peer()
    played = [peer.tick(n, n, max(n - 1, 0), max(n - 2, 0)) for n in range(6)]
    assert played == [None, 0, 1, 2, 3, 4]
    assert (peer.buffer.duplicate, peer.buffer.late, peer.buffer.delay_frames) == (18, 0, 1)


def test_a_packet_after_its_turn_raises_the_delay_and_loses_nothing() -> None:
    peer = Peer()
    played = [peer.tick(*numbers) for numbers in [(0,), (1,), (), (), (2, 3, 4), (5,), (6,), (7,)]]
    assert played == [None, 0, 1, None, 2, 3, 4, 5]
    assert (peer.buffer.late, peer.buffer.lost, peer.buffer.delay_frames) == (0, 0, 2)


def test_a_packet_after_newer_audio_is_late_and_raises_the_delay() -> None:
    peer = Peer()
    played = [peer.tick(*came) for came in [(0,), (1,), (2,), (4,), (5,), (6,), (7, 3), (8,), (9,), (10,)]]
    assert played == [None, 0, 1, 2, None, 4, None, None, 5, 6]
    assert (peer.buffer.late, peer.buffer.lost) == (1, 0)
    assert peer.buffer.delay_frames == 3


def test_a_stray_from_the_far_past_does_not_raise_the_delay() -> None:
    peer = Peer()
    for n in range(60):
        peer.tick(*([n] if n != 5 else []))
    assert peer.tick(60, 5) == 59
    assert (peer.buffer.late, peer.buffer.delay_frames) == (1, 1)


def test_numbers_of_other_payload_types_are_not_losses() -> None:
    peer = Peer()
    for n in range(4):
        peer.tick(n)
    for n in range(4, 9):
        peer.buffer.skip((peer.seq + n) & 0xFFFF)
        peer.tick()
    for n in range(9, 12):
        peer.tick(n)
    assert peer.buffer.lost == 0


# --- packet sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("milliseconds", [10, 20, 30, 40, 50, 60, 100, 200])
def test_every_packet_size_plays_every_sample_once(milliseconds: int) -> None:
    buffer = JitterBuffer()
    size = milliseconds * 8
    stream = bytes(random.Random(1).choices(range(256), k=80000))
    played = b""
    sent = 0
    for tick in range(400):
        while sent / 8000 <= tick * 0.02:
            buffer.push(sent // size, sent, stream[sent : sent + size], tick * 0.02, False)
            sent += size
        played += buffer.pop() or b""
    assert len(played) > 60000
    assert stream.startswith(played)
    assert buffer.lost == buffer.concealed == buffer.late == 0


def test_half_a_frame_is_completed_from_its_other_half() -> None:
    buffer = JitterBuffer(min_delay_frames=0)
    buffer.push(0, 0, b"\x01" * 160, 0.0, False)
    buffer.push(1, 160, bytes(range(80)), 0.0, False)
    buffer.push(2, 400, bytes(range(100, 180)), 0.0, False)
    assert buffer.pop() == b"\x01" * 160
    assert buffer.pop() == bytes(range(80)) + bytes(range(79, -1, -1))
    assert buffer.pop() == bytes(range(179, 99, -1)) + bytes(range(100, 180))


def test_empty_and_oversized_payloads_are_dropped() -> None:
    buffer = JitterBuffer()
    buffer.push(0, 0, b"", 0.0, False)
    buffer.push(0, 0, bytes(1601), 0.0, False)
    assert (buffer.received, buffer.discarded, buffer.depth_frames) == (0, 2, 0)


# --- jumps and restarts -----------------------------------------------------------------------------------------------


def test_a_new_ssrc_starts_afresh_at_once() -> None:
    peer = Peer()
    for n in range(5):
        peer.tick(n)
    other = Peer(seq=9, timestamp=77, buffer=peer.buffer)
    other.send(0, ssrc=2)
    assert other.tick() is None
    other.send(1, ssrc=2)
    assert other.tick() == 0
    assert peer.buffer.lost == 0


@pytest.mark.parametrize("shift", [10**6, -(10**6), 2**31 - 5, 12345, -4321])
@pytest.mark.parametrize("marker", [False, True])
def test_a_jump_of_the_timestamp_is_followed(shift: int, marker: bool) -> None:
    peer = Peer()
    for n in range(10):
        peer.tick(n)
    played = []
    for n in range(10, 20):
        peer.send(n, shift=shift, marker=marker and n == 10)
        played.append(peer.tick())
    heard = [n for n in played if n is not None]
    assert heard == list(range(9, heard[-1] + 1))
    assert heard[-1] >= 17
    assert peer.buffer.delay_frames <= 2


def test_one_wild_timestamp_is_ignored() -> None:
    peer = Peer()
    for n in range(10):
        peer.tick(n)
    peer.send(10, shift=1_000_000)
    assert [peer.tick(*numbers) for numbers in [(), (11,), (12,), (13,)]] == [9, None, 11, 12]
    assert peer.buffer.discarded == 1


@pytest.mark.parametrize("pause_ticks", [15, 150, 3000])
def test_after_a_pause_with_running_timestamp_the_delay_is_the_same(pause_ticks: int) -> None:
    peer = Peer()
    for n in range(10):
        peer.tick(n)
    peer.tick()
    concealed = peer.buffer.concealed
    for _ in range(pause_ticks - 1):
        assert peer.tick() is None
    peer.seq -= pause_ticks
    resumed = 10 + pause_ticks
    assert [peer.tick(n) is None for n in range(resumed, resumed + 4)] == [True, False, False, False]
    assert peer.buffer.delay_frames == 1
    assert peer.buffer.lost == 0
    assert peer.buffer.concealed - concealed <= 10


@pytest.mark.parametrize("pause_ticks", [15, 150, 3000])
def test_after_a_pause_with_stopped_timestamp_the_delay_is_the_same(pause_ticks: int) -> None:
    peer = Peer()
    for n in range(10):
        peer.tick(n)
    for _ in range(pause_ticks):
        peer.tick()
    assert [peer.tick(n) for n in range(10, 14)] == [None, 10, 11, 12]
    assert peer.buffer.delay_frames == 1


def test_a_restart_of_the_sequence_alone_goes_unnoticed() -> None:
    peer = Peer()
    for n in range(10):
        peer.tick(n)
    peer.seq += 20000
    assert [peer.tick(n) for n in range(10, 14)] == [9, 10, 11, 12]
    assert peer.buffer.lost == 0


def test_a_burst_beyond_the_largest_delay_keeps_the_newest() -> None:
    peer = Peer(buffer=JitterBuffer(max_delay_frames=5))
    for n in range(3):
        peer.tick(n)
    played = [peer.tick(*range(3, 23))]
    played += [peer.tick(n) for n in range(23, 40)]
    assert max(n for n in played if n is not None) >= 33
    assert peer.buffer.depth_frames <= 6
    assert peer.buffer.discarded > 0
    assert peer.buffer.delay_frames == 5


# --- adaptation in virtual time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ppm", [200, -200])
@pytest.mark.parametrize("quiet_share", [0.3, 0.0])
def test_ten_minutes_of_drift_stay_within_one_frame(ppm: int, quiet_share: float) -> None:
    line = Line(ppm=ppm, quiet_share=quiet_share).run(600)
    buffer = line.buffer
    assert max(abs(delay - 1) for delay in line.delays) <= 1
    assert buffer.lost == buffer.late == buffer.duplicate == buffer.discarded == 0
    assert 4 <= buffer.skipped + buffer.repeated <= 7
    assert len(line.gaps) <= 2 + buffer.repeated
    assert line.misaligned_s <= 0.04


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [200, -200])
def test_eight_hours_of_drift_stay_within_one_frame(ppm: int) -> None:
    line = Line(ppm=ppm).run(8 * 3600)
    assert max(abs(delay - 1) for delay in line.delays) <= 1
    assert line.buffer.lost == line.buffer.late == line.buffer.discarded == 0
    assert line.misaligned_s <= 0.04


@pytest.mark.parametrize("samples", [80, 240, 320, 480])
@pytest.mark.parametrize("ppm", [200, -200])
def test_drift_is_held_for_every_packet_size(samples: int, ppm: int) -> None:
    line = Line(ppm=ppm, samples=samples).run(300)
    assert max(abs(delay - 1) for delay in line.delays) <= 1
    assert line.buffer.lost == line.buffer.late == line.buffer.discarded == 0


@pytest.mark.parametrize("phase_s", [0.0005, 0.007, 0.0125, 0.0175, 0.0199])
def test_jitter_less_than_a_frame_costs_no_gap_and_no_delay(phase_s: float) -> None:
    line = Line(phase_s=phase_s).run(120)
    assert line.buffer.concealed == 0
    assert line.delays[-1] == 1


@pytest.mark.parametrize("reorders", [False, True])
def test_sixty_ms_of_jitter_are_adapted_to(reorders: bool) -> None:
    line = Line(jitter_s=0.06, reorders=reorders).run(120)
    settled = [tick for tick in line.gaps if tick > 500]
    assert len(settled) <= 5
    assert 3 <= line.delays[-1] <= 4
    assert line.misaligned_s <= 0.04
    assert line.buffer.lost + line.buffer.late <= 3


def test_the_delay_falls_again_when_the_jitter_has_gone() -> None:
    line = Line(stalls=((10.0, 10.5),)).run(60)
    assert max(line.delays) == 10
    assert line.delays[-1] == 1
    assert line.buffer.lost == 0
    assert line.misaligned_s <= 0.04


def test_random_loss_changes_no_delay() -> None:
    line = Line(loss=0.1).run(60)
    assert set(line.delays) == {1}
    assert line.buffer.late == 0
    assert abs(len(line.gaps) - line.buffer.lost) <= 3


def test_bursts_of_loss_are_concealed_and_over() -> None:
    peer = Peer()
    sent = [n for n in range(300) if n % 50 >= 8]
    played = [peer.tick(*([n] if n in sent else [])) for n in range(300)]
    heard = [n for n in played if n is not None]
    assert heard == [n % 256 for n in sent if n < 299]
    assert peer.buffer.delay_frames == 1


def test_jitter_is_measured_as_in_rfc_3550() -> None:
    line = Line(jitter_s=0.012).run(60)
    assert 0.003 < line.buffer.jitter_s < 0.005


def test_the_delays_given_must_make_sense() -> None:
    with pytest.raises(ValueError, match="min_delay_frames"):
        JitterBuffer(min_delay_frames=5, max_delay_frames=4)
    with pytest.raises(ValueError, match="at least 1"):
        JitterBuffer(min_delay_frames=0, max_delay_frames=0)


# --- anything at all --------------------------------------------------------------------------------------------------

_hostile = st.tuples(
    st.integers(0, 65535) | st.integers(0, 40),
    st.integers(0, 2**32 - 1) | st.integers(0, 60).map(lambda n: n * 80),
    st.integers(0, 1700),
    st.booleans(),
    st.sampled_from((1, 1, 1, 1, 2)),
    st.integers(0, 4),
)


@settings(max_examples=150)
@given(st.lists(_hostile, max_size=120))
def test_whatever_comes_memory_is_bounded_and_frames_are_whole(
    packets: list[tuple[int, int, int, bool, int, int]],
) -> None:
    buffer = JitterBuffer()
    for seq, timestamp, size, marker, ssrc, pops in packets:
        buffer.push(seq, timestamp, bytes(size), 0.0, marker, ssrc)
        assert buffer.depth_frames <= 2 * 10 + 12
        assert 0 <= buffer.delay_frames <= 10
        for _ in range(pops):
            frame = buffer.pop()
            assert frame is None or (type(frame) is bytes and len(frame) == FRAME)
    assert all(count >= 0 for count in (buffer.received, buffer.lost, buffer.late, buffer.duplicate, buffer.discarded))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=30, max_size=120))
def test_frames_never_go_backwards(arrivals: list[tuple[int, bool]]) -> None:
    """Each frame is delayed by 0 to 3 ticks or lost; what is played is a rising sequence."""
    peer = Peer()
    due: dict[int, list[int]] = {}
    for n, (delay, lost) in enumerate(arrivals):
        if not lost or n == 0:
            due.setdefault(n + delay, []).append(n)
    played = [peer.tick(*due.get(tick, ())) for tick in range(len(arrivals) + 15)]
    heard = [n for n in played if n is not None]
    assert heard == sorted(set(heard))
    buffer = peer.buffer
    assert buffer.received == len(heard) + buffer.late
