"""What reads bytes of strangers: every parser, and the state machines behind them, with seeds to begin from."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.api.streams import StreamProtocol
from appliance.audio.opus import OpusCodec
from appliance.audio.tones import sine
from appliance.carriers import audiosocket
from appliance.carriers.audiosocket import AudioSocketStream
from appliance.carriers.browser import BrowserStream
from appliance.carriers.pbx import PbxStream
from appliance.carriers.telnyx import TelnyxStream
from appliance.carriers.twilio import TwilioStream
from appliance.errors import CarrierError, RemoteSipError, RtpError
from appliance.rtp import packet, rtcp
from appliance.rtp.dtmf import DtmfReceiver
from appliance.rtp.jitter import JitterBuffer
from appliance.sip.auth import Credentials, DigestClient, DigestServer
from appliance.sip.headers import CSeq, NameAddr, Via, split_values, tokens
from appliance.sip.info_dtmf import dtmf_from_info
from appliance.sip.message import MAX_HEAD_BYTES, Headers, Request, Response, read_message
from appliance.sip.offer_answer import PACKET_MS, LocalDescription, MediaPolicy
from appliance.sip.sdp import parse_sdp
from appliance.sip.stream import StreamReader
from appliance.sip.uri import Peer, SipUri
from appliance.sip.useragent import UserAgent
from tests.bench.torture import CORPUS
from tests.sip.requests import good_message, make_request

Feed = Callable[[bytes], None]

_SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 0 8 9 96 101 13\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:96 opus/48000/2\r\n"
    b"a=fmtp:96 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:60\r\na=rtcp:40001\r\na=rtcp-mux\r\na=sendrecv\r\n"
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4\r\n"
    b"m=video 40002 RTP/AVP 31\r\nm=image 40004 udptl t38\r\na=T38FaxVersion:0\r\n"
)
_RESPONSE = (
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx;rport=5060;received=192.0.2.1\r\n"
    b"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
    b"Contact: <sip:c@192.0.2.2>\r\nContent-Length: 0\r\n\r\n"
)


@dataclass(frozen=True)
class Target:
    """One thing to be fed. ``make`` gives a fresh one; ``allowed`` are the errors it may raise."""

    name: str
    make: Callable[[], Feed]
    seeds: Sequence[bytes]
    allowed: tuple[type[Exception], ...] = ()


def _torture() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.dat"))] if CORPUS.exists() else []


def _requests() -> list[bytes]:
    made = [make_request(body=_SDP)]
    made += [make_request(method) for method in ("OPTIONS", "BYE", "ACK", "CANCEL", "INFO", "REFER", "UPDATE", "PRACK")]
    return [*made, _RESPONSE, *_torture()]


def _sip() -> Feed:
    def feed(data: bytes) -> None:
        message = good_message(data)
        with contextlib.suppress(RemoteSipError):
            assert message.contact is None or str(message.contact)
        assert message.vias and message.from_ and message.to and message.cseq.number >= 0
        again = read_message(message.encode())
        vias = [[via.strip() for via in one.headers.get_all("via")] for one in (message, again)]
        assert (vias[0], message.body) == (vias[1], again.body)
        if isinstance(message, Request):
            SipUri.parse(message.uri)

    return feed


def _headers() -> Feed:
    readers: tuple[Callable[[str], object], ...] = (SipUri.parse, NameAddr.parse, Via.parse, CSeq.parse)

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for read in readers:
            with contextlib.suppress(RemoteSipError):
                read(text)
        with contextlib.suppress(RemoteSipError):
            split_values([text])
        tokens([text])

    return feed


def _sdp() -> Feed:
    """As an offer and as an answer; what is agreed on must be offered again without ado."""
    policy = MediaPolicy(("opus", "g722", "pcma", "pcmu"), "optional", 20, "auto", comfort_noise=True)

    def feed(data: bytes) -> None:
        described = parse_sdp(data)
        for answering in (True, False):
            local = LocalDescription(7, "192.0.2.1", 4000, policy, bytes)
            local.offer()
            if answering:
                body, agreed = local.answer(described)
                assert len(parse_sdp(body).media) == len(described.media)
            else:
                agreed = local.accept_answer(described)
            assert agreed.codec in policy.codecs and agreed.ptime_ms in PACKET_MS
            parse_sdp(local.offer())

    return feed


def _opus() -> Feed:
    codec = OpusCodec()

    def feed(data: bytes) -> None:
        expected = codec.samples_in(data)
        assert len(codec.plc(160, data)) == 160
        assert len(codec.decode(data)) == expected

    return feed


def _stream() -> Feed:
    def feed(data: bytes) -> None:
        reader = StreamReader()
        half = len(data) // 2
        for piece in (data[:half], data[half : half + 1], data[half + 1 :]):
            reader.feed(piece)

    return feed


def _agent() -> Feed:
    number = itertools.count(1)
    agent = UserAgent(lambda peer: ("192.0.2.1", 5060), new_token=lambda: f"token{next(number)}")
    clock = itertools.count(0.0, 0.05)

    def feed(data: bytes) -> None:
        now = next(clock)
        agent.receive_datagram(data, Peer("192.0.2.7", 5060), now)
        while agent.next_event() is not None:
            pass
        agent.handle_timer(now)
        agent.datagrams_to_send()

    return feed


def _rtp() -> Feed:
    buffer = JitterBuffer()
    clock = itertools.count(0.0, 0.02)

    def feed(data: bytes) -> None:
        now = next(clock)
        try:
            found = packet.parse(data)
        finally:
            buffer.pop()
        buffer.push(found.seq, found.timestamp, found.payload, now, found.marker, found.ssrc)

    return feed


def _dtmf() -> Feed:
    receiver = DtmfReceiver()

    def feed(data: bytes) -> None:
        stamp = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
        receiver.push(data[:4], stamp * 80, bool(data[2:3] > b"\x80"), stamp)
        key = dtmf_from_info("application/dtmf-relay", data) + dtmf_from_info("application/dtmf", data)
        assert len(key) <= 2

    return feed


def _rtcp() -> Feed:
    def feed(data: bytes) -> None:
        rtcp.is_rtcp(data)
        rtcp.parse(data)

    return feed


def _reports() -> list[bytes]:
    sender = rtcp.SenderInfo(*(0 for _ in rtcp.SenderInfo._fields))
    block = rtcp.ReportBlock(*(0 for _ in rtcp.ReportBlock._fields))
    found = [rtcp.build(7, "a@b", sender, [block]), rtcp.build(7, "a@b", None, [block] * 3, bye=True)]
    return [*found, found[0] + found[1]]


def _auth() -> Feed:
    digits = itertools.count(1)
    server = DigestServer("box", "secret", lambda: f"token{next(digits)}")
    client = DigestClient(lambda: f"token{next(digits)}")
    who = Credentials("box", "s3cret")
    peer = Peer("192.0.2.7", 5060)

    def feed(data: bytes) -> None:
        text = data[:MAX_HEAD_BYTES].decode("utf-8", "surrogateescape")
        request = Request(
            "INVITE",
            "sip:a@b",
            Headers([("via", "SIP/2.0/UDP a;branch=z9hG4bKx"), ("cseq", "1 INVITE"), ("authorization", text)]),
        )
        server.check(request, who, 1.0)
        answer = Response(401, "x", Headers([("www-authenticate", text), ("cseq", "1 INVITE")]))
        client.answer(request, answer, peer, who)

    return feed


_DIGEST = (
    b'Digest realm="box", nonce="1000.aa.bb", algorithm=SHA-256, qop="auth,auth-int", stale=true, opaque="x\\"y"',
    b'Digest username="box", realm="box", nonce="1.a.b", uri="sip:a@b", response="0", qop=auth, nc=1, cnonce="c"',
)


def _events() -> list[bytes]:
    return [
        bytes([event, flags, step >> 8, step & 255])
        for event in (0, 11, 16)
        for flags in (10, 138)
        for step in (160, 800)
    ]


def _opus_packets() -> list[bytes]:
    codec, tone = OpusCodec(), sine(300, 8000)
    return [codec.encode(tone[size : 2 * size]) for size in (80, 160, 320, 480) for _ in range(3)]


def _carrier(make: Callable[[], StreamProtocol], binary: bool = False) -> Callable[[], Feed]:
    """A stream whose messages are the lines of the input; a broken one is followed by a new one."""

    def fresh() -> Feed:
        stream = [make()]

        def feed(data: bytes) -> None:
            try:
                for line in data.split(b"\n"):
                    stream[0].receive(line if binary or line[:1] == b"\0" else line.decode("utf-8", "replace"))
            except CarrierError:
                stream[0] = make()
                raise

        return feed

    return fresh


_JSON_STREAMS = (
    b'{"event":"start","start":{"streamSid":"MZ","callSid":"CA","call_control_id":"v2","customParameters":{"a":"b"},'
    b'"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000},'
    b'"media_format":{"encoding":"PCMU","sample_rate":8000}}}\n'
    b'{"event":"media","media":{"track":"inbound","chunk":"2","payload":"/////w=="}}\n'
    b'{"event":"dtmf","dtmf":{"digit":"1"}}\n{"event":"mark","mark":{"name":"0.160"}}',
    b'{"event":"connected"}\n{"event":"stop","stop":{}}',
)
_SOCKET = audiosocket.message(0x01, bytes(range(16))) + audiosocket.message(0x10, bytes(320))
_SOCKETS = (_SOCKET + audiosocket.message(0x03, b"5") + audiosocket.message(0x00), _SOCKET + audiosocket.message(0xFF))
_PBX = (
    b"MEDIA_START connection_id:a channel:b format:ulaw\nDTMF_END digit:5\n\0\0\0\0\nMEDIA_MARK_PROCESSED id:0.160",
    b'{"event":"MEDIA_START","channel_id":"1.2","format":"slin16","channel_variables":{"A":"b"}}\n'
    b'{"event":"DTMF_END","digit":"5"}',
    b'{"caller":"1000"}\n\0\0\0\0',
)
_BROWSER = (
    b'{"event":"start","token":"abc","rate":44100}\n\0\0\0\0\n{"event":"dtmf","digit":"5"}\n'
    b'{"event":"mark","name":"0.160"}',
    b'{"event":"start","token":"abc","rate":8000}\n{"event":"stop"}',
)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("sip", _sip, _requests(), (RemoteSipError,)),
        Target("headers", _headers, [line for seed in _requests() for line in seed.split(b"\r\n")[:12]]),
        Target("sdp", _sdp, [_SDP, _SDP.replace(b"|2^20|1:4", b"").replace(b"/AVP", b"/SAVP")], (RemoteSipError,)),
        Target("opus", _opus, _opus_packets(), (RtpError,)),
        Target("stream", _stream, [a + b"\r\n\r\n" + b for a, b in itertools.pairwise(_requests())], (RemoteSipError,)),
        Target("agent", _agent, _requests()),
        Target("rtp", _rtp, [packet.build(kind, 7, 160, 99, bytes(160)) for kind in (0, 8, 101)], (RtpError,)),
        Target("rtcp", _rtcp, _reports(), (RtpError,)),
        Target("auth", _auth, _DIGEST),
        Target("twilio", _carrier(TwilioStream), _JSON_STREAMS, (CarrierError,)),
        Target("telnyx", _carrier(lambda: TelnyxStream("t")), _JSON_STREAMS, (CarrierError,)),
        Target("audiosocket", _carrier(AudioSocketStream, binary=True), _SOCKETS, (CarrierError,)),
        Target("pbx", _carrier(PbxStream), _PBX, (CarrierError,)),
        Target("browser", _carrier(BrowserStream), _BROWSER, (CarrierError,)),
        Target("dtmf", _dtmf, [*_events(), b"Signal=5\r\nDuration=160\r\n", b"7", b"Signal= *\r\n"], (RtpError,)),
    )
}  # fmt: skip
