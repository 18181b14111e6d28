"""One leg and its peer: encrypted, reported on, sent from elsewhere, fed with what is no call's."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable

import numpy as np
import pytest

from appliance.errors import MediaError, RtpError
from appliance.ipc.messages import Digit, MediaTimeout
from appliance.media.reports import quality
from appliance.rtp import rtcp
from appliance.rtp.dtmf import DtmfSender
from appliance.rtp.packet import RtpPacket, build, parse
from appliance.rtp.srtp import SUITES, SrtpContext
from tests.media.leg_bench import Bench, Made, keying, loud, speak, tone

# --- SRTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", list(SUITES))
def test_an_encrypted_leg_understands_its_peer_and_is_understood(made: Made, suite: str) -> None:
    bench = made(srtp_tx=keying(suite, 1), srtp_rx=keying(suite, 2))
    ours = SrtpContext(keying(suite, 1), inbound=True)
    theirs = SrtpContext(keying(suite, 2), inbound=False)
    speak(bench, tone(samples=800))
    for number in range(8):
        payload = bench.codec.encode(tone().astype(np.int16))
        bench.send_raw(theirs.protect(build(0, number, number * 160, 7, payload)))
        bench.tick()
    assert loud(bench.heard()) >= 6
    packets = [parse(ours.unprotect(data)) for data in bench.raw_by_peer()]
    assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(8)]
    assert sum(packet.payload != b"\xff" * 160 for packet in packets) == 5
    assert bench.leg.srtp_rx is not None
    assert bench.leg.srtp_rx.failures == 0


def test_plain_rtp_on_an_encrypted_leg_is_counted_never_heard_and_locks_nothing(made: Made) -> None:
    bench = made(srtp_tx=keying(), srtp_rx=keying(fill=2))
    for _ in range(10):
        bench.say(tone(20000))
        bench.tick()
    assert not bench.heard().any()
    assert bench.leg.source.locked is None
    assert bench.leg.srtp_rx is not None
    assert bench.leg.srtp_rx.failures == 10
    assert bench.clock.take_stats(0).dropped == 10


def test_a_key_that_stays_goes_on_counting_and_a_new_one_takes_over(made: Made) -> None:
    bench = made(srtp_tx=keying(), srtp_rx=keying(fill=2))
    ours = SrtpContext(keying(), inbound=True)
    bench.tick(3)
    before = bench.leg.srtp_tx
    bench.connect_anew(send=False)
    assert bench.leg.srtp_tx is before
    bench.tick(3)
    assert len([ours.unprotect(data) for data in bench.raw_by_peer()]) == 6
    bench.connect_anew(srtp_tx=keying(fill=9))
    bench.tick()
    with pytest.raises(RtpError):
        ours.unprotect(bench.raw_by_peer()[0])


def test_a_flush_on_an_encrypted_leg_leaves_no_gap_in_the_numbers(made: Made) -> None:
    bench = made(srtp_tx=keying(), srtp_rx=keying(fill=2), ptime_ms=40)
    ours = SrtpContext(keying(), inbound=True)
    speak(bench, tone(samples=3200))
    for _ in range(5):
        bench.tick(3)
        bench.clock.flush(bench.leg)
    packets = [parse(ours.unprotect(data)) for data in bench.raw_by_peer()]
    assert [packet.seq for packet in packets] == [packets[0].seq + n & 0xFFFF for n in range(len(packets))]
    assert len(packets) in (7, 8)


def test_a_key_that_is_none_changes_nothing(made: Made) -> None:
    bench = made(srtp_tx=keying(), srtp_rx=keying(fill=2))
    before = bench.leg.srtp_rx
    with pytest.raises(RtpError):
        bench.connect_anew(srtp_rx="AES_CM_128_HMAC_SHA1_80 abcd")
    assert bench.leg.srtp_rx is before


# --- where from ---------------------------------------------------------------------------------------------------


def test_a_stranger_is_not_heard_after_a_minute_of_silence_nor_on_a_familiar_host(made: Made) -> None:
    bench = made()
    for _ in range(5):
        bench.say(tone())
        bench.tick()
    bench.tick(60)
    heard_before = bench.leg.received
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for number in range(30):
            stranger.sendto(build(0, number, number * 160, 99, bytes(160)), bench.ours.getsockname())
            bench.tick()
    assert bench.leg.received == heard_before
    assert bench.leg.source.strangers == 30
    assert bench.leg.source.remote == bench.peer.getsockname()


def test_a_guesser_who_was_first_does_not_keep_the_negotiated_source_out(made: Made) -> None:
    bench = made()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guesser:
        guesser.bind(("127.0.0.1", 0))
        for number in range(6):
            guesser.sendto(build(0, number, number * 160, 99, b"\xff" * 160), bench.ours.getsockname())
            bench.tick()
        assert bench.leg.source.locked == guesser.getsockname()
        for _ in range(10):
            bench.say(tone())
            bench.tick()
        assert bench.leg.source.locked == bench.peer.getsockname()
        assert loud(bench.heard()) >= 6


def test_signalling_may_move_the_media(made: Made) -> None:
    bench = made()
    bench.say(tone())
    bench.tick()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as moved:
        moved.bind(("127.0.0.1", 0))
        moved.setblocking(False)
        bench.connect_anew(remote_port=moved.getsockname()[1])
        bench.tick()
        assert moved.recv(2048)
        for number in range(6):
            moved.sendto(build(0, number, number * 160, 99, bytes(160)), bench.ours.getsockname())
            bench.tick()
        assert bench.leg.received == 7


def test_a_leg_speaks_ipv6(made: Made) -> None:
    try:
        bench = made(host="::1")
    except MediaError:
        pytest.skip("no IPv6 loopback on this machine; sysctl net.ipv6.conf.lo.disable_ipv6=0 gives one")
    for _ in range(6):
        bench.say(tone())
        bench.tick()
    assert len(bench.heard_by_peer()) == 6
    assert loud(bench.heard()) >= 4
    assert bench.leg.source.locked == bench.peer.getsockname()
    assert len(reported(bench)) == 1


def test_a_peer_of_the_other_family_is_refused_by_name_and_the_leg_stays_as_it_was(made: Made) -> None:
    bench = made()
    with pytest.raises(MediaError, match=r"set listen\.rtp_host"):
        bench.connect_anew(remote_host="2001:db8::1")
    bench.tick(3)
    assert len(bench.heard_by_peer()) == 3


def test_payload_types_are_mapped_per_direction(made: Made) -> None:
    bench = made(codec="pcmu", payload_type=96, payload_type_in=97, dtmf_payload_type=100, dtmf_payload_type_in=110)
    for _ in range(6):
        bench.say(tone())
        bench.tick()
    bench.say(tone(), payload_type=96)
    assert loud(bench.heard()) >= 4
    assert {packet.payload_type for packet in bench.heard_by_peer()} == {96}
    bench.leg.send_digits("5")
    bench.tick(3)
    assert {packet.payload_type for packet in bench.heard_by_peer()} == {96, 100}
    bench.send(110, bytes((5, 10, 0, 160)), 5000, marker=True)
    bench.tick()
    assert [digit.digit for digit in bench.of_type(Digit) if isinstance(digit, Digit)] == ["5"]


def test_events_beside_the_voice_in_a_stream_of_their_own_are_one_key_and_no_loss(made: Made) -> None:
    bench = made()
    for number in range(20):
        bench.send_raw(build(0, number, number * 160, 7, bench.codec.encode(tone().astype(np.int16))))
        if 5 <= number < 12:
            event = bytes((4, 10 | (0x80 if number > 8 else 0)))
            duration = (160 * min(number - 4, 4)).to_bytes(2, "big")
            bench.send_raw(build(101, 500 + number, 9000, 8, event + duration, number == 5))
        bench.tick()
    assert len(bench.of_type(Digit)) == 1
    assert bench.leg.jitter.lost == 0
    assert loud(bench.heard()) >= 18


def test_a_stream_that_begins_anew_loses_nothing_and_may_begin_with_a_key(made: Made) -> None:
    bench = made()
    for number in range(10):
        bench.send_raw(build(0, number, number * 160, 7, bench.codec.encode(tone().astype(np.int16))))
        bench.tick()
    event = bytes((4, 10, 0, 160))
    bench.send_raw(build(101, 2000, 0, 8, event, True))
    bench.tick(2)
    for number in range(2001, 2011):
        bench.send_raw(build(0, number, number * 160, 8, bench.codec.encode(tone().astype(np.int16))))
        bench.tick()
    assert bench.leg.jitter.lost == 0
    assert len(bench.of_type(Digit)) == 1
    assert loud(bench.heard()) >= 18


def test_two_streams_of_one_source_are_not_heard_by_turns_but_one(made: Made) -> None:
    bench = made()
    quiet = bench.codec.encode(tone(300).astype(np.int16))
    digits = DtmfSender("6")
    for number in range(30):
        bench.send_raw(build(0, number, number * 160, 7, bench.codec.encode(tone().astype(np.int16))))
        bench.send_raw(build(0, 900 + number, number * 160, 8, quiet))
        step = digits.next()
        if step is not None and step.payload is not None:
            bench.send_raw(build(101, 5000 + number, 9000, 9, step.payload, step.marker))
        bench.tick()
    assert loud(bench.heard()) == 29
    assert bench.leg.received == 30
    assert bench.leg.jitter.lost == 0
    assert len(bench.of_type(Digit)) == 1


def test_a_stream_is_taken_up_after_three_packets_or_when_the_one_before_has_gone_quiet(made: Made) -> None:
    bench = made()
    voice = bench.codec.encode(tone().astype(np.int16))
    for number in range(5):
        bench.send_raw(build(0, number, number * 160, 7, voice))
        bench.tick()
    for number in range(5):
        bench.send_raw(build(0, 700 + number, number * 160, 8, voice))
    bench.tick()
    assert (bench.leg.remote_ssrc, bench.leg.received) == (8, 8)
    bench.tick(3)
    bench.send_raw(build(0, 60000, 0, 9, voice))
    bench.tick()
    assert (bench.leg.remote_ssrc, bench.leg.received) == (9, 9)


def test_a_source_that_takes_over_is_heard_from_its_first_packet(made: Made) -> None:
    bench = made()
    voice = bench.codec.encode(tone().astype(np.int16))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as early:
        early.bind(("127.0.0.1", 0))
        early.sendto(build(0, 0, 0, 7, voice), bench.ours.getsockname())
        bench.tick()
    bench.send_raw(build(0, 300, 0, 8, voice))
    bench.tick()
    assert (bench.leg.remote_ssrc, bench.leg.received) == (8, 2)


def test_a_stream_without_a_name_is_one_too(made: Made) -> None:
    bench = made()
    voice = bench.codec.encode(tone().astype(np.int16))
    for number in range(6):
        bench.send_raw(build(0, 50000 + number, number * 160, 0, voice))
        bench.tick()
    assert loud(bench.heard()) == 5
    assert bench.leg.sequence_in == 50005


# --- RTCP ---------------------------------------------------------------------------------------------------------


def reported(bench: Bench, *, rtcp_mux: bool = False) -> list[rtcp.Compound]:
    """Reports that have come to the peer, once time enough has passed."""
    bench.clock.reports.send_due(bench.clock.legs, time.monotonic() + 10.0)
    raw = bench.raw_by_peer(rtcp=not rtcp_mux)
    return [rtcp.parse(data) for data in raw if rtcp.is_rtcp(data)]


@pytest.mark.parametrize("rtcp_mux", [False, True])
def test_reports_tell_what_was_sent_and_heard(made: Made, rtcp_mux: bool) -> None:
    bench = made(rtcp_mux=rtcp_mux)
    for number in range(20):
        if number == 7:
            bench.sequence += 1
        bench.say(tone())
        bench.tick()
    (report,) = reported(bench, rtcp_mux=rtcp_mux)
    assert report.sender is not None
    assert (report.sender.packets, report.sender.octets) == (20, 3200)
    (block,) = report.blocks
    assert (block.ssrc, block.lost, block.highest) == (7, 1, 20)
    answer = rtcp.build(7, "peer", None, [rtcp.ReportBlock(0xCAFE, 0, 2, 20, 40, 0, 0)])
    if rtcp_mux:
        bench.send_raw(answer)
    else:
        bench.peer_rtcp.sendto(answer, bench.pair.rtcp.getsockname())
    bench.tick()
    assert bench.clock.take_stats(0).rtcp_received == 1
    assert bench.leg.rtcp is not None
    assert bench.leg.rtcp.far_loss == pytest.approx(0.1, abs=0.01)
    how = quality(bench.leg)
    assert 3.0 < how.mos < 4.4
    assert 2.0 < how.mos_far < how.mos
    assert how.loss_percent == pytest.approx(100 / 21, abs=0.01)


def test_reports_tell_the_highest_number_of_the_voice_whatever_comes_late_or_beside_it(made: Made) -> None:
    bench = made()
    voice = bench.codec.encode(tone().astype(np.int16))
    for number in (65500, 65534, 3, 65533):
        bench.send_raw(build(0, number, number * 160 & 0xFFFFFFFF, 7, voice))
    bench.tick()
    (block,) = reported(bench)[0].blocks
    assert block.highest == 3
    bench.send_raw(build(0, 65532, 65532 * 160, 7, voice))
    bench.send_raw(build(101, 40, 9000, 8, bytes((4, 10, 0, 160)), True))
    bench.send_raw(build(101, 250, 9000, 7, bytes((4, 10, 0, 160))))
    bench.send_raw(build(0, 200, 200 * 160, 7, voice))
    bench.tick()
    bench.clock.reports.send_due(bench.clock.legs, time.monotonic() + 60.0)
    (block,) = rtcp.parse(bench.raw_by_peer(rtcp=True)[-1]).blocks
    assert block.highest == 250


def test_a_leg_that_ends_says_goodbye_encrypted_where_the_call_was(made: Made) -> None:
    bench = made(srtp_tx=keying(), srtp_rx=keying(fill=2))
    bench.tick(2)
    bench.clock.reports.goodbye(bench.leg, time.monotonic())
    (data,) = bench.raw_by_peer(rtcp=True)
    assert rtcp.parse(SrtpContext(keying(), inbound=True).unprotect_rtcp(data)).byes == (0xCAFE,)


def test_reports_from_a_stranger_or_broken_are_refused(made: Made) -> None:
    bench = made()
    bench.say(tone())
    bench.tick()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(rtcp.build(9, "x", None), bench.pair.rtcp.getsockname())
        bench.peer_rtcp.sendto(b"\x80\xc9\x00", bench.pair.rtcp.getsockname())
        bench.tick()
    stats = bench.clock.take_stats(0)
    assert (stats.rtcp_received, stats.dropped) == (0, 2)


@pytest.mark.parametrize("rtcp_mux", [False, True])
def test_a_flood_of_reports_takes_no_more_than_two_a_tick(made: Made, rtcp_mux: bool) -> None:
    bench = made(rtcp_mux=rtcp_mux)
    bench.say(tone())
    bench.tick()
    for _ in range(2):
        for _ in range(12):
            if rtcp_mux:
                bench.send_raw(rtcp.build(9, "x", None))
            else:
                bench.peer_rtcp.sendto(rtcp.build(9, "x", None), bench.pair.rtcp.getsockname())
        bench.tick()
    stats = bench.clock.take_stats(0)
    assert (stats.rtcp_received, stats.dropped) == (4, 20)


@pytest.mark.parametrize(
    "packet", [b"", b"\x80", b"\x80\xc8", bytes(12), b"\x80\x0d" + bytes(10), b"\x80\x65" + bytes(9)]
)
def test_scraps_are_dropped(made: Made, packet: bytes) -> None:
    bench = made(srtp_rx="", rtcp_mux=True)
    bench.send_raw(packet)
    bench.peer_rtcp.sendto(packet, bench.pair.rtcp.getsockname())
    bench.tick(3)
    assert isinstance(bench.heard_by_peer()[0], RtpPacket)


@pytest.mark.parametrize("codec", ["pcmu", "g722", "opus"])
@pytest.mark.parametrize("secret", [False, True])
def test_whatever_comes_the_tick_goes_on(made: Made, codec: str, secret: bool) -> None:
    """Packets of every type with plausible and mad headers, on both ports, and the call still works afterwards."""
    keys = {"srtp_tx": keying(), "srtp_rx": keying(fill=2)} if secret else {}
    bench = made(codec=codec, rtcp_mux=True, cn_payload_type=13, **keys)
    theirs = SrtpContext(keying(fill=2), inbound=False)
    chance = random.Random(7)
    sequence = 0
    for _ in range(150):
        for _ in range(8):
            sequence = sequence + 1 if chance.random() < 0.7 else chance.getrandbits(16)
            payload_type = chance.choice((bench.leg.payload_type, 101, 13, 77, 200 - 128))
            timestamp = sequence * 160 if chance.random() < 0.7 else chance.getrandbits(32)
            ssrc = 7 if chance.random() < 0.9 else chance.getrandbits(32)
            payload = chance.randbytes(chance.choice((0, 1, 3, 4, 80, 160, 161, 480, 1700)))
            data = build(payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, payload, chance.random() < 0.1)
            if chance.random() < 0.2:
                data = bytes([chance.getrandbits(8)]) + data[1 : chance.randrange(len(data)) + 1]
            elif secret and len(data) < 1400:
                with contextlib.suppress(RtpError):  # libsrtp does not send a number twice
                    data = theirs.protect(data)
            bench.send_raw(data)
            if chance.random() < 0.1:
                bench.peer_rtcp.sendto(
                    rtcp.build(7, "x", None)[: chance.randrange(1, 30)], bench.pair.rtcp.getsockname()
                )
        bench.tick()
    bench.raw_by_peer()
    bench.sequence = 3000
    for number in range(40):
        payload = bench.codec.encode(tone().astype(np.int16))
        scale = bench.codec.rtp_clock_hz // 8000
        data = build(bench.leg.payload_type, 3000 + number, (3000 + number) * 160 * scale, 99, payload, number == 0)
        bench.send_raw(theirs.protect(data) if secret else data)
        bench.tick()
    assert loud(bench.heard()[-10:]) >= 8
    assert bench.raw_by_peer()


# --- a fault on one leg -------------------------------------------------------------------------------------------


def _no_address(one: Bench) -> None:
    one.leg.source.remote = ("fe80::1%a\x00b", 4000)


def _no_packetiser(one: Bench) -> None:
    one.leg.packetiser = object()  # type: ignore[assignment]


@pytest.mark.parametrize("fault", [_no_address, _no_packetiser])
def test_a_fault_on_one_leg_ends_that_one_and_no_other(
    made: Made, caplog: pytest.LogCaptureFixture, fault: Callable[[Bench], None]
) -> None:
    one = made()
    two = made(slot=3, clock=one.clock, codec="g722")
    fault(one)
    for _ in range(6):
        two.say(tone())
        one.tick()
    packets = two.heard_by_peer()
    assert [packet.seq for packet in packets] == [(65535 + n) % 65536 for n in range(6)]
    assert {packet.payload_type for packet in packets} == {9}
    assert loud(two.heard()) >= 4
    assert len(one.of_type(MediaTimeout)) == 1
    assert len(caplog.records) == 1


def test_a_packet_that_breaks_one_leg_leaves_the_others_theirs(
    made: Made, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made()
    two = made(slot=3, clock=one.clock)

    def broken(*_: object) -> str:
        raise TypeError("a fault of ours")

    monkeypatch.setattr(one.leg.dtmf_in, "push", broken)
    for _ in range(6):
        one.send(101, bytes((4, 10, 0, 160)))
        two.say(tone())
        one.tick()
    assert len(two.heard_by_peer()) == 6
    assert loud(two.heard()) >= 4
    assert one.of_type(MediaTimeout)
    assert len(caplog.records) == 1
