"""What no peer should send: of each protocol only CarrierError escapes, and its words are fit for a log."""

from __future__ import annotations

import pytest

from appliance.api import StreamProtocol, StreamRequest
from appliance.carriers.browser import BrowserStream
from appliance.carriers.builtin import BuiltinStreams
from appliance.errors import CarrierError
from tests.carriers.malformed import CORPUS, START, STARTS, TOKEN, Case, Raw

KINDS = BuiltinStreams().appliance_stream_providers()


def protocol(kind: str) -> StreamProtocol:
    if kind == "browser":
        return BrowserStream()
    return KINDS[kind].open(StreamRequest(TOKEN if kind == "telnyx" else "", {}))


def feed(stream: StreamProtocol, kind: str, case: Case) -> None:
    for one in case.messages:
        if isinstance(one, Raw):
            try:
                text = one.payload.decode()
            except UnicodeDecodeError:
                raise CarrierError("the socket's own check") from None
            stream.receive(text)
        else:
            stream.receive(STARTS[kind] if one == START else one)


@pytest.mark.parametrize(
    ("kind", "case"), [pytest.param(kind, case, id=f"{kind}-{case.name}") for kind in CORPUS for case in CORPUS[kind]]
)
def test_what_no_peer_should_send(kind: str, case: Case) -> None:
    stream = protocol(kind)
    if not case.refused:
        feed(stream, kind, case)
        return
    with pytest.raises(CarrierError) as refused:
        feed(stream, kind, case)
    words = str(refused.value)
    assert 0 < len(words) < 400
    assert words.isprintable()


@pytest.mark.parametrize("kind", sorted(CORPUS))
def test_there_are_enough_of_them(kind: str) -> None:
    names = [case.name for case in CORPUS[kind]]
    assert len(names) == len(set(names)) >= 40
    assert sum(case.refused for case in CORPUS[kind]) >= 30


@pytest.mark.parametrize("kind", sorted(STARTS))
def test_the_good_beginning_is_good(kind: str) -> None:
    assert protocol(kind).receive(STARTS[kind])
