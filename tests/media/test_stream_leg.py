"""A leg whose audio is a stream: sent ahead, heard as it is played, and cut short where it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from appliance.api import Audio
from appliance.carriers.audiosocket import AudioSocketStream, message
from appliance.carriers.browser import BrowserStream
from appliance.carriers.playback import LEAD, SHORT_LEAD
from appliance.ipc.messages import Digit, PlayoutDone, PlayoutStarted
from appliance.ipc.rings import FRAME_SAMPLES
from tests.media.leg_bench import tone
from tests.media.stream_bench import GENERATION, StreamBench


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamBench]:
    made = StreamBench(monkeypatch)
    yield made
    made.close()


def test_an_utterance_is_sent_ahead_and_heard_whole(bench: StreamBench) -> None:
    bench.synthesise(100 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 100 * FRAME_SAMPLES, True)
    leads = []
    for _ in range(120):
        bench.tick()
        leads.append(bench.lead)
    assert max(leads) <= LEAD // FRAME_SAMPLES
    assert leads[0] == LEAD // FRAME_SAMPLES, "the first of it goes at once"
    loud = [np.abs(frame).max() > 1000 for frame in bench.heard]
    assert sum(loud) == 100
    assert loud[loud.index(True) :][:100] == [True] * 100, "no gap in it"
    (started,) = bench.of_type(PlayoutStarted)
    (done,) = bench.of_type(PlayoutDone)
    assert (started.utterance, done.utterance, done.played) == (1, 1, 100 * FRAME_SAMPLES)
    assert bench.rings.tts_played[bench.slot] == 100 * FRAME_SAMPLES


def test_nothing_is_sent_while_nothing_is_said(bench: StreamBench) -> None:
    bench.tick(50)
    assert bench.sent == []


def test_the_recording_has_what_the_carrier_played(bench: StreamBench) -> None:
    bench.synthesise(50 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 50 * FRAME_SAMPLES, True)
    bench.tick(80)
    _, agent = bench.rings.read_frames(bench.slot, GENERATION, 0, 75)
    loud = np.abs(agent.reshape(-1, FRAME_SAMPLES)).max(axis=1) > 1000
    first = int(np.argmax(loud))
    assert loud[first : first + 50].all() and loud.sum() == 50
    assert first <= 3, "when it was played, not later"


@pytest.mark.parametrize("after", [3, 17, 40])
def test_what_is_cut_short_was_heard_as_far_as_it_was_played(bench: StreamBench, after: int) -> None:
    bench.synthesise(100 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 100 * FRAME_SAMPLES, True)
    bench.tick(after)
    utterance, samples = bench.clock.flush(bench.leg)
    played = sum(np.abs(frame).max() > 1000 for frame in bench.heard) * FRAME_SAMPLES
    assert utterance == 1
    assert abs(samples - played) <= FRAME_SAMPLES
    assert bench.lead == 0 and '"clear"' in str(bench.sent[-1])
    before = len(bench.sent)
    bench.tick(20)
    assert len(bench.sent) == before
    assert bench.of_type(PlayoutDone) == []


def test_the_next_utterance_after_a_cut_is_counted_by_itself(bench: StreamBench) -> None:
    bench.synthesise(200 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 100 * FRAME_SAMPLES, True)
    bench.tick(20)
    bench.clock.flush(bench.leg)
    bench.leg.playout.add(2, 100 * FRAME_SAMPLES, 130 * FRAME_SAMPLES, True)
    bench.tick(50)
    assert [(done.utterance, done.played) for done in bench.of_type(PlayoutDone)] == [(2, 30 * FRAME_SAMPLES)]


def test_an_utterance_closed_after_its_audio_ends_too(bench: StreamBench) -> None:
    bench.synthesise(10 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 10 * FRAME_SAMPLES, False)
    bench.tick(30)
    assert bench.of_type(PlayoutDone) == []
    bench.leg.playout.add(1, 10 * FRAME_SAMPLES, 10 * FRAME_SAMPLES, True)
    bench.tick(5)
    assert [(done.utterance, done.played) for done in bench.of_type(PlayoutDone)] == [(1, 10 * FRAME_SAMPLES)]


def test_an_utterance_of_nothing_is_over_at_once(bench: StreamBench) -> None:
    bench.leg.playout.add(4, 0, 0, True)
    bench.tick(2)
    assert [(done.utterance, done.played) for done in bench.of_type(PlayoutDone)] == [(4, 0)]


def test_what_the_caller_says_is_heard_in_order(bench: StreamBench) -> None:
    frames = [np.full(FRAME_SAMPLES, 1000 * (1 + number % 7), np.int16) for number in range(40)]
    for number, frame in enumerate(frames):
        bench.say(number + 1, frame)
        bench.tick()
    heard = bench.heard_of_caller()[:, 80]
    said = np.array([frame[0] for frame in frames])
    start = int(np.argmax(heard > 500))
    assert np.allclose(heard[start : start + 35], said[:35], rtol=0.05)


def test_messages_out_of_order_twice_and_missing(bench: StreamBench) -> None:
    """Two are swapped, one comes twice, one never: what is heard is in order, and the gap is filled."""
    order = [1, 2, 3, 5, 4, 6, 6, 7, 9, 10, 11, 12, 13, 14, 15]
    for number in order:
        bench.say(number, np.full(FRAME_SAMPLES, 1000 * number, np.int16))
        bench.tick()
    bench.tick(8)
    jitter = bench.leg.jitter
    assert jitter.duplicate == 1
    assert jitter.lost == 1
    heard = [round(float(np.median(frame)) / 1000) for frame in bench.heard_of_caller() if np.median(frame) > 500]
    kept = [number for number in heard if heard.count(number) == 1]
    assert kept == sorted(kept)
    assert {1, 2, 3, 6, 7, 9, 10, 11, 12, 13, 14, 15} <= set(heard)


def test_numbers_that_begin_anew_are_followed(bench: StreamBench) -> None:
    for number in [*range(1, 20), *range(100_000, 100_030)]:
        bench.say(number, tone().astype(np.int16))
        bench.tick()
    assert np.abs(bench.heard_of_caller()[-10:]).max() > 2000


@pytest.mark.parametrize("rate_hz", [12_000, 16_000, 24_000, 44_100, 48_000])
def test_linear_audio_is_brought_to_the_boxs_rate_and_back(monkeypatch: pytest.MonkeyPatch, rate_hz: int) -> None:
    protocol = BrowserStream()
    protocol.receive(f'{{"event":"start","token":"t","rate":{rate_hz}}}')
    bench = StreamBench(monkeypatch, protocol, "l16", rate_hz)
    try:
        size = rate_hz // 50
        line = (8000 * np.sin(2 * np.pi * 400 * np.arange(size * 60) / rate_hz)).astype("<i2")
        for number in range(60):
            piece = line[number * size : (number + 1) * size]
            bench.clock.incoming.hear(bench.leg, Audio(number + 1, piece.tobytes()))
            bench.time.now += 0.02
            bench.clock.run(1, 0.0)
        heard = bench.heard_of_caller()[20:50].reshape(-1).astype(float)
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        assert np.argmax(spectrum) * 8000 / len(heard) == pytest.approx(400, abs=3)
        assert np.sqrt(np.mean(heard**2)) == pytest.approx(8000 / np.sqrt(2), rel=0.02)
        bench.synthesise(20 * FRAME_SAMPLES, 3000)
        bench.leg.playout.add(1, 0, 20 * FRAME_SAMPLES, True)
        bench.tick(30)
        sent = [frame for frame in bench.heard if len(frame) == size and np.abs(frame).max() > 0]
        assert sum(len(item) for item in sent) == 20 * size
        assert np.median(np.concatenate(sent)) == pytest.approx(3000, rel=0.02)
    finally:
        bench.close()


def test_a_peer_that_cannot_forget_is_sent_less_ahead_and_hears_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = AudioSocketStream()
    protocol.receive(message(0x01, bytes(16)) + message(0x10, bytes(320)))
    bench = StreamBench(monkeypatch, protocol, "l16", 8000)
    try:
        bench.synthesise(100 * FRAME_SAMPLES)
        bench.leg.playout.add(1, 0, 100 * FRAME_SAMPLES, True)
        bench.tick(20)
        assert len(bench.sent) - 20 == SHORT_LEAD // FRAME_SAMPLES - 1
        sent = len(bench.sent)
        assert bench.clock.flush(bench.leg) == (1, sent * FRAME_SAMPLES)
        assert len(bench.sent) == sent
        bench.unsent = 100_000
        bench.leg.playout.add(2, 0, 100 * FRAME_SAMPLES, True)
        bench.tick(20)
        assert len(bench.sent) == sent, "the network takes nothing"
    finally:
        bench.close()


def test_keys_are_told_and_sent_as_tones(bench: StreamBench) -> None:
    bench.clock.incoming.pressed(bench.leg, "5", "stream")
    assert [told.digit for told in bench.of_type(Digit)] == ["5"]
    assert bench.clock.send_digits(bench.leg, "12")
    bench.tick(30)
    assert sum(np.abs(frame).max() > 1000 for frame in bench.heard) == 10


def test_hold_music_is_sent_as_it_is_played_and_stops(bench: StreamBench) -> None:
    bench.leg.music_at = 0
    bench.tick(30)
    assert bench.lead <= LEAD // FRAME_SAMPLES
    bench.leg.music_at = -1
    bench.tick(LEAD // FRAME_SAMPLES + 2)
    assert bench.lead == 0
    assert sum(np.abs(frame).max() > 0 for frame in bench.heard) >= 30


def test_two_streams_bridged_hear_each_other(bench: StreamBench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = StreamBench(monkeypatch, clock=bench.clock, slot=3)
    bench.leg.partner, other.leg.partner = other.leg, bench.leg
    for number in range(1, 60):
        bench.say(number, tone().astype(np.int16))
        bench.time.now += 0.02
        bench.play()
        other.heard.append(other.buffer.popleft() if other.buffer else np.zeros(FRAME_SAMPLES, np.int16))
        while other.buffer and isinstance(other.buffer[0], str):
            other.stream.marked(str(other.buffer.popleft()), bench.time.now)
        bench.clock.run(1, 0.0)
    loud = [isinstance(frame, np.ndarray) and np.abs(frame).max() > 2000 for frame in other.heard]
    first = loud.index(True)
    assert all(loud[first:]), "no gap once it has begun"
    assert first <= 8
    assert other.lead <= 4


def test_an_utterance_goes_on_with_the_next_stream(bench: StreamBench) -> None:
    bench.synthesise(100 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 40 * FRAME_SAMPLES, True)
    bench.leg.playout.add(2, 40 * FRAME_SAMPLES, 100 * FRAME_SAMPLES, True)
    bench.tick(60)
    sent_before = bench.leg.playout.played
    bench.clock.end_stream(bench.leg)
    assert [done.utterance for done in bench.of_type(PlayoutDone)] == [1]
    bench.tick(10)
    bench.buffer.clear()
    bench.connect()
    bench.tick(60)
    done = bench.of_type(PlayoutDone)[-1]
    assert sent_before > 0
    assert (done.utterance, done.played) == (2, 60 * FRAME_SAMPLES)


def test_what_went_over_two_broken_streams_is_counted(bench: StreamBench) -> None:
    bench.synthesise(200 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 200 * FRAME_SAMPLES, True)
    bench.tick(20)
    bench.clock.end_stream(bench.leg)
    sent = bench.leg.playout.played
    bench.connect()
    bench.clock.end_stream(bench.leg)
    bench.connect()
    assert bench.clock.flush(bench.leg) == (1, sent)


def test_what_was_heard_whole_is_told_though_the_next_is_cut_short(bench: StreamBench) -> None:
    """The last mark of an utterance is on its way while the next one is stopped."""
    bench.synthesise(200 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 20 * FRAME_SAMPLES, True)
    bench.leg.playout.add(2, 20 * FRAME_SAMPLES, 100 * FRAME_SAMPLES, True)
    bench.tick(18)
    bench.answers_marks = False
    bench.tick(10)
    utterance, samples = bench.clock.flush(bench.leg)
    assert [(done.utterance, done.played) for done in bench.of_type(PlayoutDone)] == [(1, 20 * FRAME_SAMPLES)]
    assert utterance == 2
    assert 0 < samples < 80 * FRAME_SAMPLES


def test_keys_within_an_utterance_are_none_of_it(bench: StreamBench) -> None:
    bench.synthesise(100 * FRAME_SAMPLES)
    bench.leg.playout.add(1, 0, 40 * FRAME_SAMPLES, True)
    bench.tick(5)
    bench.clock.send_digits(bench.leg, "12")
    bench.tick(90)
    assert [(done.utterance, done.played) for done in bench.of_type(PlayoutDone)] == [(1, 40 * FRAME_SAMPLES)]


def test_a_key_over_a_bridge_leaves_no_delay_behind(bench: StreamBench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = StreamBench(monkeypatch, clock=bench.clock, slot=3)
    bench.leg.partner, other.leg.partner = other.leg, bench.leg
    for number in range(1, 150):
        if number == 30:
            other.leg.send_digits("5")
        level = 8000 if number < 100 else 0
        bench.say(number, tone(level).astype(np.int16))
        bench.time.now += 0.02
        bench.play()
        if other.buffer:
            other.buffer.popleft()
        while other.buffer and isinstance(other.buffer[0], str):
            other.stream.marked(str(other.buffer.popleft()), bench.time.now)
        bench.clock.run(1, 0.0)
    assert other.lead <= 4


def test_linear_audio_whose_numbers_begin_anew_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = BrowserStream()
    protocol.receive('{"event":"start","token":"t","rate":16000}')
    bench = StreamBench(monkeypatch, protocol, "l16", 16_000)
    try:
        line = tone(8000, 320).astype("<i2").tobytes()
        for number in [*range(1000, 1010), *range(1, 40)]:
            bench.clock.incoming.hear(bench.leg, Audio(number, line))
            bench.time.now += 0.02
            bench.clock.run(1, 0.0)
        assert np.abs(bench.heard_of_caller()[-10:]).max() > 2000
    finally:
        bench.close()


def test_time_passes_for_the_recording_while_there_is_no_stream(bench: StreamBench) -> None:
    bench.tick(10)
    bench.clock.end_stream(bench.leg)
    for _ in range(50):
        bench.time.now += 0.02
        bench.clock.run(1, 0.0)
    bench.connect()
    bench.tick(1)
    assert int(bench.rings.frames[bench.slot]) == 61
