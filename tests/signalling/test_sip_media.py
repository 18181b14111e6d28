from __future__ import annotations

import pytest

from appliance.errors import LocalSipError, RemoteSipError
from appliance.signalling.leg import RtpParams
from appliance.signalling.sip_media import SipMedia

from .test_sip_endpoint import SDP, StaticMedia

OFFER = SDP.encode()


def test_the_slot_is_connected_again_only_when_something_changed() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcmu", "pcma"), "192.0.2.1")
    first = negotiation.answer(OFFER)
    assert negotiation.answer(OFFER) == first
    assert len(media.connected) == 1
    negotiation.answer(OFFER.replace(b"4000", b"4002"))
    assert [params.remote_port for params in media.connected] == [4000, 4002]


def test_an_address_that_says_nothing_is_replaced() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcma",), "192.0.2.1")
    negotiation.answer(OFFER.replace(b"127.0.0.1\r\nt=", b"phone.example\r\nt="))
    assert media.connected == [RtpParams("192.0.2.1", 4000, "pcma", 8, 101, 20, True, True)]
    negotiation.answer(OFFER)
    negotiation.answer(OFFER.replace(b"127.0.0.1\r\nt=", b"0.0.0.0\r\nt="))
    assert (media.connected[-1].remote_host, media.connected[-1].send) == ("127.0.0.1", False)


def test_what_cannot_be_agreed_changes_nothing() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcmu",), "192.0.2.1")
    with pytest.raises(RemoteSipError):
        negotiation.answer(OFFER)
    with pytest.raises(LocalSipError):
        negotiation.take_answer(OFFER)
    negotiation.offer()
    with pytest.raises(RemoteSipError, match="not answered"):
        negotiation.take_answer(None)
    assert media.connected == []
    assert negotiation.awaits_answer
