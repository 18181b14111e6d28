"""The page's messages, and what is refused of them."""

from __future__ import annotations

import json

import pytest

from appliance.api.streams import Audio, Key, Marked, Started, Stopped
from appliance.carriers.browser import RATES, BrowserStream
from appliance.errors import CarrierError

START = '{"event":"start","token":"s3cret","rate":48000}'


def test_a_call() -> None:
    stream = BrowserStream()
    assert stream.frame_bytes == 0
    (started,) = stream.receive(START)
    assert started == Started("", "", "l16", 48_000, "s3cret")
    assert "s3cret" not in repr(started)
    assert stream.frame_bytes == 1920
    assert stream.receive(bytes(1920)) == [Audio(1, bytes(1920))]
    assert stream.receive(bytes(2)) == [Audio(2, bytes(2))]
    assert stream.receive('{"event":"dtmf","digit":"#"}') == [Key("#")]
    assert stream.receive('{"event":"mark","name":"0.800"}') == [Marked("0.800")]
    assert stream.media(bytes(4)) == bytes(4)
    assert [json.loads(text) for text in [*stream.mark("0.800"), *stream.clear(), *stream.goodbye()]] == [
        {"event": "mark", "name": "0.800"},
        {"event": "clear"},
        {"event": "goodbye"},
    ]
    assert stream.receive('{"event":"stop"}') == [Stopped()]
    assert stream.receive(b"anything") == [], "it is over"


@pytest.mark.parametrize("rate", RATES)
def test_20_ms_are_whole_samples(rate: int) -> None:
    stream = BrowserStream()
    stream.receive(json.dumps({"event": "start", "token": "t", "rate": rate}))
    assert stream.frame_bytes * 50 == rate * 2


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (["hello"], "is not of the browser phone"),
        (["[1]"], "is not of the browser phone"),
        (['{"event":7}'], "is not of the browser phone"),
        (["{}"], "is not of the browser phone"),
        (["\ud800"], "is not of the browser phone"),
        (["[" * 1000], "is not of the browser phone"),
        (["x" * 1100], "1100 characters"),
        ([b"\0\0"], "audio comes before start"),
        (['{"event":"dtmf","digit":"1"}'], "'dtmf' comes before start"),
        (['{"event":"stop"}'], "'stop' comes before start"),
        (['{"event":"start"}'], "a rate of 0 Hz"),
        (['{"event":"start","token":"t","rate":11025}'], "a rate of 11025 Hz"),
        (['{"event":"start","token":"t","rate":96000}'], "a rate of 96000 Hz"),
        (['{"event":"start","token":"t","rate":"48000"}'], "is not of the browser phone"),
        (['{"event":"start","rate":48000}'], "names no token"),
        (['{"event":"start","rate":48000,"token":"' + "t" * 200 + '"}'], "names no token"),
        ([START, START], "start comes twice"),
        ([START, b""], "0 bytes of audio"),
        ([START, bytes(3)], "3 bytes are no whole samples"),
        ([START, bytes(48_002)], "48002 bytes of audio"),
        ([START, '{"event":"dtmf","digit":"55"}'], "not a key"),
        ([START, '{"event":"dtmf"}'], "not a key"),
        ([START, '{"event":"mark"}'], "a mark without a name"),
        ([START, '{"event":"mark","name":"' + "m" * 300 + '"}'], "a mark without a name"),
        ([START, '{"event":"news\\u0007"}'], "an unknown event 'news'"),
    ],
)
def test_what_is_refused(messages: list[str | bytes], words: str) -> None:
    stream = BrowserStream()
    with pytest.raises(CarrierError, match=words):
        for message in messages:
            stream.receive(message)
