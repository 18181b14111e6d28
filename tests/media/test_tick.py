"""The tick over real loopback sockets, with no timer: each test says when 20 ms have passed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from appliance.audio import g711
from appliance.ipc.messages import (
    Digit,
    MediaTimeout,
    PlayoutDone,
    PlayoutStarted,
    Tick,
)
from appliance.rtp.dtmf import DtmfSender
from appliance.rtp.packet import build
from tests.media.leg_bench import GENERATION, Bench, tone


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_packet_leaves_every_tick_silence_included(bench: Bench) -> None:
    bench.tick(5)
    packets = bench.heard_by_peer()
    assert len(packets) == 5
    assert [packet.seq for packet in packets] == [65535, 0, 1, 2, 3]
    assert [packet.timestamp for packet in packets] == [(0xFFFFFFF0 + 160 * n) % 2**32 for n in range(5)]
    assert [packet.marker for packet in packets] == [True, False, False, False, False]
    assert {packet.payload for packet in packets} == {b"\xff" * 160}
    assert {packet.ssrc for packet in packets} == {0xCAFE}


@pytest.mark.parametrize("codec", ["pcmu", "pcma"])
def test_speech_leaves_as_it_is_in_the_ring_and_is_recorded_as_it_left(codec: str) -> None:
    bench = Bench(codec=codec)
    speech = np.concatenate([tone(), tone(4000)]).astype(np.int16)
    bench.rings.write_tts(2, GENERATION, 0, speech)
    bench.leg.playout.add(5, 0, 320, True)
    bench.tick(4)
    packets = bench.heard_by_peer()
    expected = g711.encode(speech.reshape(2, 160), bench.alaw)
    assert [packet.payload for packet in packets[1:3]] == [row.tobytes() for row in expected]
    sent = bench.rings.sent[2, :4]
    assert not sent[0].any()
    assert (sent[1:3].reshape(-1) == speech).all()
    assert not sent[3].any()
    ticks = [tick for tick in bench.of_type(Tick) if isinstance(tick, Tick)]
    levels = [float(np.frombuffer(tick.sent, np.float32)[0]) for tick in ticks[:4]]
    assert levels[0] < -90.0
    assert min(levels[1:3]) > -40.0
    assert levels[3] < -90.0
    started, done = bench.of_type(PlayoutStarted)[0], bench.of_type(PlayoutDone)[0]
    assert isinstance(started, PlayoutStarted)
    assert isinstance(done, PlayoutDone)
    assert (started.utterance, started.frame) == (5, 1)
    assert (done.utterance, done.frame, done.played) == (5, 2, 320)
    bench.close()


def test_the_caller_is_heard_in_the_ring(bench: Bench) -> None:
    for _ in range(5):
        bench.say(tone())
        bench.tick()
    heard = bench.rings.read_rx(2, GENERATION, 0, 10_000).reshape(-1, 160)
    loud = [bool(np.abs(frame).max() > 6000) for frame in heard]
    assert loud[0] is False  # the jitter buffer holds one frame back
    assert all(loud[1:])
    ticks = bench.of_type(Tick)
    levels = [np.frombuffer(tick.levels, np.float32)[0] for tick in ticks if isinstance(tick, Tick)]
    assert levels[0] < -90
    assert -17 < levels[-1] < -13


def test_a_flush_stops_the_staged_frame_and_counts_only_what_left(bench: Bench) -> None:
    bench.rings.write_tts(2, GENERATION, 0, np.full(1600, 9000, np.int16))
    bench.leg.playout.add(1, 0, 1600, True)
    bench.tick(4)  # staged at tick 0, so three frames have left and a fourth is staged
    assert bench.clock.flush(bench.leg) == (1, 3 * 160)
    bench.heard_by_peer()
    bench.tick(2)
    assert {packet.payload for packet in bench.heard_by_peer()} == {b"\xff" * 160}
    assert not bench.of_type(PlayoutDone)


def test_a_flush_after_an_underrun_takes_nothing_off_what_left(bench: Bench) -> None:
    bench.rings.write_tts(2, GENERATION, 0, np.full(500, 9000, np.int16))
    bench.leg.playout.add(1, 0, 500, False)
    bench.tick(6)
    assert bench.clock.take_stats(0).underruns
    assert bench.clock.flush(bench.leg) == (1, 480)


def test_a_flush_in_the_last_frame_takes_off_the_words_in_it_and_not_the_silence(bench: Bench) -> None:
    bench.rings.write_tts(2, GENERATION, 0, np.full(170, 9000, np.int16))
    bench.leg.playout.add(1, 0, 170, True)
    bench.tick(2)  # the first frame has left, the second is staged
    assert bench.clock.flush(bench.leg) == (1, 160)


def test_a_flush_before_anything_left_tells_that_nothing_was_heard(bench: Bench) -> None:
    bench.rings.write_tts(2, GENERATION, 0, np.full(1600, 9000, np.int16))
    bench.leg.playout.add(1, 0, 1600, True)
    bench.tick()
    assert bench.clock.flush(bench.leg) == (1, 0)
    bench.tick(2)
    assert not bench.of_type(PlayoutStarted)


def test_a_key_is_reported_once(bench: Bench) -> None:
    sender = DtmfSender("7")
    start = 5000
    while (step := sender.next()) is not None:
        if step.payload is not None:
            bench.send(101, step.payload, start, step.marker)
        bench.tick()
    keys = bench.of_type(Digit)
    assert [key.digit for key in keys if isinstance(key, Digit)] == ["7"]


def test_keys_are_sent_as_events_and_speech_waits(bench: Bench) -> None:
    bench.leg.digits_out = DtmfSender("4#")
    bench.rings.write_tts(2, GENERATION, 0, np.full(160, 9000, np.int16))
    bench.leg.playout.add(1, 0, 160, True)
    bench.tick(25)
    packets = bench.heard_by_peer()
    events = [packet for packet in packets if packet.payload_type == 101]
    assert {packet.payload[0] for packet in events} == {4, 11}
    assert [packet.marker for packet in events].count(True) == 2
    assert len({packet.timestamp for packet in events}) == 2
    spoken = [index for index, packet in enumerate(packets) if packet.payload[:1] not in (b"\xff", b"\x04", b"\x0b")]
    assert spoken
    assert spoken[0] > packets.index(events[-1])
    assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(25)]


def test_a_strangers_packets_are_counted_and_not_heard(bench: Bench) -> None:
    bench.say(tone())
    bench.tick()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        loud = g711.encode(tone(30000).astype(np.int16), False).tobytes()
        stranger.sendto(build(0, 9, 1440, 99, loud), bench.ours.getsockname())
        stranger.sendto(os.urandom(300), bench.ours.getsockname())
        bench.tick(3)
    assert bench.leg.source.strangers == 2
    assert np.abs(bench.rings.read_rx(2, GENERATION, 0, 10_000)).max() < 9000


def test_a_lost_packet_is_concealed(bench: Bench) -> None:
    for number in range(12):
        if number == 8:
            bench.sequence += 1
        else:
            bench.say(tone())
        bench.tick()
    heard = bench.rings.read_rx(2, GENERATION, 0, 10_000).reshape(-1, 160)
    assert bench.leg.concealed == 1
    assert all(np.abs(frame).max() > 3000 for frame in heard[2:])


def test_the_call_before_is_never_heard_again(bench: Bench) -> None:
    """A slot's ring still holds the call before; a loss in the first frames must not bring it back."""
    bench.rings.rx[2] = 12345
    bench.tick(2)
    bench.say(tone(100))
    bench.tick()
    bench.sequence += 1
    bench.tick(4)
    assert np.abs(bench.rings.read_rx(2, GENERATION, 0, 10_000)).max() < 1000


def test_silence_on_the_wire_is_reported_once() -> None:
    bench = Bench(rtp_timeout_s=0.0)
    bench.tick(3)
    assert len(bench.of_type(MediaTimeout)) == 1
    bench.close()


def test_hold_sends_silence_and_hears_nothing(bench: Bench) -> None:
    bench.leg.send = bench.leg.receive = False
    bench.rings.write_tts(2, GENERATION, 0, np.full(160, 9000, np.int16))
    bench.leg.playout.add(1, 0, 160, True)
    for _ in range(4):
        bench.say(tone())
        bench.tick()
    assert {packet.payload for packet in bench.heard_by_peer()} == {b"\xff" * 160}
    assert not bench.rings.read_rx(2, GENERATION, 0, 10_000).any()
    bench.leg.send = True
    bench.tick(3)
    assert len(bench.of_type(PlayoutDone)) == 1


def test_time_that_was_missed_passes_as_silence(bench: Bench) -> None:
    bench.tick(2)
    bench.clock.run(60, 1.2)
    assert int(bench.rings.frames[2]) == 62
    packets = bench.heard_by_peer()
    assert len(packets) == 12
    assert packets[-1].timestamp == (0xFFFFFFF0 + 160 * 61) % 2**32
    stats = bench.clock.take_stats(0)
    assert stats.skipped == 50
    assert stats.lateness[-1] == 1


def test_thousands_of_packets_at_once_do_not_hold_up_the_tick(bench: Bench) -> None:
    for number in range(400):
        bench.peer.sendto(
            struct.pack("!BBHII", 0x80, 0, number, number * 160, 7) + b"\x00" * 160, bench.ours.getsockname()
        )
    bench.tick()
    assert bench.clock.take_stats(0).received <= 16
