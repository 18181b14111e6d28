"""One leg's audio besides plain G.711 of 20 ms, and what else goes to it: packet lengths, noise, music, keys."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from appliance.audio import comfort_noise
from appliance.audio.codec import new_codec
from appliance.audio.tones import key_tone
from appliance.ipc.messages import Digit, MediaTimeout
from appliance.media.reports import quality
from appliance.rtp.dtmf import DtmfSender
from tests.audio.heard import key_in, keys_in
from tests.media.leg_bench import PAYLOAD_TYPES, Made, loud, speak, tone

# --- packet lengths and codecs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["pcmu", "pcma", "g722"])
@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 50, 60])
def test_any_packet_length_leaves_whole_and_in_step(made: Made, codec: str, ptime_ms: int) -> None:
    bench = made(codec=codec, ptime_ms=ptime_ms)
    speak(bench, tone(samples=960))
    bench.tick(30)
    packets = bench.heard_by_peer()
    samples = ptime_ms * 8
    assert {len(packet.payload) for packet in packets} == {samples}
    assert len(packets) in (600 // ptime_ms, 600 // ptime_ms - 1)
    first = packets[0]
    assert first.seq == 65535
    assert first.timestamp == 0xFFFFFFF0
    assert [packet.marker for packet in packets] == [True] + [False] * (len(packets) - 1)
    for number, packet in enumerate(packets):
        assert packet.seq == (first.seq + number) % 65536
        assert packet.timestamp == (first.timestamp + number * samples) % 2**32
    spoken = np.concatenate([bench.codec.decode(packet.payload) for packet in packets])
    assert np.abs(spoken[400:900]).max() > 6000
    assert np.abs(spoken[1400:]).max() < 100


@pytest.mark.parametrize("codec", ["pcmu", "g722", "opus"])
@pytest.mark.parametrize("ptime_ms", [10, 20, 40, 60])
def test_any_packet_length_is_heard(made: Made, codec: str, ptime_ms: int) -> None:
    bench = made(codec=codec)
    samples = ptime_ms * 8
    scale = bench.codec.rtp_clock_hz // 8000
    pcm = tone(samples=40 * 160)
    sent = 0
    for number in range(40):
        while sent * samples < (number + 1) * 160 and (sent + 1) * samples <= len(pcm):
            payload = bench.codec.encode(pcm[sent * samples : (sent + 1) * samples].astype(np.int16))
            bench.send(bench.leg.payload_type, payload, sent * samples * scale)
            sent += 1
        bench.tick()
    heard = bench.heard()
    assert loud(heard[8:]) >= len(heard) - 10
    assert quality(bench.leg).loss_percent == 0.0


@pytest.mark.parametrize("ptime_ms", [20, 40, 60])
def test_opus_leaves_on_its_own_clock(made: Made, ptime_ms: int) -> None:
    bench = made(codec="opus", ptime_ms=ptime_ms)
    speak(bench, tone(samples=3200))
    bench.tick(30)
    packets = bench.heard_by_peer()
    steps = {(b.timestamp - a.timestamp) % 2**32 for a, b in itertools.pairwise(packets)}
    assert steps == {ptime_ms * 48}
    spoken = np.concatenate([bench.codec.decode(packet.payload) for packet in packets])
    assert np.abs(spoken[800:3000]).max() > 6000


@pytest.mark.parametrize("codec", ["g722", "opus"])
def test_lost_packets_of_other_codecs_are_concealed(made: Made, codec: str) -> None:
    bench = made(codec=codec)
    pcm = tone(samples=30 * 160)
    for number in range(30):
        payload = bench.codec.encode(pcm[number * 160 : (number + 1) * 160].astype(np.int16))
        if number in (10, 20):
            bench.sequence += 1
        else:
            bench.send(bench.leg.payload_type, payload)
        bench.tick()
    assert bench.leg.jitter.lost == 2
    assert loud(bench.heard()[4:]) >= 25


def test_the_codec_may_change_while_the_call_goes_on(made: Made) -> None:
    bench = made()
    for codec, number in (("g722", 9), ("opus", 96), ("pcma", 8), ("pcmu", 0)):
        bench.tick(5)
        bench.connect_anew(codec=codec, payload_type=number)
        bench.say(tone())
    bench.tick(5)
    packets = bench.heard_by_peer()
    assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(25)]
    types = [packet.payload_type for packet in packets]
    assert sorted(set(types), key=types.index) == [0, 9, 96, 8]
    assert bench.leg.received == 4


@pytest.mark.parametrize(("codec", "other"), [("pcmu", "pcma"), ("pcma", "pcmu")])
def test_a_peer_may_change_between_the_laws_of_its_answer_at_any_packet(made: Made, codec: str, other: str) -> None:
    bench = made(codec=codec, alternative_in=PAYLOAD_TYPES[other])
    codecs = {name: new_codec(name) for name in (codec, other)}
    said = tone(samples=160 * 12).astype(np.int16)
    for number, frame in enumerate(said.reshape(-1, 160)):
        name = other if number % 4 > 1 else codec
        bench.send(PAYLOAD_TYPES[name], codecs[name].encode(frame))
        bench.tick()
    heard = bench.heard()[2:].reshape(-1)  # a packet late, and the first is faded in
    assert np.abs(heard.astype(int) - said[160:][: len(heard)]).max() < 600
    assert bench.leg.received == 12
    assert {packet.payload_type for packet in bench.heard_by_peer()} == {PAYLOAD_TYPES[codec]}


def test_a_law_that_was_not_agreed_is_not_heard(made: Made) -> None:
    bench = made()
    bench.say(tone(), payload_type=8)
    bench.tick(3)
    assert bench.leg.received == 0


def test_a_flush_takes_back_what_waits_for_its_packet_to_fill(made: Made) -> None:
    bench = made(codec="g722", ptime_ms=20)
    speak(bench, tone(samples=1600))
    bench.tick(4)
    assert bench.clock.flush(bench.leg) == (1, 3 * 160)
    bench.tick(6)
    spoken = np.concatenate([bench.codec.decode(packet.payload) for packet in bench.heard_by_peer()])
    assert np.abs(spoken[: 4 * 160]).max() > 6000
    assert np.abs(spoken[5 * 160 :]).max() < 100


@pytest.mark.parametrize("ptime_ms", [20, 40])
def test_a_flush_after_a_renegotiation_sends_nothing_out_of_order(made: Made, ptime_ms: int) -> None:
    """As when the caller is put on hold: the leg is connected anew and what was said is stopped, in one tick."""
    bench = made(codec="g722", ptime_ms=20)
    speak(bench, tone(samples=3200))
    for _ in range(4):
        bench.tick(3)
        bench.connect_anew(ptime_ms=ptime_ms, receive=False)
        bench.clock.flush(bench.leg)
    bench.tick(4)
    packets = bench.heard_by_peer()
    assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(len(packets))]
    stamps = [(packet.timestamp - packets[0].timestamp) % 2**32 for packet in packets]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= 16 * 160


def test_time_that_was_missed_passes_for_long_packets_too(made: Made) -> None:
    bench = made(ptime_ms=60)
    bench.tick(2)
    bench.clock.run(60, 1.2)
    packets = bench.heard_by_peer()
    assert (packets[-1].timestamp - packets[0].timestamp) % 2**32 <= 62 * 160
    assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(len(packets))]


# --- comfort noise ------------------------------------------------------------------------------------------------


def test_silence_is_a_small_packet_now_and_then_where_comfort_noise_was_agreed(made: Made) -> None:
    bench = made(cn_payload_type=13)
    bench.tick(30)
    silent = bench.heard_by_peer()
    assert {packet.payload_type for packet in silent} == {13}
    assert {len(packet.payload) for packet in silent} == {1}
    assert 3 <= len(silent) <= 4
    speak(bench, tone(samples=800))
    bench.tick(8)
    packets = bench.heard_by_peer()
    voice = [packet for packet in packets if packet.payload_type == 0]
    assert [packet.marker for packet in voice] == [True, False, False, False, False]
    assert packets[-1].payload_type == 13


@pytest.mark.parametrize("agreed", [-1, 13, 118])
def test_a_caller_who_announces_silence_is_replaced_by_noise_of_that_level(made: Made, agreed: int) -> None:
    bench = made(cn_payload_type=agreed)
    for _ in range(10):
        bench.say(tone())
        bench.tick()
    bench.send(13 if agreed < 0 else agreed, comfort_noise.payload_of(40))
    bench.tick(30)
    quiet = bench.heard()[-20:]
    assert bench.leg.concealed == 0
    level = 20 * np.log10(np.sqrt(np.mean(np.square(quiet.astype(float)))) / 32768)
    assert -42 < level < -38
    bench.sequence += 29  # the timestamps of the pause
    for _ in range(5):
        bench.say(tone())
        bench.tick()
    assert loud(bench.heard()[-3:]) == 3


# --- hold, bridges, keys ------------------------------------------------------------------------------------------


def test_no_timeout_while_nobody_listens_and_one_after_the_call_is_taken_up_again(made: Made) -> None:
    bench = made(rtp_timeout_s=0.0, receive=False)
    bench.tick(5)
    assert not bench.of_type(MediaTimeout)
    bench.connect_anew(receive=True)
    bench.tick(5)
    assert len(bench.of_type(MediaTimeout)) == 1


def test_hold_music_plays_in_a_loop_until_there_is_something_to_say(made: Made) -> None:
    bench = made()
    bench.leg.music_at = 0
    bench.tick(7)
    played = bench.rings.sent[bench.slot, 1:7].reshape(3, 320)
    assert all((lap == np.arange(1, 321) * 10).all() for lap in played)
    speak(bench, tone(samples=160))
    bench.tick(2)
    assert np.abs(bench.rings.sent[bench.slot, 8]).max() > 6000
    bench.leg.music_at = -1
    bench.tick(3)
    assert not bench.rings.sent[bench.slot, 11].any()


def test_two_bridged_callers_hear_each_other_and_their_keys(made: Made) -> None:
    one = made()
    two = made(slot=3, clock=one.clock, codec="g722")
    one.leg.partner, two.leg.partner = two.leg, one.leg
    for _ in range(10):
        one.say(tone())
        one.tick()
    heard = np.concatenate([two.codec.decode(packet.payload) for packet in two.heard_by_peer()])
    assert loud(heard.reshape(-1, 160)) >= 7
    assert all(packet.payload == b"\xff" * 160 for packet in one.heard_by_peer())
    one.send(101, bytes((7, 10, 0, 160)), 5000, marker=True)
    one.tick(12)
    events = [packet for packet in two.heard_by_peer() if packet.payload_type == 101]
    assert {packet.payload[0] for packet in events} == {7}
    assert len(one.of_type(Digit)) == 1
    one.clock.forget(one.leg)
    assert two.leg.partner is None
    one.clock.legs[2] = one.leg


@pytest.mark.parametrize("told_first", [True, False])
def test_a_key_that_is_told_and_heard_goes_over_the_bridge_once(made: Made, told_first: bool) -> None:
    """The same press by INFO, which control passes on, and as an event: in either order."""
    one = made()
    two = made(slot=3, clock=one.clock)
    one.leg.partner, two.leg.partner = two.leg, one.leg
    one.say(tone())
    one.tick(2)
    if told_first:
        one.clock.send_digits(two.leg, "7")
    one.send(101, bytes((7, 10, 0, 160)), 5000, marker=True)
    one.tick()
    if not told_first:
        one.clock.send_digits(two.leg, "7")
    one.clock.send_digits(two.leg, "8")
    one.tick(60)
    events = [packet for packet in two.heard_by_peer() if packet.payload_type == 101]
    assert [packet.payload[0] for packet in events if packet.marker] == [7, 8]


def test_a_tone_that_the_bridge_carries_is_not_made_a_second_time(made: Made) -> None:
    one = made(dtmf="auto", dtmf_payload_type=-1)
    two = made(slot=3, clock=one.clock, dtmf="auto", dtmf_payload_type=-1)
    three = made(slot=1, clock=one.clock)
    one.leg.partner, two.leg.partner = two.leg, one.leg
    sound = np.concatenate([np.zeros(800), key_tone("5", 4000), np.zeros(4000)]).reshape(-1, 160)
    for frame in sound:
        one.say(frame)
        one.tick()
    sent = two.rings.sent[3, : len(sound)].reshape(-1)
    assert [key for key, _, _ in keys_in(sent)] == ["5"]
    one.leg.partner, three.leg.partner = three.leg, one.leg
    for frame in sound:
        one.say(frame)
        one.tick()
    assert {packet.payload[0] for packet in three.heard_by_peer() if packet.payload_type == 101} == {5}


def test_keys_go_as_tones_where_the_peer_knows_no_events(made: Made) -> None:
    bench = made(dtmf="auto", dtmf_payload_type=-1)
    assert bench.leg.send_digits("19")
    bench.tick(20)
    sent = bench.rings.sent[bench.slot, 1:19].reshape(2, 1440)
    assert [key_in(one[:640]) for one in sent] == ["1", "9"]
    bench.connect_anew(dtmf="info")
    assert not bench.leg.send_digits("1")


@pytest.mark.parametrize("codec", ["pcmu", "g722"])
def test_keys_that_wait_when_the_peer_gives_events_up_go_as_tones_or_not_at_all(made: Made, codec: str) -> None:
    """The key that is being sent is not repeated, and the calls beside it notice nothing."""
    one = made(codec=codec, dtmf="auto")
    two = made(codec=codec, slot=3, clock=one.clock)
    other = made(codec="g722", slot=1, clock=one.clock)
    for bench in (one, two):
        bench.leg.send_digits("519")
    one.tick(4)
    before = int(one.rings.frames[one.slot])
    one.connect_anew(dtmf_payload_type=-1)
    two.connect_anew(dtmf_payload_type=-1)
    one.tick(20)
    sent = one.rings.sent[one.slot, before : before + 18].reshape(2, 1440)
    assert [key_in(key[:640]) for key in sent] == ["1", "9"]
    assert not two.rings.sent[two.slot, before : before + 18].any()
    for bench in (one, two, other):
        packets = bench.heard_by_peer()
        assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(24)]
        voice = bench.leg.payload_type
        assert {packet.payload_type for packet in packets} == ({voice} if bench is other else {voice, 101})


def test_keys_that_wait_go_on_under_a_new_payload_type_and_on_a_new_clock(made: Made) -> None:
    bench = made()
    bench.leg.send_digits("519")
    bench.tick(3)
    bench.connect_anew(dtmf_payload_type=110)
    bench.tick(9)
    bench.connect_anew(codec="opus", payload_type=96, dtmf_payload_type=112, dtmf_clock_hz=48000)
    bench.tick(12)
    sent = [packet for packet in bench.heard_by_peer() if packet.payload_type >= 100]
    keys = [(packet.payload_type, packet.payload[0]) for packet in sent]
    assert list(dict.fromkeys(keys)) == [(101, 5), (110, 5), (110, 1), (112, 9)]
    assert {int.from_bytes(packet.payload[2:4], "big") % 960 for packet in sent if packet.payload_type == 112} == {0}


def test_keys_are_heard_as_tones_where_the_peer_knows_no_events(made: Made) -> None:
    bench = made(dtmf="auto", dtmf_payload_type=-1)
    speech = np.concatenate([np.zeros(800), key_tone("5", 800), np.zeros(800), key_tone("#", 800), np.zeros(1600)])
    for frame in speech.reshape(-1, 160):
        bench.say(frame)
        bench.tick()
    assert [digit.digit for digit in bench.of_type(Digit) if isinstance(digit, Digit)] == ["5", "#"]


def test_events_on_a_clock_of_48_khz_last_as_long(made: Made) -> None:
    bench = made(codec="opus", dtmf_payload_type=110, dtmf_clock_hz=48000)
    bench.leg.send_digits("3")
    bench.tick(12)
    events = [packet for packet in bench.heard_by_peer() if packet.payload_type == 110]
    assert [int.from_bytes(event.payload[2:4], "big") for event in events[:5]] == [960, 1920, 2880, 3840, 4800]
    assert len({event.timestamp for event in events}) == 1
    sender = DtmfSender("8")
    while (step := sender.next()) is not None:
        if step.payload is not None:
            duration = int.from_bytes(step.payload[2:4], "big") * 6
            bench.send(110, step.payload[:2] + duration.to_bytes(2, "big"), 600_000, step.marker)
        bench.tick()
    assert [digit.digit for digit in bench.of_type(Digit) if isinstance(digit, Digit)] == ["8"]


def test_a_gap_on_every_leg_at_once_bridges_as_many_as_the_tick_has_time_for(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.media.hearing._MAX_BRIDGED", 1)
    one = made()
    two = made(slot=3, clock=one.clock)
    voice = tone(samples=160 * 12).reshape(-1, 160)
    for number, frame in enumerate(voice):
        for bench in (one, two):
            if number != 6:
                bench.say(frame)
            else:
                bench.sequence += 1
        one.tick()
    gap = [one.rings.rx[bench.slot, 7].astype(int) for bench in (one, two)]
    ends = sorted(int(np.abs(frame[-40:]).max()) for frame in gap)
    assert ends[0] < 0.85 * ends[1], "one of the two fades"
