from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RtpError
from appliance.rtp.dtmf import KEYS, SAME_PRESS_S, DtmfReceiver, DtmfSender, KeyPresses


def wire(digits: str, *, seq: int = 65530, timestamp: int = 2**32 - 1000) -> list[tuple[bytes, int, bool, int]]:
    """The event packets of some keys as the receiver takes them: (payload, timestamp, marker, seq)."""
    sender = DtmfSender(digits)
    packets: list[tuple[bytes, int, bool, int]] = []
    for tick in itertools.count():
        step = sender.next()
        if step is None:
            return packets
        if step.payload is not None:
            stamp = (timestamp + tick * 160 - step.timestamp_age) % 2**32
            packets.append((step.payload, stamp, step.marker, (seq + tick) % 65536))
    raise AssertionError


def hear(packets: list[tuple[bytes, int, bool, int]]) -> str:
    receiver = DtmfReceiver()
    return "".join(receiver.push(*packet) or "" for packet in packets)


def test_every_key_arrives_once() -> None:
    assert hear(wire(KEYS)) == KEYS


def test_a_repeated_key_is_two_keys() -> None:
    assert hear(wire("1122")) == "1122"


def test_sender_follows_rfc_4733() -> None:
    sender = DtmfSender("5")
    steps = [sender.next() for _ in range(10)]
    sent = [step for step in steps if step is not None and step.payload is not None]
    assert [step.payload.hex() for step in sent if step.payload] == [
        "050a00a0", "050a0140", "050a01e0", "050a0280", "058a0320", "058a0320", "058a0320",
    ]  # fmt: skip
    assert [step.marker for step in sent] == [True] + [False] * 6
    assert [step.timestamp_age for step in sent] == [160 * n for n in range(7)]
    assert [step is None for step in steps] == [False] * 9 + [True]
    assert sender.done


def test_sender_refuses_what_is_not_a_key() -> None:
    with pytest.raises(ValueError, match="only the keys"):
        DtmfSender("12x")
    with pytest.raises(ValueError, match="queued"):
        DtmfSender("1" * 257)
    with pytest.raises(ValueError, match="outside"):
        DtmfSender("1", power_dbm0=3)


def test_keys_can_be_added_while_sending() -> None:
    sender = DtmfSender("1")
    sender.next()
    sender.add("d")
    events = {step.payload[0] for step in iter(sender.next, None) if step.payload}
    assert events == {1, 15}


@pytest.mark.parametrize("kept", [kept for n in range(1, 8) for kept in itertools.combinations(range(7), n)])
def test_a_key_is_heard_whichever_of_its_packets_are_lost(kept: tuple[int, ...]) -> None:
    first, second = wire("9"), wire("9", seq=65540, timestamp=2**32 - 1000 + 1440)
    assert hear([first[i] for i in kept] + second) == "99"
    assert hear(first + [second[i] for i in kept]) == "99"


@given(st.permutations(list(enumerate(wire("12")))))
def test_order_and_copies_do_not_make_keys(shuffled: list[tuple[int, tuple[bytes, int, bool, int]]]) -> None:
    packets = [packet for _, packet in shuffled]
    assert sorted(hear(packets + packets)) == ["1", "2"]


def test_a_long_key_in_segments_is_one_key() -> None:
    receiver = DtmfReceiver()
    heard = [receiver.push(b"\x07\x0a" + (n * 160).to_bytes(2, "big"), 1000, n == 1, n) for n in range(1, 410)]
    heard += [receiver.push(b"\x07\x0a\xff\xff", 1000, False, 410)]
    heard += [receiver.push(b"\x07\x0a" + (n * 160).to_bytes(2, "big"), 1000 + 65535, False, 410 + n) for n in (1, 2)]
    heard += [receiver.push(b"\x07\x8a\x02\x00", 1000 + 65535, False, 413)]
    assert "".join(key or "" for key in heard) == "7"


def test_a_key_that_has_been_begun_does_not_remain() -> None:
    sender = DtmfSender("12")
    assert sender.remaining == "12"
    sender.next()
    assert sender.remaining == "2"
    while sender.next() is not None:
        pass
    assert sender.remaining == ""


def test_a_peer_that_moves_the_timestamp_with_every_packet_sends_one_key() -> None:
    receiver = DtmfReceiver()
    keys = [receiver.push(b"\x03\x0a" + (n * 160).to_bytes(2, "big"), 160 * n, n == 1, n) for n in range(1, 9)]
    assert "".join(key or "" for key in keys) == "3"


def test_a_peer_that_never_moves_the_timestamp_sends_every_key() -> None:
    packets = [(payload, 0, marker, seq) for payload, _, marker, seq in wire("4456")]
    assert hear(packets) == "4456"


def test_after_a_reset_the_same_timestamp_is_a_new_key() -> None:
    receiver = DtmfReceiver()
    packets = wire("8")
    first = [receiver.push(*packet) for packet in packets]
    receiver.reset()
    assert first[0] == receiver.push(*packets[0]) == "8"


def test_other_events_are_not_keys() -> None:
    assert DtmfReceiver().push(b"\x10\x0a\x00\xa0", 0, True, 1) is None


def test_a_short_payload_is_refused() -> None:
    with pytest.raises(RtpError, match="3 bytes"):
        DtmfReceiver().push(b"\x01\x0a\x00", 0, True, 1)


@given(
    st.lists(
        st.tuples(st.binary(max_size=6), st.integers(0, 2**32 - 1), st.booleans(), st.integers(0, 65535)),
        max_size=50,
    )
)
def test_only_rtp_errors_come_of_noise(packets: list[tuple[bytes, int, bool, int]]) -> None:
    receiver = DtmfReceiver()
    for packet in packets:
        try:
            key = receiver.push(*packet)
        except RtpError:
            continue
        assert key is None or key in KEYS


@pytest.mark.parametrize(("clock_hz", "tone_ms"), [(8000, 20000), (48000, 100), (48000, 3000)])
def test_a_key_held_for_long_is_sent_in_segments_and_is_one_key(clock_hz: int, tone_ms: int) -> None:
    sender, receiver = DtmfSender("6", tone_ms=tone_ms, clock_hz=clock_hz), DtmfReceiver(clock_hz)
    tick = clock_hz // 50
    heard = ""
    starts: dict[int, int] = {}
    ends = 0
    for n, step in enumerate(iter(sender.next, None)):
        if step.payload is None:
            continue
        timestamp = (2**32 - 5000 + n * tick - step.timestamp_age) % 2**32
        duration = int.from_bytes(step.payload[2:], "big")
        starts[timestamp] = max(starts.get(timestamp, 0), duration)
        ends += step.payload[1] >> 7
        heard += receiver.push(step.payload, timestamp, step.marker, n) or ""
    assert heard == "6"
    assert ends == 3
    assert sum(starts.values()) == tone_ms * clock_hz // 1000
    assert all(duration <= 0xFFFF for duration in starts.values())
    begun = list(starts)
    for (first, duration), second in zip(starts.items(), begun[1:], strict=False):
        assert (first + duration) % 2**32 == second


# --- one press, several ways ------------------------------------------------------------------------------------------


def counted(*reports: tuple[float, str, str]) -> str:
    presses = KeyPresses()
    return "".join(key for now, key, way in reports if presses.press(key, way, now))


def test_a_key_reported_three_ways_is_one_press() -> None:
    assert counted((0.0, "5", "event"), (0.04, "5", "tone"), (0.3, "5", "info")) == "5"


def test_a_key_pressed_again_is_two_however_its_reports_are_mixed() -> None:
    quick = [(0.0, "5", "event"), (0.04, "5", "tone"), (0.2, "5", "event"), (0.24, "5", "tone")]
    assert counted(*quick, (0.5, "5", "info"), (0.9, "5", "info")) == "55"
    assert counted(*quick[:2], (0.1, "5", "info"), *quick[2:], (0.3, "5", "info")) == "55"


def test_a_way_that_missed_a_press_hides_none() -> None:
    assert counted((0.0, "1", "event"), (0.3, "1", "event"), (0.34, "1", "tone"), (0.6, "1", "event")) == "111"
    assert counted((0.0, "1", "event"), (0.3, "1", "tone"), (0.31, "1", "event"), (0.35, "2", "tone")) == "112"


def test_one_way_alone_counts_every_report() -> None:
    assert counted(*((n * 0.06, "9", "event") for n in range(20))) == "9" * 20


def test_after_a_while_another_way_reports_another_press() -> None:
    assert counted((0.0, "3", "event"), (SAME_PRESS_S + 0.01, "3", "info")) == "33"


@given(
    st.lists(st.sampled_from("12"), max_size=12),
    st.lists(st.tuples(st.floats(0.0, 0.4), st.floats(0.0, 0.9)), min_size=12, max_size=12),
)
def test_every_press_is_counted_once_whatever_the_delays(keys: list[str], delays: list[tuple[float, float]]) -> None:
    """Presses every 150 ms, told by three ways; each way tells them in order."""
    reports: list[tuple[float, str, str]] = []
    latest = [0.0, 0.0]
    for n, key in enumerate(keys):
        reports.append((n * 0.15, key, "event"))
        for i, way in enumerate(("tone", "info")):
            latest[i] = max(latest[i], n * 0.15 + delays[n][i])
            reports.append((latest[i], key, way))
    heard = counted(*sorted(reports, key=lambda report: report[0]))
    assert sorted(heard) == sorted(keys)
