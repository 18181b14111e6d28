"""RTP ports over real loopback sockets, and the caller told from strangers."""

from __future__ import annotations

import socket

import pytest

from appliance.errors import MediaError
from appliance.media.ports import PortPool, Receiver, SourceFilter


def test_ports_are_even_and_the_one_freed_last_is_reused_last() -> None:
    pool = PortPool("127.0.0.1", 23001, 23010)
    first = pool.bind()
    port = first.getsockname()[1]
    assert port % 2 == 0
    pool.release(first)
    socks = [pool.bind() for _ in range(4)]
    assert [sock.getsockname()[1] for sock in socks][-1] == port
    for sock in socks:
        sock.close()


def test_a_taken_port_is_skipped_and_an_empty_range_says_what_to_do() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.1", 23100))
        with pytest.raises(MediaError, match=r"widen listen\.rtp_ports"):
            PortPool("127.0.0.1", 23100, 23101).bind()


def test_an_address_of_another_machine_says_what_to_do() -> None:
    with pytest.raises(MediaError, match=r"set listen\.rtp_host"):
        PortPool("192.0.2.1", 23000, 23010).bind()


def test_the_receiver_yields_what_has_come_and_bounds_a_flood() -> None:
    pool = PortPool("127.0.0.1", 23200, 23210)
    ours = pool.bind()
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
    ours.close()


def test_the_caller_is_followed_once_and_strangers_are_not() -> None:
    source = SourceFilter(("10.0.0.1", 4000))
    assert source.remote == ("10.0.0.1", 4000)
    assert source.accept(("203.0.113.7", 61000), 0.0)  # behind a NAT: the first that speaks is taken
    assert source.remote == ("203.0.113.7", 61000)
    assert not source.accept(("198.51.100.9", 5000), 0.5)
    assert source.strangers == 1
    assert source.remote == ("203.0.113.7", 61000)


def test_a_stranger_cannot_take_over_a_caller_who_pauses() -> None:
    source = SourceFilter(("10.0.0.1", 4000))
    assert source.accept(("10.0.0.1", 4000), 0.0)
    assert not source.accept(("198.51.100.9", 5000), 60.0)


def test_a_nat_that_rebinds_is_followed() -> None:
    source = SourceFilter(("10.0.0.1", 4000))
    assert source.accept(("203.0.113.7", 61000), 0.0)
    assert not source.accept(("203.0.113.7", 61001), 0.5)
    assert source.accept(("203.0.113.7", 61001), 1.6)
    assert source.remote == ("203.0.113.7", 61001)


def test_a_new_description_moves_the_call() -> None:
    source = SourceFilter(("10.0.0.1", 4000))
    source.accept(("10.0.0.1", 4000), 0.0)
    source.redirect(("10.0.0.2", 5000))
    assert source.remote == ("10.0.0.2", 5000)
    assert source.accept(("10.0.0.2", 5000), 0.1)
