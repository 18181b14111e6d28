"""Messages cut out of a stream, however it is broken into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteSipError
from appliance.sip.stream import MAX_BODY_BYTES, PING, PONG, Frame, KeepAlive, StreamReader


def message(body: bytes = b"", length: str | None = None, name: str = "Content-Length") -> bytes:
    said = str(len(body)) if length is None else length
    return f"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: x\r\n{name}: {said}\r\n\r\n".encode() + body


def test_messages_in_one_piece_are_separated() -> None:
    first, second = message(b"hello"), message()
    reader = StreamReader()
    assert reader.feed(first + second + first[:10]) == [first, second]
    assert reader.partial
    assert reader.feed(first[10:]) == [first]
    assert not reader.partial


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.lists(st.integers(1, 30), min_size=1, max_size=50))
def test_any_cutting_gives_the_same_messages(bodies: list[bytes], cuts: list[int]) -> None:
    sent = [message(body) for body in bodies]
    stream = PING.join(sent) + PONG
    reader, got, at = StreamReader(), list[Frame](), 0
    for cut in cuts:
        got += reader.feed(stream[at : at + cut])
        at += cut
    got += reader.feed(stream[at:])
    assert [frame for frame in got if isinstance(frame, bytes)] == sent
    assert got.count(KeepAlive.PING) == len(sent) - 1
    assert not reader.partial


def test_keep_alives() -> None:
    reader = StreamReader()
    assert reader.feed(PONG) == [KeepAlive.PONG]
    assert reader.feed(message()) == [message()]
    assert reader.feed(PING) == [KeepAlive.PONG, KeepAlive.PING]
    assert reader.feed(b"\r") == []
    assert reader.feed(b"\n") == [KeepAlive.PONG]


def test_the_length_is_found_however_it_is_written() -> None:
    for spelling in ("l", "CONTENT-LENGTH", "Content-Length ", "L\t"):
        assert StreamReader().feed(message(b"abc", name=spelling)) == [message(b"abc", name=spelling)]
    folded = message(b"abc", length="\r\n  3")
    assert StreamReader().feed(folded) == [folded]
    twice = message(b"abc", length="3\r\nl: 3")
    assert StreamReader().feed(twice) == [twice]


@pytest.mark.parametrize(
    "bad",
    [
        message(b"abc", name="Content-Type"),
        message(b"abc", length="-3"),
        message(b"abc", length="three"),
        message(b"abc", length="3 4"),
        message(b"abc", length="3\r\nl: 4"),
        message(b"abc", length=str(MAX_BODY_BYTES + 1)),
        message(b"abc", length="9" * 30),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\x00" * 10,
        b"A" * 5000,
        b"OPTIONS sip:a@b SIP/2.0\r\n" + b"X: y\r\n" * 10000,
    ],
)
def test_a_stream_that_cannot_be_followed_is_given_up(bad: bytes) -> None:
    reader = StreamReader()
    with pytest.raises(RemoteSipError):
        reader.feed(bad)
    assert reader.broken and not reader.partial
    with pytest.raises(RemoteSipError):
        reader.feed(message())


def test_what_was_whole_before_the_break_is_still_given() -> None:
    reader = StreamReader()
    assert reader.feed(message() + b"\x00\x01") == [message()]
    assert reader.broken


@given(st.binary(max_size=3000))
def test_only_the_named_error(data: bytes) -> None:
    reader = StreamReader()
    try:
        for at in range(0, len(data), 7):
            reader.feed(data[at : at + 7])
    except RemoteSipError:
        assert reader.broken
