from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import LocalSipError, RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.sip.offer_answer import PACKET_MS, LocalDescription, MediaPolicy, check_offer
from appliance.sip.sdes import SUITES
from appliance.sip.sdp import CODECS, SessionDescription, parse_sdp

KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
ALL = MediaPolicy(("pcmu", "pcma", "g722", "opus"), "optional", 20, "auto", True)
HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def us(codecs: tuple[str, ...] = ("pcmu", "pcma")) -> LocalDescription:
    return LocalDescription(77, "192.0.2.2", 5000, codecs)


def octets(count: int) -> bytes:
    return Random(7).randbytes(count)


def policy(*, seed: int = 0, **settings: Any) -> LocalDescription:
    return LocalDescription(77, "192.0.2.2", 5000, MediaPolicy(**settings), Random(seed).randbytes)


def described(lines: str) -> SessionDescription:
    return parse_sdp((HEAD + lines).encode())


def answer(offer: str, local: LocalDescription | None = None) -> tuple[str, RtpParams]:
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
    assert agreed == RtpParams("192.0.2.1", 4000, "pcma", 8, 96, 40, True, True, 8, 96)
    assert "m=audio 5000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:96 telephone-event/8000\r\n" in body
    assert "a=fmtp:96 0-15\r\na=ptime:20\r\na=sendrecv\r\n" in body
    assert "c=IN IP4 192.0.2.2\r\n" in body


def test_a_dynamic_payload_type_for_pcmu() -> None:
    body, agreed = answer("m=audio 4000 RTP/AVP 97 98\r\na=rtpmap:97 PCMU/16000\r\na=rtpmap:98 pcmu/8000/1\r\n")
    assert (agreed.codec, agreed.payload_type) == ("pcmu", 98)
    assert "m=audio 5000 RTP/AVP 98\r\na=rtpmap:98 PCMU/8000" in body


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


def test_the_trunks_codecs_decide() -> None:
    assert answer("m=audio 4000 RTP/AVP 0 8\r\n", us(("pcma",)))[1].codec == "pcma"
    with pytest.raises(LocalSipError, match="g729"):
        us(("g729",))


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
    assert ours == RtpParams("192.0.2.9", 7000, "pcma", 8, 101, 20, True, True, 8, 101, rtcp_mux=True)
    assert theirs == RtpParams("192.0.2.2", 5000, "pcma", 8, 101, 20, True, True, 8, 101, rtcp_mux=True)
    with pytest.raises(RemoteSipError):
        caller.accept_answer(parse_sdp((HEAD + "m=audio 0 RTP/AVP 0\r\n").encode()))


def test_ipv6() -> None:
    body, agreed = LocalDescription(1, "::1", 5000, ("pcmu",)).answer(
        parse_sdp(b"v=0\r\nc=IN IP6 2001:db8::5\r\nm=audio 4000 RTP/AVP 0\r\n")
    )
    assert b"c=IN IP6 ::1" in body
    assert agreed.remote_host == "2001:db8::5"


def test_an_address_of_the_other_family_is_refused() -> None:
    assert refused("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::5\r\n") == 488
    assert answer("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::ffff:192.0.2.7\r\n")[1].remote_host == "192.0.2.7"
    assert answer("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::\r\n")[1].remote_host == ""
    local = us()
    local.offer()
    with pytest.raises(RemoteSipError, match=r"192\.0\.2\.2 to 2001:db8::5"):
        local.accept_answer(described("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::5\r\n"))


@pytest.mark.parametrize(
    ("lines", "ptime_ms"),
    [
        ("", 20),
        ("a=ptime:10\r\n", 10),
        ("a=ptime:30\r\n", 30),
        ("a=ptime:45.5\r\n", 40),
        ("a=ptime:60\r\na=maxptime:30\r\n", 30),
        ("a=maxptime:10\r\n", 10),
        ("a=ptime:240\r\n", 60),
        ("a=ptime:5\r\n", 10),
        ("a=ptime:0\r\n", 20),
    ],
)
def test_packets_are_as_long_as_the_peer_asks(lines: str, ptime_ms: int) -> None:
    assert answer("m=audio 4000 RTP/AVP 0\r\n" + lines)[1].ptime_ms == ptime_ms


def test_packet_lengths_that_opus_lacks_and_the_trunks_own() -> None:
    local = policy(codecs=("opus", "pcmu"), ptime_ms=40)
    body, agreed = answer("m=audio 4000 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\na=ptime:30\r\n", local)
    assert agreed.ptime_ms == 20
    assert "a=ptime:40\r\n" in body
    assert answer("m=audio 4000 RTP/AVP 0\r\n", local)[1].ptime_ms == 40


class TestCodecs:
    def test_opus_has_events_of_its_own_clock(self) -> None:
        body, agreed = answer(
            "m=audio 4000 RTP/AVP 107 0 101 96\r\na=rtpmap:107 opus/48000/2\r\na=fmtp:107 useinbandfec=1\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=rtpmap:96 telephone-event/48000\r\n",
            us(("g722", "pcmu", "opus")),
        )
        assert (agreed.codec, agreed.payload_type, agreed.dtmf_payload_type, agreed.dtmf_clock_hz) == (
            "opus",
            107,
            96,
            48000,
        )
        assert "m=audio 5000 RTP/AVP 107 96\r\na=rtpmap:107 opus/48000/2\r\na=fmtp:107 maxplaybackrate=8000;" in body
        assert "a=rtpmap:96 telephone-event/48000\r\n" in body

    def test_events_of_another_clock_are_better_than_none(self) -> None:
        offer = "m=audio 4000 RTP/AVP 107 101\r\na=rtpmap:107 opus/48000\r\na=rtpmap:101 telephone-event/8000\r\n"
        agreed = answer(offer, us(("opus",)))[1]
        assert (agreed.dtmf_payload_type, agreed.dtmf_clock_hz) == (101, 8000)

    def test_g722_is_written_with_8000(self) -> None:
        body, agreed = answer("m=audio 4000 RTP/AVP 9 0\r\n", us(("pcmu", "g722")))
        assert (agreed.codec, agreed.payload_type) == ("g722", 9)
        assert "a=rtpmap:9 G722/8000\r\n" in body

    def test_all_codecs_are_offered_in_the_trunks_order(self) -> None:
        body = policy(codecs=("opus", "g722", "pcma", "pcmu"), comfort_noise=True).offer().decode()
        assert "m=audio 5000 RTP/AVP 111 9 8 0 13 102 101\r\na=rtpmap:111 opus/48000/2\r\n" in body
        assert "a=rtpmap:13 CN/8000\r\na=rtpmap:102 telephone-event/48000\r\na=fmtp:102 0-15\r\n" in body

    @pytest.mark.parametrize(("dtmf", "number"), [("rfc4733", 96), ("auto", 96), ("info", -1), ("inband", -1)])
    def test_events_only_where_the_trunk_has_them(self, dtmf: str, number: int) -> None:
        body, agreed = answer("m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 telephone-event/8000\r\n", policy(dtmf=dtmf))
        assert (agreed.dtmf_payload_type, agreed.dtmf_payload_type_in, agreed.dtmf) == (number, number, dtmf)
        assert ("telephone-event" in body) == (number > 0)
        assert ("telephone-event" in policy(dtmf=dtmf).offer().decode()) == (number > 0)

    def test_comfort_noise_only_where_both_have_it(self) -> None:
        assert answer("m=audio 4000 RTP/AVP 0 13\r\n")[1].cn_payload_type == -1
        assert answer("m=audio 4000 RTP/AVP 0\r\n", policy(comfort_noise=True))[1].cn_payload_type == -1
        body, agreed = answer("m=audio 4000 RTP/AVP 0 13\r\n", policy(comfort_noise=True))
        assert agreed.cn_payload_type == 13
        assert "m=audio 5000 RTP/AVP 0 13\r\n" in body

    def test_the_answerers_numbers_are_for_what_we_send_and_ours_for_what_we_get(self) -> None:
        local = us(("opus", "pcmu"))
        local.offer()
        agreed = local.accept_answer(
            described(
                "m=audio 4000 RTP/AVP 96 120\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:120 telephone-event/48000\r\n"
            )
        )
        assert (agreed.payload_type, agreed.payload_type_in) == (96, 111)
        assert (agreed.dtmf_payload_type, agreed.dtmf_payload_type_in) == (120, 102)

    @pytest.mark.parametrize(
        ("formats", "codec", "alternative"),
        [("0 8 101", "pcmu", 8), ("8 0", "pcma", 0), ("0 101", "pcmu", -1), ("9 0 8", "g722", -1), ("0 9", "pcmu", -1)],
    )
    def test_an_answer_with_both_laws_lets_the_peer_send_either(
        self, formats: str, codec: str, alternative: int
    ) -> None:
        local = us(("pcmu", "pcma", "g722"))
        local.offer()
        agreed = local.accept_answer(described(f"m=audio 4000 RTP/AVP {formats}\r\n"))
        assert (agreed.codec, agreed.alternative_in) == (codec, alternative)

    def test_the_other_law_comes_under_the_number_that_we_offered(self) -> None:
        local = us()
        answer("m=audio 4000 RTP/AVP 96 97\r\na=rtpmap:96 PCMU/8000\r\na=rtpmap:97 PCMA/8000\r\n", local)
        assert b"m=audio 5000 RTP/AVP 96 8 101\r\n" in local.offer()
        agreed = local.accept_answer(
            described("m=audio 4000 RTP/AVP 96 100\r\na=rtpmap:96 PCMU/8000\r\na=rtpmap:100 PCMA/8000\r\n")
        )
        assert (agreed.payload_type_in, agreed.alternative_in) == (96, 8)

    def test_an_answer_of_ours_leaves_no_choice(self) -> None:
        assert answer("m=audio 4000 RTP/AVP 0 8\r\n")[1].alternative_in == -1

    def test_a_codec_that_was_not_offered_is_not_taken(self) -> None:
        local = us(("pcma",))
        local.offer()
        with pytest.raises(RemoteSipError, match="none of the codecs"):
            local.accept_answer(described("m=audio 4000 RTP/AVP 0\r\n"))


class TestLaterOffers:
    def test_keep_the_sessions_payload_types_and_codec(self) -> None:
        local = us(("pcmu", "opus"))
        answer("m=audio 4000 RTP/AVP 101 96\r\na=rtpmap:101 opus/48000\r\na=rtpmap:96 telephone-event/48000\r\n", local)
        assert "m=audio 5000 RTP/AVP 101 0 96 97\r\n" in local.offer().decode()

    def test_keep_the_refused_sections_in_their_place(self) -> None:
        local = us()
        answer("m=video 3227 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 0\r\nm=text 4002 RTP/AVP 98\r\n", local)
        sections = [line for line in local.offer().decode().split("\r\n") if line.startswith("m=")]
        assert [section[:13] for section in sections] == ["m=video 0 RTP", "m=audio 5000 ", "m=text 0 RTP/"]
        agreed = local.accept_answer(
            described("m=video 0 RTP/AVP 31\r\nm=audio 4004 RTP/AVP 0\r\nm=text 0 RTP/AVP 98\r\n")
        )
        assert agreed.remote_port == 4004
        with pytest.raises(RemoteSipError, match="refuses the audio"):
            local.accept_answer(described("m=audio 4004 RTP/AVP 0\r\n"))

    def test_a_fax_instead_of_the_audio_is_488_and_changes_nothing(self) -> None:
        local = us()
        first = answer("m=audio 4000 RTP/AVP 0\r\n", local)[0]
        for fax in ("m=image 4000 udptl t38\r\n", "m=audio 0 RTP/AVP 0\r\nm=image 4000 udptl t38\r\n"):
            with pytest.raises(RemoteSipError) as caught:
                local.answer(described(fax))
            assert caught.value.status_hint == 488
        assert answer("m=audio 4000 RTP/AVP 0\r\n", local)[0] == first

    def test_a_fax_beside_the_audio_is_refused_and_the_audio_kept(self) -> None:
        body = answer("m=audio 4000 RTP/AVP 0\r\nm=image 4006 udptl t38\r\n")[0]
        assert "m=image 0 udptl t38" in body.lower()

    @pytest.mark.parametrize(
        ("ours", "theirs", "written", "send", "receive"),
        [
            ("sendonly", "sendrecv", "sendonly", True, False),
            ("sendonly", "recvonly", "sendonly", True, False),
            ("sendonly", "sendonly", "inactive", False, False),
            ("inactive", "sendrecv", "inactive", False, False),
            ("sendrecv", "recvonly", "sendonly", True, False),
        ],
    )
    def test_our_hold_stays_when_the_peer_offers(
        self, ours: str, theirs: str, written: str, send: bool, receive: bool
    ) -> None:
        local = us()
        local.direction = ours
        body, agreed = answer(f"m=audio 4000 RTP/AVP 0\r\na={theirs}\r\n", local)
        assert f"a={written}\r\n" in body
        assert (agreed.send, agreed.receive) == (send, receive)

    @pytest.mark.parametrize(
        ("ours", "theirs", "send", "receive"),
        [
            ("sendonly", "recvonly", True, False),
            ("sendonly", "inactive", False, False),
            ("sendonly", "sendrecv", True, False),
            ("inactive", "inactive", False, False),
            ("sendrecv", "sendrecv", True, True),
        ],
    )
    def test_our_hold_and_its_answer(self, ours: str, theirs: str, send: bool, receive: bool) -> None:
        local = us()
        local.direction = ours
        assert f"a={ours}\r\n" in local.offer().decode()
        agreed = local.accept_answer(described(f"m=audio 4000 RTP/AVP 0\r\na={theirs}\r\n"))
        assert (agreed.send, agreed.receive) == (send, receive)


class TestSrtp:
    CRYPTO = f"a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31\r\n"
    SECURE = "m=audio 4000 RTP/SAVP 0\r\n" + CRYPTO
    MIXED = "m=audio 4000 RTP/AVP 0\r\n" + CRYPTO
    PLAIN = "m=audio 4000 RTP/AVP 0\r\n"

    @pytest.mark.parametrize(
        ("srtp", "offer", "outcome"),
        [
            ("off", PLAIN, "plain"),
            ("off", MIXED, "plain"),
            ("off", SECURE, "refused"),
            ("optional", PLAIN, "plain"),
            ("optional", MIXED, "secure"),
            ("optional", SECURE, "secure"),
            ("optional", "m=audio 4000 RTP/SAVP 0\r\n", "refused"),
            ("optional", PLAIN + SECURE, "secure"),
            ("off", SECURE + PLAIN, "plain"),
            ("required", PLAIN, "refused"),
            ("required", MIXED, "secure"),
            ("required", SECURE, "secure"),
            ("required", SECURE.replace("SAVP", "SAVPF"), "secure"),
            ("required", "m=audio 4000 UDP/TLS/RTP/SAVP 0\r\n", "refused"),
        ],
    )
    def test_what_each_policy_answers(self, srtp: str, offer: str, outcome: str) -> None:
        local = policy(srtp=srtp)
        if outcome == "refused":
            with pytest.raises(RemoteSipError) as caught:
                local.answer(described(offer))
            assert caught.value.status_hint == 488
            return
        body, agreed = answer(offer, local)
        assert (agreed.srtp_rx == f"AES_CM_128_HMAC_SHA1_80 {KEY}") == (outcome == "secure")
        assert bool(agreed.srtp_tx) == (outcome == "secure")
        assert (f"a=crypto:4 {agreed.srtp_tx.replace(' ', ' inline:')}\r\n" in body) == (outcome == "secure")
        assert [m.protocol for m in described(offer).media] == [m.protocol for m in parse_sdp(body.encode()).media]
        assert KEY not in body
        assert KEY not in repr(agreed)

    def test_a_required_trunk_says_what_is_missing(self) -> None:
        with pytest.raises(RemoteSipError, match="srtp: required"):
            policy(srtp="required").answer(described(self.PLAIN))

    @pytest.mark.parametrize("suite", SUITES)
    def test_both_ends_have_each_others_keys(self, suite: str) -> None:
        caller, called = policy(srtp="required", seed=1), policy(srtp="optional", seed=2)
        offer = caller.offer().decode()
        assert "RTP/SAVP" in offer
        only = "\r\n".join(line for line in offer.split("\r\n") if "crypto" not in line or suite in line)
        body, theirs = called.answer(parse_sdp(only.encode()))
        ours = caller.accept_answer(parse_sdp(body))
        assert ours.srtp_tx == theirs.srtp_rx != ""
        assert ours.srtp_rx == theirs.srtp_tx != ""
        assert ours.srtp_tx.startswith(suite + " ")
        assert ours.srtp_tx != ours.srtp_rx
        again = parse_sdp(caller.offer()).media[0]
        assert [c.params for c in again.crypto] == [ours.srtp_tx]

    def test_optional_offers_both_and_takes_plain(self) -> None:
        local = policy(srtp="optional")
        offered = parse_sdp(local.offer()).media[0]
        assert offered.protocol == "RTP/AVP"
        assert [c.suite for c in offered.crypto] == list(SUITES)
        agreed = local.accept_answer(described(self.PLAIN))
        assert (agreed.srtp_tx, agreed.srtp_rx) == ("", "")
        assert "crypto" not in local.offer().decode()

    @pytest.mark.parametrize("lines", [PLAIN, SECURE, "m=audio 4000 RTP/SAVP 0\r\n"])
    def test_required_takes_only_an_offered_key(self, lines: str) -> None:
        local = policy(srtp="required")
        local.offer()
        with pytest.raises(RemoteSipError, match="none of the SRTP keys"):
            local.accept_answer(described(lines))

    def test_our_key_stays_until_the_peers_changes(self) -> None:
        local = policy(srtp="required")
        first = answer(self.SECURE, local)[1]
        assert answer(self.SECURE.replace("4000", "4002"), local)[1].srtp_tx == first.srtp_tx
        other = answer(self.SECURE.replace(KEY, KEY[::-1]), local)[1]
        assert other.srtp_tx != first.srtp_tx


class TestRtcp:
    def test_mux_is_answered_where_it_is_offered(self) -> None:
        body, agreed = answer("m=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n")
        assert agreed.rtcp_mux
        assert "a=rtcp-mux\r\n" in body
        assert "a=rtcp-mux" not in answer("m=audio 4000 RTP/AVP 0\r\n")[0]

    def test_a_port_of_its_own(self) -> None:
        agreed = answer("m=audio 4000 RTP/AVP 0\r\na=rtcp:4010\r\n")[1]
        assert (agreed.rtcp_port, agreed.rtcp_mux) == (4010, False)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"codecs": ()}, "not none"),
        ({"codecs": ("g729",)}, "pcmu, pcma, g722, opus, not g729"),
        ({"srtp": "maybe"}, "off, optional or required"),
        ({"ptime_ms": 25}, "10, 20, 30, 40, 50 or 60"),
    ],
)
def test_a_policy_that_cannot_be(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(LocalSipError, match=problem):
        policy(**settings)


LINES = [
    "v=0", "c=IN IP4 1.2.3.4", "m=audio 1 RTP/AVP 0", "a=rtpmap:", "a=ptime:x", "m=a 1/2 b c", "a=rtpmap:0 PCMU/8000",
    "\x00", "c=IN IP6 ::", "a=sendonly",
    "m=audio 1 RTP/SAVP 9 111 13", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}", "a=rtpmap:111 opus/48000/2",
    "a=rtcp-mux", "a=maxptime:5",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=12), st.binary(max_size=30))
def test_any_lines_raise_only_the_named_error(lines: list[str], junk: bytes) -> None:
    for body in ("\r\n".join(lines).encode() + junk, b"v=0\r\n" + junk + "\n".join(lines).encode()):
        try:
            check_offer(parse_sdp(body), ("pcmu", "pcma"))
            LocalDescription(1, "192.0.2.2", 5000, ALL, octets).answer(parse_sdp(body))
        except RemoteSipError:
            continue


POLICIES = st.builds(
    MediaPolicy,
    codecs=st.permutations(list(CODECS)).flatmap(lambda names: st.integers(1, 4).map(lambda n: tuple(names[:n]))),
    srtp=st.sampled_from(["off", "optional", "required"]),
    ptime_ms=st.sampled_from(PACKET_MS),
    dtmf=st.sampled_from(["rfc4733", "auto", "info"]),
    comfort_noise=st.booleans(),
)
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(["sendrecv", "sendonly", "inactive"])), max_size=6)


def version(body: bytes) -> int:
    return int(body.split(b"o=- ")[1].split()[1])


@given(POLICIES, POLICIES, STEPS)
def test_two_of_us_always_understand_one_another(
    first: MediaPolicy, second: MediaPolicy, steps: list[tuple[bool, str]]
) -> None:
    """Offers go either way, with holds between: both ends come to the same session, seen from either side."""
    one = LocalDescription(1, "192.0.2.1", 4000, first, Random(1).randbytes)
    two = LocalDescription(2, "192.0.2.2", 5000, second, Random(2).randbytes)
    versions = {one: 0, two: 0}
    numbers: dict[str, int] = {}
    for from_one, direction in [(True, "sendrecv"), *steps]:
        offerer, answerer = (one, two) if from_one else (two, one)
        offerer.direction = direction
        offer = offerer.offer()
        try:
            body, theirs = answerer.answer(parse_sdp(offer))
        except RemoteSipError:
            assert not numbers, "what was agreed once must not be refused later"
            return
        ours = offerer.accept_answer(parse_sdp(body))
        for who, text in ((offerer, offer), (answerer, body)):
            assert version(text) - versions[who] in (0, 1)
            versions[who] = version(text)
        assert ours.codec == theirs.codec
        assert (ours.payload_type, ours.payload_type_in) == (theirs.payload_type_in, theirs.payload_type)
        assert (ours.dtmf_payload_type, ours.dtmf_payload_type_in) == (
            theirs.dtmf_payload_type_in,
            theirs.dtmf_payload_type,
        )
        assert (ours.cn_payload_type, ours.dtmf_clock_hz) == (theirs.cn_payload_type, theirs.dtmf_clock_hz)
        assert (ours.srtp_tx, ours.srtp_rx) == (theirs.srtp_rx, theirs.srtp_tx)
        assert (ours.send, ours.receive) == (theirs.receive, theirs.send)
        assert (ours.remote_port, theirs.remote_port) == (answerer.port, offerer.port)
        assert "required" not in (first.srtp, second.srtp) or ours.srtp_tx
        assert len(parse_sdp(body).media) == len(parse_sdp(offer).media) == 1
        assert numbers.setdefault(ours.codec, ours.payload_type) == ours.payload_type, "a payload type changed meaning"
