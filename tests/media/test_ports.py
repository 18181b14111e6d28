"""RTP ports over real loopback sockets, and the caller told from strangers."""

from __future__ import annotations

import random
import socket

import pytest

from appliance.errors import MediaError
from appliance.media.ports import PortPool, Receiver, SourceFilter, address


def test_ports_come_in_pairs_and_the_one_freed_last_is_reused_last() -> None:
    pool = PortPool("127.0.0.1", 23001, 23011)
    first = pool.bind()
    port = first.port
    assert port % 2 == 0
    assert first.rtcp.getsockname()[1] == port + 1
    pool.release(first)
    pairs = [pool.bind() for _ in range(5)]
    assert [pair.port for pair in pairs][-1] == port
    assert pool.free == 0
    for pair in pairs:
        pool.release(pair)
    assert pool.free == 5


@pytest.mark.parametrize("taken", [23100, 23101])
def test_a_taken_port_is_skipped_and_an_empty_range_says_what_to_do(taken: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.1", taken))
        pool = PortPool("127.0.0.1", 23100, 23101)
        with pytest.raises(MediaError, match=r"widen listen\.rtp_ports"):
            pool.bind()
        assert pool.free == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_sockets_are_marked_expedited(host: str) -> None:
    pool = PortPool(host, 23300, 23310)
    try:
        pair = pool.bind()
    except MediaError:
        pytest.skip("no IPv6 loopback on this machine; sysctl net.ipv6.conf.lo.disable_ipv6=0 gives one")
    for sock in pair:
        if ":" in host:
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 46 << 2
        else:
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 46 << 2
    pool.release(pair)


def test_an_address_of_another_machine_says_what_to_do() -> None:
    with pytest.raises(MediaError, match=r"set listen\.rtp_host"):
        PortPool("192.0.2.1", 23000, 23010).bind()


def test_the_receiver_yields_what_has_come_and_bounds_a_flood() -> None:
    pool = PortPool("127.0.0.1", 23200, 23210)
    pair = pool.bind()
    ours = pair.rtp
    receiver = Receiver()
    receiver.add(ours, 5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for number in range(40):
            peer.sendto(bytes([number]), ours.getsockname())
        drained = list(receiver.drain())
        assert [(slot, data[0]) for slot, data, _ in drained] == [(5, number) for number in range(16)]
        assert drained[0][2] == peer.getsockname() or drained[0][2][1] == peer.getsockname()[1]
    receiver.remove(ours)
    receiver.close()
    pool.release(pair)


@pytest.mark.parametrize("host", ["fe80::1%a\x00b", "fe80::1%é", "fe80::1%eth0", "media.example.com", ""])
def test_what_is_no_ip_address_is_refused_before_anything_is_sent_there(host: str) -> None:
    with pytest.raises(MediaError, match="no IP address"):
        address(host, 4000, socket.AF_INET6)


def test_an_address_is_as_the_socket_reports_it() -> None:
    assert address("2001:DB8:0::5", 4000, socket.AF_INET6) == ("2001:db8::5", 4000, 0, 0)
    assert address("192.0.2.1", 4000, socket.AF_INET6) == ("::ffff:192.0.2.1", 4000, 0, 0)
    assert address("192.0.2.1", 4000, socket.AF_INET) == ("192.0.2.1", 4000)


DESCRIBED = ("10.0.0.1", 4000)
NATTED = ("203.0.113.7", 61000)
STRANGER = ("198.51.100.9", 5000)


def natted(first: int = 0) -> SourceFilter:
    """A filter whose caller has proved itself from behind a NAT."""
    source = SourceFilter(DESCRIBED)
    assert all(source.accept(NATTED, 7, first + number) for number in range(4))
    return source


def test_a_caller_behind_a_nat_is_followed_after_four_packets_in_sequence() -> None:
    source = SourceFilter(DESCRIBED)
    for number in range(3):
        assert source.accept(NATTED, 7, 65534 + number & 0xFFFF)
        assert source.remote == DESCRIBED
    assert source.accept(NATTED, 7, 1)
    assert source.remote == source.locked == NATTED


@pytest.mark.parametrize("other", [STRANGER, (NATTED[0], 61001), (DESCRIBED[0], 4001)])
def test_nobody_takes_over_a_proved_source_however_long_it_is_silent(other: tuple[str, int]) -> None:
    source = natted()
    assert not any(source.accept(other, 7, number, authentic=True) for number in range(4, 400))
    assert source.remote == NATTED
    assert source.strangers == 396


def test_the_described_source_is_believed_at_once_and_ends_the_search() -> None:
    source = SourceFilter(DESCRIBED)
    assert source.accept(STRANGER, 1, 0)
    assert source.accept(STRANGER, 1, 1)
    assert source.accept(DESCRIBED, 7, 900)
    assert not source.accept(STRANGER, 1, 2)
    assert source.remote == DESCRIBED


def test_one_authentic_packet_proves_a_source() -> None:
    source = SourceFilter(DESCRIBED)
    assert source.accept(STRANGER, 1, 0)
    assert source.accept(NATTED, 7, 0, authentic=True)
    assert source.locked == NATTED


def test_random_packets_prove_nothing_and_do_not_keep_the_caller_out() -> None:
    source = SourceFilter(DESCRIBED)
    chance = random.Random(3)
    for number in range(12):
        for host in range(20):
            source.accept((f"198.51.100.{host}", 5000), chance.getrandbits(32), chance.getrandbits(16))
            assert source.locked in (None, NATTED)
        for packet in range(4):
            source.accept(NATTED, 7, 4 * number + packet)
    assert source.locked == NATTED


def test_only_a_new_description_moves_the_call() -> None:
    source = natted()
    source.redirect(DESCRIBED)
    assert source.locked == NATTED
    source.redirect(("10.0.0.2", 5000))
    assert source.remote == ("10.0.0.2", 5000)
    assert not source.accept(NATTED, 7, 4)  # what the one before it still sends
    assert source.accept(("10.0.0.2", 5000), 9, 0)
    assert source.locked == ("10.0.0.2", 5000)


def test_a_caller_described_anew_who_goes_on_from_the_same_nat_is_heard_within_a_second() -> None:
    source = natted()
    source.redirect(("10.0.0.2", 5000))
    heard = [source.accept(NATTED, 7, 4 + number) for number in range(60)]
    assert heard.index(True) == 49
    assert all(heard[49:])


def test_packets_of_the_path_that_was_left_take_no_encrypted_call_back() -> None:
    source = SourceFilter(DESCRIBED)
    assert source.accept(DESCRIBED, 7, 0, authentic=True)
    source.redirect(("10.0.0.2", 5000))
    assert not source.accept(DESCRIBED, 7, 1, authentic=True)
    assert source.accept(("10.0.0.2", 5000), 9, 0, authentic=True)
    assert not source.accept(DESCRIBED, 7, 2, authentic=True)
    assert source.locked == ("10.0.0.2", 5000)


def test_an_encrypted_caller_described_anew_behind_the_same_nat_is_heard_within_a_second() -> None:
    source = SourceFilter(DESCRIBED)
    assert source.accept(NATTED, 7, 0, authentic=True)
    source.redirect(("10.0.0.2", 5000))
    heard = [source.accept(NATTED, 7, 1 + number, authentic=True) for number in range(60)]
    assert heard.index(True) == 49


def test_a_guesser_yields_to_the_source_that_was_described() -> None:
    source = SourceFilter(DESCRIBED)
    for number in range(4):
        assert source.accept(STRANGER, 1, number)
    assert source.locked == STRANGER
    assert [source.accept(DESCRIBED, 7, 900 + number) for number in range(4)] == [False, False, False, True]
    assert source.remote == source.locked == DESCRIBED
    assert not any(source.accept(STRANGER, 1, 4 + number) for number in range(400))
    assert source.strangers == 403


def test_a_caller_behind_a_nat_does_not_yield_to_single_packets_from_the_described_address() -> None:
    source = natted()
    assert not any(source.accept(DESCRIBED, 9, number * 100) for number in range(40))
    assert source.locked == NATTED


def test_a_source_that_is_described_after_it_was_left_needs_no_longer_proof() -> None:
    source = natted()
    source.redirect(NATTED)
    for number in range(4):
        source.accept(STRANGER, 1, number)
    assert source.locked == STRANGER
    assert [source.accept(NATTED, 7, 4 + number) for number in range(4)] == [False, False, False, True]
