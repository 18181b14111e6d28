"""RTCP: the wire format, and two legs that report to each other in virtual time."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import RtpError
from appliance.rtp.rtcp import (
    INTERVAL_S,
    Compound,
    Reception,
    ReportBlock,
    RtcpSession,
    SenderInfo,
    build,
    is_rtcp,
    parse,
)

u32 = st.integers(0, 0xFFFFFFFF)
blocks = st.builds(ReportBlock, u32, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32)
senders = st.none() | st.builds(SenderInfo, st.integers(0, 2**64 - 1), u32, u32, u32)


@given(u32, st.text(max_size=60), senders, st.lists(blocks, max_size=31), st.booleans())
def test_what_is_built_is_read_back(
    ssrc: int, cname: str, sender: SenderInfo | None, reports: list[ReportBlock], bye: bool
) -> None:
    data = build(ssrc, cname, sender, reports, bye=bye)
    assert len(data) % 4 == 0
    assert is_rtcp(data)
    if len(data) <= 1500:
        assert parse(data) == Compound(ssrc, sender, tuple(reports), (ssrc,) if bye else ())


def test_a_report_as_others_write_it() -> None:
    """SR with one block, SDES with CNAME and TOOL, BYE with a reason: bytes laid out by hand from RFC 3550 §6."""
    report = bytes.fromhex("81c8000c 00001111 e0000000 80000000 00000bb8 00000064 00003e80".replace(" ", ""))
    block = bytes.fromhex("00002222 40fffffe 0001fff0 00000018 aaaabbbb 00010000".replace(" ", ""))
    names = bytes.fromhex("81ca0005 00001111 01046a6f686e 0606617374657269 0000".replace(" ", ""))
    bye = bytes.fromhex("81cb0002 00001111 03627965".replace(" ", ""))
    compound = parse(report + block + names + bye)
    assert compound.sender == SenderInfo(0xE000000080000000, 3000, 100, 16000)
    assert compound.blocks == (ReportBlock(0x2222, 64, -2, 0x1FFF0, 24, 0xAAAABBBB, 0x10000),)
    assert compound.byes == (0x1111,)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no RTCP"),
        (bytes(7), "no RTCP"),
        (bytes(8), "begins with type 0"),
        (build(1, "x", None)[8:], "begins with type 202"),
        (b"\x40" + build(1, "x", None)[1:], "version"),
        (b"\xa0" + build(1, "x", None)[1:], "padding"),
        (build(1, "x", None)[:-4], "past the end"),
        (b"\x85" + build(1, "x", None)[1:], "too short for its blocks"),
        (b"\x80\xc8\x00\x01\x00\x00\x00\x01", "too short for its figures"),
        (b"\x80\xc9\x00\x01\x00\x00\x00\x01" + b"\x80\xcb\x00\x00" * 370, "more than 8 packets"),
    ],
)
def test_what_breaks_the_rules_is_refused_by_name(data: bytes, why: str) -> None:
    with pytest.raises(RtpError, match=why):
        parse(data)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([200, 201]), st.booleans())
def test_a_fuzzer_gets_only_the_named_error(data: bytes, kind: int, plausible: bool) -> None:
    if plausible and len(data) >= 4:
        data = bytes([0x80 | data[0] & 0x3F, kind]) + ((len(data) // 4) - 1).to_bytes(2, "big") + data[4:]
        data = data[: len(data) // 4 * 4]
    with contextlib.suppress(RtpError):
        parse(data)


def test_a_compound_of_as_many_packets_as_browsers_send_is_read() -> None:
    feedback = bytes.fromhex("81cd0003 00000001 0000cafe 00010000".replace(" ", ""))
    assert parse(build(1, "x", None, bye=True) + 5 * feedback).byes == (1,)


class Line:
    """Two sessions joined by a line with a delay each way; the clocks of the two are 1000 s apart."""

    def __init__(self, delay_s: float) -> None:
        chance = random.Random(5)
        self.delay_s = delay_s
        self.near = RtcpSession(0xA, "near", 0.0, 1.7e9, chance.random)
        self.far = RtcpSession(0xB, "far", 1000.0, 1.6e9, chance.random)

    def near_reports(self, now: float, *, sent: int = 0, bye: bool = False) -> Compound:
        reception = Reception(0xB, 100, 100, 5, 0.01, 8000)
        data = self.near.report(now, int(now * 8000), sent, sent * 160, reception, bye=bye)
        self.far.receive(data, now + self.delay_s + 1000.0, 200)
        return parse(data)

    def far_reports(self, now: float, lost: int) -> None:
        data = self.far.report(now + 1000.0, 0, 200, 32000, Reception(0xA, 70, 50 - lost, lost, 0.002, 8000))
        self.near.receive(data, now + self.delay_s, 50)


def test_the_round_trip_is_measured_whatever_the_clocks_show() -> None:
    line = Line(0.04)
    line.near_reports(10.0, sent=50)
    assert line.near.round_trip_s == -1.0
    line.far_reports(13.0, lost=5)
    assert line.near.round_trip_s == pytest.approx(0.08, abs=0.001)
    assert line.near.far_loss == pytest.approx(0.1)
    assert line.near.far_jitter == 16
    line.near_reports(15.0, sent=300)
    assert line.far.round_trip_s == pytest.approx(0.08, abs=0.001)


def test_a_block_tells_loss_since_the_last_report_and_in_all() -> None:
    session = RtcpSession(1, "x", 0.0, 0.0, random.Random(1).random)

    def block(sequence: int, received: int, lost: int, ssrc: int = 9) -> ReportBlock:
        return parse(session.report(5.0, 0, 0, 0, Reception(ssrc, sequence, received, lost, 0.0, 8000))).blocks[0]

    first = block(65500, 75, 25)
    assert (first.fraction, first.lost, first.highest) == (64, 25, 65500)
    second = block(100, 175, 25)
    assert (second.fraction, second.lost, second.highest) == (0, 25, 0x10000 + 100)
    third = block(90, 175, 125)
    assert (third.fraction, third.highest) == (255, 0x10000 + 90)
    assert block(7, 180, 125, ssrc=10).highest == 7


def test_without_audio_sent_it_is_a_receiver_report_and_goodbye_is_said_in_one_packet() -> None:
    line = Line(0.01)
    assert line.near_reports(1.0).sender is None
    assert line.near_reports(2.0, sent=10, bye=True).byes == (0xA,)


def test_reports_are_spread_around_five_seconds() -> None:
    session = RtcpSession(1, "x", 100.0, 0.0, random.Random(2).random)
    assert 100.0 < session.due_s < 100.0 + INTERVAL_S
    gaps = []
    now = session.due_s
    for _ in range(500):
        session.report(now, 0, 1, 160, None)
        gaps.append(session.due_s - now)
        now = session.due_s
    assert min(gaps) >= 0.5 * INTERVAL_S
    assert max(gaps) <= 1.5 * INTERVAL_S
    assert sum(gaps) / len(gaps) == pytest.approx(INTERVAL_S, rel=0.1)


def test_a_peers_nonsense_about_the_round_trip_is_ignored() -> None:
    session = RtcpSession(0xA, "x", 0.0, 1.7e9, random.Random(1).random)
    lie = ReportBlock(0xA, 255, -5, 0, 0, 0x12345678, 0)
    session.receive(build(0xB, "y", None, [lie]), 10.0, 100)
    assert session.round_trip_s == -1.0
    assert session.far_loss == 0.0
