from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines.sse import EventDecoder
from appliance.errors import EngineError

STREAM = b'\xef\xbb\xbf: hello\n\ndata: {"a": 1}\r\n\r\n:\ndata:two\rdata: lines\r\r'
STREAM += b"id: 7\nevent: x\nretry: 5\n\ndata: \xc3\xa9\n\n"
EVENTS = ['{"a": 1}', "two\nlines", "é"]


def decode(*chunks: bytes) -> list[str]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_events_of_one_chunk() -> None:
    assert decode(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_does_not_matter_how_the_bytes_are_split(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(places)]
    decoder = EventDecoder()
    assert [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish() == EVENTS


def test_byte_by_byte() -> None:
    decoder = EventDecoder()
    assert [e for i in range(len(STREAM)) for e in decoder.feed(STREAM[i : i + 1])] == EVENTS


def test_the_last_event_may_lack_its_empty_line() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: [DONE]") == []
    assert decoder.finish() == ["[DONE]"]
    assert decoder.finish() == []


def test_an_event_without_end_is_refused() -> None:
    decoder = EventDecoder(max_bytes=100)
    decoder.feed(b"data: " + b"x" * 90)
    with pytest.raises(EngineError, match="longer than 100 bytes"):
        decoder.feed(b"x" * 20)


def test_an_event_of_many_lines_without_end_is_refused() -> None:
    decoder = EventDecoder(max_bytes=100)
    with pytest.raises(EngineError, match="longer than 100 bytes"):
        decoder.feed(b"data: xxxxxxxxxxxx\n" * 10)


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(EngineError, match="not UTF-8"):
        decode(b"data: \xff\n\n")


@given(st.binary(max_size=300))
def test_any_bytes_give_events_or_the_named_error(garbage: bytes) -> None:
    decoder = EventDecoder(max_bytes=200)
    try:
        for start in range(0, len(garbage), 7):
            decoder.feed(garbage[start : start + 7])
        decoder.finish()
    except EngineError:
        pass
