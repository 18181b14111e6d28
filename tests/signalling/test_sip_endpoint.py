"""The endpoint over real loopback sockets, against itself and against SIPp."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from appliance.errors import LocalSipError, RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.signalling.leg import HangupCause, Leg
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import SipLeg, TrunkRule
from appliance.sip.transaction import Timing
from tests.waiting import LIMIT_S, eventually

LOOPBACK = TrunkRule("local", (ipaddress.ip_network("127.0.0.0/8"),), ("pcmu", "pcma"))
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 101\r\n"
    "a=rtpmap:101 telephone-event/8000\r\n"
)


@dataclass
class StaticMedia:
    """A media slot with a fixed port, which remembers what it was connected to."""

    slot: int = 0
    generation: int = 1
    local_host: str = "127.0.0.1"
    local_port: int = 16384
    connected: list[RtpParams] = field(default_factory=list)

    def connect(self, params: RtpParams) -> None:
        self.connected.append(params)


@asynccontextmanager
async def endpoint(
    on_call: Callable[[SipLeg], None] = lambda leg: None,
    trunks: tuple[TrunkRule, ...] = (LOOPBACK,),
    port: int = 0,
    **settings: object,
) -> AsyncIterator[SipEndpoint]:
    running = SipEndpoint([ListenOn("udp", "127.0.0.1", port)], trunks=trunks, on_call=on_call, **settings)  # type: ignore[arg-type]
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


class RawPeer(asyncio.DatagramProtocol):
    """A UDP socket that says what it is told and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.put_nowait(data.decode())

    async def expect(self, start: str) -> str:
        """The next datagram that begins so; others are skipped."""
        async with asyncio.timeout(LIMIT_S):
            while not (text := await self.heard.get()).startswith(start):
                pass
        return text

    def request(self, method: str, *, cseq: int = 1, to_tag: str = "", body: str = "", kind: str = "application/sdp",
                call: str = "raw", extra: str = "") -> bytes:  # fmt: skip
        tag = f";tag={to_tag}" if to_tag else ""
        content_type = f"Content-Type: {kind}\r\n" if body else ""
        return (
            f"{method} sip:+49301234567@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};"
            f"branch=z9hG4bK{call}{method}{cseq}\r\nMax-Forwards: 70\r\n"
            f'From: "Ann Lee" <sip:ann@127.0.0.1>;tag=ann\r\n'
            f"To: <sip:100@127.0.0.1>{tag}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n"
            f"Contact: <sip:ann@127.0.0.1:{self.port}>\r\n{extra}"
            f"{content_type}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


@asynccontextmanager
async def raw_peer() -> AsyncIterator[RawPeer]:
    transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(RawPeer, local_addr=("127.0.0.1", 0))
    try:
        yield peer
    finally:
        transport.close()


def to_tag(response: str) -> str:
    line = next(line for line in response.split("\r\n") if line.startswith("To:"))
    return line.rpartition("tag=")[2]


async def test_a_timer_that_fails_does_not_stop_those_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    async with raw_peer() as peer, endpoint(timing=Timing(t1_s=0.02)) as ours:
        agent = ours._started()[0]
        handle_timer = agent.handle_timer

        def fail_once(now: float) -> None:
            monkeypatch.setattr(agent, "handle_timer", handle_timer)
            raise LocalSipError("a fault of ours")

        monkeypatch.setattr(agent, "handle_timer", fail_once)
        await ours.dial(f"sip:x@127.0.0.1:{peer.port}", "sip:us@127.0.0.1", StaticMedia())
        for _ in range(3):
            await peer.expect("INVITE")
    assert [str(context["exception"]) for context in failures] == ["a fault of ours"]


async def test_two_endpoints_call_each_other() -> None:
    legs: list[SipLeg] = []
    ended: asyncio.Future[HangupCause] = asyncio.get_running_loop().create_future()
    theirs, ours = StaticMedia(local_port=20000), StaticMedia(local_port=20002)

    def on_call(leg: SipLeg) -> None:
        legs.append(leg)
        leg.on_hangup = ended.set_result
        leg.ring()
        leg.answer(theirs)

    async with endpoint(on_call) as box, endpoint() as phone:
        ringing: list[int] = []
        call = await phone.dial(f"sip:100@127.0.0.1:{box.port}", "sip:ann@127.0.0.1", ours, display_name="Ann")
        call.on_ringing = ringing.append
        async with asyncio.timeout(LIMIT_S):
            params = await call.wait_answered()
            assert params == RtpParams("127.0.0.1", 20000, "pcmu", 0, 101, 20, True, True, 0, 101, rtcp_mux=True)
            assert ours.connected == [params]
            assert theirs.connected == [replace(params, remote_port=20002, dtmf="auto")]
            assert ringing == [180]
            leg: Leg = legs[0]
            assert (leg.info.called, leg.info.calling, leg.info.calling_name) == ("100", "ann", "Ann")
            assert (leg.info.trunk, leg.info.protocol) == ("local", "sip")
            assert leg.info.source == f"127.0.0.1:{phone.port}"
            assert leg.info.protocol_call_id == call.protocol_call_id
            assert leg.info.headers["User-Agent"] == "appliance"
            call.hangup()
            assert await ended == HangupCause("caller", 200, "BYE")
            assert await call.wait_ended() == HangupCause("caller", 200, "hung up")
        assert box.counters["calls_received"] == phone.counters["calls_placed"] == 1


async def test_the_box_hangs_up() -> None:
    legs: list[SipLeg] = []

    def on_call(leg: SipLeg) -> None:
        legs.append(leg)
        leg.on_hangup = lambda cause: pytest.fail("we hung up ourselves")
        leg.answer(StaticMedia())

    async with endpoint(on_call) as box, endpoint() as phone:
        call = await phone.dial(f"sip:100@localhost:{box.port}", "sip:ann@127.0.0.1", StaticMedia())
        async with asyncio.timeout(LIMIT_S):
            assert await call.wait_answered() is not None
            legs[0].hangup("done")
            assert await call.wait_ended() == HangupCause("agent", 200, "BYE")
        legs[0].ring()
        legs[0].answer(StaticMedia())
        legs[0].reject(486)
        legs[0].hangup()


async def test_refused_and_cancelled_calls() -> None:
    causes: list[HangupCause] = []

    def busy(leg: SipLeg) -> None:
        leg.reject(486, "Busy", retry_after_s=9)

    def ring(leg: SipLeg) -> None:
        leg.on_hangup = causes.append
        leg.ring()

    async with endpoint(busy) as box, endpoint(ring) as ringing_box, endpoint() as phone:
        call = await phone.dial(f"sip:1@127.0.0.1:{box.port}", "sip:ann@127.0.0.1", StaticMedia())
        async with asyncio.timeout(LIMIT_S):
            assert await call.wait_answered() is None
            assert await call.wait_ended() == HangupCause("agent", 486, "Busy")
            call = await phone.dial(f"sip:1@127.0.0.1:{ringing_box.port}", "sip:ann@127.0.0.1", StaticMedia())
            rang = asyncio.Event()
            call.on_ringing = lambda status: rang.set()
            await rang.wait()
            call.cancel()
            assert await call.wait_answered() is None
        await phone.stop()
        assert causes == [HangupCause("caller", 487, "cancelled")]


async def test_a_call_whose_offer_we_cannot_take_is_refused_before_the_application_hears_of_it() -> None:
    async with endpoint(lambda leg: pytest.fail("told")) as box, raw_peer() as peer:
        to_box = ("127.0.0.1", box.port)
        peer.transport.sendto(peer.request("INVITE", body=SDP.replace("8 101", "18")), to_box)
        await peer.expect("SIP/2.0 488")
        peer.transport.sendto(peer.request("INVITE", body="hello", call="two"), to_box)
        await peer.expect("SIP/2.0 400")


async def test_a_call_whose_media_cannot_go_where_ours_is_received_does_not_ring() -> None:
    async with endpoint(lambda leg: pytest.fail("told"), media_host="127.0.0.1") as box, raw_peer() as peer:
        offer = SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP6 2001:db8::1")
        peer.transport.sendto(peer.request("INVITE", body=offer), ("127.0.0.1", box.port))
        assert (await peer.expect("SIP/2.0")).startswith("SIP/2.0 100")
        assert (await peer.expect("SIP/2.0")).startswith("SIP/2.0 488")


@pytest.mark.parametrize("status", ["200 OK", "488 Not Acceptable Here"])
async def test_a_resume_waits_for_the_hold_before_it(status: str) -> None:
    """Put through within a moment, the caller is taken off hold before he has answered that he is on it."""
    media = StaticMedia()
    legs: list[SipLeg] = []

    def on_call(leg: SipLeg) -> None:
        legs.append(leg)
        leg.answer(media)

    def reply(request: str, status: str, body: str = "") -> bytes:
        kept = [
            line for line in request.split("\r\n") if line.partition(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")
        ]
        kind = ["Content-Type: application/sdp"] * bool(body)
        lines = [f"SIP/2.0 {status}", *kept, f"Contact: <sip:ann@127.0.0.1:{peer.port}>", *kind]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()

    async with endpoint(on_call) as box, raw_peer() as peer:
        to_box = ("127.0.0.1", box.port)
        peer.transport.sendto(peer.request("INVITE", body=SDP), to_box)
        tag = to_tag(await peer.expect("SIP/2.0 200"))
        peer.transport.sendto(peer.request("ACK", to_tag=tag), to_box)
        await eventually(lambda: legs[0]._call.state == "confirmed")
        legs[0].hold()
        legs[0].resume()
        asked = await peer.expect("INVITE")
        assert "a=sendonly" in asked
        held = status.startswith("200")
        peer.transport.sendto(reply(asked, status, SDP + "a=recvonly\r\n" if held else ""), to_box)
        if held:
            while "a=sendrecv" not in (asked := await peer.expect("INVITE")):
                pass
            peer.transport.sendto(reply(asked, status, SDP), to_box)
        await peer.expect("ACK")
        legs[0].hangup()
        await peer.expect("BYE")
        assert (media.connected[-1].send, media.connected[-1].receive) == (True, True)


async def test_the_ack_of_a_reinvite_without_an_offer_brings_the_answer() -> None:
    media = StaticMedia()
    legs: list[SipLeg] = []

    def on_call(leg: SipLeg) -> None:
        legs.append(leg)
        leg.answer(media)

    async with endpoint(on_call) as box, raw_peer() as peer:
        to_box = ("127.0.0.1", box.port)
        peer.transport.sendto(peer.request("INVITE", body=SDP), to_box)
        tag = to_tag(await peer.expect("SIP/2.0 200"))
        peer.transport.sendto(peer.request("ACK", to_tag=tag), to_box)
        peer.transport.sendto(peer.request("INVITE", cseq=2, to_tag=tag), to_box)
        while "CSeq: 2 INVITE" not in await peer.expect("SIP/2.0 200"):
            pass
        answer = SDP.replace("audio 4000", "audio 4002")
        peer.transport.sendto(peer.request("ACK", cseq=2, to_tag=tag, body=answer), to_box)
        await eventually(lambda: media.connected[-1].remote_port == 4002)
        legs[0].hold()
        assert "a=sendonly" in await peer.expect("INVITE")


async def test_delayed_offer_hold_and_keys() -> None:
    media = StaticMedia()
    digits: list[str] = []

    def on_call(leg: SipLeg) -> None:
        leg.on_digits = digits.append
        leg.answer(media)

    async with endpoint(on_call) as box, raw_peer() as peer:
        to_box = ("127.0.0.1", box.port)
        peer.transport.sendto(peer.request("INVITE"), to_box)
        answer = await peer.expect("SIP/2.0 200")
        assert "m=audio 16384 RTP/AVP 0 8 101" in answer
        assert media.connected == []
        tag = to_tag(answer)
        peer.transport.sendto(peer.request("ACK", to_tag=tag, body=SDP), to_box)
        info = peer.request("INFO", cseq=2, to_tag=tag, body="Signal=7\r\n", kind="application/dtmf-relay")
        peer.transport.sendto(info, to_box)
        peer.transport.sendto(info, to_box)
        await peer.expect("SIP/2.0 200")
        assert media.connected == [RtpParams("127.0.0.1", 4000, "pcma", 8, 101, 20, True, True, 8, 101, dtmf="auto")]
        assert digits == ["7"]
        hold = SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0") + "a=sendonly\r\n"
        peer.transport.sendto(peer.request("INVITE", cseq=3, to_tag=tag, body=hold), to_box)
        held = await peer.expect(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:" + f"{peer.port};branch=z9hG4bKrawINVITE3"
        )
        assert "a=recvonly" in held
        peer.transport.sendto(peer.request("ACK", cseq=3, to_tag=tag), to_box)
        t38 = SDP.replace("audio 4000 RTP/AVP 8 101", "image 4000 udptl t38")
        peer.transport.sendto(peer.request("INVITE", cseq=4, to_tag=tag, body=t38), to_box)
        await peer.expect("SIP/2.0 488")
        peer.transport.sendto(peer.request("ACK", cseq=4, to_tag=tag), to_box)
        peer.transport.sendto(peer.request("BYE", cseq=5, to_tag=tag), to_box)
        await peer.expect("SIP/2.0 200")
        hold = RtpParams("127.0.0.1", 4000, "pcma", 8, 101, 20, False, True, 8, 101, dtmf="auto")
        assert media.connected[1:] == [hold]


async def test_an_ack_without_the_answer_we_need_ends_the_call() -> None:
    causes: list[HangupCause] = []

    def on_call(leg: SipLeg) -> None:
        leg.on_hangup = causes.append
        leg.answer(StaticMedia())

    async with endpoint(on_call) as box, raw_peer() as peer:
        peer.transport.sendto(peer.request("INVITE"), ("127.0.0.1", box.port))
        answer = await peer.expect("SIP/2.0 200")
        peer.transport.sendto(peer.request("ACK", to_tag=to_tag(answer)), ("127.0.0.1", box.port))
        bye = await peer.expect("BYE")
        assert causes == [HangupCause("system", 488, "our offer was not answered")]
        answered = bye.replace(bye.split("\r\n", 1)[0], "SIP/2.0 200 OK")
        peer.transport.sendto(answered.encode(), ("127.0.0.1", box.port))


async def test_strangers_draining_and_a_broken_application() -> None:
    elsewhere = TrunkRule("office", (ipaddress.ip_network("10.0.0.0/8"),))
    of_a_carrier = TrunkRule("asterisk", LOOPBACK.allow, kind="audiosocket")
    async with endpoint(trunks=(elsewhere, of_a_carrier)) as box, raw_peer() as peer:
        peer.transport.sendto(peer.request("INVITE", body=SDP), ("127.0.0.1", box.port))
        await peer.expect("SIP/2.0 403")

    def fail(leg: SipLeg) -> None:
        raise ValueError("a bug above")

    async with endpoint(fail) as box, raw_peer() as peer:
        peer.transport.sendto(peer.request("INVITE", body=SDP), ("127.0.0.1", box.port))
        await peer.expect("SIP/2.0 500")
        box.accepting = False
        assert not box.accepting
        peer.transport.sendto(peer.request("INVITE", body=SDP, call="two"), ("127.0.0.1", box.port))
        assert "Retry-After: 5" in await peer.expect("SIP/2.0 503")


async def test_an_ack_that_never_comes_is_told_as_the_systems_doing() -> None:
    ended: asyncio.Future[HangupCause] = asyncio.get_running_loop().create_future()

    def on_call(leg: SipLeg) -> None:
        leg.on_hangup = ended.set_result
        leg.answer(StaticMedia())

    async with endpoint(on_call, timing=Timing(0.01, 0.04, 0.05), stop_grace_s=0.01) as box, raw_peer() as peer:
        peer.transport.sendto(peer.request("INVITE", body=SDP), ("127.0.0.1", box.port))
        async with asyncio.timeout(LIMIT_S):
            assert await ended == HangupCause("system", 408, "no ACK to our 200")
        await peer.expect("BYE")


async def test_stopping_says_goodbye_to_every_call() -> None:
    legs: list[SipLeg] = []

    def on_call(leg: SipLeg) -> None:
        legs.append(leg)
        leg.answer(StaticMedia())

    async with endpoint(on_call) as box, endpoint() as phone:
        calls = [await phone.dial(f"sip:1@127.0.0.1:{box.port}", "sip:a@b", StaticMedia()) for _ in range(5)]
        async with asyncio.timeout(LIMIT_S):
            for call in calls:
                await call.wait_answered()
            await box.stop()
            assert {(await call.wait_ended()).by for call in calls} == {"agent"}
        assert box.counters["calls"] == 0
        await box.stop()


async def test_after_a_restart_a_peer_of_a_lost_call_is_told_that_it_is_over() -> None:
    """Killed, the process says no BYE; the peer learns it from the 481 to whatever it sends next."""
    fresh: list[SipLeg] = []

    async with raw_peer() as peer:
        first = SipEndpoint(
            [ListenOn("udp", "127.0.0.1", 0)], trunks=(LOOPBACK,), on_call=lambda leg: leg.answer(StaticMedia())
        )
        await first.start()
        where = ("127.0.0.1", first.port)
        peer.transport.sendto(peer.request("INVITE", body=SDP), where)
        tag = to_tag(await peer.expect("SIP/2.0 200"))
        peer.transport.sendto(peer.request("ACK", to_tag=tag), where)
        peer.transport.sendto(peer.request("INFO", cseq=2, to_tag=tag), where)
        await peer.expect("SIP/2.0 200")
        await die(first)
        async with endpoint(fresh.append, port=first.port) as again:
            assert peer.heard.empty()
            peer.transport.sendto(peer.request("ACK", to_tag=tag), where)
            for cseq, (method, body) in enumerate((("INVITE", SDP), ("INFO", ""), ("OPTIONS", ""), ("BYE", "")), 3):
                peer.transport.sendto(peer.request(method, cseq=cseq, to_tag=tag, body=body), where)
                answer = await peer.expect("SIP/2.0")
                assert answer.startswith("SIP/2.0 481"), (method, answer)
                assert f"CSeq: {cseq} {method}" in answer
                assert to_tag(answer) == tag
            assert again.counters["strays"] == 1
            assert again.counters["calls"] == 0
    assert fresh == []


async def die(running: SipEndpoint) -> None:
    """End it as ``kill -9`` would: the socket is gone, and nothing was said."""
    assert running._transports is not None
    listening = next(iter(running._transports._udp.values())).transport
    assert listening is not None
    sock = listening.get_extra_info("socket")
    if running._wakeup is not None:
        running._wakeup.cancel()
    assert running._watching is not None
    running._watching.cancel()
    await running._transports.close()
    while sock.fileno() >= 0:
        await asyncio.sleep(0)


async def test_a_port_in_use_says_what_to_do() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen for SIP on 127.0.0.1:{port}/udp.*another listen.sip port"):
            await SipEndpoint([ListenOn("udp", "127.0.0.1", port)], trunks=(), on_call=lambda leg: None).start()


async def test_dialling_what_cannot_be_dialled() -> None:
    with pytest.raises(LocalSipError, match="not started"):
        await SipEndpoint([ListenOn("udp", "127.0.0.1", 0)], trunks=(), on_call=lambda leg: None).dial(
            "sip:a@127.0.0.1", "b", StaticMedia()
        )
    async with endpoint() as phone:
        with pytest.raises(RemoteSipError):
            await phone.dial("not a uri", "sip:a@b", StaticMedia())


async def test_all_interfaces_advertise_the_address_the_peer_sees() -> None:
    box = SipEndpoint(
        [ListenOn("udp", "0.0.0.0", 0)], trunks=(LOOPBACK,), on_call=lambda leg: leg.answer(StaticMedia())
    )
    await box.start()
    async with raw_peer() as peer:
        peer.transport.sendto(peer.request("INVITE", body=SDP), ("127.0.0.1", box.port))
        answer = await peer.expect("SIP/2.0 200")
        assert f"Contact: <sip:127.0.0.1:{box.port}>" in answer
        peer.transport.sendto(peer.request("BYE", cseq=2, to_tag=to_tag(answer)), ("127.0.0.1", box.port))
        await peer.expect("SIP/2.0 200")
        await box.stop()


@pytest.mark.peer
async def test_sipp_places_calls(tmp_path: Path) -> None:
    """SIPp's own caller scenario: no failed call, no unexpected message."""
    sipp = shutil.which("sipp")
    if sipp is None:
        pytest.skip("SIPp is not installed (Debian: apt-get install sip-tester)")
    causes: list[HangupCause] = []

    def on_call(leg: SipLeg) -> None:
        leg.on_hangup = causes.append
        leg.ring()
        leg.answer(StaticMedia())

    async with endpoint(on_call) as box:
        process = await asyncio.create_subprocess_exec(
            sipp, "-sn", "uac", "-d", "500", "-r", "40", "-m", "100", "-i", "127.0.0.1", "-nostdin",
            "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_err", "-error_file", "errors.log",
            f"127.0.0.1:{box.port}",
            cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60.0):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert not (tmp_path / "errors.log").exists(), (tmp_path / "errors.log").read_text()
        header, *rows = (tmp_path / "stat.csv").read_text().splitlines()
        last = dict(zip(header.split(";"), rows[-1].split(";"), strict=False))
        assert last["SuccessfulCall(C)"] == "100"
        assert last["FailedCall(C)"] == "0"
        assert causes == [HangupCause("caller", 200, "BYE")] * 100
        assert box.counters["calls"] == 0
