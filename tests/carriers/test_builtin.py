"""How the streams that come with the appliance are asked for: what stands in the path, and what in the query."""

from __future__ import annotations

import pytest

from appliance.api.carriers import StreamRequest
from appliance.api.streams import Started
from appliance.carriers.builtin import BuiltinStreams
from appliance.errors import CarrierError
from tests.carriers.test_protocols import TELNYX_START

KINDS = BuiltinStreams().appliance_stream_providers()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_kind(name: str) -> None:
    kind = KINDS[name]
    protocol = kind.open(StreamRequest())
    assert protocol.name == name
    assert protocol.frame_bytes == 0
    assert kind.summary
    assert kind.transport == ("tcp" if name == "audiosocket" else "websocket")
    assert kind.unasked == (name in ("audiosocket", "pbx"))


def test_the_token_of_telnyx_is_the_path() -> None:
    (started,) = KINDS["telnyx"].open(StreamRequest("s3cret", {})).receive(TELNYX_START)
    assert isinstance(started, Started)
    assert started.token == "s3cret"


def test_what_a_pbx_says_in_the_query() -> None:
    query = {"rate": "16000", "call": "c1", "called": "100", "calling": "200\r\n", "more": "x"}
    (started, _) = KINDS["pbx"].open(StreamRequest("", query)).receive(bytes(640))
    assert started == Started("c1", "c1", "l16", 16_000, called="100", calling="200")


@pytest.mark.parametrize("rate", ["", "x", "11025", "-8000", "8e3", "9" * 30, "٨٠٠٠"])
def test_a_rate_that_is_none(rate: str) -> None:
    with pytest.raises(CarrierError, match="rate"):
        KINDS["pbx"].open(StreamRequest("", {"rate": rate}))
