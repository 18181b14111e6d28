from __future__ import annotations

import pytest

from appliance.audio import codec as audio
from appliance.audio.codec import new_codec
from appliance.errors import LocalSipError, RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.signalling.sip_media import SipMedia, check_sdp_offer, media_policy
from appliance.signalling.trunks import TrunkRule
from appliance.sip import sdp
from appliance.sip.offer_answer import MediaPolicy

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
    assert media.connected == [RtpParams("192.0.2.1", 4000, "pcma", 8, 101, 20, True, True, 8, 101)]
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


def held(answer: bytes, direction: str) -> bytes:
    return answer.rstrip() + f"\r\na={direction}\r\n".encode()


def test_our_hold_lasts_until_we_resume() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcma",), "192.0.2.1")
    negotiation.answer(OFFER)
    assert b"a=sendonly" in negotiation.hold_offer()
    assert not negotiation.holding
    params = negotiation.take_answer(held(OFFER, "recvonly"))
    assert (params.send, params.receive, negotiation.holding, negotiation.held) == (True, False, True, False)
    assert b"a=sendonly" in negotiation.answer(OFFER), "a refresh of the peer takes nobody off hold"
    assert b"a=sendrecv" in negotiation.resume_offer()
    params = negotiation.take_answer(OFFER)
    assert (params.send, params.receive, negotiation.holding) == (True, True, False)


def test_hold_without_music() -> None:
    negotiation = SipMedia(StaticMedia(), 1, ("pcma",), "192.0.2.1")
    negotiation.answer(OFFER)
    assert b"a=inactive" in negotiation.hold_offer(music=False)


def test_a_refused_hold_leaves_the_call_as_it_was() -> None:
    negotiation = SipMedia(StaticMedia(), 1, ("pcma",), "192.0.2.1")
    negotiation.answer(OFFER)
    negotiation.hold_offer()
    negotiation.offer_refused()
    assert not negotiation.awaits_answer
    assert b"a=sendrecv" in negotiation.answer(OFFER)


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
def test_held_by_the_peer(direction: str) -> None:
    negotiation = SipMedia(StaticMedia(), 1, ("pcma",), "192.0.2.1")
    negotiation.answer(OFFER)
    assert not negotiation.held
    negotiation.answer(held(OFFER, direction))
    assert negotiation.held
    assert b"a=sendrecv" in negotiation.offer(), "what we offer says what we want, not how it stands"


def test_early_media_then_the_answer() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcma",), "192.0.2.1")
    negotiation.offer()
    negotiation.take_early(OFFER)
    assert negotiation.awaits_answer
    negotiation.take_early(OFFER.replace(b"4000", b"4002"))
    assert negotiation.take_answer(OFFER.replace(b"4000", b"4004")).remote_port == 4004
    assert [params.remote_port for params in media.connected] == [4000, 4002, 4004]
    assert not negotiation.awaits_answer


def test_a_final_response_need_not_repeat_the_answer() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcma",), "192.0.2.1")
    negotiation.offer()
    early = negotiation.take_early(OFFER)
    assert negotiation.take_answer(None) == early
    assert len(media.connected) == 1


def test_an_offer_answered_before_the_final_response_is_what_holds() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcma",), "192.0.2.1")
    negotiation.offer()
    negotiation.take_early(OFFER)
    negotiation.answer(OFFER.replace(b"4000", b"7777"))
    assert negotiation.take_answer(None).remote_port == 7777
    assert [params.remote_port for params in media.connected] == [4000, 7777]


def test_a_trunk_is_its_policy() -> None:
    trunk = TrunkRule("t", codecs=("opus",), srtp="required", ptime_ms=40, dtmf="info", comfort_noise=True)
    assert media_policy(trunk) == MediaPolicy(("opus",), "required", 40, "info", True)
    with pytest.raises(RemoteSipError, match="no common codec"):
        check_sdp_offer(OFFER, media_policy(trunk))
    with pytest.raises(RemoteSipError, match="begin with v=0"):
        check_sdp_offer(b"hello", media_policy(trunk))


def test_the_codecs_that_can_be_agreed_on_are_those_there_are() -> None:
    assert {name: new_codec(name).rtp_clock_hz for name in audio.CODECS} == sdp.CODECS


def test_media_at_an_address_of_the_other_family_is_refused() -> None:
    media = StaticMedia()
    negotiation = SipMedia(media, 1, ("pcma",), "192.0.2.1")
    with pytest.raises(RemoteSipError, match="IPv4") as refused:
        negotiation.answer(OFFER.replace(b"IN IP4 127.0.0.1\r\nt=", b"IN IP6 2001:db8::7\r\nt="))
    assert refused.value.status_hint == 488
    assert media.connected == []
