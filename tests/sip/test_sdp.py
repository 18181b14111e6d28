from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.sdp import Agreement, LocalDescription, choose, dtmf_from_info, parse_sdp

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def us(codecs: tuple[str, ...] = ("pcmu", "pcma")) -> LocalDescription:
    return LocalDescription(77, "192.0.2.2", 5000, codecs)


def answer(offer: str, local: LocalDescription | None = None) -> tuple[str, Agreement]:
    body, agreed = (local or us()).answer(parse_sdp((HEAD + offer).encode()))
    return body.decode(), agreed


def refused(offer: str) -> int | None:
    with pytest.raises(RemoteSipError) as caught:
        answer(offer)
    return caught.value.status_hint


def test_the_offerers_first_codec_and_payload_types_are_taken() -> None:
    body, agreed = answer(
        "m=audio 4000 RTP/AVP 18 8 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-16\r\na=ptime:40\r\n"
    )
    assert agreed == Agreement("192.0.2.1", 4000, "pcma", 8, 96, 40, True, True)
    assert "m=audio 5000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:96 telephone-event/8000\r\n" in body
    assert "a=fmtp:96 0-15\r\na=ptime:20\r\na=sendrecv\r\n" in body
    assert "c=IN IP4 192.0.2.2\r\n" in body


def test_a_dynamic_payload_type_for_pcmu() -> None:
    body, agreed = answer("m=audio 4000 RTP/AVP 97 98\r\na=rtpmap:97 PCMU/16000\r\na=rtpmap:98 pcmu/8000/1\r\n")
    assert (agreed.codec, agreed.payload_type) == ("pcmu", 98)
    assert "m=audio 5000 RTP/AVP 98\r\na=rtpmap:98 PCMU/8000" in body


def test_telephone_event_at_another_rate_is_not_ours() -> None:
    assert answer("m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/48000\r\n")[1].dtmf_payload_type == -1


@pytest.mark.parametrize(
    ("theirs", "ours", "send", "receive"),
    [
        ("sendrecv", "sendrecv", True, True),
        ("sendonly", "recvonly", False, True),
        ("recvonly", "sendonly", True, False),
        ("inactive", "inactive", False, False),
    ],
)
def test_directions(theirs: str, ours: str, send: bool, receive: bool) -> None:
    body, agreed = answer(f"m=audio 4000 RTP/AVP 0\r\na={theirs}\r\n")
    assert f"a={ours}\r\n" in body
    assert (agreed.send, agreed.receive) == (send, receive)


def test_a_direction_for_the_whole_session() -> None:
    body = (HEAD + "a=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n").encode()
    assert not us().answer(parse_sdp(body))[1].send


def test_hold_by_the_null_address_names_no_address() -> None:
    body, agreed = answer("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n")
    assert agreed.remote_host == ""
    assert not agreed.send
    assert "a=recvonly" in body


def test_a_host_name_for_media_is_left_to_the_signalling_address() -> None:
    assert answer("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 media.example.com\r\n")[1].remote_host == ""


def test_other_media_are_refused_in_place() -> None:
    body, agreed = answer("m=video 3227 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 0\r\nm=audio 4002 RTP/AVP 8\r\n")
    assert [line for line in body.split("\r\n") if line.startswith("m=")] == [
        "m=video 0 RTP/AVP 31",
        "m=audio 5000 RTP/AVP 0",
        "m=audio 0 RTP/AVP 8",
    ]
    assert agreed.remote_port == 4000


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "m=audio 4000 RTP/AVP 18 3\r\n",
        "m=audio 0 RTP/AVP 0\r\n",
        "m=audio 4000 RTP/SAVP 0\r\n",
        "m=image 4000 udptl t38\r\n",
        "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 224.2.1.1/127\r\n",
        "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 255.255.255.255\r\n",
    ],
)
def test_nothing_in_common_is_488(offer: str) -> None:
    assert refused(offer) == 488


@pytest.mark.parametrize("offer", ["m=audio\r\n", "m=audio x RTP/AVP 0\r\n", "m=audio 70000 RTP/AVP 0\r\n", "c=IN\r\n"])
def test_broken_sdp_is_400(offer: str) -> None:
    assert refused(offer) == 400


def test_what_is_no_sdp() -> None:
    for body in (b"", b"hello", b"\xff\xfe"):
        with pytest.raises(RemoteSipError) as caught:
            parse_sdp(body)
        assert caught.value.status_hint == 400
    with pytest.raises(RemoteSipError) as caught:
        parse_sdp(b"v=0\r\n" + b"a=x\r\n" * 10_000)
    assert caught.value.status_hint == 413


def test_the_trunks_codecs_decide() -> None:
    assert answer("m=audio 4000 RTP/AVP 0 8\r\n", us(("pcma",)))[1].codec == "pcma"
    with pytest.raises(LocalSipError, match="g722"):
        us(("g722",))


def test_the_version_grows_only_when_the_answer_changes() -> None:
    local = us()
    first = answer("m=audio 4000 RTP/AVP 0\r\n", local)[0]
    assert answer("m=audio 4000 RTP/AVP 0\r\n", local)[0] == first
    held = answer("m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n", local)[0]
    assert "o=- 77 1 IN" in first
    assert "o=- 77 2 IN" in held


def test_our_offer_and_its_answer() -> None:
    caller, called = us(("pcma", "pcmu")), LocalDescription(5, "192.0.2.9", 7000, ("pcmu", "pcma"))
    body, theirs = called.answer(parse_sdp(caller.offer()))
    ours = caller.accept_answer(parse_sdp(body))
    assert ours == Agreement("192.0.2.9", 7000, "pcma", 8, 101, 20, True, True)
    assert theirs == Agreement("192.0.2.2", 5000, "pcma", 8, 101, 20, True, True)
    with pytest.raises(RemoteSipError):
        caller.accept_answer(parse_sdp((HEAD + "m=audio 0 RTP/AVP 0\r\n").encode()))


def test_ipv6() -> None:
    body, agreed = LocalDescription(1, "::1", 5000, ("pcmu",)).answer(
        parse_sdp(b"v=0\r\nc=IN IP6 2001:db8::5\r\nm=audio 4000 RTP/AVP 0\r\n")
    )
    assert b"c=IN IP6 ::1" in body
    assert agreed.remote_host == "2001:db8::5"


def test_maxptime_caps_the_packet_length() -> None:
    assert answer("m=audio 4000 RTP/AVP 0\r\na=ptime:60\r\na=maxptime:30\r\n")[1].ptime_ms == 20
    assert answer("m=audio 4000 RTP/AVP 0\r\na=ptime:30\r\n")[1].ptime_ms == 20


@pytest.mark.parametrize(
    ("kind", "body", "digit"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5"),
        ("application/dtmf-relay;x=y", b"Signal= #\nDuration=100", "#"),
        ("Application/DTMF", b"*", "*"),
        ("application/dtmf-relay", b"Signal=11\r\n", "#"),
        ("application/dtmf", b"55", ""),
        ("text/plain", b"5", ""),
        ("application/dtmf", b"\xff", ""),
    ],
)
def test_keys_in_info(kind: str, body: bytes, digit: str) -> None:
    assert dtmf_from_info(kind, body) == digit


LINES = [
    "v=0", "c=IN IP4 1.2.3.4", "m=audio 1 RTP/AVP 0", "a=rtpmap:", "a=ptime:x", "m=a 1/2 b c", "a=rtpmap:0 PCMU/8000",
    "\x00", "c=IN IP6 ::", "a=sendonly",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=12), st.binary(max_size=30))
def test_any_lines_raise_only_the_named_error(lines: list[str], junk: bytes) -> None:
    for body in ("\r\n".join(lines).encode() + junk, b"v=0\r\n" + junk + "\n".join(lines).encode()):
        try:
            choose(parse_sdp(body), ("pcmu", "pcma"))
        except RemoteSipError:
            continue
